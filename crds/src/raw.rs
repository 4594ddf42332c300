//! Taking a value out of a document as JSON text.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// The text of the value that `deserializer` stands at.
///
/// Straight from JSON text this is the very text. From a buffer, where only the parsed value is left (YAML, a
/// [`serde_json::Value`], serde's own buffers behind `flatten`, `untagged` and an adjacent tag that comes last), it is
/// that value written again: equal, but numbers are respelled and keys sorted.
pub(crate) fn capture<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<RawValue>, D::Error> {
    Box::<RawValue>::deserialize(OrBuffered(deserializer))
}

/// Intercepts the newtype by whose private name serde_json recognises a raw value.
struct OrBuffered<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for OrBuffered<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, RawOrBuffered { name, visitor })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct RawOrBuffered<V> {
    name: &'static str,
    visitor: V,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for RawOrBuffered<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    /// serde_json knows the name and hands out its text.
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(map)
    }

    /// Everybody else sees an ordinary newtype around the value.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        Value::deserialize(deserializer)?
            .deserialize_newtype_struct(self.name, self.visitor)
            .map_err(D::Error::custom)
    }
}
