//! Reading objects from the API server so that one bad object spoils nothing else.

mod message;

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::{
    go, raw,
    status::{self, Status},
};

/// An object, or why it could not be read: use it as `Api<Guarded<Component>>`.
///
/// It takes the object's text out of the list or watch event and reads it apart from the rest, so an object that does
/// not fit (a duration that is none, say) leaves the others and the watch alone. kube's `DeserializeGuard` goes through
/// a buffer of parsed values, in which the text of a [`DynamicValue`](crate::DynamicValue) would be lost; here it
/// survives, since both of kube's envelopes hand serde_json's own deserializer through to the object: the items of an
/// `ObjectList` are no part of what it flattens, and in a `WatchEvent` the tag precedes the object, as every API server
/// writes it. From an event with the object first the values arrive equal, but spelled anew.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, InvalidObject>);

/// An object that could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct InvalidObject {
    /// What is wrong: the field, what was found and what was expected. Never longer than about a thousand characters.
    pub error: String,
    /// Metadata of the object, empty if that is what cannot be read.
    pub metadata: Box<ObjectMeta>,
    /// Status of the object, as far as it can be read.
    pub status: Option<Status>,
}

/// Reads an object from JSON text.
///
/// # Errors
/// Names the field, what was found and what was expected.
pub fn decode<K: DeserializeOwned>(json: &str) -> Result<K, InvalidObject> {
    serde_json::from_str(json).map_err(|plain| {
        // Tracking paths costs time, so only a second look does.
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let error = match serde_path_to_error::deserialize::<_, K>(&mut deserializer) {
            Err(error) => message::describe(&error.path().to_string(), error.inner()),
            Ok(_) => message::describe("", &plain),
        };
        let Frame { metadata, status } = serde_json::from_str(json).unwrap_or_default();
        InvalidObject {
            error,
            metadata: Box::new(metadata),
            status,
        }
    })
}

/// What every object has around its own fields.
#[derive(Default, Deserialize)]
struct Frame {
    #[serde(default, deserialize_with = "go::nullable")]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "status::readable")]
    status: Option<Status>,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(decode(raw::capture(deserializer)?.get())))
    }
}

impl<K: kube::Resource> kube::Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(invalid) => &invalid.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(invalid) => &mut invalid.metadata,
        }
    }
}

#[cfg(test)]
mod tests;
