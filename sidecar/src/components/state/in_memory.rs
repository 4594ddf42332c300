//! `state.in-memory`: a map in this process, for development, tests and demonstrations. The data is lost when the sidecar ends.

use std::{
    any::Any,
    collections::{HashMap, hash_map::Entry as MapEntry},
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use parking_lot::RwLock;
use tokio::time::Instant;

use super::{Delete, Error, Features, Item, Operation, Set, Store};

/// Time between removals of expired items. Readers never see an expired item: this only gives its memory back.
const SWEEP: Duration = Duration::from_secs(30);
/// Metadata that limits the life of an item, in whole seconds; 0 or less is for ever.
const TTL: &str = "ttlInSeconds";

/// The store; clones of its data live on in the instance that replaces it.
pub struct InMemory {
    items: Arc<Items>,
}

struct Items {
    map: RwLock<HashMap<String, Entry>>,
    /// Etags are drawn from here. A random start keeps an etag from before a restart from matching by accident.
    next_etag: std::sync::atomic::AtomicU64,
}

struct Entry {
    value: Bytes,
    etag: u64,
    expires: Option<(Instant, SystemTime)>,
}

// === impl InMemory ===

impl InMemory {
    /// A store that goes on with the data of `previous` when that is of the same type: a change of settings must not lose data.
    pub fn new(previous: Option<&dyn Store>) -> Self {
        let previous: Option<&dyn Any> = previous.map(|store| store as &dyn Any);
        if let Some(previous) = previous.and_then(|store| store.downcast_ref::<Self>()) {
            return Self {
                items: previous.items.clone(),
            };
        }
        let (start, _) = uuid::Uuid::new_v4().as_u64_pair();
        let items = Arc::new(Items {
            map: RwLock::default(),
            next_etag: start.into(),
        });
        tokio::spawn(sweep(Arc::downgrade(&items)));
        Self { items }
    }
}

impl Store for InMemory {
    fn features(&self) -> Features {
        Features {
            etag: true,
            transactional: true,
            ttl: true,
        }
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Item>, Error>> {
        async move { Ok(self.items.get(key)) }.boxed()
    }

    fn set(&self, set: Set) -> BoxFuture<'_, Result<(), Error>> {
        self.transact(vec![Operation::Set(set)])
    }

    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<(), Error>> {
        self.transact(vec![Operation::Delete(delete)])
    }

    fn transact(&self, operations: Vec<Operation>) -> BoxFuture<'_, Result<(), Error>> {
        async move { self.items.transact(operations) }.boxed()
    }
}

// === impl Items ===

impl Items {
    fn get(&self, key: &str) -> Option<Item> {
        let map = self.map.read();
        let entry = map.get(key).filter(|entry| entry.alive())?;
        Some(Item {
            value: entry.value.clone(),
            etag: Some(etag_text(entry.etag)),
            expires: entry
                .expires
                .and_then(|(_, at)| jiff::Timestamp::try_from(at).ok())
                .map(|at| format!("{at:.0}")),
        })
    }

    /// All checks are made before the first change, under one lock.
    fn transact(&self, operations: Vec<Operation>) -> Result<(), Error> {
        let lives = operations.iter().map(life).collect::<Result<Vec<_>, _>>()?;
        let mut map = self.map.write();
        for operation in &operations {
            check(&map, operation)?;
        }
        for (operation, life) in operations.into_iter().zip(lives) {
            match operation {
                Operation::Delete(delete) => {
                    map.remove(&delete.key);
                }
                Operation::Set(set) => {
                    let etag = self.next_etag.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    // Too far in the future to be represented is for ever.
                    let expires = life.and_then(|life| {
                        Some((Instant::now().checked_add(life)?, SystemTime::now().checked_add(life)?))
                    });
                    let entry = Entry {
                        value: set.value,
                        etag,
                        expires,
                    };
                    match map.entry(set.key) {
                        MapEntry::Occupied(mut old) => drop(old.insert(entry)),
                        MapEntry::Vacant(free) => drop(free.insert(entry)),
                    }
                }
            }
        }
        Ok(())
    }
}

impl Entry {
    fn alive(&self) -> bool {
        self.expires.is_none_or(|(at, _)| Instant::now() < at)
    }
}

fn etag_text(etag: u64) -> String {
    format!("{etag:016x}")
}

fn check(map: &HashMap<String, Entry>, operation: &Operation) -> Result<(), Error> {
    let (key, etag, first_write) = match operation {
        Operation::Set(set) => (&set.key, &set.etag, set.first_write),
        Operation::Delete(delete) => (&delete.key, &delete.etag, delete.first_write),
    };
    let current = map.get(key).filter(|entry| entry.alive());
    match (etag.as_deref().filter(|etag| !etag.is_empty()), current) {
        (Some(_), None) => Err(Error::EtagMismatch(format!(
            "state does not exist or has expired for key={key}"
        ))),
        (Some(etag), Some(entry)) if etag_text(entry.etag) != etag => {
            Err(Error::EtagMismatch(format!("state etag does not match for key={key}")))
        }
        (None, Some(_)) if first_write => Err(Error::EtagMismatch(format!(
            "item already exists and no etag was passed for key={key}"
        ))),
        _ => Ok(()),
    }
}

/// How long a value lives; `None` is for ever.
fn life(operation: &Operation) -> Result<Option<Duration>, Error> {
    let Operation::Set(set) = operation else {
        return Ok(None);
    };
    let Some(text) = set.metadata.get(TTL).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let seconds: i64 = text
        .parse()
        .map_err(|_| Error::Other(format!("{TTL} is {text:?} for key={}, expected whole seconds", set.key)))?;
    Ok(u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs))
}

/// Ends with the last instance that uses the items.
async fn sweep(items: Weak<Items>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(items) = items.upgrade() else { return };
        let any_expired = items.map.read().values().any(|entry| !entry.alive());
        if any_expired {
            items.map.write().retain(|_, entry| entry.alive());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: &'static str) -> Set {
        Set {
            key: key.into(),
            value: value.into(),
            ..Set::default()
        }
    }

    async fn value(store: &InMemory, key: &str) -> Option<Bytes> {
        store.get(key).await.unwrap().map(|item| item.value)
    }

    #[tokio::test]
    async fn an_etag_guards_against_lost_updates() {
        let store = InMemory::new(None);
        store.set(set("k", "1")).await.unwrap();
        let etag = store.get("k").await.unwrap().unwrap().etag;
        store
            .set(Set {
                etag: etag.clone(),
                ..set("k", "2")
            })
            .await
            .unwrap();
        let late = store
            .set(Set {
                etag: etag.clone(),
                ..set("k", "3")
            })
            .await;
        assert!(matches!(late, Err(Error::EtagMismatch(_))));
        let late = store
            .delete(Delete {
                key: "k".into(),
                etag,
                ..Delete::default()
            })
            .await;
        assert!(matches!(late, Err(Error::EtagMismatch(_))));
        assert_eq!(value(&store, "k").await.unwrap(), "2");
        store.set(set("k", "4")).await.unwrap();
        assert_eq!(
            value(&store, "k").await.unwrap(),
            "4",
            "without an etag the last write wins"
        );
    }

    #[tokio::test]
    async fn first_write_stores_only_what_is_new() {
        let store = InMemory::new(None);
        store
            .set(Set {
                first_write: true,
                ..set("k", "1")
            })
            .await
            .unwrap();
        let second = store
            .set(Set {
                first_write: true,
                ..set("k", "2")
            })
            .await;
        assert!(matches!(second, Err(Error::EtagMismatch(_))));
        let absent = store
            .set(Set {
                etag: Some("x".into()),
                ..set("new", "1")
            })
            .await;
        assert!(matches!(absent, Err(Error::EtagMismatch(_))));
    }

    #[tokio::test]
    async fn a_transaction_is_all_or_nothing() {
        let store = InMemory::new(None);
        store.set(set("a", "1")).await.unwrap();
        let bad = vec![
            Operation::Set(set("b", "2")),
            Operation::Delete(Delete {
                key: "a".into(),
                etag: Some("wrong".into()),
                ..Delete::default()
            }),
        ];
        assert!(store.transact(bad).await.is_err());
        assert_eq!(
            (value(&store, "a").await.unwrap(), value(&store, "b").await),
            (Bytes::from("1"), None)
        );
        let good = vec![
            Operation::Set(set("b", "2")),
            Operation::Delete(Delete {
                key: "a".into(),
                ..Delete::default()
            }),
        ];
        store.transact(good).await.unwrap();
        assert_eq!(
            (value(&store, "a").await, value(&store, "b").await.unwrap()),
            (None, Bytes::from("2"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn items_expire_for_readers_at_once_and_from_memory_soon() {
        let store = InMemory::new(None);
        let ttl = |seconds: &str| HashMap::from([(TTL.to_owned(), seconds.to_owned())]);
        store
            .set(Set {
                metadata: ttl("10"),
                ..set("k", "1")
            })
            .await
            .unwrap();
        store
            .set(Set {
                metadata: ttl("-1"),
                ..set("ever", "1")
            })
            .await
            .unwrap();
        assert!(store.get("k").await.unwrap().unwrap().expires.unwrap().ends_with('Z'));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(value(&store, "k").await, None);
        store
            .set(Set {
                first_write: true,
                metadata: ttl("10"),
                ..set("k", "2")
            })
            .await
            .unwrap();
        tokio::time::sleep(SWEEP * 2).await;
        assert_eq!(store.items.map.read().keys().collect::<Vec<_>>(), ["ever"]);
        let error = store
            .set(Set {
                metadata: ttl("soon"),
                ..set("k", "1")
            })
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "ttlInSeconds is \"soon\" for key=k, expected whole seconds"
        );
    }

    #[tokio::test]
    async fn a_replacement_goes_on_with_the_data() {
        let old = InMemory::new(None);
        old.set(set("k", "1")).await.unwrap();
        let new = InMemory::new(Some(&old));
        // A request that still holds the old instance writes to the same data.
        old.set(set("late", "2")).await.unwrap();
        assert_eq!(
            (value(&new, "k").await.unwrap(), value(&new, "late").await.unwrap()),
            (Bytes::from("1"), Bytes::from("2"))
        );
    }
}
