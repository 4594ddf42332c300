//! Lists as sidecars are sent them. Each is put together once for everyone who may see the same, and kept until an object of the
//! namespace changes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use outrigger_crds::DaprResource;
use outrigger_proto::lists;
use parking_lot::Mutex;

use super::version::Version;

/// Bytes of lists that are kept for a namespace at most. Above that, apps with scopes of their own have theirs made anew.
const MAX_KEPT: usize = 8 << 20;

/// What some apps may see of a namespace, by name.
pub struct List<K> {
    versions: Box<[Arc<Version<K>>]>,
    encoded: Mutex<Option<Encoded>>,
}

struct Encoded {
    /// The payloads with the values of Secrets that are in it; kept, so that their addresses name no others.
    filled: Vec<Bytes>,
    bytes: Bytes,
}

impl<K> Default for List<K> {
    fn default() -> Self {
        Self {
            versions: Box::default(),
            encoded: Mutex::new(None),
        }
    }
}

impl<K: DaprResource> List<K> {
    fn new(versions: Vec<Arc<Version<K>>>) -> Self {
        Self {
            versions: versions.into(),
            encoded: Mutex::new(None),
        }
    }

    pub fn versions(&self) -> &[Arc<Version<K>>] {
        &self.versions
    }

    /// Those whose payload needs the values of Secrets.
    pub fn with_secrets(&self) -> impl Iterator<Item = &Version<K>> {
        let versions = self.versions.iter().map(Arc::as_ref);
        versions.filter(|version| version.with_secrets().is_some())
    }

    /// The message's bytes. `filled` are the payloads of [`List::with_secrets`].
    pub fn encoded(&self, filled: Vec<Bytes>) -> Bytes {
        let addresses = |payloads: &[Bytes]| payloads.iter().map(|payload| payload.as_ptr()).collect::<Vec<_>>();
        let mut encoded = self.encoded.lock();
        if let Some(last) = &*encoded
            && addresses(&last.filled) == addresses(&filled)
        {
            return last.bytes.clone();
        }
        let mut with_values = filled.iter();
        let payloads: Vec<_> = self
            .versions
            .iter()
            .map(|version| match version.with_secrets() {
                Some(_) => with_values.next().unwrap_or(version.payload()),
                None => version.payload(),
            })
            .collect();
        let bytes = lists::encode(payloads.into_iter());
        *encoded = Some(Encoded {
            filled,
            bytes: bytes.clone(),
        });
        bytes
    }

    fn size(&self) -> usize {
        self.versions.iter().map(|version| version.payload().len()).sum()
    }
}

/// The lists of a namespace.
pub(super) struct Lists<K>(Mutex<Option<Kept<K>>>);

struct Kept<K> {
    /// Apps that some object names; all others see the same.
    named: HashSet<String>,
    others: Arc<List<K>>,
    by_app: HashMap<String, Arc<List<K>>>,
    /// Each list of `by_app` once.
    distinct: Vec<Arc<List<K>>>,
    size: usize,
}

impl<K> Default for Lists<K> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<K> Lists<K> {
    /// To be called when an object has changed, and now and then, so that nobody's lists are forgotten.
    pub(super) fn clear(&mut self) {
        *self.0.get_mut() = None;
    }
}

impl<K: DaprResource> Lists<K> {
    pub(super) fn of(&self, app: &str, objects: &BTreeMap<Arc<str>, Arc<Version<K>>>) -> Arc<List<K>> {
        let mut kept = self.0.lock();
        let kept = kept.get_or_insert_with(|| Kept::new(objects));
        if !kept.named.contains(app) {
            return kept.others.clone();
        }
        if let Some(list) = kept.by_app.get(app) {
            return list.clone();
        }
        let visible = objects.values().filter(|version| version.visible_to(app));
        kept.add(app, List::new(visible.cloned().collect()))
    }
}

impl<K: DaprResource> Kept<K> {
    fn new(objects: &BTreeMap<Arc<str>, Arc<Version<K>>>) -> Self {
        let named = objects.values().flat_map(|version| version.scopes()).cloned().collect();
        let for_all = objects.values().filter(|version| version.scopes().is_empty());
        Self {
            named,
            others: Arc::new(List::new(for_all.cloned().collect())),
            by_app: HashMap::new(),
            distinct: Vec::new(),
            size: 0,
        }
    }

    fn add(&mut self, app: &str, list: List<K>) -> Arc<List<K>> {
        let addresses = |list: &List<K>| list.versions.iter().map(Arc::as_ptr).collect::<Vec<_>>();
        let wanted = addresses(&list);
        let list = match self.distinct.iter().find(|other| addresses(other) == wanted) {
            Some(same) => same.clone(),
            None => {
                let list = Arc::new(list);
                if self.size + list.size() > MAX_KEPT {
                    return list;
                }
                self.size += list.size();
                self.distinct.push(list.clone());
                list
            }
        };
        self.by_app.insert(app.to_owned(), list.clone());
        list
    }
}
