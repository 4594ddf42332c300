//! What one subscriber has still to be sent: a set keyed by object, not a queue of events. However slow the subscriber, it
//! holds at most one entry an object.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
};

use outrigger_crds::DaprResource;
use outrigger_proto::operator::ResourceEventType;
use tokio::time::Instant;

use super::version::Version;

/// What became of an object in the index. At least one side is set.
#[derive(Debug)]
pub(super) struct Transition<K> {
    pub(super) old: Option<Arc<Version<K>>>,
    pub(super) new: Option<Arc<Version<K>>>,
    /// When the watch told.
    pub(super) at: Instant,
}

/// Derived `Clone` would ask for `K: Clone`.
impl<K> Clone for Transition<K> {
    fn clone(&self) -> Self {
        Self {
            old: self.old.clone(),
            new: self.new.clone(),
            at: self.at,
        }
    }
}

/// What a subscriber is sent.
#[derive(Debug)]
pub struct Event<K> {
    pub type_: ResourceEventType,
    /// For a deletion the version that the subscriber knew.
    pub version: Arc<Version<K>>,
    /// When the first of the changes in it was seen; `None` for a replay.
    pub since: Option<Instant>,
}

/// What an offer led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// The subscriber may see neither side.
    Invisible,
    Queued,
    /// Merged with an entry that was still waiting.
    Coalesced,
    /// The object came and went before the subscriber heard of it.
    Cancelled,
}

/// Entries in the order in which their objects first changed.
#[derive(Debug)]
pub(super) struct Outbox<K> {
    pending: HashMap<Arc<str>, Pending<K>>,
    order: VecDeque<Arc<str>>,
}

#[derive(Debug)]
struct Pending<K> {
    /// What the subscriber knows, as far as it may see it.
    known: Option<Arc<Version<K>>>,
    /// What it should know.
    target: Option<Arc<Version<K>>>,
    /// False for replayed changes: the subscriber may or may not have seen them when it listed.
    certain: bool,
    /// When the first change was seen.
    since: Instant,
}

impl<K> Default for Outbox<K> {
    fn default() -> Self {
        Self {
            pending: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: DaprResource> Outbox<K> {
    /// Takes in a change that `app`'s subscriber does not know (`certain`), or may know.
    pub(super) fn offer(&mut self, app: &str, change: &Transition<K>, certain: bool) -> Offered {
        let visible = |side: &Option<Arc<Version<K>>>| side.clone().filter(|version| version.visible_to(app));
        let (old, new) = (visible(&change.old), visible(&change.new));
        let Some(name) = change
            .old
            .as_ref()
            .or(change.new.as_ref())
            .map(|version| version.name().clone())
        else {
            return Offered::Invisible;
        };
        match self.pending.entry(name) {
            Entry::Vacant(_) if old.is_none() && new.is_none() => Offered::Invisible,
            Entry::Vacant(entry) => {
                self.order.push_back(entry.key().clone());
                entry.insert(Pending {
                    known: old,
                    target: new,
                    certain,
                    since: change.at,
                });
                Offered::Queued
            }
            Entry::Occupied(mut entry) => {
                let pending = entry.get_mut();
                let before = std::mem::replace(&mut pending.target, new);
                pending.certain &= certain;
                if !pending.certain && pending.known.is_none() && pending.target.is_none() {
                    // It may have listed the object while that existed.
                    pending.known = before;
                }
                if !pending.is_settled() {
                    return Offered::Coalesced;
                }
                let (name, _) = entry.remove_entry();
                self.order.retain(|other| *other != name);
                Offered::Cancelled
            }
        }
    }

    /// Takes back an event that cannot be sent now; it comes after all others.
    pub(super) fn put_back(&mut self, event: Event<K>) -> Offered {
        let (known, target) = match event.type_ {
            ResourceEventType::Created => (None, Some(event.version)),
            ResourceEventType::Deleted => (Some(event.version), None),
            _ => (Some(event.version.clone()), Some(event.version)),
        };
        let name = known.as_ref().or(target.as_ref()).map(|version| version.name().clone());
        let Some(name) = name else {
            return Offered::Invisible;
        };
        match self.pending.entry(name) {
            Entry::Vacant(entry) => {
                self.order.push_back(entry.key().clone());
                entry.insert(Pending {
                    known,
                    target,
                    certain: event.since.is_some(),
                    since: event.since.unwrap_or_else(Instant::now),
                });
                Offered::Queued
            }
            // It has changed again in the meantime. What the subscriber knows is as old as before.
            Entry::Occupied(mut entry) => {
                let pending = entry.get_mut();
                pending.known = known;
                pending.certain &= event.since.is_some();
                if !pending.is_settled() {
                    return Offered::Coalesced;
                }
                let (name, _) = entry.remove_entry();
                self.order.retain(|other| *other != name);
                Offered::Cancelled
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// The next event, in the order in which objects changed.
    pub(super) fn pop(&mut self) -> Option<Event<K>> {
        loop {
            let name = self.order.pop_front()?;
            let event = self.pending.remove(&name).and_then(Pending::into_event);
            if self.order.is_empty() {
                // Thousands of subscribers wait with an empty set most of the time.
                *self = Self::default();
            }
            if event.is_some() {
                return event;
            }
        }
    }
}

impl<K: DaprResource> Pending<K> {
    /// Whether there is nothing left to say.
    fn is_settled(&self) -> bool {
        self.known.is_none() && self.target.is_none()
    }

    fn into_event(self) -> Option<Event<K>> {
        let since = self.certain.then_some(self.since);
        let (type_, version) = match (self.known, self.target) {
            (None, Some(version)) => (ResourceEventType::Created, version),
            (Some(_), Some(version)) => (ResourceEventType::Updated, version),
            (Some(version), None) => (ResourceEventType::Deleted, version),
            (None, None) => return None,
        };
        Some(Event { type_, version, since })
    }
}
