//! Replacing secret references by their values, without I/O.

use std::{borrow::Cow, fmt};

use crate::{dynamic_value::DynamicValue, resource::DaprResource, shared::NameValuePair};

/// How a kind takes values from Secrets; fixed by what stock sidecars expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretRules {
    encoding: Encoding,
    missing_key: MissingKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Base64,
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MissingKey {
    /// The value stays as it was.
    Keep,
    /// The value becomes `null`.
    Unset,
    /// Upstream fails the whole call.
    Fail,
}

impl SecretRules {
    /// Component.
    pub const BASE64_OR_KEEP: Self = Self {
        encoding: Encoding::Base64,
        missing_key: MissingKey::Keep,
    };
    /// HTTPEndpoint and MCPServer.
    pub const BASE64_OR_UNSET: Self = Self {
        encoding: Encoding::Base64,
        missing_key: MissingKey::Unset,
    };
    /// Configuration, which also insists on a key.
    pub const TEXT_OR_FAIL: Self = Self {
        encoding: Encoding::Text,
        missing_key: MissingKey::Fail,
    };

    /// The key that is looked up. For most kinds an empty one means the Secret's name.
    pub fn key<'a>(self, secret: &SecretUse<'a>) -> Option<&'a str> {
        match (secret.key, self.missing_key) {
            ("", MissingKey::Fail) => None,
            ("", _) => Some(secret.name),
            (key, _) => Some(key),
        }
    }

    fn look_up(self, secret: SecretUse<'_>, lookup: &dyn Fn(&str, &str) -> Lookup) -> Result<Vec<u8>, Unresolved> {
        let key = self.key(&secret);
        let cause = match key.map(|key| lookup(secret.name, key)) {
            Some(Lookup::Found(bytes)) => return Ok(bytes),
            Some(Lookup::NoSuchKey) => Cause::NoSuchKey,
            Some(Lookup::NoSuchSecret) => Cause::NoSuchSecret,
            None => Cause::NoKeyNamed,
        };
        Err(Unresolved {
            fatal: cause != Cause::NoSuchKey || self.missing_key == MissingKey::Fail,
            item: secret.item.to_owned(),
            secret: secret.name.to_owned(),
            key: key.unwrap_or_default().to_owned(),
            field: secret.field,
            cause,
        })
    }

    fn value(self, bytes: &[u8]) -> DynamicValue {
        match self.encoding {
            Encoding::Base64 => DynamicValue::base64(bytes),
            Encoding::Text => DynamicValue::string(&String::from_utf8_lossy(bytes)),
        }
    }
}

/// A reference to a Secret in an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse<'a> {
    /// Path of the field that takes the value, such as `spec.metadata[2]`.
    pub field: String,
    /// What the value is for: the name of the header or property.
    pub item: &'a str,
    /// Name of the Secret.
    pub name: &'a str,
    /// Key as written, possibly empty.
    pub key: &'a str,
}

/// What a lookup of a key in a Secret found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Found(Vec<u8>),
    NoSuchKey,
    NoSuchSecret,
}

/// An object with its secrets filled in, and what was missing.
#[derive(Clone, Debug)]
pub struct Resolved<'a, K: DaprResource> {
    /// Borrowed when there was nothing to fill in.
    pub object: Cow<'a, K>,
    pub unresolved: Vec<Unresolved>,
}

/// A reference that could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// Path of the field, such as `spec.metadata[2]`.
    pub field: String,
    /// Name of the header or property.
    pub item: String,
    pub secret: String,
    /// The key that was looked up.
    pub key: String,
    pub cause: Cause,
    /// Whether upstream fails a sidecar's whole call over it, instead of sending the object without the value.
    pub fatal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    NoSuchSecret,
    NoSuchKey,
    /// The reference names no key where one is needed.
    NoKeyNamed,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): ", self.field, self.item)?;
        match self.cause {
            Cause::NoSuchSecret => write!(f, "Secret {:?} does not exist", self.secret),
            Cause::NoSuchKey => write!(f, "Secret {:?} has no key {:?}", self.secret, self.key),
            Cause::NoKeyNamed => write!(f, "secretKeyRef names Secret {:?} but no key", self.secret),
        }
    }
}

/// The references of an object that have to lead somewhere and do not. `lookup` is that of [`resolve`].
pub fn unresolved<K: DaprResource>(object: &K, lookup: &dyn Fn(&str, &str) -> Lookup) -> Vec<Unresolved> {
    let refs = object.checked_refs().into_iter();
    refs.filter_map(|secret| K::SECRET_RULES.look_up(secret, lookup).err())
        .collect()
}

/// Fills in the values of every reference that the operator is responsible for. `lookup` takes the name of a Secret in
/// the object's namespace and a key of its data.
pub fn resolve<'a, K: DaprResource>(object: &'a K, lookup: &dyn Fn(&str, &str) -> Lookup) -> Resolved<'a, K> {
    let rules = K::SECRET_RULES;
    let mut unresolved = Vec::new();
    let values: Vec<Option<DynamicValue>> = object
        .secret_refs()
        .into_iter()
        .map(|secret| match rules.look_up(secret, lookup) {
            Ok(bytes) => Some(rules.value(&bytes)),
            Err(missing) => {
                let unset = missing.cause == Cause::NoSuchKey && rules.missing_key == MissingKey::Unset;
                unresolved.push(missing);
                unset.then(DynamicValue::null)
            }
        })
        .collect();
    if values.iter().all(Option::is_none) {
        return Resolved {
            object: Cow::Borrowed(object),
            unresolved,
        };
    }
    let mut filled = object.clone();
    for (slot, value) in filled.secret_values_mut().into_iter().zip(values) {
        if value.is_some() {
            *slot = value;
        }
    }
    Resolved {
        object: Cow::Owned(filled),
        unresolved,
    }
}

/// The references in a list of pairs; those without a name are unset ones.
pub(crate) fn refs_in<'a>(field: &str, pairs: &'a [NameValuePair]) -> Vec<SecretUse<'a>> {
    let referring = pairs.iter().enumerate();
    referring
        .filter_map(|(index, pair)| {
            pair.secret().map(|secret| SecretUse {
                field: format!("{field}[{index}]"),
                item: &pair.name,
                name: &secret.name,
                key: secret.key(),
            })
        })
        .collect()
}

/// The values beside the references that [`refs_in`] finds.
pub(crate) fn values_in(pairs: Option<&mut [NameValuePair]>) -> Vec<&mut Option<DynamicValue>> {
    pairs
        .unwrap_or_default()
        .iter_mut()
        .filter(|pair| pair.secret().is_some())
        .map(|pair| &mut pair.value)
        .collect()
}

#[cfg(test)]
mod tests;
