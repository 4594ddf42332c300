//! State stores: the interface that every store type implements. What the API adds (key prefixes, error texts) is in `api`.

pub mod api;
pub mod in_memory;
pub mod keys;

use std::{any::Any, collections::HashMap};

use bytes::Bytes;
use futures::future::BoxFuture;

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Someone else changed the item: the caller reads it again.
    #[error("possible etag mismatch. error from state store: {0}")]
    EtagMismatch(String),
    #[error("invalid etag value: {0}")]
    #[allow(
        dead_code,
        reason = "the in-memory store accepts every text; stores with numeric etags do not"
    )]
    EtagInvalid(String),
    #[error("{0}")]
    Other(String),
}

/// What a store type can do, as the metadata API lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    pub etag: bool,
    pub transactional: bool,
    pub ttl: bool,
}

/// A stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub value: Bytes,
    pub etag: Option<String>,
    /// When it expires, in RFC 3339.
    pub expires: Option<String>,
}

/// A value to store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    pub key: String,
    pub value: Bytes,
    /// Only replace the item that has this etag.
    pub etag: Option<String>,
    /// Without an etag: only store when there is no such item.
    pub first_write: bool,
    pub metadata: HashMap<String, String>,
}

/// A key to remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delete {
    pub key: String,
    pub etag: Option<String>,
    pub first_write: bool,
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Set(Set),
    Delete(Delete),
}

/// A state store. Dropping the last reference closes it.
pub trait Store: Any + Send + Sync {
    fn features(&self) -> Features;

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Item>, Error>>;

    fn set(&self, set: Set) -> BoxFuture<'_, Result<(), Error>>;

    /// Removing what is not there succeeds.
    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<(), Error>>;

    /// All operations or none.
    fn transact(&self, operations: Vec<Operation>) -> BoxFuture<'_, Result<(), Error>>;
}

impl Features {
    pub fn names(self) -> Vec<String> {
        // Actors need both.
        let actor = self.etag && self.transactional;
        [
            (self.etag, "ETAG"),
            (self.transactional, "TRANSACTIONAL"),
            (self.ttl, "TTL"),
            (actor, "ACTOR"),
        ]
        .into_iter()
        .filter(|(has, _)| *has)
        .map(|(_, name)| name.to_owned())
        .collect()
    }
}
