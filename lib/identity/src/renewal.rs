//! The task behind an identity: trust anchors, the first certificate, and a new one at half of each one's life.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use outrigger_core::{backoff::Backoff, text::chain};
use parking_lot::Mutex;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    anchors::Anchors,
    directory::Directory,
    error::{Error, FetchError},
    files::AnchorsFollower,
    identity::Identity,
    key::{self, KeyAlgorithm},
    metrics::Metrics,
    schedule::{Urgency, pause, renewal_time, urgency},
    sentry::{Issuer, SigningRequest},
    svid::Svid,
};

/// Pauses after failed attempts for the first certificate.
const FIRST_RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
/// A refusal is final only after this long: the authority's cache may not know a brand-new pod yet.
const REFUSAL_BUDGET: Duration = Duration::from_secs(60);
/// Pauses after failed renewals: upstream's ten seconds, or less, so that a fleet that failed together spreads.
const RENEWAL_RETRY: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(10));

/// What the task says about itself, for health checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// There is a certificate that will be renewed in time.
    Ready,
    /// There is a certificate, which peers accept, and something that people should look at: renewing it has failed for half of
    /// the time that there is for it, or the identity directory is behind.
    Warning(String),
    /// There is none that peers accept, and why.
    NotReady(String),
}

/// Obtains and renews the certificate of an [`Identity`].
pub struct Renewal {
    fetcher: Fetcher,
    anchors: AnchorsFollower,
}

impl Renewal {
    pub(crate) fn new(
        identity: Identity,
        key: KeyAlgorithm,
        issuer: Arc<dyn Issuer>,
        anchors: AnchorsFollower,
    ) -> Self {
        let fetcher = Fetcher {
            identity,
            key,
            issuer,
            directory: None,
            metrics: None,
        };
        Self { fetcher, anchors }
    }

    /// Counts into `metrics`.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.fetcher.metrics = Some(metrics);
        self
    }

    /// Also writes the identity to files under the link `target`: `key.pem`, `cert.pem`, `ca.pem` and, where sentry issues
    /// one, `jwt_svid.token`. One process may write there.
    ///
    /// # Errors
    /// When a link cannot be made at `target`.
    pub fn with_directory(mut self, target: &Path) -> Result<Self, Error> {
        self.fetcher.directory = Some(Mutex::new(Directory::new(target)?));
        Ok(self)
    }

    /// Runs until `stop`. Unreachable issuers are retried for ever, and each reason is logged and reported.
    ///
    /// # Errors
    /// When the issuer keeps refusing the first certificate.
    pub async fn run(self, mut status: impl FnMut(Status) + Send, stop: CancellationToken) -> Result<(), Error> {
        let Self { fetcher, anchors } = self;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            initial = anchors.initial(|reason| status(Status::NotReady(reason))) => {
                if let Some(initial) = initial? {
                    fetcher.identity.install_anchors(initial);
                }
            }
        }
        let following = anchors.follow(
            fetcher.identity.current_anchors(),
            |heard| fetcher.hear_anchors(heard),
            stop.clone(),
        );
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
    directory: Option<Mutex<Directory>>,
    metrics: Option<Metrics>,
}

impl Fetcher {
    async fn first(&self, status: &mut impl FnMut(Status)) -> Result<(), Error> {
        tracing::info!("Fetching initial identity certificate");
        let mut refused_since = None;
        let mut backoff = FIRST_RETRY;
        loop {
            let error = match self.fetch(true).await {
                Ok(svid) => {
                    tracing::info!(id = %svid.id(), "Security is initialized successfully");
                    status(self.status());
                    return Ok(());
                }
                Err(error) => error,
            };
            let text = chain(&error);
            if error.is_refusal() {
                if refused_since.get_or_insert_with(Instant::now).elapsed() >= REFUSAL_BUDGET {
                    return Err(Error::Refused(text));
                }
            } else {
                refused_since = None;
            }
            tracing::warn!(error = text, "no certificate yet; trying again");
            status(Status::NotReady(text));
            sleep(backoff.next_pause()).await;
        }
    }

    /// Never returns. A failed renewal keeps the certificate there is.
    async fn renew(&self, status: &mut impl FnMut(Status)) {
        let mut due = self.identity.svid().map(|svid| self.plan(&svid));
        loop {
            if let Some(pause) = due.and_then(|due| pause(due, SystemTime::now())) {
                tokio::select! {
                    () = sleep(pause) => self.retry_directory(status),
                    () = self.issuer.superseded() => due = None,
                }
                continue;
            }
            match self.fetch(false).await {
                Ok(svid) => {
                    status(self.status());
                    due = Some(self.plan(&svid));
                }
                Err(error) => {
                    self.report_failure(&error, status);
                    sleep(RENEWAL_RETRY.clone().next_pause()).await;
                }
            }
        }
    }

    /// When the next renewal is due, and a line that says so.
    fn plan(&self, svid: &Svid) -> SystemTime {
        let due = renewal_time(svid, SystemTime::now());
        tracing::info!(
            id = %svid.id(),
            expires = %OffsetDateTime::from(svid.not_after()),
            jwt_expires = svid.jwts().first_expiry().map(|at| tracing::field::display(OffsetDateTime::from(at))),
            next_renewal = %OffsetDateTime::from(due),
            "certificate installed"
        );
        due
    }

    /// The nearer the expiry, the louder.
    fn report_failure(&self, error: &FetchError, status: &mut impl FnMut(Status)) {
        let error = chain(error);
        let now = SystemTime::now();
        let svid = self.identity.svid();
        let left = svid.as_ref().and_then(|svid| svid.not_after().duration_since(now).ok());
        let seconds = left.unwrap_or_default().as_secs();
        let urgency = svid.map_or(Urgency::Expired, |svid| urgency(&svid, now));
        let reason = format!("the certificate expires in {seconds} s and cannot be renewed: {error}");
        match urgency {
            Urgency::Calm => tracing::warn!(error, "certificate renewal failed; trying again"),
            Urgency::Near => {
                tracing::error!(
                    error,
                    seconds,
                    "certificate renewal failed, and it expires soon; trying again"
                );
                status(Status::Warning(reason));
            }
            Urgency::Last => {
                tracing::error!(
                    error,
                    seconds,
                    "certificate renewal failed, and peers may refuse it already; trying again"
                );
                status(Status::NotReady(reason));
            }
            Urgency::Expired => {
                tracing::error!(error, "the certificate has expired and cannot be renewed");
                status(Status::NotReady(format!("certificate expired: {error}")));
            }
        }
    }

    async fn fetch(&self, first: bool) -> Result<Arc<Svid>, FetchError> {
        let result = self.try_fetch().await;
        if let Some(metrics) = &self.metrics {
            match &result {
                Ok(svid) => metrics.fetched(first, svid.not_after()),
                Err(error) => metrics.failed(first, error),
            }
        }
        result
    }

    async fn try_fetch(&self) -> Result<Arc<Svid>, FetchError> {
        let algorithm = self.key;
        // RSA keys take long enough to hold up a worker.
        let generated = tokio::task::spawn_blocking(move || {
            let mut key = algorithm.generate()?;
            let csr = key::request(&key)?;
            let der = key.serialize_der();
            key.zeroize();
            Ok::<_, rcgen::Error>((Zeroizing::new(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der))), csr))
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
        let svid = Arc::new(Svid::new(&issued, &key, SystemTime::now())?);
        // First, so that readers of the files never see an older state than peers. A folder that cannot be written holds up nobody
        // else.
        if let Some(directory) = &self.directory {
            directory.lock().write(&key, &svid, &self.identity.current_anchors());
        }
        self.identity.install_svid(svid.clone());
        Ok(svid)
    }

    /// While the certificate is new.
    fn status(&self) -> Status {
        let directory = self.directory.as_ref().map(Mutex::lock);
        let failure = directory.as_ref().and_then(|directory| directory.failure());
        failure.map_or(Status::Ready, |failure| Status::Warning(failure.to_owned()))
    }

    fn retry_directory(&self, status: &mut impl FnMut(Status)) {
        let directory = self.directory.as_ref();
        if directory.is_some_and(|directory| directory.lock().retry(&self.identity.current_anchors())) {
            status(self.status());
        }
    }

    fn hear_anchors(&self, heard: Result<Arc<Anchors>, &str>) {
        let result = match heard {
            Ok(anchors) => {
                if let Some(directory) = &self.directory {
                    directory.lock().write_anchors(&anchors);
                }
                self.identity.install_anchors(anchors);
                "changed"
            }
            Err(_) => "failed",
        };
        if let Some(metrics) = &self.metrics {
            metrics.anchors(result);
        }
    }
}
