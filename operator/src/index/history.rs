//! The most recent changes. A sidecar lists first and opens its stream afterwards; what changes in between would be lost to
//! it, so a new subscriber is replayed this history.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::outbox::Transition;

/// How far back a new subscriber's list may lie.
pub const WINDOW: Duration = Duration::from_secs(2);
/// Changes kept at most, whatever their age.
const MAX_CHANGES: usize = 1024;

#[derive(Debug)]
pub(super) struct History<K> {
    recent: VecDeque<Recent<K>>,
}

#[derive(Debug)]
struct Recent<K> {
    at: Instant,
    namespace: Arc<str>,
    change: Transition<K>,
}

impl<K> Default for History<K> {
    fn default() -> Self {
        Self {
            recent: VecDeque::new(),
        }
    }
}

impl<K> History<K> {
    pub(super) fn push(&mut self, namespace: Arc<str>, change: Transition<K>, now: Instant) {
        self.expire(now);
        if self.recent.len() == MAX_CHANGES {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent {
            at: now,
            namespace,
            change,
        });
    }

    /// Changes in a namespace within the window, oldest first.
    pub(super) fn since_window(&self, namespace: &Arc<str>, now: Instant) -> impl Iterator<Item = &Transition<K>> {
        self.recent
            .iter()
            .filter(move |recent| Arc::ptr_eq(&recent.namespace, namespace) && now - recent.at <= WINDOW)
            .map(|recent| &recent.change)
    }

    /// Forgets what is too old, and with it the versions that nobody else holds.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|recent| now - recent.at > WINDOW) {
            self.recent.pop_front();
        }
        if self.recent.is_empty() {
            self.recent.shrink_to_fit();
        }
    }

    pub(super) fn mentions(&self, namespace: &Arc<str>) -> bool {
        self.recent
            .iter()
            .any(|recent| Arc::ptr_eq(&recent.namespace, namespace))
    }
}
