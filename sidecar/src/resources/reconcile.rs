//! What changed between two sets of components.

use std::collections::{BTreeMap, BTreeSet};

use super::component::Component;

/// One step from the old set to the new one.
#[expect(clippy::large_enum_variant, reason = "few at a time, and gone once they are made")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Remove(String),
    Put(Component),
}

/// Steps from `old` to `new`: removals, then updates, then additions. Components that are equal make no step.
/// When `new` has a name twice, the first one counts and the others are returned beside the steps.
pub fn diff(old: &BTreeMap<String, Component>, new: Vec<Component>) -> (Vec<Change>, Vec<Component>) {
    let (mut updates, mut additions, mut duplicates) = (Vec::new(), Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for component in new {
        if !names.insert(component.name.clone()) {
            duplicates.push(component);
            continue;
        }
        match old.get(&component.name) {
            None => additions.push(Change::Put(component)),
            Some(known) if *known != component => updates.push(Change::Put(component)),
            Some(_) => {}
        }
    }
    let mut changes: Vec<_> = old
        .keys()
        .filter(|name| !names.contains(*name))
        .cloned()
        .map(Change::Remove)
        .collect();
    changes.append(&mut updates);
    changes.append(&mut additions);
    (changes, duplicates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{
        Revision,
        component::{Auth, Spec},
    };

    fn component(name: &str, version: &str) -> Component {
        Component {
            name: name.into(),
            namespace: String::new(),
            revision: Revision::default(),
            spec: Spec {
                kind: "state.x".into(),
                version: version.into(),
                ..Spec::default()
            },
            auth: Auth::default(),
            scopes: Vec::new(),
        }
    }

    fn set(components: &[Component]) -> BTreeMap<String, Component> {
        components
            .iter()
            .map(|component| (component.name.clone(), component.clone()))
            .collect()
    }

    #[test]
    fn removals_then_updates_then_additions() {
        let old = set(&[component("a", "v1"), component("b", "v1"), component("c", "v1")]);
        let new = vec![component("d", "v1"), component("c", "v2"), component("a", "v1")];
        let (changes, duplicates) = diff(&old, new);
        assert_eq!(
            changes,
            [
                Change::Remove("b".into()),
                Change::Put(component("c", "v2")),
                Change::Put(component("d", "v1"))
            ]
        );
        assert!(duplicates.is_empty());
    }

    #[test]
    fn equal_sets_make_no_step() {
        let old = set(&[component("a", "v1")]);
        assert_eq!(diff(&old, vec![component("a", "v1")]), (vec![], vec![]));
    }

    #[test]
    fn the_first_of_a_name_counts() {
        let (changes, duplicates) = diff(&BTreeMap::new(), vec![component("a", "v1"), component("a", "v2")]);
        assert_eq!(changes, [Change::Put(component("a", "v1"))]);
        assert_eq!(duplicates, [component("a", "v2")]);
    }
}
