//! SPIFFE verification, both directions: the chain leads to a trust anchor, the leaf has one SPIFFE id and is no CA, and the id
//! is one we expect. Host names, extended key usages and the trust domain of the anchors play no part, as upstream has it.

use std::{str::FromStr, sync::Arc};

use outrigger_core::SpiffeId;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::anchors::Anchors;

/// Why a certificate is not an acceptable SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    #[error("the certificate is not X.509")]
    Malformed,
    #[error("expected exactly one URI name in the certificate, found {0}")]
    UriNames(usize),
    #[error("the certificate's URI name is no SPIFFE id: {0}")]
    SpiffeId(String),
    #[error("the certificate is one of a certificate authority")]
    Authority,
    #[error("expected {expected}, found {found}")]
    Unexpected { expected: String, found: String },
}

/// Whom a client expects to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Exactly this id.
    Id(SpiffeId),
    /// This workload in any trust domain: what one sidecar knows of another.
    Workload { namespace: String, app_id: String },
}

impl Expect {
    fn check(&self, found: &SpiffeId) -> Result<(), PeerError> {
        let (matches, expected) = match self {
            Self::Id(id) => (found == id, id.to_string()),
            Self::Workload { namespace, app_id } => {
                let path = format!("/ns/{namespace}/{app_id}");
                (found.path() == path, format!("spiffe://*{path}"))
            }
        };
        if matches {
            Ok(())
        } else {
            Err(PeerError::Unexpected {
                expected,
                found: found.to_string(),
            })
        }
    }
}

/// The SPIFFE id of a leaf: its one URI name. Refuses certificates of authorities.
///
/// # Errors
/// Says which rule the certificate breaks.
pub fn spiffe_id_of(leaf: &CertificateDer<'_>) -> Result<SpiffeId, PeerError> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| PeerError::Malformed)?;
    let usage = certificate.key_usage().map_err(|_| PeerError::Malformed)?;
    if certificate.is_ca() || usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign()) {
        return Err(PeerError::Authority);
    }
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| PeerError::Malformed)?;
    let names = names
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris[..] {
        [uri] => SpiffeId::from_str(uri).map_err(|error| PeerError::SpiffeId(error.to_string())),
        _ => Err(PeerError::UriNames(uris.len())),
    }
}

/// Any purpose will do, and none as well: old issuers set no extended key usage.
struct AnyUsage;

impl webpki::ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: webpki::KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

/// Verifies peers against a set of anchors.
#[derive(Debug)]
pub(crate) struct Verifier {
    anchors: Arc<Anchors>,
    /// Servers accept any id and authorise later; clients know whom they call.
    expect: Option<Expect>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    pub(crate) fn new(anchors: Arc<Anchors>, expect: Option<Expect>, provider: Arc<CryptoProvider>) -> Self {
        Self {
            anchors,
            expect,
            provider,
        }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let other = |error: PeerError| CertificateError::Other(rustls::OtherError(Arc::new(error)));
        let id = spiffe_id_of(leaf).map_err(other)?;
        let parsed = webpki::EndEntityCert::try_from(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        parsed
            .verify_for_usage(
                algorithms,
                &self.anchors.valid_at(now),
                intermediates,
                now,
                AnyUsage,
                None,
                None,
            )
            .map_err(path_error)?;
        match &self.expect {
            Some(expect) => expect.check(&id).map_err(|error| other(error).into()),
            None => Ok(()),
        }
    }
}

fn path_error(error: webpki::Error) -> rustls::Error {
    match error {
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer.into(),
        webpki::Error::CertExpired { .. } => CertificateError::Expired.into(),
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet.into(),
        error => CertificateError::Other(rustls::OtherError(Arc::new(error))).into(),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    /// No hints: they would tell clients nothing, since all trust domains share the anchors.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}
