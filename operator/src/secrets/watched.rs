//! The Secrets that sidecars need now, as their watches know them.

use std::collections::{BTreeSet, HashMap};

use outrigger_process::kubernetes::watch::ObjectKey;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{Found, KEEP};

/// What is known of a Secret.
#[derive(Debug, Clone, Default)]
pub(super) enum Seen {
    /// Its watch has not told yet.
    #[default]
    Waiting,
    Known(Found),
    /// It cannot be watched, so it is read whenever it is needed. Beside it what was known or read last: what sidecars were
    /// sent, for the watch to compare with once it is allowed.
    Refused(Option<Found>),
}

impl Seen {
    /// What sidecars were sent last.
    fn last(self) -> Option<Found> {
        match self {
            Self::Known(found) => Some(found),
            Self::Refused(last) => last,
            Self::Waiting => None,
        }
    }
}

/// Which Secrets are watched, and what they hold.
#[derive(Default)]
pub(super) struct Watched {
    namespaces: Mutex<HashMap<String, HashMap<String, Entry>>>,
    /// Wakes whoever watches when a Secret is added.
    pub(super) added: Notify,
}

struct Entry {
    seen: watch::Sender<Seen>,
    /// When its value was last asked for.
    used: Instant,
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            seen: watch::Sender::default(),
            used: now,
        }
    }
}

impl Watched {
    /// What is known of a Secret, now and later. From now on it is watched.
    pub(super) fn get(&self, namespace: &str, name: &str, now: Instant) -> watch::Receiver<Seen> {
        let mut namespaces = self.namespaces.lock();
        if let Some(entry) = namespaces.get_mut(namespace).and_then(|space| space.get_mut(name)) {
            entry.used = now;
            return entry.seen.subscribe();
        }
        let space = namespaces.entry(namespace.to_owned()).or_default();
        let entry = space.entry(name.to_owned()).or_insert_with(|| Entry::new(now));
        self.added.notify_one();
        entry.seen.subscribe()
    }

    /// What is known of a Secret, if it is watched.
    pub(super) fn peek(&self, namespace: &str, name: &str) -> Option<Found> {
        let namespaces = self.namespaces.lock();
        match &*namespaces.get(namespace)?.get(name)?.seen.borrow() {
            Seen::Known(found) => Some(found.clone()),
            Seen::Waiting | Seen::Refused(_) => None,
        }
    }

    pub(super) fn contains(&self, namespace: &str, name: &str) -> bool {
        let namespaces = self.namespaces.lock();
        namespaces.get(namespace).is_some_and(|space| space.contains_key(name))
    }

    pub(super) fn is_waiting(&self, namespace: &str, name: &str) -> bool {
        let namespaces = self.namespaces.lock();
        let entry = namespaces.get(namespace).and_then(|space| space.get(name));
        entry.is_some_and(|entry| matches!(*entry.seen.borrow(), Seen::Waiting))
    }

    /// Takes in what was read because the watch was late or is refused, for it to compare with. Returns what to send: what the
    /// watch has told meanwhile is newer, and nothing would correct an older value.
    pub(super) fn was_read(&self, namespace: &str, name: &str, found: Found) -> Found {
        let namespaces = self.namespaces.lock();
        let Some(entry) = namespaces.get(namespace).and_then(|space| space.get(name)) else {
            return found;
        };
        let mut told = None;
        entry.seen.send_if_modified(|seen| match seen {
            Seen::Waiting => {
                *seen = Seen::Known(found.clone());
                true
            }
            Seen::Refused(last) => {
                *last = Some(found.clone());
                false
            }
            Seen::Known(known) => {
                told = Some(known.clone());
                false
            }
        });
        told.unwrap_or(found)
    }

    /// Takes in what a watch tells. Returns what was known before, if anything was. A Secret that is no longer watched is
    /// forgotten.
    pub(super) fn set(&self, key: &ObjectKey, found: Found) -> Option<Found> {
        let mut namespaces = self.namespaces.lock();
        let entry = namespaces.get_mut(&key.namespace)?.get_mut(&key.name)?;
        entry.seen.send_replace(Seen::Known(found)).last()
    }

    /// Takes in that a Secret cannot be watched.
    pub(super) fn refuse(&self, key: &ObjectKey) {
        let namespaces = self.namespaces.lock();
        let entry = namespaces.get(&key.namespace).and_then(|space| space.get(&key.name));
        if let Some(entry) = entry {
            entry
                .seen
                .send_modify(|seen| *seen = Seen::Refused(std::mem::take(seen).last()));
        }
    }

    /// Drops what is neither wanted nor was used within seconds, and adds what is wanted.
    pub(super) fn keep(&self, wanted: &HashMap<String, BTreeSet<String>>, now: Instant) {
        let mut namespaces = self.namespaces.lock();
        for (namespace, space) in namespaces.iter_mut() {
            let wanted = wanted.get(namespace);
            let is_wanted = |name: &String| wanted.is_some_and(|names| names.contains(name));
            space.retain(|name, entry| now.saturating_duration_since(entry.used) < KEEP || is_wanted(name));
        }
        namespaces.retain(|_, space| !space.is_empty());
        for (namespace, names) in wanted {
            let space = namespaces.entry(namespace.clone()).or_default();
            for name in names {
                space.entry(name.clone()).or_insert_with(|| Entry::new(now));
            }
        }
    }

    /// Names by namespace.
    pub(super) fn names(&self) -> HashMap<String, BTreeSet<String>> {
        let namespaces = self.namespaces.lock();
        let sorted = |space: &HashMap<String, Entry>| space.keys().cloned().collect();
        let names = namespaces
            .iter()
            .map(|(namespace, space)| (namespace.clone(), sorted(space)));
        names.collect()
    }

    /// The names in one namespace.
    pub(super) fn names_in(&self, namespace: &str) -> Vec<String> {
        let namespaces = self.namespaces.lock();
        namespaces
            .get(namespace)
            .into_iter()
            .flat_map(HashMap::keys)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_nobody_needs_are_forgotten() {
        let (watched, now) = (Watched::default(), Instant::now());
        let names = |watched: &Watched| watched.names().remove("shop").unwrap_or_default();
        drop(watched.get("shop", "asked", now));
        let wanted = HashMap::from([("shop".to_owned(), BTreeSet::from(["wanted".to_owned()]))]);
        watched.keep(&wanted, now);
        assert_eq!(names(&watched), BTreeSet::from(["asked".into(), "wanted".into()]));
        watched.keep(&wanted, now + KEEP);
        assert_eq!(names(&watched), BTreeSet::from(["wanted".into()]));
        watched.keep(&HashMap::new(), now + KEEP * 2);
        assert!(watched.namespaces.lock().is_empty());
        assert!(watched.peek("shop", "wanted").is_none());
    }

    #[test]
    fn what_is_told_of_a_forgotten_secret_is_not_kept() {
        let watched = Watched::default();
        let key = ObjectKey::new("shop", "auth");
        assert!(watched.set(&key, Found::Missing).is_none());
        watched.refuse(&key);
        assert!(watched.names().is_empty());
    }

    #[test]
    fn what_was_sent_while_a_watch_was_refused_is_what_its_return_is_compared_with() {
        let (watched, key) = (Watched::default(), ObjectKey::new("shop", "auth"));
        drop(watched.get("shop", "auth", Instant::now()));
        watched.refuse(&key);
        assert!(matches!(
            watched.was_read("shop", "auth", Found::Forbidden),
            Found::Forbidden
        ));
        assert!(watched.peek("shop", "auth").is_none(), "it is read again each time");
        assert!(matches!(watched.set(&key, Found::Missing), Some(Found::Forbidden)));
        watched.refuse(&key);
        assert!(matches!(watched.set(&key, Found::Missing), Some(Found::Missing)));
    }
}
