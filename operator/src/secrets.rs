//! Secrets, read when something is about to be sent that refers to them, and forgotten seconds later. Rotations show within
//! those seconds; sidecars look again each minute.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use outrigger_crds::{DaprResource, Lookup, encode, resolve};
use outrigger_process::kubernetes::watch::ObjectKey;
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use tokio::{sync::OnceCell, time::Instant};

use crate::{deadline::in_time, index::Version};

/// How long a Secret is remembered.
pub const KEEP: Duration = Duration::from_secs(5);
/// How long it is remembered that one cannot be read: people create it next.
const KEEP_FAILURE: Duration = Duration::from_secs(1);
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

/// Where Secrets come from.
pub trait Source: Send + Sync {
    fn read(&self, key: ObjectKey) -> Pin<Box<dyn Future<Output = Result<Found, Unavailable>> + Send + '_>>;
}

/// Reads and remembers Secrets, and the payloads with their values in them.
pub struct Secrets {
    source: Box<dyn Source>,
    remembered: Mutex<HashMap<ObjectKey, Arc<Slot>>>,
    payloads: Mutex<HashMap<(&'static str, ObjectKey), Payload>>,
    reads: IntCounterVec,
}

/// One read serves everyone who asks at the same time.
#[derive(Default)]
struct Slot(OnceCell<(Instant, Found)>);

/// The last payload of an object.
struct Payload {
    /// The version that it was made from; kept, so that its address names no other.
    version: Bytes,
    /// Versions of the Secrets in it; `None` for those that could not be read.
    secrets: Vec<Option<String>>,
    bytes: Bytes,
    at: Instant,
}

impl Secrets {
    pub fn new(source: Box<dyn Source>, reads: IntCounterVec) -> Self {
        Self {
            source,
            remembered: Mutex::default(),
            payloads: Mutex::default(),
            reads,
        }
    }

    /// The JSON to send for a version, with the values of its Secrets. A Secret or key that does not exist leaves its value
    /// unset and harms nothing else; the object's status says so.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn payload<K: DaprResource>(&self, namespace: &str, version: &Version<K>) -> Result<Bytes, Unavailable> {
        let Some(object) = version.with_secrets() else {
            return Ok(version.payload().clone());
        };
        let found = self.find(namespace, secret_names(&**object)).await?;
        let secrets: Vec<_> = found.values().map(Found::version).collect();
        let key = (K::KIND, ObjectKey::new(namespace, &**version.name()));
        if let Some(payload) = self.payloads.lock().get(&key)
            && payload.version.as_ptr() == version.payload().as_ptr()
            && payload.secrets == secrets
        {
            return Ok(payload.bytes.clone());
        }
        let resolved = resolve(&**object, &|name, key| lookup(&found, name, key));
        for unresolved in &resolved.unresolved {
            tracing::debug!(kind = K::KIND, object = %key.1, %unresolved, "sent without the value of a secret");
        }
        let bytes: Bytes = match encode(&*resolved.object, true) {
            Ok(bytes) => bytes.into(),
            Err(error) => {
                tracing::error!(object = %key.1, %error, "sent without the values of its secrets");
                version.payload().clone()
            }
        };
        let payload = Payload {
            version: version.payload().clone(),
            secrets,
            bytes: bytes.clone(),
            at: Instant::now(),
        };
        self.payloads.lock().insert(key, payload);
        Ok(bytes)
    }

    /// The Secrets of these names.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn find(&self, namespace: &str, names: BTreeSet<&str>) -> Result<BTreeMap<String, Found>, Unavailable> {
        let mut found = BTreeMap::new();
        for name in names {
            found.insert(name.to_owned(), self.get(ObjectKey::new(namespace, name)).await?);
        }
        Ok(found)
    }

    async fn get(&self, key: ObjectKey) -> Result<Found, Unavailable> {
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
        let read = || async {
            let result = self.source.read(key).await;
            let label = match &result {
                Ok(Found::Secret(_)) => "found",
                Ok(Found::Missing) => "missing",
                Ok(Found::Forbidden) => "forbidden",
                Err(_) => "error",
            };
            self.reads.with_label_values(&[label]).inc();
            result.map(|found| (Instant::now(), found))
        };
        slot.0.get_or_try_init(read).await.map(|(_, found)| found.clone())
    }

    /// Forgets what is older than a few seconds; to be called every few seconds.
    pub fn expire(&self, now: Instant) {
        self.remembered.lock().retain(|_, slot| slot.is_fresh(now));
        self.payloads.lock().retain(|_, payload| now - payload.at < KEEP);
    }
}

/// Names of the Secrets that an object refers to.
pub fn secret_names<K: DaprResource>(object: &K) -> BTreeSet<&str> {
    object.secret_refs().iter().map(|secret| secret.name).collect()
}

/// What resolving a reference finds in Secrets that were read before. What may not be read counts as absent.
pub fn lookup(found: &BTreeMap<String, Found>, name: &str, key: &str) -> Lookup {
    match found.get(name) {
        Some(Found::Secret(content)) => match content.data.get(key) {
            Some(bytes) => Lookup::Found(bytes.clone()),
            None => Lookup::NoSuchKey,
        },
        _ => Lookup::NoSuchSecret,
    }
}

impl Found {
    fn version(&self) -> Option<String> {
        match self {
            Self::Secret(content) => Some(content.version.clone()),
            Self::Missing | Self::Forbidden => None,
        }
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

impl Content {
    pub fn new(version: impl Into<String>, data: BTreeMap<String, Vec<u8>>) -> Self {
        Self {
            version: version.into(),
            data,
        }
    }
}

/// The API server as the source.
pub struct FromApiServer(pub Client);

impl Source for FromApiServer {
    fn read(&self, key: ObjectKey) -> Pin<Box<dyn Future<Output = Result<Found, Unavailable>> + Send + '_>> {
        Box::pin(async move {
            let api: Api<Secret> = Api::namespaced(self.0.clone(), &key.namespace);
            let reason = match in_time(api.get(&key.name)).await {
                Ok(secret) => {
                    let data = secret.data.unwrap_or_default();
                    let content = Content {
                        version: secret.metadata.resource_version.unwrap_or_default(),
                        data: data.into_iter().map(|(name, bytes)| (name, bytes.0)).collect(),
                    };
                    return Ok(Found::Secret(Arc::new(content)));
                }
                Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(Found::Missing),
                Err(kube::Error::Api(status)) if status.is_forbidden() => return Ok(Found::Forbidden),
                Err(error) => error.to_string(),
            };
            Err(Unavailable { secret: key, reason })
        })
    }
}

#[cfg(test)]
mod tests;
