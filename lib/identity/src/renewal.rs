//! The task behind an identity: trust anchors, the first certificate, and a new one at half of each one's life.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use outrigger_core::backoff::{Backoff, random_fraction};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, FetchError},
    files::AnchorsFollower,
    identity::Identity,
    key::{self, KeyAlgorithm},
    sentry::{Issuer, SigningRequest},
    svid::Svid,
};

/// Pauses after failed attempts for the first certificate.
const FIRST_RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
/// A refusal is final only after this long: the authority's cache may not know a brand-new pod yet.
const REFUSAL_BUDGET: Duration = Duration::from_secs(60);
/// Pause after a failed renewal.
const RENEWAL_RETRY: Duration = Duration::from_secs(10);
/// The wall clock is looked at this often, since timers stop while a machine sleeps.
const CLOCK_CHECK: Duration = Duration::from_secs(60);

/// Renewals are at least this far apart, however short the lives of the certificates.
const MIN_PAUSE: Duration = Duration::from_millis(500);

/// What the task says about itself, for health checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// There is a certificate that has not expired.
    Ready,
    /// There is none, and why.
    NotReady(String),
}

/// Obtains and renews the certificate of an [`Identity`].
pub struct Renewal {
    identity: Identity,
    key: KeyAlgorithm,
    issuer: Arc<dyn Issuer>,
    anchors: AnchorsFollower,
}

impl Renewal {
    pub(crate) fn new(
        identity: Identity,
        key: KeyAlgorithm,
        issuer: Arc<dyn Issuer>,
        anchors: AnchorsFollower,
    ) -> Self {
        Self {
            identity,
            key,
            issuer,
            anchors,
        }
    }

    /// Runs until `stop`. Unreachable issuers are retried for ever, and each reason is logged and reported.
    ///
    /// # Errors
    /// When the issuer keeps refusing the first certificate.
    pub async fn run(self, mut status: impl FnMut(Status) + Send, stop: CancellationToken) -> Result<(), Error> {
        let Self {
            identity,
            key,
            issuer,
            anchors,
        } = self;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            initial = anchors.initial(|reason| status(Status::NotReady(reason))) => {
                if let Some(initial) = initial? {
                    identity.install_anchors(initial);
                }
            }
        }
        let fetcher = Fetcher {
            identity: identity.clone(),
            key,
            issuer,
        };
        let following = {
            let identity = identity.clone();
            anchors.follow(
                identity.current_anchors(),
                move |anchors| identity.install_anchors(anchors),
                stop.clone(),
            )
        };
        let renewing = async {
            fetcher.first(&mut status).await?;
            fetcher.renew(&mut status).await;
            Ok(())
        };
        tokio::select! {
            () = following => Ok(()),
            result = renewing => result,
            () = stop.cancelled() => Ok(()),
        }
    }
}

struct Fetcher {
    identity: Identity,
    key: KeyAlgorithm,
    issuer: Arc<dyn Issuer>,
}

impl Fetcher {
    async fn first(&self, status: &mut impl FnMut(Status)) -> Result<(), Error> {
        let started = Instant::now();
        let mut backoff = FIRST_RETRY;
        loop {
            match self.fetch().await {
                Ok(svid) => {
                    tracing::info!(id = %svid.id(), "Security is initialized successfully");
                    status(Status::Ready);
                    return Ok(());
                }
                Err(error) if error.is_refusal() && started.elapsed() >= REFUSAL_BUDGET => {
                    return Err(Error::Refused(error.to_string()));
                }
                Err(error) => {
                    let text = crate::error::chain(&error);
                    tracing::warn!(error = text, "no certificate yet; trying again");
                    status(Status::NotReady(text));
                }
            }
            sleep(backoff.next_pause()).await;
        }
    }

    /// Never returns. A failed renewal keeps the certificate there is.
    async fn renew(&self, status: &mut impl FnMut(Status)) {
        let mut due = self.identity.svid().map(|svid| renewal_time(&svid, SystemTime::now()));
        loop {
            let now = SystemTime::now();
            match due.map(|due| due.duration_since(now)) {
                Some(Ok(left)) if !left.is_zero() => {
                    tokio::select! {
                        () = sleep(left.min(CLOCK_CHECK)) => {}
                        () = self.issuer.superseded() => due = None,
                    }
                    continue;
                }
                _ => {}
            }
            match self.fetch().await {
                Ok(svid) => {
                    tracing::info!(id = %svid.id(), "certificate renewed");
                    status(Status::Ready);
                    due = Some(renewal_time(&svid, SystemTime::now()));
                }
                Err(error) => {
                    let error = crate::error::chain(&error);
                    if self
                        .identity
                        .svid()
                        .is_some_and(|svid| svid.not_after() <= SystemTime::now())
                    {
                        tracing::error!(error, "the certificate has expired and cannot be renewed");
                        status(Status::NotReady(format!("certificate expired: {error}")));
                    } else {
                        tracing::warn!(error, "certificate renewal failed; trying again");
                    }
                    sleep(RENEWAL_RETRY).await;
                }
            }
        }
    }

    async fn fetch(&self) -> Result<Arc<Svid>, FetchError> {
        let algorithm = self.key;
        // RSA keys take long enough to hold up a worker.
        let generated = tokio::task::spawn_blocking(move || {
            let key = algorithm.generate()?;
            let csr = key::request(&key)?;
            Ok::<_, rcgen::Error>((key.serialize_der(), csr))
        });
        let (key, csr) = match generated.await {
            Ok(result) => result.map_err(FetchError::Key)?,
            Err(_) => return Err(FetchError::Response("key generation was interrupted".to_owned())),
        };
        let request = SigningRequest {
            csr,
            anchors: self.identity.current_anchors(),
        };
        let issued = self.issuer.issue(request).await?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        let svid = Arc::new(Svid::new(&issued.chain, key).map_err(FetchError::Response)?);
        self.identity.install_svid(svid.clone());
        Ok(svid)
    }
}

/// Half of the life, up to a tenth of it earlier, so that a fleet started together does not renew together. Certificates of an
/// authority that is about to expire are past the half when they arrive: then half of what is left, or clients would ask
/// without a pause.
fn renewal_time(svid: &Svid, now: SystemTime) -> SystemTime {
    match svid.renew_at().duration_since(now) {
        Ok(left) if left > MIN_PAUSE => svid.renew_at() - (left / 10).mul_f64(random_fraction()),
        _ => now + (svid.not_after().duration_since(now).unwrap_or_default() / 2).max(MIN_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Valid from 1000 to 3000 s after the epoch.
    fn svid() -> Svid {
        let key = KeyAlgorithm::Ed25519.generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.not_before = time::OffsetDateTime::from_unix_timestamp(1000).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(3000).unwrap();
        let id = "spiffe://public/ns/shop/cart".try_into().unwrap();
        params.subject_alt_names = vec![rcgen::SanType::URI(id)];
        let chain = params.self_signed(&key).unwrap().pem();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Svid::new(chain.as_bytes(), key).unwrap()
    }

    #[test]
    fn renews_at_half_of_the_life_and_never_without_a_pause() {
        let svid = svid();
        let at = |seconds: f64| SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds);
        let due = renewal_time(&svid, at(1000.0));
        assert!(at(1900.0) <= due && due <= at(2000.0), "{due:?}");
        assert_eq!(renewal_time(&svid, at(2200.0)), at(2600.0), "half of what is left");
        for late in [2999.9, 4000.0] {
            assert_eq!(renewal_time(&svid, at(late)), at(late) + MIN_PAUSE);
        }
    }
}
