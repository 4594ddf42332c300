//! The building block "state" as both APIs serve it: finds the store, prefixes keys, and words errors the way callers know them.

use std::{sync::Arc, time::Instant};

use futures::{StreamExt, stream};
use http::StatusCode;
use tonic::Code;

use super::{Delete, Error, Item, Operation, Set, Store, keys::Prefix};
use crate::{api_error::ApiError, components::Components, metrics::Metrics};

/// Keys read at the same time when the caller does not say.
const PARALLELISM: usize = 10;

/// A loaded state store.
pub struct StateStore {
    pub store: Arc<dyn Store>,
    pub prefix: Prefix,
}

/// Serves the state calls; clones share everything.
#[derive(Clone)]
pub struct StateApi {
    components: Arc<Components>,
    app_id: Arc<str>,
    metrics: Metrics,
}

/// One answer of a bulk read.
pub struct BulkItem {
    pub key: String,
    pub found: Result<Option<Item>, String>,
}

// === impl StateApi ===

impl StateApi {
    pub fn new(components: Arc<Components>, app_id: &str, metrics: Metrics) -> Self {
        Self {
            components,
            app_id: app_id.into(),
            metrics,
        }
    }

    /// Finds a store by its component's name.
    ///
    /// # Errors
    /// Tells apart that there is no state store at all from that there is no such one.
    pub fn store(&self, name: &str) -> Result<Arc<StateStore>, ApiError> {
        if let Some(store) = self.components.state(name) {
            return Ok(store);
        }
        let (code, reason, http, grpc, what) = if self.components.any_state() {
            (
                "ERR_STATE_STORE_NOT_FOUND",
                "DAPR_STATE_NOT_FOUND",
                StatusCode::BAD_REQUEST,
                Code::InvalidArgument,
                "found",
            )
        } else {
            let http = StatusCode::INTERNAL_SERVER_ERROR;
            (
                "ERR_STATE_STORE_NOT_CONFIGURED",
                "DAPR_STATE_NOT_CONFIGURED",
                http,
                Code::FailedPrecondition,
                "configured",
            )
        };
        Err(
            ApiError::new(code, http, grpc, format!("state store {name} is not {what}"))
                .with_reason(reason)
                .with_metadata("appID", &self.app_id)
                .with_resource("state", name),
        )
    }

    pub async fn get(&self, name: &str, key: &str) -> Result<Option<Item>, ApiError> {
        let store = self.store(name)?;
        let full = self.key(&store, name, key)?;
        self.measured(name, "get", store.store.get(&full))
            .await
            .map_err(|error| {
                internal(
                    "ERR_STATE_GET",
                    format!("fail to get {key} from state store {name}: {error}"),
                )
            })
    }

    /// Reads many keys; what fails for one key does not fail the others.
    pub async fn bulk_get(&self, name: &str, keys: Vec<String>, parallelism: usize) -> Result<Vec<BulkItem>, ApiError> {
        let store = self.store(name)?;
        let keys = keys
            .into_iter()
            .map(|key| Ok((self.key(&store, name, &key)?, key)))
            .collect::<Result<Vec<_>, ApiError>>()?;
        let parallelism = if parallelism == 0 { PARALLELISM } else { parallelism };
        let reads = stream::iter(keys).map(|(full, key)| {
            let store = store.store.clone();
            async move {
                let found = store.get(&full).await.map_err(|error| error.to_string());
                BulkItem { key, found }
            }
        });
        let read = async { Ok::<_, Error>(reads.buffered(parallelism).collect().await) };
        self.measured(name, "bulk_get", read)
            .await
            .map_err(|error| internal("ERR_STATE_BULK_GET", error.to_string()))
    }

    /// Stores items one by one: those before and after a failing one are stored.
    pub async fn save(&self, name: &str, items: Vec<Set>) -> Result<(), ApiError> {
        let store = self.store(name)?;
        let items = items
            .into_iter()
            .map(|set| self.prefixed_set(&store, name, set))
            .collect::<Result<Vec<_>, _>>()?;
        let saves = async {
            let mut failures = Vec::new();
            for item in items {
                failures.extend(store.store.set(item).await.err());
            }
            together(failures)
        };
        self.measured(name, "set", saves).await.map_err(|error| {
            etag_aware(
                "ERR_STATE_SAVE",
                &error,
                format!("failed saving state in state store {name}: {error}"),
            )
        })
    }

    pub async fn delete(&self, name: &str, mut delete: Delete) -> Result<(), ApiError> {
        let store = self.store(name)?;
        let key = std::mem::take(&mut delete.key);
        delete.key = self.key(&store, name, &key)?;
        self.measured(name, "delete", store.store.delete(delete))
            .await
            .map_err(|error| {
                etag_aware(
                    "ERR_STATE_DELETE",
                    &error,
                    format!("failed deleting state with key {key}: {error}"),
                )
            })
    }

    pub async fn bulk_delete(&self, name: &str, deletes: Vec<Delete>) -> Result<(), ApiError> {
        let store = self.store(name)?;
        let deletes = deletes
            .into_iter()
            .map(|delete| {
                Ok(Delete {
                    key: self.key(&store, name, &delete.key)?,
                    ..delete
                })
            })
            .collect::<Result<Vec<_>, ApiError>>()?;
        let work = async {
            let mut failures = Vec::new();
            for delete in deletes {
                failures.extend(store.store.delete(delete).await.err());
            }
            together(failures)
        };
        self.measured(name, "bulk_delete", work).await.map_err(|error| {
            etag_aware(
                "ERR_STATE_DELETE",
                &error,
                format!("failed deleting state with keys: {error}"),
            )
        })
    }

    pub async fn transact(&self, name: &str, operations: Vec<Operation>) -> Result<(), ApiError> {
        let store = self.store(name)?;
        if !store.store.features().transactional {
            let message = format!("state store {name} doesn't support transactions");
            return Err(ApiError::new(
                "ERR_STATE_STORE_NOT_SUPPORTED",
                StatusCode::INTERNAL_SERVER_ERROR,
                Code::Unimplemented,
                message,
            )
            .with_reason("DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED")
            .with_resource("state", name));
        }
        let operations = operations
            .into_iter()
            .map(|operation| match operation {
                Operation::Set(set) => self.prefixed_set(&store, name, set).map(Operation::Set),
                Operation::Delete(delete) => Ok(Operation::Delete(Delete {
                    key: self.key(&store, name, &delete.key)?,
                    ..delete
                })),
            })
            .collect::<Result<Vec<_>, ApiError>>()?;
        self.measured(name, "transaction", store.store.transact(operations))
            .await
            .map_err(|error| {
                internal(
                    "ERR_STATE_TRANSACTION",
                    format!("error while executing state transaction: {error}"),
                )
            })
    }

    /// No store type of this release can be queried.
    pub fn query(&self, name: &str) -> ApiError {
        match self.store(name) {
            Err(error) => error,
            Ok(_) => internal(
                "ERR_STATE_STORE_NOT_SUPPORTED",
                "state store does not support querying".to_owned(),
            )
            .with_reason("DAPR_STATE_QUERYING_NOT_SUPPORTED")
            .with_resource("state", name),
        }
    }

    /// An operation of a transaction that is neither `upsert` nor `delete`.
    pub fn unknown_operation(operation: &str) -> ApiError {
        let message = format!("operation type {operation} not supported");
        ApiError::new(
            "ERR_NOT_SUPPORTED_STATE_OPERATION",
            StatusCode::BAD_REQUEST,
            Code::Unimplemented,
            message,
        )
    }

    fn key(&self, store: &StateStore, name: &str, key: &str) -> Result<String, ApiError> {
        if key.is_empty() {
            return Err(ApiError::malformed("\"key\" is a required field"));
        }
        store.prefix.apply(key).map_err(|error| {
            let message = error.to_string();
            ApiError::malformed(message.clone())
                .with_reason("DAPR_STATE_ILLEGAL_KEY")
                .with_metadata("appID", &self.app_id)
                .with_resource("state", name)
                .with_violation(key, &message)
        })
    }

    fn prefixed_set(&self, store: &StateStore, name: &str, set: Set) -> Result<Set, ApiError> {
        Ok(Set {
            key: self.key(store, name, &set.key)?,
            ..set
        })
    }

    async fn measured<T>(
        &self,
        store: &str,
        operation: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let start = Instant::now();
        let result = work.await;
        self.metrics.state(store, operation, result.is_ok(), start.elapsed());
        result
    }
}

/// One error for many: about etags only when all of them are.
fn together(mut failures: Vec<Error>) -> Result<(), Error> {
    let text = || failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.swap_remove(0)),
        _ if failures.iter().any(|error| matches!(error, Error::Other(_))) => Err(Error::Other(text())),
        _ if failures.iter().any(|error| matches!(error, Error::EtagInvalid(_))) => Err(Error::EtagInvalid(text())),
        _ => Err(Error::EtagMismatch(text())),
    }
}

fn internal(code: &'static str, message: String) -> ApiError {
    ApiError::new(code, StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, message)
}

fn etag_aware(code: &'static str, error: &Error, message: String) -> ApiError {
    let (http, grpc) = match error {
        Error::EtagMismatch(_) => (StatusCode::CONFLICT, Code::Aborted),
        Error::EtagInvalid(_) => (StatusCode::BAD_REQUEST, Code::InvalidArgument),
        Error::Other(_) => (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
    };
    ApiError::new(code, http, grpc, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_failures_are_about_etags_only_if_all_are() {
        let mismatch = || Error::EtagMismatch("m".into());
        let invalid = || Error::EtagInvalid("i".into());
        let other = || Error::Other("o".into());
        assert_eq!(together(vec![]), Ok(()));
        assert!(matches!(
            together(vec![mismatch(), mismatch()]),
            Err(Error::EtagMismatch(_))
        ));
        assert!(matches!(
            together(vec![mismatch(), invalid()]),
            Err(Error::EtagInvalid(_))
        ));
        assert!(matches!(together(vec![mismatch(), other()]), Err(Error::Other(_))));
    }

    #[test]
    fn etag_failures_have_their_own_codes() {
        let error = etag_aware("ERR_STATE_SAVE", &Error::EtagMismatch("m".into()), String::new());
        assert_eq!((error.http.as_u16(), error.grpc), (409, Code::Aborted));
        let error = etag_aware("ERR_STATE_SAVE", &Error::Other("o".into()), String::new());
        assert_eq!((error.http.as_u16(), error.grpc), (500, Code::Internal));
    }
}
