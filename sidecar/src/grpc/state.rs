//! State calls, between protobuf and the building block.

use std::collections::HashMap;

use outrigger_proto::{
    common::{StateItem, StateOptions, state_options::StateConcurrency},
    runtime::{
        BulkStateItem, DeleteBulkStateRequest, DeleteStateRequest, ExecuteStateTransactionRequest, GetBulkStateRequest,
        GetBulkStateResponse, GetStateRequest, GetStateResponse, SaveStateRequest,
    },
};

use crate::{
    api_error::ApiError,
    components::state::{
        Delete, Operation, Set,
        api::{BulkItem, StateApi},
    },
};

pub async fn get(state: &StateApi, request: GetStateRequest) -> Result<GetStateResponse, ApiError> {
    let item = state.get(&request.store_name, &request.key).await?;
    Ok(item.map_or_else(GetStateResponse::default, |item| GetStateResponse {
        data: item.value,
        etag: item.etag.unwrap_or_default(),
        metadata: expiry(item.expires),
    }))
}

pub async fn bulk_get(state: &StateApi, request: GetBulkStateRequest) -> Result<GetBulkStateResponse, ApiError> {
    let parallelism = usize::try_from(request.parallelism).unwrap_or(0);
    let items = state.bulk_get(&request.store_name, request.keys, parallelism).await?;
    let item = |BulkItem { key, found }| match found {
        Ok(None) => BulkStateItem {
            key,
            ..BulkStateItem::default()
        },
        Ok(Some(item)) => BulkStateItem {
            key,
            data: item.value,
            etag: item.etag.unwrap_or_default(),
            error: String::new(),
            metadata: expiry(item.expires),
        },
        Err(error) => BulkStateItem {
            key,
            error,
            ..BulkStateItem::default()
        },
    };
    Ok(GetBulkStateResponse {
        items: items.into_iter().map(item).collect(),
    })
}

pub async fn save(state: &StateApi, request: SaveStateRequest) -> Result<(), ApiError> {
    let items: Vec<_> = request.states.into_iter().map(set).collect();
    if items.is_empty() {
        return state.store(&request.store_name).map(drop);
    }
    state.save(&request.store_name, items).await
}

pub async fn delete(state: &StateApi, request: DeleteStateRequest) -> Result<(), ApiError> {
    let delete = Delete {
        key: request.key,
        etag: request.etag.map(|etag| etag.value),
        first_write: first_write(request.options),
    };
    state.delete(&request.store_name, delete).await
}

pub async fn bulk_delete(state: &StateApi, request: DeleteBulkStateRequest) -> Result<(), ApiError> {
    state
        .bulk_delete(&request.store_name, request.states.into_iter().map(removal).collect())
        .await
}

pub async fn transact(state: &StateApi, request: ExecuteStateTransactionRequest) -> Result<(), ApiError> {
    let common = request.metadata;
    let operations = request.operations.into_iter().map(|operation| {
        let item = operation.request.unwrap_or_default();
        match operation.operation_type.as_str() {
            "upsert" => {
                let mut set = set(item);
                for (name, value) in &common {
                    set.metadata.insert(name.clone(), value.clone());
                }
                Ok(Operation::Set(set))
            }
            "delete" => Ok(Operation::Delete(removal(item))),
            other => Err(StateApi::unknown_operation(other)),
        }
    });
    let operations: Vec<_> = operations.collect::<Result<_, _>>()?;
    if operations.is_empty() {
        return state.store(&request.store_name).map(drop);
    }
    state.transact(&request.store_name, operations).await
}

fn set(item: StateItem) -> Set {
    Set {
        key: item.key,
        value: item.value,
        etag: item.etag.map(|etag| etag.value),
        first_write: first_write(item.options),
        metadata: item.metadata,
    }
}

fn removal(item: StateItem) -> Delete {
    Delete {
        key: item.key,
        etag: item.etag.map(|etag| etag.value),
        first_write: first_write(item.options),
    }
}

fn first_write(options: Option<StateOptions>) -> bool {
    options.is_some_and(|options| options.concurrency() == StateConcurrency::ConcurrencyFirstWrite)
}

fn expiry(expires: Option<String>) -> HashMap<String, String> {
    expires
        .into_iter()
        .map(|expires| ("ttlExpireTime".to_owned(), expires))
        .collect()
}
