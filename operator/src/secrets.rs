//! Secrets that resources refer to. Those that a connected sidecar needs are watched, and forgotten once none does; everybody
//! else's are read on demand. Kubernetes cannot limit a right to what is referred to, but this process limits itself.

mod follow;
mod source;
mod watched;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use outrigger_crds::{DaprResource, Lookup, encode, resolve};
use outrigger_process::kubernetes::watch::ObjectKey;
use parking_lot::Mutex;
use tokio::{
    sync::watch::Receiver,
    time::{Instant, timeout_at},
};

pub use self::{
    follow::Follower,
    source::{Content, Found, FromApiServer, Source, Unavailable},
};
use self::{
    source::Reader,
    watched::{Seen, Watched},
};
use crate::{index::Version, metrics::Metrics};

/// How long is remembered what nobody may need any more.
pub const KEEP: Duration = Duration::from_secs(5);
/// How long the first answers of watches are waited for before the Secrets are read without them. Sidecars give up on a list
/// after 5 s, so all its Secrets share this time.
const WATCH_PATIENCE: Duration = Duration::from_secs(2);
/// Secrets that are read at the same time for one list, object or status.
const READS: usize = 16;

/// Watches, reads and remembers Secrets, and the payloads with their values in them.
pub struct Secrets {
    reader: Reader,
    watched: Watched,
    /// Whether somebody watches what is asked for.
    followed: AtomicBool,
    payloads: Mutex<HashMap<(&'static str, ObjectKey), Payload>>,
    metrics: Metrics,
}

/// The last payload of an object.
struct Payload {
    /// The version that it was made from; kept, so that its address names no other.
    version: Bytes,
    /// Versions of the Secrets in it; `None` for those that could not be read.
    secrets: Vec<Option<String>>,
    bytes: Bytes,
    at: Instant,
}

impl Payload {
    fn is_of<K: DaprResource>(&self, version: &Version<K>, found: &BTreeMap<String, Found>) -> bool {
        self.version.as_ptr() == version.payload().as_ptr()
            && self
                .secrets
                .iter()
                .map(Option::as_deref)
                .eq(secret_versions(version, found))
    }
}

impl Secrets {
    pub fn new(source: Box<dyn Source>, metrics: Metrics) -> Self {
        Self {
            reader: Reader::new(source, metrics.secret_reads.clone()),
            watched: Watched::default(),
            followed: AtomicBool::new(false),
            payloads: Mutex::default(),
            metrics,
        }
    }

    fn set_followed(&self) {
        self.followed.store(true, Ordering::Relaxed);
    }

    /// The JSON to send for a version, with the values of its Secrets. A Secret or key that does not exist leaves its value
    /// unset and harms nothing else; the object's status says so.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn payload<K: DaprResource>(&self, namespace: &str, version: &Version<K>) -> Result<Bytes, Unavailable> {
        let found = self.get(namespace, names([version])).await?;
        Ok(self.filled(namespace, version, &found))
    }

    /// The same for many versions, in their order. It takes no longer than for the slowest one's Secrets.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn payloads<K: DaprResource>(
        &self,
        namespace: &str,
        versions: &[&Version<K>],
    ) -> Result<Vec<Bytes>, Unavailable> {
        let found = self.get(namespace, names(versions.iter().copied())).await?;
        let filled = versions.iter().map(|version| self.filled(namespace, version, &found));
        Ok(filled.collect())
    }

    fn filled<K: DaprResource>(&self, namespace: &str, version: &Version<K>, found: &BTreeMap<String, Found>) -> Bytes {
        let Some(object) = version.with_secrets() else {
            return version.payload().clone();
        };
        let key = (K::KIND, ObjectKey::new(namespace, &**version.name()));
        if let Some(payload) = self
            .payloads
            .lock()
            .get_mut(&key)
            .filter(|payload| payload.is_of(version, found))
        {
            payload.at = Instant::now();
            return payload.bytes.clone();
        }
        let resolved = resolve(&**object, &|name, key| lookup(found, name, key));
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
        self.metrics.encoded::<K>(bytes.len());
        let payload = Payload {
            version: version.payload().clone(),
            secrets: secret_versions(version, found)
                .map(|version| version.map(str::to_owned))
                .collect(),
            bytes: bytes.clone(),
            at: Instant::now(),
        };
        self.payloads.lock().insert(key, payload);
        bytes
    }

    /// Secrets for a sidecar: watched from now on.
    async fn get(&self, namespace: &str, names: BTreeSet<&str>) -> Result<BTreeMap<String, Found>, Unavailable> {
        let now = Instant::now();
        let followed = self.followed.load(Ordering::Relaxed);
        // Each is asked for before any is waited for.
        let getting: Vec<_> = names
            .into_iter()
            .map(|name| {
                let seen = followed.then(|| self.watched.get(namespace, name, now));
                self.get_one(namespace, name, seen, now + WATCH_PATIENCE)
            })
            .collect();
        stream::iter(getting).buffered(READS).try_collect().await
    }

    /// What its watch tells until the deadline, or else what is read then.
    async fn get_one(
        &self,
        namespace: &str,
        name: &str,
        seen: Option<Receiver<Seen>>,
        deadline: Instant,
    ) -> Result<(String, Found), Unavailable> {
        if let Some(mut seen) = seen {
            let told = seen.wait_for(|seen| !matches!(seen, Seen::Waiting));
            if let Ok(Ok(seen)) = timeout_at(deadline, told).await
                && let Seen::Known(found) = &*seen
            {
                return Ok((name.to_owned(), found.clone()));
            }
        }
        let found = self.reader.remembered(ObjectKey::new(namespace, name)).await?;
        Ok((name.to_owned(), self.watched.was_read(namespace, name, found)))
    }

    /// The Secrets of these names, as far as they are known already; others are read once.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn find(&self, namespace: &str, names: BTreeSet<&str>) -> Result<BTreeMap<String, Found>, Unavailable> {
        let finding: Vec<_> = names.into_iter().map(|name| self.find_one(namespace, name)).collect();
        stream::iter(finding).buffered(READS).try_collect().await
    }

    async fn find_one(&self, namespace: &str, name: &str) -> Result<(String, Found), Unavailable> {
        let found = match self.watched.peek(namespace, name) {
            Some(found) => found,
            None => self.reader.remembered(ObjectKey::new(namespace, name)).await?,
        };
        Ok((name.to_owned(), found))
    }

    /// Forgets what is older than a few seconds; to be called every few seconds.
    pub fn expire(&self, now: Instant) {
        self.reader.expire(now);
        self.payloads.lock().retain(|_, payload| now - payload.at < KEEP);
    }
}

/// Names of the Secrets that an object refers to.
pub fn secret_names<K: DaprResource>(object: &K) -> BTreeSet<&str> {
    object.secret_refs().iter().map(|secret| secret.name).collect()
}

fn names<'a, K: DaprResource + 'a>(versions: impl IntoIterator<Item = &'a Version<K>>) -> BTreeSet<&'a str> {
    let names = versions.into_iter().flat_map(Version::secret_names);
    names.map(String::as_str).collect()
}

/// Versions of the Secrets that an object refers to; `None` for those that could not be read.
fn secret_versions<'a, K: DaprResource>(
    version: &'a Version<K>,
    found: &'a BTreeMap<String, Found>,
) -> impl Iterator<Item = Option<&'a str>> {
    let names = version.secret_names().iter();
    names.map(|name| found.get(name).and_then(Found::version))
}

/// What resolving a reference finds in Secrets that were read before. What may not be read counts as absent.
pub fn lookup(found: &BTreeMap<String, Found>, name: &str, key: &str) -> Lookup {
    found.get(name).map_or(Lookup::NoSuchSecret, |found| found.lookup(key))
}

#[cfg(test)]
mod tests;
