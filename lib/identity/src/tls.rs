//! TLS configurations built whole from one state of the identity, cached until that state changes, read per connection.

use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwapOption;
use rustls::{
    CipherSuite, ClientConfig, ServerConfig, SupportedCipherSuite,
    crypto::CryptoProvider,
    server::NoServerSessionStorage,
    sign::{SigningKey, SingleCertAndKey},
};
use rustls_pki_types::PrivateKeyDer;

use crate::{
    anchors::Anchors,
    identity::{Identity, Material},
    verify::{Expect, Verifier},
};

/// The one place that names a crypto library. Made once.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // Go's first choice: processors have instructions for SHA-256, and a fifth of a handshake is hashing.
        let after = |suite: &SupportedCipherSuite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256;
        provider.cipher_suites.sort_by_key(after);
        Arc::new(provider)
    });
    PROVIDER.clone()
}

/// A key of any kind that sentry signs for.
pub(crate) fn signing_key(key: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
    rustls::crypto::aws_lc_rs::sign::any_supported_type(key)
}

/// What a server asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// A certificate with any SPIFFE id under the anchors; who may do what is decided per call.
    Required,
    /// Nothing: webhooks, which the API server calls, and sentry, whose callers have no certificate yet.
    None,
}

/// The server half of a live identity. Clones share the cached configuration.
#[derive(Clone)]
pub struct ServerTls {
    identity: Identity,
    auth: ClientAuth,
    alpn: Arc<[Vec<u8>]>,
    cache: Arc<ArcSwapOption<(Arc<Material>, Arc<ServerConfig>)>>,
}

impl ServerTls {
    pub(crate) fn new(identity: Identity, auth: ClientAuth, alpn: &[&[u8]]) -> Self {
        let alpn = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Self {
            identity,
            auth,
            alpn,
            cache: Arc::new(ArcSwapOption::empty()),
        }
    }

    /// The configuration for the next handshake; `None` before the first certificate.
    pub(crate) fn current(&self) -> Option<Arc<ServerConfig>> {
        let material = self.identity.material()?;
        cached(&self.cache, material, |material| {
            server_config(material, self.auth, &self.alpn)
        })
    }
}

/// The client half: whom to expect, and our certificate unless the server wants none.
#[derive(Clone)]
pub(crate) struct ClientTls {
    identity: Identity,
    expect: Expect,
    cache: Arc<ArcSwapOption<(Arc<Material>, Arc<ClientConfig>)>>,
}

impl ClientTls {
    pub(crate) fn new(identity: Identity, expect: Expect) -> Self {
        Self {
            identity,
            expect,
            cache: Arc::new(ArcSwapOption::empty()),
        }
    }

    pub(crate) fn current(&self) -> Option<Arc<ClientConfig>> {
        let material = self.identity.material()?;
        cached(&self.cache, material, |material| {
            client_config(&material.anchors, &self.expect, Some(material))
        })
    }
}

fn cached<T>(
    cache: &ArcSwapOption<(Arc<Material>, Arc<T>)>,
    material: Arc<Material>,
    build: impl FnOnce(&Material) -> Result<T, rustls::Error>,
) -> Option<Arc<T>> {
    if let Some(hit) = cache.load().as_ref().filter(|hit| Arc::ptr_eq(&hit.0, &material)) {
        return Some(hit.1.clone());
    }
    match build(&material) {
        Ok(config) => {
            let config = Arc::new(config);
            cache.store(Some(Arc::new((material, config.clone()))));
            Some(config)
        }
        Err(error) => {
            tracing::error!(%error, "cannot build a TLS configuration; keeping the last one");
            cache.load().as_ref().map(|last| last.1.clone())
        }
    }
}

fn server_config(material: &Material, auth: ClientAuth, alpn: &[Vec<u8>]) -> Result<ServerConfig, rustls::Error> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match auth {
        ClientAuth::Required => {
            let verifier = Verifier::new(material.anchors.clone(), None, provider);
            builder.with_client_cert_verifier(Arc::new(verifier))
        }
        ClientAuth::None => builder.with_no_client_auth(),
    };
    let resolver = SingleCertAndKey::from(material.svid.certified.clone());
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = alpn.to_vec();
    // A resumed session would keep the peer that an older handshake verified.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Without `material` the client presents no certificate.
pub(crate) fn client_config(
    anchors: &Arc<Anchors>,
    expect: &Expect,
    material: Option<&Material>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = provider();
    let verifier = Verifier::new(anchors.clone(), Some(expect.clone()), provider.clone());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match material {
        Some(material) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(material.svid.certified.clone())))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}
