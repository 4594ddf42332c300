//! The server's certificate, from two files that somebody replaces from time to time.

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use outrigger_identity::Changes;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_util::sync::CancellationToken;

use crate::bundle::REFRESH;

/// Pause between two looks at files that do not exist yet.
const ABSENT: Duration = Duration::from_secs(5);

/// The configuration of the moment; clones share it.
#[derive(Clone)]
pub(super) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    current: Arc<ArcSwapOption<ServerConfig>>,
}

impl Certificate {
    pub(super) fn new((chain, key): (PathBuf, PathBuf)) -> Self {
        Self {
            chain,
            key,
            current: Arc::default(),
        }
    }

    pub(super) fn current(&self) -> Option<Arc<ServerConfig>> {
        self.current.load_full()
    }

    /// Waits until both files can be used.
    pub(super) async fn ready(&self) {
        let mut changes = self.changes();
        loop {
            match self.load() {
                Ok(_) => return,
                Err(reason) => tracing::warn!(reason, "the OIDC server waits for its certificate"),
            }
            changes.any(ABSENT).await;
        }
    }

    /// Follows the files until `stop`, with the last good pair.
    pub(super) async fn follow(self, stop: CancellationToken) {
        let mut changes = self.changes();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = changes.any(REFRESH) => {}
            }
            if let Err(reason) = self.load() {
                tracing::error!(
                    reason,
                    "the certificate of the OIDC server cannot be reloaded; keeping the last good one"
                );
            }
        }
    }

    fn changes(&self) -> Changes {
        Changes::of([self.chain.as_path(), self.key.as_path()])
    }

    fn load(&self) -> Result<(), String> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let (chain, key) = (read(&self.chain)?, read(&self.key)?);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
        let chain = chain.map_err(|error| format!("{}: {error}", self.chain.display()))?;
        // Its own error is left out: it may show the line that it is about.
        let key =
            PrivateKeyDer::from_pem_slice(&key).map_err(|_| format!("{}: no usable PEM block", self.key.display()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let mut config =
            config.map_err(|error| format!("{} and {}: {error}", self.chain.display(), self.key.display()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        self.current.store(Some(Arc::new(config)));
        Ok(())
    }
}
