//! What is known of other objects, by the names that objects use for them. No I/O, no clock.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use outrigger_crds::{Related, references::Role};
use outrigger_process::kubernetes::watch::ObjectKey;

use super::topics::Subscribers;
use crate::pods::PodChange;

/// Something about other objects that a condition may depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Fact {
    /// Whether a pod has the app id; the key's name is the id.
    App(ObjectKey),
    /// The apps whose pods name the Configuration.
    Use(ObjectKey),
    /// Type and scopes of the component.
    Component(ObjectKey),
    /// The Subscriptions of the topic.
    Topic(Topic),
    /// What the Secret holds, which is looked up where it is kept.
    Secret(ObjectKey),
    /// What of the control plane's Configuration waits for a restart.
    Waiting,
}

/// A topic of a component.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Topic {
    pub(super) namespace: String,
    pub(super) pubsub: String,
    pub(super) topic: String,
}

/// Where facts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    Components,
    Subscriptions,
    Pods,
}

impl Source {
    /// `None` for kinds that no condition of others depends on.
    pub fn of(kind: &str) -> Option<Self> {
        match kind {
            "Component" => Some(Self::Components),
            "Subscription" => Some(Self::Subscriptions),
            _ => None,
        }
    }
}

/// Whether what a source does not show does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Knowledge {
    /// The first list is not complete.
    #[default]
    Pending,
    Complete,
    /// The API server refuses to tell.
    Unavailable,
}

/// App ids in order, each once; empty means every app.
pub(super) type Scopes = Arc<[String]>;

/// The scopes of an object.
pub(super) fn scopes_of<K: Related>(object: &K) -> Scopes {
    let mut scopes = object.scopes().to_vec();
    scopes.sort_unstable();
    scopes.dedup();
    scopes.into()
}

/// A component, as far as others look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ComponentFact {
    /// `None` if the object cannot be decoded.
    pub(super) type_: Option<String>,
    pub(super) scopes: Scopes,
}

/// Everything known.
#[derive(Default)]
pub(super) struct Facts {
    sources: HashMap<Source, Knowledge>,
    /// How many pods have each app id.
    apps: HashMap<ObjectKey, usize>,
    /// By Configuration, how many pods of each app name it.
    uses: HashMap<ObjectKey, HashMap<String, usize>>,
    components: HashMap<ObjectKey, ComponentFact>,
    topics: HashMap<Topic, Subscribers>,
    /// By Subscription, its topic.
    subscriptions: HashMap<ObjectKey, Topic>,
    /// What of the control plane's Configuration waits for a restart.
    waiting: Option<String>,
}

impl Topic {
    /// `None` while a name is missing.
    pub(super) fn of(namespace: &str, role: Role<'_>) -> Option<Self> {
        match role {
            Role::Subscription { pubsub, topic } if !pubsub.is_empty() && !topic.is_empty() => Some(Self {
                namespace: namespace.to_owned(),
                pubsub: pubsub.to_owned(),
                topic: topic.to_owned(),
            }),
            _ => None,
        }
    }
}

impl Facts {
    pub(super) fn knowledge(&self, source: Source) -> Knowledge {
        self.sources.get(&source).copied().unwrap_or_default()
    }

    pub(super) fn waiting(&self) -> Option<&str> {
        self.waiting.as_deref()
    }

    /// Returns whether that is new.
    pub(super) fn set_waiting(&mut self, what: Option<String>) -> bool {
        let changed = self.waiting != what;
        self.waiting = what;
        changed
    }

    /// Returns whether that is new. What was complete once stays so: a watch that fails later leaves what it has shown.
    pub(super) fn set_knowledge(&mut self, source: Source, knowledge: Knowledge) -> bool {
        let current = self.knowledge(source);
        if current == knowledge || current == Knowledge::Complete {
            return false;
        }
        self.sources.insert(source, knowledge);
        true
    }

    /// Takes in an object, `None` if it is one of `kind` that cannot be decoded. Returns the facts that changed.
    pub(super) fn observe<K: Related>(&mut self, key: &ObjectKey, object: Option<&K>) -> Vec<Fact> {
        let role = object.map_or(Role::None, Related::role);
        let scopes = || object.map_or_else(Scopes::default, scopes_of);
        match Source::of(K::KIND) {
            Some(Source::Components) => {
                let type_ = match role {
                    Role::Component(type_) => Some(type_.to_owned()),
                    _ => None,
                };
                let fact = ComponentFact {
                    type_,
                    scopes: scopes(),
                };
                self.set_component(key, Some(fact))
            }
            Some(Source::Subscriptions) => self.set_subscription(key, Topic::of(&key.namespace, role), scopes()),
            _ => Vec::new(),
        }
    }

    /// Takes in that an object is gone. Returns the facts that changed.
    pub(super) fn forget(&mut self, kind: &str, key: &ObjectKey) -> Vec<Fact> {
        match Source::of(kind) {
            Some(Source::Components) => self.set_component(key, None),
            Some(Source::Subscriptions) => self.set_subscription(key, None, Scopes::default()),
            _ => Vec::new(),
        }
    }

    fn set_component(&mut self, key: &ObjectKey, fact: Option<ComponentFact>) -> Vec<Fact> {
        if self.components.get(key) == fact.as_ref() {
            return Vec::new();
        }
        match fact {
            Some(fact) => self.components.insert(key.clone(), fact),
            None => self.components.remove(key),
        };
        vec![Fact::Component(key.clone())]
    }

    fn set_subscription(&mut self, key: &ObjectKey, topic: Option<Topic>, scopes: Scopes) -> Vec<Fact> {
        let subscribers = topic.as_ref().and_then(|topic| self.topics.get(topic));
        let known = subscribers.and_then(|subscribers| subscribers.scopes(&key.name));
        if self.subscriptions.get(key) == topic.as_ref() && known.is_none_or(|known| *known == scopes) {
            return Vec::new();
        }
        let mut changed = Vec::new();
        if let Some(old) = self.subscriptions.remove(key) {
            if let Some(subscribers) = self.topics.get_mut(&old) {
                subscribers.remove(&key.name);
                if subscribers.is_empty() {
                    self.topics.remove(&old);
                }
            }
            changed.push(Fact::Topic(old));
        }
        if let Some(topic) = topic {
            let subscribers = self.topics.entry(topic.clone()).or_default();
            subscribers.insert(&key.name, scopes);
            self.subscriptions.insert(key.clone(), topic.clone());
            changed.push(Fact::Topic(topic));
        }
        changed
    }

    /// Takes in a pod. Returns the facts that changed: the first or the last pod of its app, or of its Configuration.
    pub(super) fn pod(&mut self, change: &PodChange) -> Vec<Fact> {
        let key = |name: &str| ObjectKey::new(&change.namespace, name);
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        let mut changed = Vec::new();
        // First those that come, so that a pod that changes does not make its app vanish in between.
        for (info, comes) in [(after, true), (before, false)] {
            let Some(info) = info else { continue };
            let app = key(&info.app);
            let is_news = match comes {
                true => up(&mut self.apps, &app),
                false => down(&mut self.apps, &app),
            };
            if is_news {
                changed.push(Fact::App(app));
            }
            if let Some(configuration) = &info.configuration {
                let configuration = key(configuration);
                if self.use_of(&configuration, &info.app, comes) {
                    changed.push(Fact::Use(configuration));
                }
            }
        }
        changed
    }

    /// Returns whether it is the first or the last pod of the app.
    fn use_of(&mut self, configuration: &ObjectKey, app: &String, comes: bool) -> bool {
        if comes {
            return up(self.uses.entry(configuration.clone()).or_default(), app);
        }
        let Some(apps) = self.uses.get_mut(configuration) else {
            return false;
        };
        let is_last = down(apps, app);
        if apps.is_empty() {
            self.uses.remove(configuration);
        }
        is_last
    }

    pub(super) fn has_app(&self, key: &ObjectKey) -> bool {
        self.apps.contains_key(key)
    }

    pub(super) fn is_used(&self, configuration: &ObjectKey) -> bool {
        self.uses.contains_key(configuration)
    }

    /// The apps whose pods name a Configuration.
    pub(super) fn users(&self, configuration: &ObjectKey) -> Option<&HashMap<String, usize>> {
        self.uses.get(configuration)
    }

    pub(super) fn component(&self, key: &ObjectKey) -> Option<&ComponentFact> {
        self.components.get(key)
    }

    pub(super) fn subscribers(&self, topic: &Topic) -> Option<&Subscribers> {
        self.topics.get(topic)
    }
}

/// Returns whether it is the first.
fn up<K: Clone + Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) -> bool {
    let count = counts.entry(key.clone()).or_default();
    *count += 1;
    *count == 1
}

/// Returns whether it was the last.
fn down<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) -> bool {
    let Some(count) = counts.get_mut(key) else {
        return false;
    };
    *count -= 1;
    let last = *count == 0;
    if last {
        counts.remove(key);
    }
    last
}

#[cfg(test)]
impl Facts {
    pub(super) fn is_empty(&self) -> bool {
        let counts = self.apps.is_empty() && self.uses.is_empty();
        counts && self.components.is_empty() && self.topics.is_empty() && self.subscriptions.is_empty()
    }
}
