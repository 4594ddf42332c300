//! What a relist changes.

use std::collections::HashMap;

use kube::{Resource, ResourceExt, runtime::watcher::Event};

use super::{Change, ObjectKey};

/// Folds watcher events into changes. Remembers keys and versions only.
#[derive(Debug)]
pub(super) struct Differ<K> {
    keep: fn(&K) -> bool,
    known: HashMap<ObjectKey, Option<String>>,
    listing: Option<HashMap<ObjectKey, K>>,
}

impl<K: Resource> Differ<K> {
    /// Nothing is remembered of what `keep` does not want.
    pub(super) fn new(keep: fn(&K) -> bool) -> Self {
        Self {
            keep,
            known: HashMap::new(),
            listing: None,
        }
    }

    pub(super) fn fold(&mut self, event: Event<K>) -> Vec<Change<K>> {
        match event {
            Event::Init => {
                self.listing = Some(HashMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                if (self.keep)(&object) {
                    let listing = self.listing.get_or_insert_default();
                    listing.insert(ObjectKey::of(&object), object);
                }
                Vec::new()
            }
            Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                let gone: Vec<_> = self
                    .known
                    .keys()
                    .filter(|key| !listed.contains_key(*key))
                    .cloned()
                    .collect();
                let mut changes: Vec<_> = gone.into_iter().filter_map(|key| self.delete(key)).collect();
                changes.extend(listed.into_iter().filter_map(|(key, object)| self.apply(key, object)));
                changes.push(Change::Synced);
                changes
            }
            Event::Apply(object) if !(self.keep)(&object) => self.delete(ObjectKey::of(&object)).into_iter().collect(),
            Event::Apply(object) => self.apply(ObjectKey::of(&object), object).into_iter().collect(),
            Event::Delete(object) => self.delete(ObjectKey::of(&object)).into_iter().collect(),
        }
    }

    /// Every object is reported once more when it is seen again.
    pub(super) fn forget_versions(&mut self) {
        self.known.values_mut().for_each(|version| *version = None);
    }

    fn apply(&mut self, key: ObjectKey, object: K) -> Option<Change<K>> {
        let version = object.resource_version();
        // Objects without a version are always reported: nothing tells whether they changed.
        let unchanged = version.is_some() && self.known.get(&key) == Some(&version);
        self.known.insert(key, version);
        (!unchanged).then_some(Change::Apply(object))
    }

    fn delete(&mut self, key: ObjectKey) -> Option<Change<K>> {
        self.known.remove(&key).map(|_| Change::Delete(key))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::{super::tests::map, *};

    #[test]
    fn a_relist_is_a_diff() {
        let mut differ = Differ::new(|_| true);
        assert!(differ.fold(Event::Init).is_empty());
        assert!(
            differ.fold(Event::InitApply(map("a", "1"))).is_empty(),
            "nothing is seen before the list is complete"
        );
        assert!(differ.fold(Event::InitApply(map("b", "2"))).is_empty());
        assert_eq!(differ.fold(Event::InitDone).len(), 3);

        differ.fold(Event::Init);
        differ.fold(Event::InitApply(map("a", "1")));
        differ.fold(Event::InitApply(map("c", "3")));
        let changes = differ.fold(Event::InitDone);
        assert_eq!(
            changes,
            [
                Change::Delete(ObjectKey::new("ns", "b")),
                Change::Apply(map("c", "3")),
                Change::Synced
            ]
        );
    }

    #[test]
    fn what_nobody_wants_is_not_remembered_and_what_is_no_longer_wanted_is_gone() {
        let mut differ = Differ::new(|map: &ConfigMap| map.immutable != Some(true));
        let unwanted = |name, version| ConfigMap {
            immutable: Some(true),
            ..map(name, version)
        };
        differ.fold(Event::Init);
        differ.fold(Event::InitApply(map("a", "1")));
        differ.fold(Event::InitApply(unwanted("b", "2")));
        assert_eq!(
            differ.fold(Event::InitDone),
            [Change::Apply(map("a", "1")), Change::Synced]
        );
        assert_eq!(
            differ.fold(Event::Apply(unwanted("a", "3"))),
            [Change::Delete(ObjectKey::new("ns", "a"))]
        );
        assert!(differ.fold(Event::Apply(unwanted("a", "4"))).is_empty());
        assert!(differ.known.is_empty());
    }

    #[test]
    fn unknown_deletes_and_unchanged_objects_are_dropped() {
        let mut differ = Differ::new(|_| true);
        assert!(differ.fold(Event::Delete(map("a", "1"))).is_empty());
        assert_eq!(differ.fold(Event::Apply(map("a", "1"))), [Change::Apply(map("a", "1"))]);
        assert!(differ.fold(Event::Apply(map("a", "1"))).is_empty());
        assert_eq!(differ.fold(Event::Apply(map("a", "2"))), [Change::Apply(map("a", "2"))]);
        assert_eq!(
            differ.fold(Event::Delete(map("a", "3"))),
            [Change::Delete(ObjectKey::new("ns", "a"))]
        );
    }
}
