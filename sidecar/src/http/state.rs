//! The state API.

use std::collections::HashMap;

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{Api, invoke, read};
use crate::{
    api_error::ApiError,
    components::state::{
        Delete, Item, Operation, Set,
        api::{BulkItem, StateApi},
    },
};

/// Query parameters in order.
type Parameters = Query<Vec<(String, String)>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Save {
    #[serde(default)]
    key: String,
    value: Option<Box<RawValue>>,
    etag: Option<String>,
    metadata: Option<HashMap<String, String>>,
    options: Option<Options>,
}

#[derive(Deserialize)]
struct Options {
    concurrency: Option<String>,
}

#[derive(Deserialize)]
struct BulkRequest {
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    parallelism: i64,
}

#[derive(Serialize)]
struct BulkAnswer {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<HashMap<&'static str, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Deserialize)]
struct Transaction {
    #[serde(default)]
    operations: Vec<Step>,
    metadata: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
struct Step {
    #[serde(default)]
    operation: String,
    request: Save,
}

pub async fn get(State(api): State<Api>, Path((store, key)): Path<(String, String)>) -> Result<Response, ApiError> {
    let Some(item) = api.state.get(&store, &key).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(etag) = item.etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
        headers.insert(header::ETAG, etag);
    }
    if let Some(expires) = item.expires.and_then(|expires| HeaderValue::try_from(expires).ok()) {
        headers.insert(HeaderName::from_static("metadata.ttlexpiretime"), expires);
    }
    Ok((headers, item.value).into_response())
}

pub async fn save(
    State(api): State<Api>,
    Path(store): Path<String>,
    Query(parameters): Parameters,
    body: Body,
) -> Result<StatusCode, ApiError> {
    api.state.store(&store)?;
    let items: Vec<Save> = json(&read(body).await?)?;
    let metadata = request_metadata(&parameters);
    let items: Vec<_> = items.into_iter().map(|save| save.into_set(&metadata)).collect();
    if !items.is_empty() {
        api.state.save(&store, items).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

pub async fn delete(
    State(api): State<Api>,
    Path((store, key)): Path<(String, String)>,
    Query(parameters): Parameters,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let etag = headers
        .get(header::IF_MATCH)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let concurrency = parameters
        .iter()
        .find(|(name, _)| name == "concurrency")
        .map(|(_, value)| value.as_str());
    api.state
        .delete(
            &store,
            Delete {
                key,
                etag,
                first_write: first_write(concurrency),
            },
        )
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The last segment of a POST names the call.
pub async fn bulk_or_transaction(
    State(api): State<Api>,
    Path((store, call)): Path<(String, String)>,
    Query(parameters): Parameters,
    request: Request,
) -> Result<Response, ApiError> {
    match call.as_str() {
        "bulk" => bulk(&api, &store, request.into_body()).await,
        "transaction" => transaction(&api, &store, &request_metadata(&parameters), request.into_body()).await,
        _ => invoke::invoke(State(api), request).await,
    }
}

pub async fn query(State(api): State<Api>, Path(store): Path<String>) -> ApiError {
    api.state.query(&store)
}

async fn bulk(api: &Api, store: &str, body: Body) -> Result<Response, ApiError> {
    api.state.store(store)?;
    let BulkRequest { keys, parallelism } = json(&read(body).await?)?;
    let items = api
        .state
        .bulk_get(store, keys, usize::try_from(parallelism).unwrap_or(0))
        .await?;
    Ok(Json(items.into_iter().map(BulkAnswer::from).collect::<Vec<_>>()).into_response())
}

async fn transaction(
    api: &Api,
    store: &str,
    metadata: &HashMap<String, String>,
    body: Body,
) -> Result<Response, ApiError> {
    api.state.store(store)?;
    let mut transaction: Transaction = json(&read(body).await?)?;
    let mut common = transaction.metadata.take().unwrap_or_default();
    common.extend(metadata.clone());
    let operations = transaction
        .operations
        .into_iter()
        .map(|step| match step.operation.as_str() {
            "upsert" => Ok(Operation::Set(step.request.into_set(&common))),
            "delete" => Ok(Operation::Delete(step.request.into_delete())),
            other => Err(StateApi::unknown_operation(other)),
        });
    let operations: Vec<_> = operations.collect::<Result<_, _>>()?;
    if !operations.is_empty() {
        api.state.transact(store, operations).await?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl Save {
    /// Metadata of the request wins over that of the item.
    fn into_set(self, metadata: &HashMap<String, String>) -> Set {
        let mut merged = self.metadata.unwrap_or_default();
        merged.extend(metadata.clone());
        Set {
            key: self.key,
            value: compact(self.value.as_ref().map_or("null", |value| value.get())),
            etag: self.etag,
            first_write: first_write(self.options.and_then(|options| options.concurrency).as_deref()),
            metadata: merged,
        }
    }

    fn into_delete(self) -> Delete {
        Delete {
            key: self.key,
            etag: self.etag,
            first_write: first_write(self.options.and_then(|options| options.concurrency).as_deref()),
        }
    }
}

impl From<BulkItem> for BulkAnswer {
    fn from(item: BulkItem) -> Self {
        let mut answer = Self {
            key: item.key,
            data: None,
            etag: None,
            metadata: None,
            error: None,
        };
        match item.found {
            Ok(None) => {}
            Err(error) => answer.error = Some(error),
            Ok(Some(Item { value, etag, expires })) => {
                // Values that came over gRPC need not be JSON.
                match String::from_utf8(value.into())
                    .ok()
                    .and_then(|text| RawValue::from_string(text).ok())
                {
                    Some(data) => answer.data = Some(data),
                    None => answer.error = Some("the value is not JSON: read it with a single get".to_owned()),
                }
                answer.etag = etag;
                answer.metadata = expires.map(|expires| HashMap::from([("ttlExpireTime", expires)]));
            }
        }
        answer
    }
}

fn first_write(concurrency: Option<&str>) -> bool {
    concurrency == Some("first-write")
}

fn json<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::malformed(format!("failed deserializing HTTP body: {error}")))
}

/// `metadata.<name>=<value>`; the first of a name wins.
fn request_metadata(parameters: &[(String, String)]) -> HashMap<String, String> {
    let mut metadata = HashMap::new();
    for (name, value) in parameters {
        if let Some(name) = name.strip_prefix("metadata.") {
            metadata.entry(name.to_owned()).or_insert_with(|| value.clone());
        }
    }
    metadata
}

/// JSON without the white space between its tokens. Numbers keep their digits.
fn compact(json: &str) -> Bytes {
    let mut out = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_stored_as_compact_json() {
        for (json, expected) in [
            (
                r#" { "a b" : [ 1 , 2.50 ] , "c\" d" : "e\\" , "f" : " " } "#,
                r#"{"a b":[1,2.50],"c\" d":"e\\","f":" "}"#,
            ),
            ("\"text\"", "\"text\""),
            ("12345678901234567890123", "12345678901234567890123"),
        ] {
            assert_eq!(compact(json), expected);
        }
    }

    #[test]
    fn metadata_of_the_request_wins() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let metadata = request_metadata(&[
            pair("metadata.ttlInSeconds", "5"),
            pair("metadata.ttlInSeconds", "6"),
            pair("x", "y"),
        ]);
        let save: Save =
            serde_json::from_str(r#"{"key":"k","value":1,"metadata":{"ttlInSeconds":"1","a":"b"}}"#).unwrap();
        let set = save.into_set(&metadata);
        assert_eq!(
            (set.metadata["ttlInSeconds"].as_str(), set.metadata["a"].as_str()),
            ("5", "b")
        );
    }

    #[test]
    fn a_missing_value_is_null() {
        let save: Save = serde_json::from_str(r#"{"key":"k","options":{"concurrency":"first-write"}}"#).unwrap();
        let set = save.into_set(&HashMap::new());
        assert_eq!((set.value, set.first_write), ("null".into(), true));
    }
}
