//! The component types that this release has, and how each is built.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use outrigger_core::text::nearest;

use super::{
    Built,
    metadata::{self, Context, Properties},
    state::{Store, api::StateStore, in_memory::InMemory, keys::Prefix},
};
use crate::resources::component::Component;

/// Why a component cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("incorrect type {0:?}: expected a category and a name, such as state.in-memory")]
    NoCategory(String),
    #[error("couldn't find {noun} {kind}/{version}: this release has {known}{hint}")]
    Unknown {
        noun: &'static str,
        kind: String,
        version: String,
        known: String,
        hint: String,
    },
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
    #[error("init timeout for component {0}")]
    Timeout(String),
}

impl Error {
    /// The label `reason` of the metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCategory(_) | Self::Unknown { .. } => "creation",
            Self::Metadata(_) | Self::Timeout(_) => "init",
        }
    }

    /// The reason in reports: one word in CamelCase.
    pub fn report_reason(&self) -> &'static str {
        match self {
            Self::NoCategory(_) | Self::Unknown { .. } => "UnknownType",
            Self::Metadata(metadata::Error::NoSecretStore { .. }) => "NoSecretStore",
            Self::Metadata(_) => "InvalidMetadata",
            Self::Timeout(_) => "InitTimeout",
        }
    }

    /// A component that waits for a secret store does not fail the start, as upstream does.
    pub fn waits_for_secrets(&self) -> bool {
        matches!(self, Self::Metadata(metadata::Error::NoSecretStore { .. }))
    }
}

/// Builds one instance. The instance that serves now is passed for types that can go on with what it has.
type Build = for<'a> fn(Request<'a>) -> BoxFuture<'a, Result<Built, Error>>;

/// What a builder gets.
pub struct Request<'a> {
    pub component: &'a Component,
    pub properties: Properties,
    pub context: &'a Context,
    pub previous: Option<&'a Built>,
}

/// A type in one version.
pub struct Type {
    kind: &'static str,
    version: &'static str,
    /// The name without a version, `v0` and `v1` mean this version too.
    default: bool,
    pub build: Build,
}

const TYPES: &[Type] = &[Type {
    kind: "state.in-memory",
    version: "v1",
    default: true,
    build: |request| in_memory(request).boxed(),
}];

/// What upstream calls an instance of a category.
const NOUNS: &[(&str, &str)] = &[
    ("secretstores", "secret store"),
    ("state", "state store"),
    ("pubsub", "message bus"),
    ("bindings", "binding"),
    ("configuration", "configuration store"),
    ("lock", "lock store"),
    ("crypto", "crypto provider"),
    ("middleware", "middleware"),
    ("conversation", "conversation component"),
];

/// Finds a type; case does not matter.
///
/// # Errors
/// Names what was asked for and what there is.
pub fn lookup(kind: &str, version: &str) -> Result<&'static Type, Error> {
    let (lower, version_lower) = (kind.to_lowercase(), version.to_lowercase());
    let (category, _) = lower
        .split_once('.')
        .ok_or_else(|| Error::NoCategory(kind.to_owned()))?;
    let (_, noun) = NOUNS
        .iter()
        .find(|(name, _)| *name == category)
        .ok_or_else(|| Error::NoCategory(kind.to_owned()))?;
    let unversioned = matches!(version_lower.as_str(), "" | "v0" | "v1");
    TYPES
        .iter()
        .find(|known| known.kind == lower && (known.version == version_lower || (known.default && unversioned)))
        .ok_or_else(|| Error::Unknown {
            noun,
            kind: kind.to_owned(),
            version: version.to_owned(),
            known: TYPES
                .iter()
                .map(|known| format!("{}/{}", known.kind, known.version))
                .collect::<Vec<_>>()
                .join(", "),
            hint: nearest(&lower, TYPES.iter().map(|known| known.kind))
                .filter(|near| *near != lower)
                .map(|near| format!(" (did you mean {near}?)"))
                .unwrap_or_default(),
        })
}

async fn in_memory(request: Request<'_>) -> Result<Built, Error> {
    let previous = request.previous.map(|Built::State(state)| state.store.as_ref());
    let store: Arc<dyn Store> = Arc::new(InMemory::new(previous));
    let prefix = prefix(&request)?;
    Ok(Built::State(Arc::new(StateStore { store, prefix })))
}

fn prefix(request: &Request<'_>) -> Result<Prefix, Error> {
    let context = request.context;
    let strategy = request.properties.get("keyPrefix");
    Prefix::new(strategy, &context.app_id, &context.namespace, &request.component.name).map_err(|_| {
        Error::Metadata(metadata::Error::Value {
            name: "keyPrefix".to_owned(),
            found: request.properties.shown("keyPrefix"),
            expected: "a prefix without '||'",
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_types_without_regard_to_case() {
        for (kind, version) in [
            ("state.in-memory", "v1"),
            ("State.In-Memory", "V1"),
            ("state.in-memory", ""),
            ("state.in-memory", "v0"),
        ] {
            assert!(lookup(kind, version).is_ok(), "{kind}/{version}");
        }
    }

    #[test]
    fn says_what_was_asked_for_and_what_there_is() {
        let message = |kind: &str, version: &str| lookup(kind, version).err().unwrap().to_string();
        assert_eq!(
            message("state.redis", "v1"),
            "couldn't find state store state.redis/v1: this release has state.in-memory/v1"
        );
        assert_eq!(
            message("state.inmemory", "v1"),
            "couldn't find state store state.inmemory/v1: this release has state.in-memory/v1 (did you mean state.in-memory?)"
        );
        assert!(message("state.in-memory", "v2").starts_with("couldn't find state store state.in-memory/v2"));
        assert!(message("redis", "v1").starts_with("incorrect type \"redis\""));
        assert!(message("stat.redis", "v1").starts_with("incorrect type"));
    }
}
