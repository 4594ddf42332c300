//! How Go's `encoding/json` treats a field, as serde attributes.
//!
//! Sidecars compare what they are sent field by field with what they had, so whether an unset field is left out, `null`
//! or a zero value is part of the wire format. The types of this crate spell it out on each field:
//!
//! | unset is sent as | a field the schema requires | an optional field |
//! |---|---|---|
//! | its zero value | a plain type | `Option` with `serialize_with = "go::always"` |
//! | `null` | `Option` and `#[schemars(required)]` | `Option` |
//! | nothing, and an empty value neither | | `Option` with `skip_serializing_if = "go::omitted"` |
//! | nothing, but an empty value is sent | | `Option` with `skip_serializing_if = "Option::is_none"` |
//!
//! Fields stand in the order of upstream's types. Receivers do not mind it, but so the same bytes come out, which is the
//! easiest thing to check.
//!
//! Reading is as lenient as Go's: unknown fields are ignored, and `null` or an absent field is an unset one, also where
//! the schema requires it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `null` reads as the zero value.
pub(crate) fn nullable<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An unset field is written as its zero value.
pub(crate) fn always<T, S>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error>
where
    T: Default + Serialize,
    S: Serializer,
{
    match value {
        Some(value) => value.serialize(serializer),
        None => T::default().serialize(serializer),
    }
}

/// Whether `omitempty` drops the field.
pub(crate) fn omitted<T: Empty>(value: &Option<T>) -> bool {
    value.as_ref().is_none_or(Empty::is_empty)
}

/// What `omitempty` calls empty.
pub(crate) trait Empty {
    fn is_empty(&self) -> bool;
}

impl Empty for String {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl Empty for bool {
    fn is_empty(&self) -> bool {
        !*self
    }
}

impl Empty for i32 {
    fn is_empty(&self) -> bool {
        *self == 0
    }
}

impl Empty for i64 {
    fn is_empty(&self) -> bool {
        *self == 0
    }
}

impl<T> Empty for Vec<T> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Empty for BTreeMap<K, V> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}
