//! Watches as a stream of changes. A relist is a diff: between its begin and its end nobody sees a partial or empty set, and
//! objects whose `resourceVersion` did not change are not reported again.

mod differ;

use std::{fmt::Debug, hash::Hash, time::Duration};

use futures::{Stream, StreamExt, stream};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{watcher, watcher::Event},
};
use outrigger_core::backoff::Backoff;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use self::differ::Differ;

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub fn of(object: &impl ResourceExt) -> Self {
        Self::new(object.namespace().unwrap_or_default(), object.name_any())
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What happened to the watched set.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<K> {
    /// An object is new or changed.
    Apply(K),
    /// An object is gone; the key is known from an earlier `Apply`.
    Delete(ObjectKey),
    /// Everything that existed when the list was made has been reported.
    Synced,
    /// The API server does not serve the kind. The watch goes on trying, so a CRD installed later starts to work.
    Absent,
    /// The API server refuses the list or the watch to this process.
    Forbidden,
}

/// Pauses after failures. kube's own backoff begins anew with every list that is tried, so it never grows while a kind is
/// absent.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
/// After this long without a failure the next one is the first again; longer than the longest pause.
const QUIET: Duration = Duration::from_secs(60);

/// Watches `api` for ever. Failures are logged, retried with backoff, and never end the stream.
pub fn changes<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = Change<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Debug + Send,
{
    changes_where(api, config, |_| true)
}

/// As [`changes`], for the objects that `keep` wants: nothing is remembered of the others, and one that is no longer wanted is
/// reported as gone.
pub fn changes_where<K>(
    api: Api<K>,
    config: watcher::Config,
    keep: fn(&K) -> bool,
) -> impl Stream<Item = Change<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Debug + Send,
{
    let begin = move || Box::pin(watcher(api.clone(), config.clone()));
    let watch = Watch {
        events: begin(),
        begin,
        differ: Differ::new(keep),
        backoff: PAUSES,
        pause: Duration::ZERO,
        failed_at: None,
        failure: None,
        kind: K::kind(&K::DynamicType::default()).into_owned(),
    };
    stream::unfold(watch, |mut watch| async move {
        let changes = watch.next().await?;
        Some((stream::iter(changes), watch))
    })
    .flatten()
}

/// A watch and how it goes.
struct Watch<S, B, K> {
    events: S,
    /// Begins the watch anew, with a list.
    begin: B,
    differ: Differ<K>,
    backoff: Backoff,
    /// Before the next event.
    pause: Duration,
    failed_at: Option<Instant>,
    /// The last failure, if nothing has succeeded since.
    failure: Option<Failure>,
    kind: String,
}

impl<S, B, K> Watch<S, B, K>
where
    S: Stream<Item = watcher::Result<Event<K>>> + Unpin,
    B: Fn() -> S,
    K: Resource,
{
    async fn next(&mut self) -> Option<Vec<Change<K>>> {
        // Here rather than where the failure is seen, so that it is reported before the pause.
        tokio::time::sleep(std::mem::take(&mut self.pause)).await;
        match self.events.next().await? {
            Ok(event) => {
                // The beginning of a list is no success yet.
                if !matches!(event, Event::Init) {
                    self.backoff.reset();
                    self.failure = None;
                }
                Some(self.differ.fold(event))
            }
            Err(error) => {
                // A kind that changes rarely gives no sign of life between two failures but the time.
                let now = Instant::now();
                if self.failed_at.replace(now).is_some_and(|at| now - at > QUIET) {
                    self.backoff.reset();
                    self.failure = None;
                }
                self.pause = self.backoff.next_pause();
                let failure = Failure::of(&error);
                // A watch that merely goes on would tell nobody that it does: whoever was told of the failure needs the list
                // again, and all that is in it.
                if failure != Failure::Other || is_gone(&error) {
                    self.events = (self.begin)();
                    self.differ.forget_versions();
                }
                let (kind, retry_in_ms) = (&self.kind, self.pause.as_millis());
                // A kind that is absent or forbidden stays so for long: one warning is enough.
                if failure != Failure::Other && self.failure == Some(failure) {
                    tracing::debug!(kind, %error, retry_in_ms, "{}", failure.message());
                } else {
                    tracing::warn!(kind, %error, retry_in_ms, "{}", failure.message());
                }
                self.failure = Some(failure);
                Some(failure.change().into_iter().collect())
            }
        }
    }
}

/// Hands changes to `apply` until the watch turns out to be forbidden; then returns, for the caller to go on with less.
pub async fn until_forbidden<K>(changes: impl Stream<Item = Change<K>>, mut apply: impl FnMut(Change<K>)) {
    let mut changes = std::pin::pin!(changes);
    while let Some(change) = changes.next().await {
        if matches!(change, Change::Forbidden) {
            return;
        }
        apply(change);
    }
}

/// Whether the version to go on from is too old. Told at the start of a watch, the library would ask for it for ever.
fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

/// What a failed watch means to those who wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Absent,
    Forbidden,
    Other,
}

impl Failure {
    fn of(error: &watcher::Error) -> Self {
        let status = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status,
            watcher::Error::WatchError(status) => status,
            _ => return Self::Other,
        };
        // By code: a group that is not served is answered with plain text, which has no reason.
        match status.code {
            404 => Self::Absent,
            403 => Self::Forbidden,
            _ => Self::Other,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Absent => "the API server does not serve this kind; trying again",
            Self::Forbidden => "watching this kind is forbidden; trying again",
            Self::Other => "watch failed; trying again",
        }
    }

    fn change<K>(self) -> Option<Change<K>> {
        match self {
            Self::Absent => Some(Change::Absent),
            Self::Forbidden => Some(Change::Forbidden),
            Self::Other => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    pub(super) fn map(name: &str, version: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some("ns".into());
        map.metadata.name = Some(name.into());
        map.metadata.resource_version = Some(version.into());
        map
    }

    /// A watch whose streams come one after the other.
    async fn told(streams: Vec<Vec<watcher::Result<Event<ConfigMap>>>>) -> Vec<Change<ConfigMap>> {
        let streams = parking_lot::Mutex::new(streams.into_iter());
        let begin = move || stream::iter(streams.lock().next().unwrap_or_default());
        let mut watch = Watch {
            events: begin(),
            begin,
            differ: Differ::new(|_| true),
            backoff: PAUSES,
            pause: Duration::ZERO,
            failed_at: None,
            failure: None,
            kind: "ConfigMap".to_owned(),
        };
        let mut told = Vec::new();
        while let Some(changes) = watch.next().await {
            told.extend(changes);
        }
        told
    }

    fn refused(code: u16) -> watcher::Result<Event<ConfigMap>> {
        let status = kube::core::Status::failure("refused", "").with_code(code);
        Err(watcher::Error::WatchStartFailed(kube::Error::Api(status.boxed())))
    }

    fn listed(name: &str, version: &str) -> Vec<watcher::Result<Event<ConfigMap>>> {
        vec![
            Ok(Event::Init),
            Ok(Event::InitApply(map(name, version))),
            Ok(Event::InitDone),
        ]
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_was_told_of_a_refusal_is_told_of_its_end() {
        for (code, change) in [(403, Some(Change::Forbidden)), (404, Some(Change::Absent)), (410, None)] {
            let mut first = listed("a", "1");
            first.push(refused(code));
            let all = |change: Option<Change<ConfigMap>>| {
                let seen = || [Change::Apply(map("a", "1")), Change::Synced];
                seen().into_iter().chain(change).chain(seen()).collect::<Vec<_>>()
            };
            assert_eq!(told(vec![first, listed("a", "1")]).await, all(change), "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn other_failures_go_on_from_where_they_were() {
        let mut events = listed("a", "1");
        events.push(refused(500));
        events.push(Ok(Event::Apply(map("a", "2"))));
        let expected = [
            Change::Apply(map("a", "1")),
            Change::Synced,
            Change::Apply(map("a", "2")),
        ];
        assert_eq!(told(vec![events, listed("b", "1")]).await, expected);
    }
}
