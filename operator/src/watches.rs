//! Watches that feed the index, the status board and the pods.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use futures::{Stream, StreamExt};
use kube::{api::ApiResource, runtime::watcher};
use outrigger_crds::Guarded;
use outrigger_process::{
    health::Target,
    kubernetes::watch::{Change, ObjectKey, changes, changes_where},
};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    controllers::status::{Board, Id, Knowledge, Source},
    index::{Index, State},
    kinds::Kind,
    pods::{PodMetadata, Pods, Selection, asks_for_sidecar},
    scope::Scope,
};

/// Which caches are not complete yet; ready when none is left.
pub struct Caches {
    target: Target,
    missing: Mutex<BTreeMap<&'static str, String>>,
}

impl Caches {
    pub fn new(target: Target, names: impl IntoIterator<Item = &'static str>) -> Self {
        let missing = names.into_iter().map(|name| (name, "first list".to_owned())).collect();
        let caches = Self {
            target,
            missing: Mutex::new(missing),
        };
        caches.report(&caches.missing.lock());
        caches
    }

    /// Readiness does not wait for this cache, or not any more.
    pub fn ready(&self, name: &'static str) {
        let mut missing = self.missing.lock();
        if missing.remove(name).is_some() {
            self.report(&missing);
        }
    }

    /// Does not take back readiness: what is known stays known.
    fn not_ready(&self, name: &'static str, reason: &str) {
        let mut missing = self.missing.lock();
        if let Some(current) = missing.get_mut(name) {
            reason.clone_into(current);
            self.report(&missing);
        }
    }

    fn report(&self, missing: &BTreeMap<&'static str, String>) {
        if missing.is_empty() {
            self.target.ready();
        } else {
            let reasons: Vec<_> = missing
                .iter()
                .map(|(name, reason)| format!("{name} ({reason})"))
                .collect();
            self.target.not_ready(format!("waiting for {}", reasons.join(", ")));
        }
    }
}

/// Feeds one kind until `stop`.
pub async fn follow_kind<K: Kind>(
    client: kube::Client,
    scope: Scope,
    index: Arc<Index<K>>,
    board: Arc<Board>,
    caches: Arc<Caches>,
    stop: CancellationToken,
) {
    let changes = changes(scope.api::<Guarded<K>>(&client), watcher::Config::default());
    let feed = Feed {
        resource: Arc::new(ApiResource::erase::<K>(&())),
        index,
        board,
        caches,
        invalid: HashSet::new(),
    };
    tokio::select! {
        () = feed.run(changes) => {}
        () = stop.cancelled() => {}
    }
}

struct Feed<K: Kind> {
    resource: Arc<ApiResource>,
    index: Arc<Index<K>>,
    board: Arc<Board>,
    caches: Arc<Caches>,
    /// Objects that cannot be decoded.
    invalid: HashSet<ObjectKey>,
}

impl<K: Kind> Feed<K> {
    async fn run(mut self, changes: impl Stream<Item = Change<Guarded<K>>>) {
        let mut changes = std::pin::pin!(changes);
        while let Some(change) = changes.next().await {
            self.take(change, Instant::now());
        }
    }

    fn take(&mut self, change: Change<Guarded<K>>, now: Instant) {
        match change {
            Change::Apply(object) => {
                self.board.observe(&object, &self.resource, now);
                self.apply(object, now);
            }
            Change::Delete(key) => {
                self.set_invalid(&key, false);
                self.index.delete(&key, now);
                self.board.forget(&Id { kind: K::KIND, key }, now);
            }
            Change::Synced => self.known(State::Synced, now),
            Change::Absent => self.known(State::Absent, now),
            // Nobody who runs an older chart misses a kind that it does not know.
            Change::Forbidden if K::OPTIONAL => self.known(State::Absent, now),
            Change::Forbidden => {
                self.index.set_state(State::Forbidden);
                self.tell_board(Knowledge::Unavailable, now);
                self.caches.not_ready(K::PLURAL, "not allowed to list and watch them");
            }
        }
    }

    fn known(&self, state: State, now: Instant) {
        self.index.set_state(state);
        self.tell_board(Knowledge::Complete, now);
        self.caches.ready(K::PLURAL);
    }

    fn tell_board(&self, knowledge: Knowledge, now: Instant) {
        if let Some(source) = Source::of(K::KIND) {
            self.board.known(source, knowledge, now);
        }
    }

    fn apply(&mut self, object: Guarded<K>, now: Instant) {
        let key = ObjectKey::of(&object);
        match object.0 {
            Ok(object) => {
                self.set_invalid(&key, false);
                if let Err(error) = self.index.apply(object, now) {
                    tracing::error!(%key, %error, "object is not served");
                }
            }
            // The last good version goes on being served: a mistake in an edit takes nothing away.
            Err(invalid) => {
                tracing::warn!(kind = K::KIND, object = %key, error = invalid.error, "object cannot be decoded");
                self.set_invalid(&key, true);
            }
        }
    }

    fn set_invalid(&mut self, key: &ObjectKey, invalid: bool) {
        let changed = match invalid {
            true => self.invalid.insert(key.clone()),
            false => self.invalid.remove(key),
        };
        if changed {
            let count = i64::try_from(self.invalid.len()).unwrap_or(i64::MAX);
            self.index.metrics().invalid_objects.set(count);
        }
    }
}

/// Names of the pods' caches in health reports.
pub const PODS: [&str; 2] = ["pods with a sidecar", "pods without a sidecar"];

/// Pods of one page of the first list. Most are none of ours, and what a page takes the process does not give back.
const POD_PAGE: u32 = 100;

/// Feeds the pods of a selection until `stop`.
pub async fn follow_pods(
    client: kube::Client,
    scope: Scope,
    selection: Selection,
    pods: Arc<Pods>,
    board: Arc<Board>,
    caches: Arc<Caches>,
    stop: CancellationToken,
) {
    let name = match selection {
        Selection::Injected => PODS[0],
        Selection::NotInjected => PODS[1],
    };
    let config = watcher::Config::default().labels(&selection.selector());
    let config = config.page_size(POD_PAGE);
    let changes = changes_where(scope.api::<PodMetadata>(&client), config, asks_for_sidecar);
    let mut changes = std::pin::pin!(changes);
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => return,
            Some(change) = changes.next() => change,
        };
        let now = Instant::now();
        match change {
            Change::Apply(pod) => board.observe_pod(pods.apply(&pod), now),
            Change::Delete(key) => board.observe_pod(pods.delete(&key, selection), now),
            Change::Synced => {
                pods.set_synced(selection);
                if pods.synced() {
                    board.known(Source::Pods, Knowledge::Complete, now);
                }
                caches.ready(name);
            }
            // Without it Configurations are not updated and the watchdog waits, which is no reason to serve nothing.
            Change::Absent | Change::Forbidden => {
                board.known(Source::Pods, Knowledge::Unavailable, now);
                caches.ready(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use outrigger_crds::{Configuration, DaprResource};
    use outrigger_process::health::Health;
    use prometheus::Registry;
    use serde_json::json;

    use super::*;
    use crate::metrics::Metrics;

    fn feed(health: &Health) -> Feed<Configuration> {
        let metrics = Metrics::new(&Registry::new()).unwrap();
        Feed {
            resource: Arc::new(ApiResource::erase::<Configuration>(&())),
            index: Arc::new(Index::new(metrics.kind::<Configuration>())),
            board: Arc::new(Board::new(ObjectKey::new("dapr-system", "daprsystem"), Arc::default())),
            caches: Arc::new(Caches::new(health.target("caches"), [Configuration::PLURAL, PODS[0]])),
            invalid: HashSet::new(),
        }
    }

    fn configuration(version: &str, timeout: &str) -> Change<Guarded<Configuration>> {
        let text = json!({
            "metadata": {"name": "tracing", "namespace": "shop", "resourceVersion": version},
            "spec": {"tracing": {"otel": {"timeout": timeout}}},
        });
        Change::Apply(serde_json::from_str(&text.to_string()).unwrap())
    }

    #[tokio::test]
    async fn a_mistake_in_an_edit_takes_nothing_away() {
        let mut feed = feed(&Health::default());
        let now = Instant::now();
        feed.take(configuration("1", "5s"), now);
        feed.take(configuration("2", "soon"), now);
        let kept = feed.index.get("shop", "tracing").unwrap();
        assert!(
            std::str::from_utf8(kept.payload())
                .unwrap()
                .contains(r#""timeout":"5s""#)
        );
        assert_eq!(feed.index.metrics().invalid_objects.get(), 1);
        feed.take(configuration("3", "6s"), now);
        assert_eq!(feed.index.metrics().invalid_objects.get(), 0);
        let new = feed.index.get("shop", "tracing").unwrap();
        assert_eq!(new.resource_version(), Some("3"));
    }

    #[test]
    fn readiness_waits_for_every_cache_and_says_for_which() {
        let health = Health::default();
        let mut feed = feed(&health);
        feed.take(Change::Forbidden, Instant::now());
        assert_eq!(
            health.missing()[0].1,
            "waiting for configurations (not allowed to list and watch them), pods with a sidecar (first list)"
        );
        feed.take(Change::Synced, Instant::now());
        feed.caches.ready(PODS[0]);
        assert!(health.is_ready());
        feed.take(Change::Forbidden, Instant::now());
        assert!(health.is_ready());
        assert_eq!(feed.index.state(), State::Synced);
    }
}
