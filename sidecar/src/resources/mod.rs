//! Resources as the sidecar reads them: lean types, where they come from, which of them are for this application.

pub mod authorise;
pub mod component;
pub mod configuration;
pub mod disk;
pub mod reconcile;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

/// Group and version of the kinds read here.
pub const API_VERSION: &str = "dapr.io/v1alpha1";

/// Why a resource cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub struct DecodeError {
    /// Where in the document, for example `spec.metadata[0].name`.
    path: String,
    error: serde_json::Error,
}

fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, DecodeError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| DecodeError {
        path: error.path().to_string(),
        error: error.into_inner(),
    })
}

/// Go writes empty lists and maps as `null`.
fn null_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(reader: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(reader).map(Option::unwrap_or_default)
}

/// What all kinds have in common.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
    #[serde(deserialize_with = "null_as_default")]
    metadata: Meta,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    name: String,
    #[serde(deserialize_with = "null_as_default")]
    namespace: String,
    #[serde(deserialize_with = "null_as_default")]
    generation: i64,
    #[serde(deserialize_with = "null_as_default")]
    resource_version: String,
}

/// Which state of an object in the API server something is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revision {
    /// 0 for what does not come from there.
    pub generation: i64,
    pub resource_version: String,
}

/// Name and revision of an object of which perhaps no more can be read.
pub fn identify(json: &[u8]) -> Option<(String, Revision)> {
    let Head { metadata, .. } = decode(json).ok()?;
    let revision = Revision {
        generation: metadata.generation,
        resource_version: metadata.resource_version,
    };
    (!metadata.name.is_empty()).then_some((metadata.name, revision))
}
