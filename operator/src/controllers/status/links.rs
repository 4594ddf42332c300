//! How an object depends on others, and what there is to say about it. No I/O, no clock.

use std::collections::BTreeSet;

use outrigger_crds::{
    Related, SecretStore,
    references::{Reference, Role, Target},
};
use outrigger_process::kubernetes::watch::ObjectKey;

use super::{
    decision::MAX_WARNINGS,
    facts::{ComponentFact, Fact, Facts, Knowledge, Scopes, Source, Topic, scopes_of},
};

/// Names that a warning lists at most.
pub(super) const NAMED: usize = 3;

/// How an object depends on others.
#[derive(Debug, Default)]
pub(super) struct Links {
    references: Vec<Reference>,
    pub(super) scopes: Scopes,
    /// Field and name of the secret store component.
    store: Option<(&'static str, String)>,
    topic: Option<Topic>,
    /// Whether pods have to name it to use it.
    chosen_by_pods: bool,
    /// Whether it is the control plane's Configuration.
    of_control_plane: bool,
}

/// What there is to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// What makes nothing unacceptable.
    pub warnings: Vec<String>,
    pub store: Store,
}

/// What became of the named secret store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Store {
    /// It exists as far as can be told, or none is named.
    #[default]
    Fine,
    /// It does not, and why not.
    Missing(String),
}

impl Links {
    /// `system` is the control plane's Configuration, which no pod names.
    pub(super) fn of<K: Related>(object: &K, key: &ObjectKey, system: &ObjectKey) -> Self {
        let store = match object.secret_store() {
            SecretStore::Component(name) => Some((object.secret_store_field(), name.to_owned())),
            SecretStore::Kubernetes => None,
        };
        let is_configuration = matches!(object.role(), Role::Configuration);
        Self {
            references: object.references(),
            scopes: scopes_of(object),
            store,
            topic: Topic::of(&key.namespace, object.role()),
            chosen_by_pods: is_configuration && key != system,
            of_control_plane: is_configuration && key == system,
        }
    }

    /// What the conditions depend on.
    pub(super) fn facts(&self, key: &ObjectKey) -> BTreeSet<Fact> {
        let named = |name: &str| ObjectKey::new(&key.namespace, name);
        let references = self.references.iter().map(|reference| match &reference.target {
            Target::App(id) => Fact::App(named(id)),
            Target::Component { name, .. } => Fact::Component(named(name)),
        });
        let store = self.store.iter().map(|(_, name)| Fact::Component(named(name)));
        let topic = self.topic.iter().cloned().map(Fact::Topic);
        let used = self.chosen_by_pods.then(|| Fact::Use(key.clone()));
        let waiting = self.of_control_plane.then_some(Fact::Waiting);
        references
            .chain(store)
            .chain(topic)
            .chain(used)
            .chain(waiting)
            .collect()
    }

    /// `None` as long as something that it depends on is still being listed.
    pub(super) fn check(&self, key: &ObjectKey, facts: &Facts) -> Option<Surroundings> {
        if [Source::Pods, Source::Components, Source::Subscriptions]
            .into_iter()
            .any(|source| facts.knowledge(source) == Knowledge::Pending && self.depends_on(source))
        {
            return None;
        }
        let known = |source| facts.knowledge(source) == Knowledge::Complete;
        let (pods, components) = (known(Source::Pods), known(Source::Components));
        let named = |name: &str| ObjectKey::new(&key.namespace, name);
        let mut warnings = Vec::new();
        for Reference { field, target } in &self.references {
            // More are not shown.
            if warnings.len() > MAX_WARNINGS {
                break;
            }
            match target {
                Target::App(id) if pods && !facts.has_app(&named(id)) => {
                    warnings.push(format!(
                        "{field}: no pod in this namespace has the app id {id:?}, expected one"
                    ));
                }
                Target::Component { name, category } if components => {
                    let found = facts.component(&named(name));
                    warnings.extend(mismatch(field, name, *category, found));
                    warnings.extend(self.out_of_scope(field, name, found));
                }
                _ => {}
            }
        }
        warnings.extend(self.topic.as_ref().and_then(|topic| self.duplicates(key, topic, facts)));
        if self.chosen_by_pods && pods && !facts.is_used(key) {
            let unused = "metadata.name: no pod in this namespace names this Configuration in its annotation dapr.io/config, expected one";
            warnings.push(unused.to_owned());
        }
        if self.of_control_plane {
            warnings.extend(facts.waiting().map(str::to_owned));
        }
        let store = match &self.store {
            None => Store::Fine,
            Some((field, name)) if components => {
                let found = facts.component(&named(name));
                match mismatch(field, name, Some("secretstores"), found) {
                    Some(text) => Store::Missing(text),
                    None => {
                        warnings.extend(self.out_of_scope(field, name, found));
                        Store::Fine
                    }
                }
            }
            Some((field, name)) => {
                warnings.push(format!(
                    "{field}: the operator may not list Components, so component {name:?} was not checked, expected one of type \
                     secretstores.*"
                ));
                Store::Fine
            }
        };
        Some(Surroundings { warnings, store })
    }

    fn out_of_scope(&self, field: &str, name: &str, found: Option<&ComponentFact>) -> Option<String> {
        let scopes = &found?.scopes;
        (!overlap(&self.scopes, scopes)).then(|| {
            let apps = some_of(scopes.iter().take(NAMED + 1).cloned().collect());
            format!("{field}: component {name:?} has the scopes {apps}, expected one of the apps in scopes among them")
        })
    }

    fn duplicates(&self, key: &ObjectKey, topic: &Topic, facts: &Facts) -> Option<String> {
        let rivals = facts.subscribers(topic)?.rivals(&key.name, &self.scopes, NAMED + 1);
        if rivals.is_empty() {
            return None;
        }
        Some(format!(
            "spec.topic: {:?} of component {:?} is subscribed to by {} too, expected one Subscription for an app and a topic",
            topic.topic,
            topic.pubsub,
            some_of(rivals.into_iter().map(|name| format!("{name:?}")).collect())
        ))
    }

    fn depends_on(&self, source: Source) -> bool {
        let mut targets = self.references.iter().map(|reference| &reference.target);
        match source {
            Source::Pods => self.chosen_by_pods || targets.any(|target| matches!(target, Target::App(_))),
            Source::Components => {
                self.store.is_some() || targets.any(|target| matches!(target, Target::Component { .. }))
            }
            Source::Subscriptions => self.topic.is_some(),
        }
    }
}

impl Fact {
    /// Where it is listed; `None` for what is read one by one.
    pub(super) fn source(&self) -> Option<Source> {
        match self {
            Self::App(_) | Self::Use(_) => Some(Source::Pods),
            Self::Component(_) => Some(Source::Components),
            Self::Topic(_) => Some(Source::Subscriptions),
            Self::Secret(_) | Self::Waiting => None,
        }
    }
}

/// The first few, and that there are others: a count would change with each of them, and every text with it.
pub(super) fn some_of(mut names: Vec<String>) -> String {
    if names.len() <= NAMED {
        return names.join(", ");
    }
    names.truncate(NAMED);
    format!("{} and others", names.join(", "))
}

/// Whether an app may see both.
fn overlap(one: &Scopes, other: &Scopes) -> bool {
    let (few, many) = if one.len() < other.len() {
        (one, other)
    } else {
        (other, one)
    };
    few.is_empty() || few.iter().any(|app| many.binary_search(app).is_ok())
}

/// What is wrong with the component that a field names.
fn mismatch(field: &str, name: &str, category: Option<&str>, found: Option<&ComponentFact>) -> Option<String> {
    let Some(found) = found else {
        let expected = category.map_or_else(String::new, |category| format!(", expected one of type {category}.*"));
        return Some(format!(
            "{field}: there is no component {name:?} in this namespace{expected}"
        ));
    };
    let (category, type_) = (category?, found.type_.as_deref()?);
    // Sidecars look types up without regard to case.
    let fits = type_
        .split_once('.')
        .is_some_and(|(prefix, _)| prefix.eq_ignore_ascii_case(category));
    (!fits).then(|| format!("{field}: component {name:?} has the type {type_:?}, expected {category}.*"))
}
