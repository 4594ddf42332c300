//! The JSON of an object as sidecars get it: what Go's `encoding/json` writes for upstream's types.

use std::io;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::ser::Formatter;

use crate::resource::DaprResource;

/// Why an object could not be encoded.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode {kind} {name:?} for sidecars")]
pub struct EncodeError {
    kind: &'static str,
    name: String,
    #[source]
    source: serde_json::Error,
}

/// Encodes an object for sidecars, with `kind` and `apiVersion` if `type_meta` is set.
///
/// The status and the managed fields are left out: sidecars use neither, and a change in them must not look like a
/// change of the object. The same object always gives the same bytes.
///
/// # Errors
/// None for objects that were decoded; the encoder's own are passed on.
pub fn encode<K: DaprResource>(object: &K, type_meta: bool) -> Result<Vec<u8>, EncodeError> {
    let mut json = Vec::with_capacity(512);
    let document = Document {
        object,
        type_meta,
        for_sidecars: true,
    };
    match document.serialize(&mut serde_json::Serializer::with_formatter(&mut json, GoFormatter)) {
        Ok(()) => Ok(json),
        Err(source) => Err(EncodeError {
            kind: K::KIND,
            name: object.meta().name.clone().unwrap_or_default(),
            source,
        }),
    }
}

/// The members of an object at the top level.
pub(crate) struct Document<'a, K> {
    object: &'a K,
    type_meta: bool,
    for_sidecars: bool,
}

impl<'a, K> Document<'a, K> {
    /// Everything, in the same spelling: API servers take what Go clients send them.
    pub(crate) fn for_api_server(object: &'a K) -> Self {
        Self {
            object,
            type_meta: true,
            for_sidecars: false,
        }
    }
}

impl<K: DaprResource> Serialize for Document<'_, K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object = self.object;
        let mut map = serializer.serialize_map(None)?;
        if self.type_meta {
            map.serialize_entry("kind", K::KIND)?;
            map.serialize_entry("apiVersion", &K::api_version_text())?;
        }
        let metadata = Metadata {
            meta: object.meta(),
            managed_fields: !self.for_sidecars,
        };
        map.serialize_entry("metadata", &metadata)?;
        map.serialize_entry("spec", object.spec())?;
        if let Some(auth) = object.auth() {
            map.serialize_entry("auth", auth)?;
        }
        if !object.scopes().is_empty() {
            map.serialize_entry("scopes", object.scopes())?;
        }
        if let Some(status) = object.status().filter(|_| !self.for_sidecars) {
            map.serialize_entry("status", status)?;
        }
        map.end()
    }
}

/// Object metadata: everything unset is left out, except that an unset creation time is `null`.
struct Metadata<'a> {
    meta: &'a ObjectMeta,
    managed_fields: bool,
}

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Taken apart, so that a field that a later version adds is not forgotten here.
        let ObjectMeta {
            annotations,
            creation_timestamp,
            deletion_grace_period_seconds,
            deletion_timestamp,
            finalizers,
            generate_name,
            generation,
            labels,
            managed_fields,
            name,
            namespace,
            owner_references,
            resource_version,
            self_link,
            uid,
        } = self.meta;
        let mut map = serializer.serialize_map(None)?;
        text(&mut map, "name", name)?;
        text(&mut map, "generateName", generate_name)?;
        text(&mut map, "namespace", namespace)?;
        text(&mut map, "selfLink", self_link)?;
        text(&mut map, "uid", uid)?;
        text(&mut map, "resourceVersion", resource_version)?;
        set(
            &mut map,
            "generation",
            generation.as_ref().filter(|&&generation| generation != 0),
        )?;
        map.serialize_entry("creationTimestamp", creation_timestamp)?;
        set(&mut map, "deletionTimestamp", deletion_timestamp.as_ref())?;
        set(
            &mut map,
            "deletionGracePeriodSeconds",
            deletion_grace_period_seconds.as_ref(),
        )?;
        set(&mut map, "labels", labels.as_ref().filter(|labels| !labels.is_empty()))?;
        set(
            &mut map,
            "annotations",
            annotations.as_ref().filter(|all| !all.is_empty()),
        )?;
        let owners = owner_references.as_ref().filter(|all| !all.is_empty());
        let owners: Option<Vec<_>> = owners.map(|all| all.iter().map(Owner::new).collect());
        set(&mut map, "ownerReferences", owners.as_ref())?;
        set(
            &mut map,
            "finalizers",
            finalizers.as_ref().filter(|all| !all.is_empty()),
        )?;
        set(
            &mut map,
            "managedFields",
            managed_fields.as_ref().filter(|_| self.managed_fields),
        )?;
        map.end()
    }
}

/// A reference to an owner, its members in the order of Go's type.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Owner<'a> {
    api_version: &'a str,
    kind: &'a str,
    name: &'a str,
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    controller: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_owner_deletion: Option<bool>,
}

impl<'a> Owner<'a> {
    fn new(reference: &'a OwnerReference) -> Self {
        let OwnerReference {
            api_version,
            block_owner_deletion,
            controller,
            kind,
            name,
            uid,
        } = reference;
        Self {
            api_version,
            kind,
            name,
            uid,
            controller: *controller,
            block_owner_deletion: *block_owner_deletion,
        }
    }
}

fn text<M: SerializeMap>(map: &mut M, key: &'static str, value: &Option<String>) -> Result<(), M::Error> {
    set(map, key, value.as_ref().filter(|text| !text.is_empty()))
}

fn set<M: SerializeMap, T: Serialize>(map: &mut M, key: &'static str, value: Option<&T>) -> Result<(), M::Error> {
    match value {
        Some(value) => map.serialize_entry(key, value),
        None => Ok(()),
    }
}

/// Escapes what Go escapes to keep JSON harmless inside HTML, also within raw values.
struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        escape_html(writer, fragment)
    }

    /// These characters occur in JSON text inside strings only.
    fn write_raw_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        escape_html(writer, fragment)
    }
}

fn escape_html<W: ?Sized + io::Write>(writer: &mut W, text: &str) -> io::Result<()> {
    let mut rest = text;
    while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        let (plain, special) = rest.split_at(at);
        writer.write_all(plain.as_bytes())?;
        let mut chars = special.chars();
        if let Some(c) = chars.next() {
            write!(writer, "\\u{:04x}", u32::from(c))?;
        }
        rest = chars.as_str();
    }
    writer.write_all(rest.as_bytes())
}

#[cfg(test)]
mod tests;
