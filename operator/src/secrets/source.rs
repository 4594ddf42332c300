//! Where Secrets come from, and those that were read a moment ago.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use outrigger_crds::Lookup;
use outrigger_process::kubernetes::watch::ObjectKey;
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use tokio::{sync::OnceCell, time::Instant};

use super::KEEP;
use crate::deadline::in_time;

/// How long it is remembered that one cannot be read: people create it next.
pub(super) const KEEP_FAILURE: Duration = Duration::from_secs(1);
/// Secrets remembered at most.
const MAX_REMEMBERED: usize = 512;

/// What reading a Secret gave.
#[derive(Debug, Clone)]
pub enum Found {
    Secret(Arc<Content>),
    Missing,
    /// The operator has no right to read it.
    Forbidden,
}

/// The data of a Secret.
#[derive(Debug)]
pub struct Content {
    version: String,
    data: BTreeMap<String, Vec<u8>>,
}

/// The API server did not answer, or not with sense: trying again may help.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot read Secret {secret}: {reason}")]
pub struct Unavailable {
    secret: ObjectKey,
    reason: String,
}

impl Unavailable {
    pub fn new(secret: ObjectKey, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { secret, reason }
    }
}

/// Where Secrets come from.
pub trait Source: Send + Sync {
    fn read(&self, key: ObjectKey) -> Pin<Box<dyn Future<Output = Result<Found, Unavailable>> + Send + '_>>;
}

impl Found {
    pub(super) fn version(&self) -> Option<&str> {
        match self {
            Self::Secret(content) => Some(&content.version),
            Self::Missing | Self::Forbidden => None,
        }
    }

    /// Whether both say the same, by version and not by content.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Secret(one), Self::Secret(other)) => one.version == other.version,
            (Self::Missing, Self::Missing) | (Self::Forbidden, Self::Forbidden) => true,
            _ => false,
        }
    }

    /// What a reference to a key finds. What may not be read counts as absent.
    pub(super) fn lookup(&self, key: &str) -> Lookup {
        match self {
            Self::Secret(content) => match content.data.get(key) {
                Some(bytes) => Lookup::Found(bytes.clone()),
                None => Lookup::NoSuchKey,
            },
            Self::Missing | Self::Forbidden => Lookup::NoSuchSecret,
        }
    }
}

impl Content {
    pub fn new(version: impl Into<String>, data: BTreeMap<String, Vec<u8>>) -> Self {
        Self {
            version: version.into(),
            data,
        }
    }
}

impl From<Secret> for Content {
    fn from(secret: Secret) -> Self {
        let data = secret.data.unwrap_or_default();
        Self {
            version: secret.metadata.resource_version.unwrap_or_default(),
            data: data.into_iter().map(|(name, bytes)| (name, bytes.0)).collect(),
        }
    }
}

/// Reads on demand, and remembers what it read for seconds.
pub(super) struct Reader {
    source: Box<dyn Source>,
    remembered: Mutex<HashMap<ObjectKey, Arc<Slot>>>,
    reads: IntCounterVec,
}

/// One read serves everyone who asks at the same time.
#[derive(Default)]
struct Slot(OnceCell<(Instant, Found)>);

impl Reader {
    pub(super) fn new(source: Box<dyn Source>, reads: IntCounterVec) -> Self {
        Self {
            source,
            remembered: Mutex::default(),
            reads,
        }
    }

    pub(super) async fn remembered(&self, key: ObjectKey) -> Result<Found, Unavailable> {
        let slot = {
            let mut remembered = self.remembered.lock();
            match remembered.get(&key).filter(|slot| slot.is_fresh(Instant::now())) {
                Some(slot) => slot.clone(),
                None => {
                    if remembered.len() >= MAX_REMEMBERED {
                        remembered.clear();
                    }
                    let slot = Arc::new(Slot::default());
                    remembered.insert(key.clone(), slot.clone());
                    slot
                }
            }
        };
        let read = || async { self.read(key).await.map(|found| (Instant::now(), found)) };
        slot.0.get_or_try_init(read).await.map(|(_, found)| found.clone())
    }

    pub(super) async fn read(&self, key: ObjectKey) -> Result<Found, Unavailable> {
        let result = self.source.read(key).await;
        let label = match &result {
            Ok(Found::Secret(_)) => "found",
            Ok(Found::Missing) => "missing",
            Ok(Found::Forbidden) => "forbidden",
            Err(_) => "error",
        };
        self.reads.with_label_values(&[label]).inc();
        result
    }

    pub(super) fn expire(&self, now: Instant) {
        let mut remembered = self.remembered.lock();
        remembered.retain(|_, slot| slot.is_fresh(now));
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.remembered.lock().is_empty()
    }
}

impl Slot {
    /// A read in progress is fresh.
    fn is_fresh(&self, now: Instant) -> bool {
        self.0.get().is_none_or(|(at, found)| {
            let keep = match found {
                Found::Secret(_) => KEEP,
                Found::Missing | Found::Forbidden => KEEP_FAILURE,
            };
            now - *at < keep
        })
    }
}

/// The API server as the source.
pub struct FromApiServer(pub Client);

impl Source for FromApiServer {
    fn read(&self, key: ObjectKey) -> Pin<Box<dyn Future<Output = Result<Found, Unavailable>> + Send + '_>> {
        Box::pin(async move {
            let api: Api<Secret> = Api::namespaced(self.0.clone(), &key.namespace);
            let reason = match in_time(api.get(&key.name)).await {
                Ok(secret) => return Ok(Found::Secret(Arc::new(secret.into()))),
                Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(Found::Missing),
                Err(kube::Error::Api(status)) if status.is_forbidden() => return Ok(Found::Forbidden),
                Err(error) => error.to_string(),
            };
            Err(Unavailable::new(key, reason))
        })
    }
}
