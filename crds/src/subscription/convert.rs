//! Conversion of a Subscription between its versions, on JSON text: what the two versions share, known to this build or not,
//! comes out as it went in.
//!
//! `v1alpha1` has one route, `v2alpha1` rules and a default route. Rules are kept in an annotation of the `v1alpha1` object,
//! so that neither reading nor editing in that version loses them; upstream drops them. Unset fields that upstream's
//! converter writes are written: names that the schema requires, the route or routes, and `bulkSubscribe`.

use std::{collections::BTreeMap, str::FromStr};

use outrigger_core::text::shortened;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use super::{v1alpha1, v2alpha1};
use crate::{
    checks,
    resource::{DaprResource, GROUP},
    rules::rejections::Bound,
};

/// On a `v1alpha1` object: `spec.routes` of the `v2alpha1` object without its default, as a JSON object.
///
/// Converting to `v2alpha1` removes it. `spec.route` is the default route, whatever the annotation says of one. What is no
/// such object (somebody edited it) is left alone and means nothing: reading never fails for it. Rules that `v2alpha1` refuses
/// are refused here too, where nothing else looks at them.
///
/// A round trip loses two things that mean nothing: an empty default route of a `v2alpha1` object, and this annotation on one.
pub const ROUTES_ANNOTATION: &str = "dapr.io/v2alpha1-routes";

/// In place of routes that do not fit into an annotation. Read as `v1alpha1` the object shows the rest of itself; written so,
/// it would lose its rules, and is refused.
pub const OMITTED_ROUTES: &str = "too long to be shown here: edit this Subscription as dapr.io/v2alpha1";

/// The API server's limit on all annotations of an object together, names and values.
const MAX_ANNOTATIONS: usize = 256 * 1024;
/// What a message quotes of a value, in bytes.
const MAX_QUOTE: usize = 60;

/// A version of Subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1Alpha1,
    V2Alpha1,
}

impl Version {
    /// As in metrics, without the group.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1Alpha1 => v1alpha1::Subscription::VERSION,
            Self::V2Alpha1 => v2alpha1::Subscription::VERSION,
        }
    }

    /// `dapr.io/<version>`.
    pub fn api_version(self) -> String {
        format!("{GROUP}/{}", self.name())
    }
}

/// An API version that Subscription does not have.
#[derive(Debug, thiserror::Error)]
#[error("found {0:?}, expected \"dapr.io/v1alpha1\" or \"dapr.io/v2alpha1\"")]
pub struct UnknownVersion(String);

impl FromStr for Version {
    type Err = UnknownVersion;

    /// From `dapr.io/<version>`.
    fn from_str(api_version: &str) -> Result<Self, UnknownVersion> {
        let mut versions = [Self::V1Alpha1, Self::V2Alpha1].into_iter();
        versions
            .find(|version| version.api_version() == api_version)
            .ok_or_else(|| UnknownVersion(quote(api_version)))
    }
}

/// Which object cannot be converted, and why.
#[derive(Debug, thiserror::Error)]
#[error("{object}: {reason}")]
pub struct ConvertError {
    /// `Subscription namespace/name`, as far as it can be read.
    object: String,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("{field}: found {found}, expected {expected}")]
    Unexpected {
        field: &'static str,
        found: String,
        expected: &'static str,
    },
    #[error("apiVersion: {0}")]
    Version(#[from] UnknownVersion),
    #[error("apiVersion: conversion is not allowed between same type: the object is {0} already")]
    Same(String),
    #[error(
        "metadata.annotations[{ROUTES_ANNOTATION}]: its routes are too long for dapr.io/v1alpha1, so this version can only be \
         read; edit it as dapr.io/v2alpha1"
    )]
    OmittedRoutes,
    #[error(
        "metadata.annotations[{ROUTES_ANNOTATION}]: {field}: found {found}, expected {expected}; edit it as dapr.io/v2alpha1"
    )]
    Rule {
        field: String,
        found: String,
        expected: String,
    },
}

/// What the annotation holds.
struct Kept {
    routes: Fields,
    /// The conditions of the rules.
    matches: Vec<String>,
}

/// The members of a JSON object.
type Fields = BTreeMap<String, Box<RawValue>>;

/// Converts an object to the other version.
///
/// # Errors
/// Names the object and the field: another kind or version, the version that the object has already, a field of another type
/// than the schema's, or [`OMITTED_ROUTES`] that are to be written.
pub fn convert(object: &RawValue, to: Version) -> Result<Box<RawValue>, ConvertError> {
    let converted = fields(Some(object), "the object").and_then(|object| members(object, to));
    converted.map(|members| raw(&members)).map_err(|reason| ConvertError {
        object: describe(object),
        reason,
    })
}

fn members(mut object: Fields, to: Version) -> Result<Fields, Reason> {
    let kind = text(get(&object, "kind"), "kind")?.unwrap_or_default();
    if kind != v2alpha1::Subscription::KIND {
        return Err(Reason::Unexpected {
            field: "kind",
            found: format!("{:?}", quote(&kind)),
            expected: "\"Subscription\"",
        });
    }
    let from: Version = text(get(&object, "apiVersion"), "apiVersion")?
        .unwrap_or_default()
        .parse()?;
    if from == to {
        return Err(Reason::Same(to.api_version()));
    }
    let mut spec = fields(get(&object, "spec"), "spec")?;
    let mut metadata = fields(get(&object, "metadata"), "metadata")?;
    let mut annotations: BTreeMap<String, String> = parse(
        get(&metadata, "annotations"),
        "metadata.annotations",
        "an object of strings",
    )?;
    let changed = match to {
        Version::V1Alpha1 => to_v1(&mut spec, &mut annotations)?,
        Version::V2Alpha1 => to_v2(&mut spec, &mut annotations)?,
    };
    if changed {
        if annotations.is_empty() {
            metadata.remove("annotations");
        } else {
            metadata.insert("annotations".into(), raw(&annotations));
        }
        object.insert("metadata".into(), raw(&metadata));
    }
    for name in ["pubsubname", "topic"] {
        fill(&mut spec, name, &"");
    }
    fill(&mut spec, "bulkSubscribe", &super::BulkSubscribe::default());
    object.insert("spec".into(), raw(&spec));
    object.insert("apiVersion".into(), raw(&to.api_version()));
    Ok(object)
}

/// Tells whether the annotations changed.
fn to_v2(spec: &mut Fields, annotations: &mut BTreeMap<String, String>) -> Result<bool, Reason> {
    let kept = annotations.get(ROUTES_ANNOTATION);
    if kept.is_some_and(|kept| kept == OMITTED_ROUTES) {
        return Err(Reason::OmittedRoutes);
    }
    let kept = kept.and_then(|kept| kept_routes(kept));
    let changed = kept.is_some();
    let mut routes = Fields::new();
    if let Some(kept) = kept {
        check(&kept.matches)?;
        annotations.remove(ROUTES_ANNOTATION);
        routes = kept.routes;
    }
    let route = text(get(spec, "route"), "spec.route")?.unwrap_or_default();
    spec.remove("route");
    if route.is_empty() {
        routes.remove("default");
    } else {
        routes.insert("default".into(), raw(&route));
    }
    spec.insert("routes".into(), raw(&routes));
    Ok(changed)
}

/// Tells whether the annotations changed.
fn to_v1(spec: &mut Fields, annotations: &mut BTreeMap<String, String>) -> Result<bool, Reason> {
    let mut routes = fields(get(spec, "routes"), "spec.routes")?;
    spec.remove("routes");
    let route = text(get(&routes, "default"), "spec.routes.default")?.unwrap_or_default();
    spec.insert("route".into(), raw(&route));
    routes.remove("default");
    routes.retain(|_, value| !is_null(value));
    let old = annotations.get(ROUTES_ANNOTATION);
    if routes.is_empty() {
        // One that came from elsewhere must not come into force on the way back.
        let stale = old.is_some_and(|old| old == OMITTED_ROUTES || kept_routes(old).is_some());
        return Ok(stale && annotations.remove(ROUTES_ANNOTATION).is_some());
    }
    annotations.insert(ROUTES_ANNOTATION.into(), raw(&routes).get().to_owned());
    let size: usize = annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MAX_ANNOTATIONS {
        annotations.insert(ROUTES_ANNOTATION.into(), OMITTED_ROUTES.into());
    }
    Ok(true)
}

/// What the annotation holds, if it is what [`to_v1`] may have written: anything else would be stored although the schema
/// forbids it.
fn kept_routes(text: &str) -> Option<Kept> {
    let routes: Fields = serde_json::from_str(text).ok()?;
    let rules: Vec<Fields> = match routes.get("rules") {
        Some(rules) => serde_json::from_str(rules.get()).ok()?,
        None => Vec::new(),
    };
    let text = |rule: &Fields, name| serde_json::from_str::<String>(rule.get(name)?.get()).ok();
    let matches = rules.iter().map(|rule| text(rule, "path").and(text(rule, "match")));
    let matches = matches.collect::<Option<_>>()?;
    (!routes.is_empty()).then_some(Kept { routes, matches })
}

/// What is refused in a `v2alpha1` object, which the API server checks in the version that was written only.
fn check(matches: &[String]) -> Result<(), Reason> {
    const MATCH: &str = "an expression of CEL, such as event.type == \"order.created\"";
    let bound = |field| Bound::of(v2alpha1::Subscription::KIND, field).unwrap_or(usize::MAX);
    let (most, longest) = (bound("spec.routes.rules"), bound("spec.routes.rules[].match"));
    if matches.len() > most {
        return Err(Reason::Rule {
            field: "rules".into(),
            found: matches.len().to_string(),
            expected: format!("{most} at most"),
        });
    }
    for (index, text) in matches.iter().enumerate() {
        let expected = match &**text {
            text if text.chars().count() > longest => format!("{longest} characters at most"),
            text if !checks::is_match(text) => MATCH.to_owned(),
            _ => continue,
        };
        return Err(Reason::Rule {
            field: format!("rules[{index}].match"),
            found: format!("{:?}", quote(text)),
            expected,
        });
    }
    Ok(())
}

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

fn get<'a>(fields: &'a Fields, name: &str) -> Option<&'a RawValue> {
    fields.get(name).map(AsRef::as_ref)
}

/// Sets a field that is not set.
fn fill(fields: &mut Fields, name: &str, value: &impl Serialize) {
    if fields.get(name).is_none_or(|found| is_null(found)) {
        fields.insert(name.into(), raw(value));
    }
}

/// No value, and `null`, is an object without members.
fn fields(value: Option<&RawValue>, field: &'static str) -> Result<Fields, Reason> {
    parse(value, field, "an object")
}

fn text(value: Option<&RawValue>, field: &'static str) -> Result<Option<String>, Reason> {
    parse(value, field, "a string")
}

fn parse<T: DeserializeOwned + Default>(
    value: Option<&RawValue>,
    field: &'static str,
    expected: &'static str,
) -> Result<T, Reason> {
    let Some(value) = value.filter(|value| !is_null(value)) else {
        return Ok(T::default());
    };
    serde_json::from_str(value.get()).map_err(|_| Reason::Unexpected {
        field,
        found: quote(value.get()),
        expected,
    })
}

fn raw(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("texts and objects with text keys are JSON")
}

fn quote(text: &str) -> String {
    shortened(text.to_owned(), MAX_QUOTE)
}

fn describe(object: &RawValue) -> String {
    let object: Value = serde_json::from_str(object.get()).unwrap_or_default();
    let text = |pointer| {
        let text = object.pointer(pointer).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(quote)
    };
    let kind = text("/kind").unwrap_or_else(|| "object".to_owned());
    let name = text("/metadata/name").unwrap_or_else(|| "without a name".to_owned());
    match text("/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

#[cfg(test)]
mod tests;
