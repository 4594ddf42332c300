//! A sidecar's side of a signing: upstream's deadline, retries and codes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use outrigger_core::backoff::random_fraction;
use outrigger_identity::{Anchors, Expect, anonymous_channel, pem, spiffe_id_of};
use outrigger_proto::sentry::{SignCertificateRequest, ca_client::CaClient, sign_certificate_request::TokenValidator};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status, transport::Channel};

use super::stage::Credential;

/// Deadline of one try.
const DEADLINE: Duration = Duration::from_secs(3);
const TRIES: u32 = 5;
/// Between tries, give or take a tenth.
const PAUSE: Duration = Duration::from_millis(50);
/// For a request of a closed loop.
const PATIENCE: Duration = Duration::from_secs(30);
/// A sidecar dials until it is connected; here that has to end some time.
const DIAL_BUDGET: Duration = Duration::from_secs(120);

/// Knows sentry, and asks it in the name of others.
pub(super) struct Requester {
    pub(super) address: String,
    pub(super) anchors: Arc<Anchors>,
    pub(super) expect: Expect,
    pub(super) namespace: String,
    /// One for all: what sentry does with it does not depend on the key.
    pub(super) csr: String,
}

/// How it went for one sidecar.
pub(super) struct Outcome {
    pub(super) retries: u32,
    served: Option<Duration>,
    /// Why the sidecar would have ended.
    pub(super) failure: Option<String>,
}

impl Outcome {
    /// Since the beginning of the storm.
    pub(super) fn served_after(&self) -> Option<Duration> {
        self.served
    }
}

impl Requester {
    pub(super) async fn connect(&self) -> anyhow::Result<Channel> {
        Ok(anonymous_channel(&self.address, &self.anchors, &self.expect).await?)
    }

    /// One try, which may take long where the machine is busy. The certificate has to be the right one.
    pub(super) async fn sign(&self, channel: &Channel, credential: &Credential) -> anyhow::Result<()> {
        self.ask(channel, credential, PATIENCE)
            .await
            .map_err(anyhow::Error::from)
    }

    /// All that a sidecar does until it has a certificate or ends.
    pub(super) async fn as_a_sidecar(&self, credential: &Credential, began: Instant) -> Outcome {
        let mut outcome = Outcome {
            retries: 0,
            served: None,
            failure: None,
        };
        match self.try_as_a_sidecar(credential, &mut outcome.retries).await {
            Ok(()) => outcome.served = Some(began.elapsed()),
            Err(error) => outcome.failure = Some(format!("{error:#}")),
        }
        outcome
    }

    async fn try_as_a_sidecar(&self, credential: &Credential, retries: &mut u32) -> anyhow::Result<()> {
        let channel = self.dial().await?;
        loop {
            let Err(status) = self.ask(&channel, credential, DEADLINE).await else {
                return Ok(());
            };
            let again = matches!(
                status.code(),
                // The last is how tonic reports the deadline.
                Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled
            );
            ensure!(again && *retries + 1 < TRIES, "{status} after {retries} retries");
            *retries += 1;
            sleep(PAUSE.mul_f64(0.9 + 0.2 * random_fraction())).await;
        }
    }

    /// As gRPC's blocking dial: again and again, with growing pauses.
    async fn dial(&self) -> anyhow::Result<Channel> {
        let began = Instant::now();
        let mut pause = Duration::from_secs(1);
        loop {
            match self.connect().await {
                Ok(channel) => return Ok(channel),
                Err(error) if began.elapsed() > DIAL_BUDGET => return Err(error).context("dial sentry"),
                Err(_) => sleep(pause.mul_f64(0.8 + 0.4 * random_fraction())).await,
            }
            pause = pause.mul_f64(1.6);
        }
    }

    async fn ask(&self, channel: &Channel, credential: &Credential, deadline: Duration) -> Result<(), Status> {
        let mut request = tonic::Request::new(SignCertificateRequest {
            id: credential.app.clone(),
            namespace: self.namespace.clone(),
            token: credential.token.clone(),
            token_validator: TokenValidator::Kubernetes.into(),
            certificate_signing_request: self.csr.clone().into_bytes().into(),
            ..Default::default()
        });
        request.set_timeout(deadline);
        let mut client = CaClient::new(channel.clone());
        let answer = timeout(deadline, client.sign_certificate(request)).await;
        let answer = answer
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))?
            .into_inner();
        let wrong = |reason: String| Status::internal(format!("a certificate that cannot be used: {reason}"));
        let chain = pem::certificates(&answer.workload_certificate).map_err(|error| wrong(error.to_string()))?;
        let id = spiffe_id_of(&chain[0]).map_err(|error| wrong(error.to_string()))?;
        let expected = format!("/ns/{}/{}", self.namespace, credential.app);
        if id.path() == expected {
            Ok(())
        } else {
            Err(wrong(format!("expected {expected}, found {id}")))
        }
    }
}
