//! Keeps the keys current: a URL by its cache headers, a file by its folder. Whatever goes wrong, the last good keys stay.

use std::{path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use outrigger_core::{backoff::Backoff, text::chain};
use outrigger_identity::Changes;
use outrigger_process::health::Target;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio_util::sync::CancellationToken;

use super::{
    JwksValidator,
    options::{JwksOptions, Source},
};
use crate::{bundle::REFRESH, jwt::jwk::KeySet};

/// A set of keys is some kilobytes.
const MAX_SET: usize = 1 << 20;
/// However long a server says that its keys stay.
const MAX_REFRESH: Duration = Duration::from_secs(24 * 3600);
/// Pauses until the first success.
const FIRST_RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

impl JwksValidator {
    /// The task that loads the keys and keeps them current until `stop`. An issuer that does not answer makes nothing fail but this
    /// validator; upstream ends the process.
    pub(crate) fn follow(
        &self,
        options: JwksOptions,
        target: Option<Target>,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let keys = Keys {
            current: self.keys.clone(),
            target,
        };
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = keys.follow(options) => {}
            }
        }
    }
}

struct Keys {
    current: Arc<ArcSwapOption<KeySet>>,
    target: Option<Target>,
}

impl Keys {
    async fn follow(self, options: JwksOptions) {
        match &options.source {
            Source::Literal(json) => {
                self.install(KeySet::parse(json));
                std::future::pending::<()>().await;
            }
            Source::File(path) => {
                let mut changes = Changes::of([path.as_path()]);
                let mut seen = None;
                loop {
                    let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
                    if seen.as_ref() != Some(&read) {
                        self.install(read.clone().and_then(|json| KeySet::parse(&json)));
                        seen = Some(read);
                    }
                    changes.any(REFRESH).await;
                }
            }
            Source::Url(uri) => {
                let mut retry = FIRST_RETRY;
                loop {
                    let (set, fresh) = match fetch(uri, &options).await {
                        Ok((json, fresh)) => (KeySet::parse(&json), fresh),
                        Err(reason) => (Err(reason), None),
                    };
                    self.install(set.map_err(|reason| format!("{uri}: {reason}")));
                    let pause = match self.current.load().is_some() {
                        true => fresh
                            .unwrap_or_default()
                            .clamp(options.min_refresh, MAX_REFRESH.max(options.min_refresh)),
                        false => retry.next_pause(),
                    };
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    fn install(&self, set: Result<KeySet, String>) {
        match set {
            Ok(set) => {
                tracing::debug!(keys = set.keys.len(), "JWKS loaded");
                self.current.store(Some(Arc::new(set)));
                if let Some(target) = &self.target {
                    target.ready();
                }
            }
            Err(reason) if self.current.load().is_some() => {
                tracing::error!(reason, "the JWKS cannot be reloaded; keeping the last good one");
            }
            Err(reason) => {
                tracing::error!(reason, "the JWKS cannot be loaded; no token is accepted until it can");
                if let Some(target) = &self.target {
                    target.not_ready(reason);
                }
            }
        }
    }
}

/// The set, and how long its server says that it stays fresh.
async fn fetch(uri: &Uri, options: &JwksOptions) -> Result<(String, Option<Duration>), String> {
    let work = async {
        // A client for each fetch: they are minutes apart, and roots may have changed.
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(options.ca.as_deref())?)
            .https_or_http()
            .enable_all_versions()
            .build();
        let client: Client<_, Empty<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
        let answer = client.get(uri.clone()).await.map_err(|error| chain(&error))?;
        if !answer.status().is_success() {
            return Err(format!(
                "found HTTP status {}, expected 200; redirects are not followed",
                answer.status()
            ));
        }
        let fresh = freshness(answer.headers());
        let body = Limited::new(answer.into_body(), MAX_SET).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let json = String::from_utf8(body.to_vec()).map_err(|_| "the answer is not text".to_owned())?;
        Ok((json, fresh))
    };
    let in_time = tokio::time::timeout(options.timeout, work).await;
    in_time.unwrap_or_else(|_| Err(format!("no answer within {:?}", options.timeout)))
}

fn tls(ca: Option<&str>) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let Some(ca) = ca else {
        // Images need not have any; the embedded ones are Mozilla's as well.
        let builder = match builder.clone().with_native_roots() {
            Ok(with_roots) => with_roots,
            Err(_) => builder.with_webpki_roots(),
        };
        return Ok(builder.with_no_client_auth());
    };
    let pem = if Path::new(ca).is_file() {
        std::fs::read_to_string(ca).map_err(|error| format!("caCertificate: {ca}: {error}"))?
    } else {
        ca.to_owned()
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|der| roots.add(der).map_err(|e| e.to_string()));
        added.map_err(|reason| format!("caCertificate: {reason}"))?;
    }
    if roots.is_empty() {
        return Err("caCertificate: expected PEM certificates, or a file of them".to_owned());
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// `max-age` of the answer; none of the other directives would make us ask less often.
fn freshness(headers: &HeaderMap) -> Option<Duration> {
    let control = headers.get(header::CACHE_CONTROL)?.to_str().ok()?;
    let directives = control.split(',').map(str::trim);
    let age = directives
        .filter_map(|directive| directive.strip_prefix("max-age="))
        .next()?;
    age.trim_matches('"').parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_is_the_max_age() {
        let of = |value: &str| {
            let headers = [(header::CACHE_CONTROL, value.parse().unwrap())];
            freshness(&headers.into_iter().collect())
        };
        assert_eq!(
            of("public, max-age=3600, must-revalidate"),
            Some(Duration::from_secs(3600))
        );
        assert_eq!(of("no-store"), None);
        assert_eq!(freshness(&HeaderMap::new()), None);
    }

    #[test]
    fn a_ca_that_is_none_is_named() {
        assert!(
            tls(Some("x"))
                .expect_err("refused")
                .contains("caCertificate: expected PEM")
        );
    }
}
