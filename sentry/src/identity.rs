//! Sentry's own identity, signed by the authority in its own process.

use std::{future::Future, pin::Pin};

use outrigger_core::SpiffeId;
use outrigger_identity::{FetchError, Issued, Issuer, SigningRequest};
use time::OffsetDateTime;

use crate::{
    bundle::Current,
    ca::{Leaf, PublicKey},
    settings::Settings,
};

/// Signs certificates for sentry itself.
pub(crate) struct OwnIssuer {
    pub(crate) current: Current,
    pub(crate) id: SpiffeId,
    pub(crate) settings: Settings,
}

impl OwnIssuer {
    fn sign(&self, request: &SigningRequest) -> Result<Issued, FetchError> {
        let refused = |reason: String| FetchError::Response(reason);
        let authority = self
            .current
            .get()
            .ok_or_else(|| refused("no certificate authority yet".to_owned()))?;
        let key = PublicKey::from_request(request.csr.as_bytes()).map_err(|error| refused(error.to_string()))?;
        let leaf = Leaf {
            id: self.id.clone(),
            dns_names: Vec::new(),
            ttl: self.settings.ttl,
            skew: self.settings.skew,
            images: Vec::new(),
        };
        let signed = authority
            .sign(&leaf, &key, OffsetDateTime::now_utc())
            .map_err(|error| refused(error.to_string()))?;
        Ok(Issued {
            chain: signed.chain_pem.into_bytes(),
            ..Issued::default()
        })
    }
}

impl Issuer for OwnIssuer {
    fn issue(&self, request: SigningRequest) -> Pin<Box<dyn Future<Output = Result<Issued, FetchError>> + Send + '_>> {
        Box::pin(std::future::ready(self.sign(&request)))
    }

    /// Whoever trusts the new authority only would not accept a certificate of the old one.
    fn superseded(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.current.replaced())
    }
}
