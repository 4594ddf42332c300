//! Who subscribes to a topic. No I/O, no clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::facts::Scopes;

/// The Subscriptions of a topic, by the apps that see them: people list thousands of apps, and finding those that share
/// one must not compare each with each.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    scopes: BTreeMap<Arc<str>, Scopes>,
    by_app: HashMap<String, BTreeSet<Arc<str>>>,
    /// Those that every app sees.
    of_all: BTreeSet<Arc<str>>,
}

impl Subscribers {
    pub(super) fn scopes(&self, name: &str) -> Option<&Scopes> {
        self.scopes.get(name)
    }

    pub(super) fn insert(&mut self, name: &str, scopes: Scopes) {
        self.remove(name);
        let name: Arc<str> = name.into();
        if scopes.is_empty() {
            self.of_all.insert(name.clone());
        }
        for app in scopes.iter() {
            self.by_app.entry(app.clone()).or_default().insert(name.clone());
        }
        self.scopes.insert(name, scopes);
    }

    pub(super) fn remove(&mut self, name: &str) {
        let Some(scopes) = self.scopes.remove(name) else {
            return;
        };
        self.of_all.remove(name);
        for app in scopes.iter() {
            if let Some(names) = self.by_app.get_mut(app) {
                names.remove(name);
                if names.is_empty() {
                    self.by_app.remove(app);
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.scopes.is_empty()
    }

    /// The first Subscriptions, by name, that share an app with the one of this name, `most` at most.
    pub(super) fn rivals(&self, name: &str, scopes: &Scopes, most: usize) -> Vec<&str> {
        fn others<'a>(names: impl Iterator<Item = &'a Arc<str>>, name: &str) -> impl Iterator<Item = &'a str> {
            names.map(AsRef::as_ref).filter(move |other| *other != name)
        }
        if scopes.is_empty() {
            return others(self.scopes.keys(), name).take(most).collect();
        }
        let mut rivals: BTreeSet<&str> = others(self.of_all.iter(), name).take(most).collect();
        for names in scopes.iter().filter_map(|app| self.by_app.get(app)) {
            rivals.extend(others(names.iter(), name).take(most));
            while rivals.len() > most {
                rivals.pop_last();
            }
        }
        rivals.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rivals_share_an_app() {
        let scopes = |apps: &[&str]| -> Scopes { apps.iter().map(|app| (*app).to_owned()).collect() };
        let mut subscribers = Subscribers::default();
        for (name, apps) in [
            ("a", &["cart", "till"][..]),
            ("b", &["till"]),
            ("c", &[]),
            ("d", &["stock"]),
            ("e", &["cart", "stock"]),
        ] {
            subscribers.insert(name, scopes(apps));
        }
        let rivals = |subscribers: &Subscribers, name, most| -> Vec<String> {
            let scopes = subscribers.scopes(name).unwrap();
            let rivals = subscribers.rivals(name, scopes, most);
            rivals.into_iter().map(str::to_owned).collect()
        };
        assert_eq!(rivals(&subscribers, "a", 9), ["b", "c", "e"]);
        assert_eq!(rivals(&subscribers, "a", 2), ["b", "c"]);
        assert_eq!(rivals(&subscribers, "c", 9), ["a", "b", "d", "e"]);
        assert_eq!(rivals(&subscribers, "d", 9), ["c", "e"]);
        subscribers.insert("c", scopes(&["cart"]));
        assert_eq!(rivals(&subscribers, "d", 9), ["e"]);
        assert_eq!(rivals(&subscribers, "c", 9), ["a", "e"]);
        for name in ["a", "b", "c", "d", "e"] {
            subscribers.remove(name);
        }
        assert!(subscribers.is_empty() && subscribers.by_app.is_empty() && subscribers.of_all.is_empty());
    }
}
