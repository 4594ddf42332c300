//! Leader election on a Lease, with client-go's timings and the preconditions that keep two holders apart: every write carries
//! the `resourceVersion` it was decided on, and another's expiry is judged by our own clock since the last change we saw.

use std::{future::Future, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, ResourceExt, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Names and timings of an election.
#[derive(Debug, Clone)]
pub struct Params {
    /// Name of the Lease.
    pub name: String,
    /// Who we are; unique for each process.
    pub identity: String,
    /// How long others wait after our last renewal before they take over.
    pub lease: Duration,
    /// How long we go on leading without a successful renewal.
    pub renew_deadline: Duration,
    /// Pause between attempts.
    pub retry: Duration,
}

impl Params {
    /// client-go's 15, 10 and 2 seconds.
    pub fn new(name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            identity: identity.into(),
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// An election that this process takes part in.
pub struct Election {
    api: Api<Lease>,
    params: Params,
    seen: Option<Observed>,
    holder: watch::Sender<String>,
}

/// The last version of the Lease we saw, and when, by our own clock.
struct Observed {
    version: String,
    at: Instant,
}

impl Election {
    pub fn new(api: Api<Lease>, params: Params) -> Self {
        Self {
            api,
            params,
            seen: None,
            holder: watch::Sender::default(),
        }
    }

    /// Who we are.
    pub fn identity(&self) -> &str {
        &self.params.identity
    }

    /// Who held the lease at this process's last look; empty if nobody did. It looks as often as it tries for the lease.
    pub fn holder(&self) -> watch::Receiver<String> {
        self.holder.subscribe()
    }

    fn saw_holder(&self, identity: &str) {
        self.holder.send_if_modified(|holder| {
            let changed = holder != identity;
            if changed {
                identity.clone_into(holder);
            }
            changed
        });
    }

    /// Whenever this process holds the lease, runs `work` with a token that is cancelled when the lease is lost; waits for it
    /// to end before trying again. Returns once `stop` is cancelled, with the lease released.
    pub async fn lead<F, Fut>(mut self, stop: CancellationToken, mut work: F)
    where
        F: FnMut(CancellationToken) -> Fut,
        Fut: Future<Output = ()>,
    {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.acquire() => {}
            }
            tracing::info!(
                lease = self.params.name,
                identity = self.params.identity,
                "became leader"
            );
            let token = stop.child_token();
            let mut working = std::pin::pin!(work(token.clone()));
            let finished = tokio::select! {
                () = &mut working => true,
                () = stop.cancelled() => false,
                () = self.renew() => {
                    tracing::warn!(lease = self.params.name, "leader election lost");
                    false
                }
            };
            token.cancel();
            if !finished {
                working.await;
            }
            if stop.is_cancelled() {
                self.release().await;
                return;
            }
        }
    }

    async fn acquire(&mut self) {
        loop {
            match timeout(self.params.renew_deadline, self.attempt()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(lease = self.params.name, %error, "cannot acquire the lease"),
                Err(_) => tracing::warn!(lease = self.params.name, "acquiring the lease timed out"),
            }
            sleep(self.params.retry).await;
        }
    }

    /// Returns once the lease is lost, or was not renewed within the deadline.
    async fn renew(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < self.params.renew_deadline {
            sleep(self.params.retry).await;
            let left = self.params.renew_deadline.saturating_sub(renewed.elapsed());
            match timeout(left, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                // Someone edited the object, or took it: the next attempt tells which.
                Ok(Ok(false)) if self.held_by_other().await => return,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(lease = self.params.name, %error, "lease renewal failed"),
                Err(_) => tracing::warn!(lease = self.params.name, "lease renewal timed out"),
            }
        }
    }

    async fn held_by_other(&self) -> bool {
        match timeout(self.params.retry, self.api.get_opt(&self.params.name)).await {
            Ok(Ok(Some(lease))) => {
                let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
                !holder.is_empty() && holder != self.params.identity
            }
            _ => false,
        }
    }

    /// One attempt: `Ok(true)` when this process holds the lease afterwards.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let now = MicroTime(jiff::Timestamp::now());
        let Some(mut lease) = self.api.get_opt(&self.params.name).await? else {
            let mut lease = Lease {
                spec: Some(self.spec(now.clone(), now, 0)),
                ..Default::default()
            };
            lease.metadata.name = Some(self.params.name.clone());
            return self.settle(self.api.create(&PostParams::default(), &lease).await);
        };
        let version = lease.resource_version().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|seen| seen.version != version) {
            self.seen = Some(Observed {
                version,
                at: Instant::now(),
            });
        }
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let ours = holder == self.params.identity;
        let duration = spec.lease_duration_seconds.map_or(self.params.lease, |s| {
            Duration::from_secs(u64::try_from(s).unwrap_or(0))
        });
        let expired = self.seen.as_ref().is_some_and(|seen| seen.at.elapsed() >= duration);
        if !ours && !holder.is_empty() && !expired {
            self.saw_holder(holder);
            return Ok(false);
        }
        let acquired = if ours {
            spec.acquire_time.unwrap_or_else(|| now.clone())
        } else {
            now.clone()
        };
        let transitions = spec.lease_transitions.unwrap_or(0).saturating_add(i32::from(!ours));
        lease.spec = Some(self.spec(acquired, now, transitions));
        self.settle(
            self.api
                .replace(&self.params.name, &PostParams::default(), &lease)
                .await,
        )
    }

    /// Empties the holder so that the next leader need not wait; gives up quietly.
    async fn release(&self) {
        let work = async {
            let Some(mut lease) = self.api.get_opt(&self.params.name).await? else {
                return Ok(());
            };
            let Some(spec) = lease
                .spec
                .as_mut()
                .filter(|spec| spec.holder_identity.as_deref() == Some(&*self.params.identity))
            else {
                return Ok(());
            };
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            self.api
                .replace(&self.params.name, &PostParams::default(), &lease)
                .await
                .map(|_| ())
        };
        match timeout(self.params.retry, work).await {
            Ok(Ok(())) => tracing::info!(lease = self.params.name, "released the lease"),
            Ok(Err::<(), kube::Error>(error)) => {
                tracing::warn!(lease = self.params.name, %error, "cannot release the lease");
            }
            Err(_) => tracing::warn!(lease = self.params.name, "releasing the lease timed out"),
        }
    }

    /// A 409 means that another replica wrote first: a lost race, not an error.
    fn settle(&self, result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
        match result {
            Ok(_) => {
                self.saw_holder(&self.params.identity);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn spec(&self, acquired: MicroTime, renewed: MicroTime, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.params.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.params.lease.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: Some(acquired),
            renew_time: Some(renewed),
            lease_transitions: Some(transitions),
            ..Default::default()
        }
    }
}
