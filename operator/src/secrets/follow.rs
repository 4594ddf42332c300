//! Watches of the Secrets that sidecars need: each by its name while they are few, and above that the metadata of a whole
//! namespace, which tells when to read one again. Nothing is kept of Secrets that nobody refers to.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    runtime::watcher::{self, Event, watcher},
};
use outrigger_core::backoff::Backoff;
use outrigger_process::kubernetes::{
    slim::Slim,
    watch::{Change, ObjectKey, changes},
};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, interval, sleep},
};

use super::{Found, KEEP, Secrets};
use crate::{
    controllers::status::Board,
    index::Index,
    kinds::{Indexes, Kind, Visitor},
    queue::Queue,
};

/// Secrets of one namespace that are watched by name, at most.
const MAX_BY_NAME: usize = 16;
/// Pauses after failed watches and reads.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// Watches what sidecars need, and forgets what they no longer do.
pub struct Follower {
    secrets: Arc<Secrets>,
    indexes: Indexes,
    /// Hears of every change.
    board: Arc<Board>,
    client: Client,
}

/// What watches a namespace.
enum Watches {
    ByName(HashMap<String, AbortHandle>),
    Metadata(Arc<Metadata>, AbortHandle),
}

/// A watch of the metadata of all Secrets in a namespace.
struct Metadata {
    namespace: String,
    /// Names that have to be read.
    stale: Queue<String>,
}

impl Follower {
    pub fn new(secrets: Arc<Secrets>, indexes: Indexes, board: Arc<Board>, client: Client) -> Arc<Self> {
        Arc::new(Self {
            secrets,
            indexes,
            board,
            client,
        })
    }

    /// Works for ever. Cancelling ends all watches.
    pub async fn run(self: Arc<Self>) {
        self.secrets.set_followed();
        let mut tasks = JoinSet::new();
        let mut watches: HashMap<String, Watches> = HashMap::new();
        let mut ticks = interval(KEEP);
        loop {
            tokio::select! {
                now = ticks.tick() => self.secrets.watched.keep(&self.wanted(), now),
                () = self.secrets.watched.added.notified() => {}
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(%error, "a watch of Secrets ended");
                    }
                    continue;
                }
            }
            let mut names = self.secrets.watched.names();
            watches.retain(|namespace, watch| {
                let keep = names.contains_key(namespace);
                if !keep {
                    watch.abort();
                }
                keep
            });
            for (namespace, names) in names.drain() {
                self.watch(&mut tasks, &mut watches, namespace, names);
            }
        }
    }

    /// Names of the Secrets that objects refer to which some connected sidecar may see.
    fn wanted(&self) -> HashMap<String, BTreeSet<String>> {
        struct Wanted(HashMap<String, BTreeSet<String>>);
        impl Visitor for Wanted {
            fn visit<K: Kind>(&mut self, index: &Arc<Index<K>>) {
                index.wanted_secrets(&mut self.0);
            }
        }
        let mut wanted = Wanted(HashMap::new());
        self.indexes.visit(&mut wanted);
        wanted.0
    }

    fn watch(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        watches: &mut HashMap<String, Watches>,
        namespace: String,
        names: BTreeSet<String>,
    ) {
        let many = names.len() > MAX_BY_NAME;
        let current = watches.entry(namespace.clone());
        let current = current.or_insert_with(|| Watches::ByName(HashMap::new()));
        match current {
            Watches::ByName(by_name) if !many => {
                by_name.retain(|name, task| {
                    let keep = names.contains(name);
                    if !keep {
                        task.abort();
                    }
                    keep
                });
                for name in names {
                    let key = ObjectKey::new(&*namespace, &*name);
                    let follower = self.clone();
                    by_name
                        .entry(name)
                        .or_insert_with(|| tasks.spawn(async move { follower.follow_one(key).await }));
                }
            }
            // Those that are new to it were not in its list.
            Watches::Metadata(watch, _) if many => {
                for name in names {
                    if self.secrets.watched.is_waiting(&namespace, &name) {
                        watch.stale.add(name, Instant::now());
                    }
                }
            }
            _ if many => {
                current.abort();
                let watch = Arc::new(Metadata {
                    namespace,
                    stale: Queue::default(),
                });
                let (follower, metadata) = (self.clone(), watch.clone());
                let task = tasks.spawn(async move { follower.follow_namespace(&metadata).await });
                *current = Watches::Metadata(watch, task);
            }
            _ => {
                current.abort();
                *current = Watches::ByName(HashMap::new());
                self.watch(tasks, watches, namespace, names);
            }
        }
    }

    async fn follow_one(&self, key: ObjectKey) {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={}", key.name));
        let changes = changes(api, config);
        self.take(&key, changes).await;
    }

    async fn take(&self, key: &ObjectKey, changes: impl Stream<Item = Change<Secret>>) {
        let mut changes = std::pin::pin!(changes);
        let mut exists = false;
        while let Some(change) = changes.next().await {
            match change {
                Change::Apply(secret) => {
                    exists = true;
                    self.set(key, Found::Secret(Arc::new(secret.into())));
                }
                Change::Delete(_) => {
                    exists = false;
                    self.set(key, Found::Missing);
                }
                Change::Synced if !exists => self.set(key, Found::Missing),
                Change::Synced => {}
                Change::Absent | Change::Forbidden => self.secrets.watched.refuse(key),
            }
        }
    }

    /// The metadata tells what is to be read.
    async fn follow_namespace(&self, watch: &Metadata) {
        tokio::join!(self.watch_metadata(watch), self.read_stale(watch));
    }

    async fn watch_metadata(&self, watch: &Metadata) {
        let namespace = &watch.namespace;
        let api: Api<Slim<Secret>> = Api::namespaced(self.client.clone(), namespace);
        let begin = || watcher(api.clone(), watcher::Config::default()).boxed();
        let mut events = begin();
        let mut backoff = RETRY;
        // What was referred to when the list began, and is not in it.
        let mut unlisted: HashSet<String> = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if matches!(event, Event::InitDone) {
                        backoff.reset();
                    }
                    self.take_metadata(watch, event, &mut unlisted);
                }
                Err(error) => {
                    let pause = backoff.next_pause();
                    tracing::warn!(namespace, %error, retry_in_ms = pause.as_millis(), "cannot watch Secrets; trying again");
                    if is_forbidden(&error) {
                        for name in self.secrets.watched.names_in(namespace) {
                            self.secrets.watched.refuse(&ObjectKey::new(&**namespace, name));
                        }
                        // A watch that merely goes on would not tell of those that it refused.
                        events = begin();
                    }
                    sleep(pause).await;
                }
            }
        }
    }

    /// Only reading tells what a Secret is: a watch that spoke for itself could be overtaken by a read under way.
    fn take_metadata(&self, watch: &Metadata, event: Event<Slim<Secret>>, unlisted: &mut HashSet<String>) {
        match event {
            Event::Init => *unlisted = self.secrets.watched.names_in(&watch.namespace).into_iter().collect(),
            Event::InitApply(secret) | Event::Apply(secret) => {
                let name = secret.name_any();
                unlisted.remove(&name);
                self.look_at(watch, name, secret.metadata.resource_version.as_deref());
            }
            Event::InitDone => {
                for name in unlisted.drain() {
                    self.look_at(watch, name, None);
                }
            }
            Event::Delete(secret) => self.look_at(watch, secret.name_any(), None),
        }
    }

    /// Has a Secret read if it is referred to and may not be what is known of it. `version` is `None` for one that is gone.
    fn look_at(&self, watch: &Metadata, name: String, version: Option<&str>) {
        if !self.secrets.watched.contains(&watch.namespace, &name) {
            return;
        }
        let known = self.secrets.watched.peek(&watch.namespace, &name);
        if known.is_none_or(|found| version.is_none() || found.version() != version) {
            watch.stale.add(name, Instant::now());
        }
    }

    async fn read_stale(&self, watch: &Metadata) {
        let mut backoff = RETRY;
        loop {
            let key = ObjectKey::new(&*watch.namespace, watch.stale.next().await);
            match self.secrets.reader.read(key.clone()).await {
                // No watch tells when the right to read comes back.
                Ok(Found::Forbidden) => {
                    self.secrets.watched.refuse(&key);
                    if self.secrets.watched.contains(&key.namespace, &key.name) {
                        watch.stale.add(key.name, Instant::now() + backoff.next_pause());
                    }
                }
                Ok(found) => {
                    backoff.reset();
                    self.set(&key, found);
                }
                Err(error) => {
                    tracing::warn!(%error, "a changed Secret is not known yet");
                    watch.stale.add(key.name, Instant::now() + backoff.next_pause());
                }
            }
        }
    }

    /// Takes in a Secret, and tells those who care that it is another one now.
    fn set(&self, key: &ObjectKey, new: Found) {
        let old = self.secrets.watched.set(key, new.clone());
        if old.as_ref().is_some_and(|old| old.is_same(&new)) {
            return;
        }
        let now = Instant::now();
        self.board.secret_changed(key, now);
        // What no sidecar was sent is no news to one.
        if let Some(old) = &old {
            let new = &new;
            self.indexes.visit(&mut Touch { key, old, new, now });
        }
    }
}

impl Watches {
    fn abort(&self) {
        match self {
            Self::ByName(tasks) => tasks.values().for_each(AbortHandle::abort),
            Self::Metadata(_, task) => task.abort(),
        }
    }
}

/// Has objects sent again whose values change with a Secret, to sidecars that take that without a restart.
struct Touch<'a> {
    key: &'a ObjectKey,
    old: &'a Found,
    new: &'a Found,
    now: Instant,
}

impl Visitor for Touch<'_> {
    fn visit<K: Kind>(&mut self, index: &Arc<Index<K>>) {
        if !K::RELOADS_LIVE {
            return;
        }
        let Self { key, old, new, now } = *self;
        let differs = |object: &K| {
            let keys = object.secret_refs();
            let mut keys = keys.iter().filter(|secret| secret.name == key.name);
            keys.any(|secret| {
                let wanted = K::SECRET_RULES.key(secret);
                wanted.is_some_and(|wanted| old.lookup(wanted) != new.lookup(wanted))
            })
        };
        index.touch(key, differs, now);
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 403,
        watcher::Error::WatchError(status) => status.code == 403,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
