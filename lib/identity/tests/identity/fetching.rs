//! How long an issuer is asked, and what is said when it fails; with an issuer that needs no network.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use outrigger_identity::{
    AnchorSource, Error, FetchError, Identity, Issued, Issuer, KeyAlgorithm, SigningRequest, Status,
};
use parking_lot::Mutex;
use rcgen::CertificateSigningRequestParams;
use time::OffsetDateTime;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::support::Root;

type Answer = dyn Fn(Duration, &SigningRequest) -> Result<String, FetchError> + Send + Sync;

/// Answers by the time since it was first asked.
struct Scripted {
    answer: Mutex<Box<Answer>>,
    since: Mutex<Option<Instant>>,
    superseded: Notify,
}

impl Scripted {
    fn new(
        answer: impl Fn(Duration, &SigningRequest) -> Result<String, FetchError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            answer: Mutex::new(Box::new(answer)),
            since: Mutex::default(),
            superseded: Notify::new(),
        })
    }
}

impl Issuer for Scripted {
    fn issue(&self, request: SigningRequest) -> Pin<Box<dyn Future<Output = Result<Issued, FetchError>> + Send + '_>> {
        let since = *self.since.lock().get_or_insert_with(Instant::now);
        let chain = (self.answer.lock())(since.elapsed(), &request);
        Box::pin(std::future::ready(chain.map(|chain| Issued {
            chain: chain.into_bytes(),
            ..Issued::default()
        })))
    }

    fn superseded(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.superseded.notified())
    }
}

fn refused(code: Code) -> FetchError {
    FetchError::Sign {
        code,
        message: "no".to_owned(),
    }
}

/// Valid from so many seconds ago for so many more.
fn signed(root: &Root, request: &SigningRequest, ago: i64, left: i64) -> String {
    let csr = CertificateSigningRequestParams::from_pem(&request.csr).unwrap();
    let mut leaf = root.leaf("spiffe://public/ns/shop/cart");
    leaf.not_before = OffsetDateTime::now_utc() - time::Duration::seconds(ago);
    leaf.not_after = OffsetDateTime::now_utc() + time::Duration::seconds(left);
    root.sign(&leaf, &csr.public_key).pem()
}

async fn run(root: &Root, issuer: Arc<Scripted>) -> Result<(), Error> {
    let anchors = AnchorSource::Static(root.certificate.clone());
    let (identity, renewal) = Identity::with_issuer(anchors, KeyAlgorithm::Ed25519, issuer).unwrap();
    let stop = CancellationToken::new();
    let end = stop.clone();
    tokio::spawn(async move {
        identity.ready().await;
        end.cancel();
    });
    renewal.run(|_| {}, stop).await
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final_a_minute_after_the_first_one() {
    let root = Root::new("root");
    let began = Instant::now();
    let result = run(&root, Scripted::new(|_, _| Err(refused(Code::PermissionDenied)))).await;
    assert!(matches!(result, Err(Error::Refused(_))), "{result:?}");
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(60) && took < Duration::from_secs(90),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_lags_behind_ends_nobody() {
    let root = Root::new("root");
    let signing = root.clone();
    // Away for ten minutes, then it does not know the pod for half a minute.
    let issuer = Scripted::new(move |since, request| match since.as_secs() {
        0..600 => Err(refused(Code::Unavailable)),
        600..630 => Err(refused(Code::PermissionDenied)),
        _ => Ok(signed(&signing, request, 0, 3600)),
    });
    run(&root, issuer).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_no_refusal_is_never_final() {
    let root = Root::new("root");
    let signing = root.clone();
    let issuer = Scripted::new(move |since, request| match since.as_secs() {
        0..100 => Err(refused(Code::Internal)),
        100..200 => Err(refused(Code::ResourceExhausted)),
        200..300 => Err(FetchError::Connect {
            address: "sentry:443".to_owned(),
            reason: "refused".to_owned(),
        }),
        300..400 => Ok("no certificate".to_owned()),
        _ => Ok(signed(&signing, request, 0, 3600)),
    });
    run(&root, issuer).await.unwrap();
}

/// The same failure is a line in the log, a warning, or the end of readiness: by the share of the life that is left.
#[tokio::test]
async fn failures_grow_urgent_as_the_expiry_nears() {
    for (ago, left, expected) in [
        (1000, 9000, "calm"),
        (8000, 2000, "warning"),
        (9900, 100, "not ready"),
        (10_000, -100, "expired"),
    ] {
        let root = Root::new("root");
        let signing = root.clone();
        let issuer = Scripted::new(move |_, request| Ok(signed(&signing, request, ago, left)));
        let anchors = AnchorSource::Static(root.certificate.clone());
        let (identity, renewal) = Identity::with_issuer(anchors, KeyAlgorithm::Ed25519, issuer.clone()).unwrap();
        let (sender, mut reports) = watch::channel(Vec::new());
        let stop = CancellationToken::new();
        let task = tokio::spawn(renewal.run(
            move |status| sender.send_modify(|all: &mut Vec<_>| all.push(status)),
            stop.clone(),
        ));
        identity.ready().await;
        let (failed, seen) = (Arc::new(Notify::new()), identity.svid().unwrap());
        let tell = failed.clone();
        *issuer.answer.lock() = Box::new(move |_, _| {
            tell.notify_one();
            Err(refused(Code::Unavailable))
        });
        issuer.superseded.notify_one();
        failed.notified().await;
        // The report follows the answer within the same turn of the task.
        if expected != "calm" {
            let waited = reports.wait_for(|all| all.len() > 1);
            tokio::time::timeout(Duration::from_secs(60), waited)
                .await
                .unwrap()
                .unwrap();
        }
        stop.cancel();
        task.await.unwrap().unwrap();
        let found = match reports.borrow().last() {
            Some(Status::Ready) => "calm",
            Some(Status::Warning(reason)) if reason.contains("expires in") => "warning",
            Some(Status::NotReady(reason)) if reason.contains("certificate expired") => "expired",
            Some(Status::NotReady(reason)) if reason.contains("expires in") => "not ready",
            _ => "nothing",
        };
        assert_eq!(found, expected);
        assert!(Arc::ptr_eq(&identity.svid().unwrap(), &seen), "the old one stays");
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_holds_up_nobody() {
    let root = Root::new("root");
    let signing = root.clone();
    let issuer = Scripted::new(move |_, request| Ok(signed(&signing, request, 0, 3600)));
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("tls");
    let anchors = AnchorSource::Static(root.certificate.clone());
    let (identity, renewal) = Identity::with_issuer(anchors, KeyAlgorithm::Ed25519, issuer.clone()).unwrap();
    let renewal = renewal.with_directory(&target).unwrap();
    // Where a link has to be.
    std::fs::create_dir_all(target.join("x")).unwrap();
    let (sender, mut reports) = watch::channel(Status::Ready);
    let stop = CancellationToken::new();
    let task = tokio::spawn(renewal.run(move |status| drop(sender.send_replace(status)), stop.clone()));
    let warned =
        reports.wait_for(|status| matches!(status, Status::Warning(text) if text.contains("tls cannot be written")));
    tokio::time::timeout(Duration::from_secs(60), warned)
        .await
        .unwrap()
        .unwrap();
    let first = identity.svid().unwrap();

    std::fs::remove_dir_all(&target).unwrap();
    issuer.superseded.notify_one();
    let written = reports.wait_for(|status| *status == Status::Ready);
    tokio::time::timeout(Duration::from_secs(60), written)
        .await
        .unwrap()
        .unwrap();
    assert!(!Arc::ptr_eq(&identity.svid().unwrap(), &first));
    assert!(target.join("cert.pem").exists());
    stop.cancel();
    task.await.unwrap().unwrap();
}
