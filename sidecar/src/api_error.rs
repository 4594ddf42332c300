//! Errors of the APIs, in the two shapes that callers see: JSON over HTTP, a status with details over gRPC.

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use prost::Message;
use serde::Serialize;
use serde_json::{Value, json};
use tonic::{Code, Status};

const DOMAIN: &str = "dapr.io";

/// An error of an API call. The codes are upstream's: SDKs decide by them.
#[derive(Debug, Clone)]
pub struct ApiError {
    pub code: &'static str,
    pub message: String,
    pub http: StatusCode,
    pub grpc: Code,
    /// Present where upstream answers with details over HTTP as well.
    details: Option<Box<Details>>,
}

/// The JSON of an error.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "errorCode")]
    error_code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
}

#[derive(Debug, Clone, Default)]
struct Details {
    reason: &'static str,
    metadata: BTreeMap<String, String>,
    /// Type and name.
    resource: Option<(&'static str, String)>,
    /// Field and description.
    violation: Option<(String, String)>,
}

// === impl ApiError ===

impl ApiError {
    pub fn new(code: &'static str, http: StatusCode, grpc: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            http,
            grpc,
            details: None,
        }
    }

    /// A building block that this release does not have.
    pub fn not_built(what: &str) -> Self {
        let message = format!("this API is currently not implemented: {what}");
        Self::new(
            "ERR_API_UNIMPLEMENTED",
            StatusCode::NOT_IMPLEMENTED,
            Code::Unimplemented,
            message,
        )
    }

    /// A body that cannot be read as what it should be.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(
            "ERR_MALFORMED_REQUEST",
            StatusCode::BAD_REQUEST,
            Code::InvalidArgument,
            message,
        )
    }

    /// Adds details, also over HTTP.
    #[must_use]
    pub fn with_reason(mut self, reason: &'static str) -> Self {
        self.details.get_or_insert_default().reason = reason;
        self
    }

    #[must_use]
    pub fn with_metadata(mut self, key: &str, value: &str) -> Self {
        self.details
            .get_or_insert_default()
            .metadata
            .insert(key.to_owned(), value.to_owned());
        self
    }

    #[must_use]
    pub fn with_resource(mut self, kind: &'static str, name: &str) -> Self {
        self.details.get_or_insert_default().resource = Some((kind, name.to_owned()));
        self
    }

    #[must_use]
    pub fn with_violation(mut self, field: &str, description: &str) -> Self {
        self.details.get_or_insert_default().violation = Some((field.to_owned(), description.to_owned()));
        self
    }

    /// The body over HTTP.
    pub fn json(&self) -> String {
        let details = self.details.as_ref().map(|details| details.json());
        let body = Body {
            error_code: self.code,
            message: &self.message,
            details,
        };
        // Strings and numbers can always be written.
        serde_json::to_string(&body).unwrap_or_default()
    }

    /// The status over gRPC, with an ErrorInfo.
    pub fn status(&self) -> Status {
        let default = Details::default();
        let details = self.details.as_deref().unwrap_or(&default);
        let info = ErrorInfo {
            reason: if details.reason.is_empty() {
                self.code
            } else {
                details.reason
            }
            .to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: details.metadata.clone().into_iter().collect(),
        };
        let mut any = vec![pack("ErrorInfo", &info)];
        if let Some((kind, name)) = &details.resource {
            let resource = ResourceInfo {
                resource_type: (*kind).to_owned(),
                resource_name: name.clone(),
                ..ResourceInfo::default()
            };
            any.push(pack("ResourceInfo", &resource));
        }
        if let Some((field, description)) = &details.violation {
            let violation = FieldViolation {
                field: field.clone(),
                description: description.clone(),
            };
            any.push(pack(
                "BadRequest",
                &BadRequest {
                    field_violations: vec![violation],
                },
            ));
        }
        let whole = RpcStatus {
            code: self.grpc.into(),
            message: self.message.clone(),
            details: any,
        };
        Status::with_details(self.grpc, self.message.clone(), whole.encode_to_vec().into())
    }
}

impl Details {
    fn json(&self) -> Value {
        let metadata = if self.metadata.is_empty() {
            Value::Null
        } else {
            json!(self.metadata)
        };
        let mut list = vec![json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": self.reason, "domain": DOMAIN, "metadata": metadata,
        })];
        if let Some((kind, name)) = &self.resource {
            list.push(json!({
                "@type": "type.googleapis.com/google.rpc.ResourceInfo",
                "resource_type": kind, "resource_name": name, "owner": "", "description": "",
            }));
        }
        if let Some((field, description)) = &self.violation {
            list.push(json!({
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "field_violations": [{"field": field, "description": description}],
            }));
        }
        Value::Array(list)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.http, [(header::CONTENT_TYPE, "application/json")], self.json()).into_response()
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        error.status()
    }
}

// === messages of google.rpc ===

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(map = "string, string", tag = "3")]
    metadata: std::collections::HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceInfo {
    #[prost(string, tag = "1")]
    resource_type: String,
    #[prost(string, tag = "2")]
    resource_name: String,
    #[prost(string, tag = "3")]
    owner: String,
    #[prost(string, tag = "4")]
    description: String,
}

#[derive(Clone, PartialEq, Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<FieldViolation>,
}

#[derive(Clone, PartialEq, Message)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

fn pack(name: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/google.rpc.{name}"),
        value: message.encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_errors_have_two_members() {
        let error = ApiError::malformed("failed deserializing HTTP body: x");
        assert_eq!(
            error.json(),
            r#"{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: x"}"#
        );
    }

    #[test]
    fn rich_errors_carry_the_same_details_both_ways() {
        let error = ApiError::new(
            "ERR_STATE_STORE_NOT_FOUND",
            StatusCode::BAD_REQUEST,
            Code::InvalidArgument,
            "state store x is not found",
        )
        .with_reason("DAPR_STATE_NOT_FOUND")
        .with_metadata("appID", "cart")
        .with_resource("state", "x");
        let json: Value = serde_json::from_str(&error.json()).unwrap();
        assert_eq!(json["details"][0]["reason"], "DAPR_STATE_NOT_FOUND");
        assert_eq!(json["details"][0]["metadata"]["appID"], "cart");
        assert_eq!(json["details"][1]["resource_name"], "x");
        let status = error.status();
        let whole = RpcStatus::decode(status.details()).unwrap();
        assert_eq!((whole.code, whole.details.len()), (3, 2));
        let info = ErrorInfo::decode(whole.details[0].value.as_slice()).unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("DAPR_STATE_NOT_FOUND", "dapr.io")
        );
    }

    #[test]
    fn over_grpc_the_code_stands_in_for_a_reason() {
        let status = ApiError::malformed("x").status();
        let whole = RpcStatus::decode(status.details()).unwrap();
        assert_eq!(
            ErrorInfo::decode(whole.details[0].value.as_slice()).unwrap().reason,
            "ERR_MALFORMED_REQUEST"
        );
    }
}
