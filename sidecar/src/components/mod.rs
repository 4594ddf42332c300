//! Components: what is loaded, how it is built, and how it is replaced while requests go on.

pub mod loader;
pub mod metadata;
pub mod registry;
pub mod state;

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;

use crate::resources::component::Component;
use state::api::StateStore;

/// An instance, by building block. Requests hold a reference while they use it; the last one that is dropped closes it, so a
/// replaced instance finishes what it began.
#[derive(Clone)]
pub enum Built {
    State(Arc<StateStore>),
}

/// A component and its instance.
pub struct Loaded {
    pub component: Component,
    pub built: Built,
}

/// What is loaded now. Readers never wait: a change swaps the whole set.
#[derive(Default)]
pub struct Components {
    live: ArcSwap<BTreeMap<String, Arc<Loaded>>>,
}

/// What the metadata API shows of a component.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    pub capabilities: Vec<String>,
}

impl Components {
    pub fn state(&self, name: &str) -> Option<Arc<StateStore>> {
        self.live.load().get(name).map(|loaded| match &loaded.built {
            Built::State(store) => store.clone(),
        })
    }

    pub fn any_state(&self) -> bool {
        self.live
            .load()
            .values()
            .any(|loaded| matches!(loaded.built, Built::State(_)))
    }

    /// By name.
    pub fn summaries(&self) -> Vec<Summary> {
        let summary = |loaded: &Arc<Loaded>| Summary {
            name: loaded.component.name.clone(),
            kind: loaded.component.spec.kind.clone(),
            version: loaded.component.spec.version.clone(),
            capabilities: loaded.built.capabilities(),
        };
        self.live.load().values().map(summary).collect()
    }

    fn get(&self, name: &str) -> Option<Arc<Loaded>> {
        self.live.load().get(name).cloned()
    }

    // Only the loader changes the set, one change at a time.
    fn put(&self, loaded: Loaded) {
        let mut next = BTreeMap::clone(&self.live.load());
        next.insert(loaded.component.name.clone(), Arc::new(loaded));
        self.live.store(Arc::new(next));
    }

    fn remove(&self, name: &str) -> bool {
        let mut next = BTreeMap::clone(&self.live.load());
        let removed = next.remove(name).is_some();
        if removed {
            self.live.store(Arc::new(next));
        }
        removed
    }
}

impl Built {
    fn capabilities(&self) -> Vec<String> {
        match self {
            Self::State(state) => state.store.features().names(),
        }
    }
}
