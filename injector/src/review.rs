//! The envelope of an admission review. `apiVersion` and `kind` are repeated, not checked: `v1beta1` has the same shape.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use outrigger_core::text::shortened;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{authorise::Requester, patch::Operations, pod::or_default};

/// A review as the API server sends it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Review<'a> {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    #[serde(borrow)]
    pub request: Option<Request<'a>>,
}

/// Repeated in the answer as found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Types {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// What is asked. The object stays text until it is known to matter.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Request<'a> {
    #[serde(deserialize_with = "or_default")]
    pub uid: String,
    #[serde(deserialize_with = "or_default")]
    pub kind: Kind,
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    #[serde(deserialize_with = "or_default")]
    pub operation: String,
    #[serde(deserialize_with = "or_default")]
    pub user_info: Requester,
    /// Nothing will be stored.
    #[serde(deserialize_with = "or_default")]
    pub dry_run: bool,
    #[serde(borrow)]
    pub object: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Kind {
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
}

/// Bytes of what a denial says: as much as all warnings take together. Mistakes are quoted, and may be as long as the review.
const MAX_DENIAL: usize = 4096;

/// What is answered.
#[derive(Debug)]
pub enum Answer {
    /// As it is.
    Allowed,
    Denied(String),
    Patched(Operations),
}

impl Answer {
    /// Says no, and not too much.
    pub fn denied(message: String) -> Self {
        Self::Denied(shortened(message, MAX_DENIAL))
    }
}

/// The answer with its envelope.
#[derive(Debug)]
pub struct Reply {
    pub types: Types,
    pub uid: String,
    pub answer: Answer,
    pub warnings: Vec<String>,
    /// The API server puts the webhook's name in front of the keys.
    pub audit: BTreeMap<&'static str, String>,
}

/// Why a body is no review, with what could still be read of it.
#[derive(Debug)]
pub struct Undecodable {
    pub types: Types,
    pub uid: String,
    pub error: serde_json::Error,
}

/// Decodes a body.
///
/// # Errors
/// When it is no review. The error keeps the request's UID if that much could be read, since the API server takes no answer
/// without it.
pub fn decode(body: &[u8]) -> Result<Review<'_>, Box<Undecodable>> {
    serde_json::from_slice(body).map_err(|error| {
        let readable: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |pointer: &str| Some(readable.pointer(pointer)?.as_str()?.to_owned());
        Box::new(Undecodable {
            types: Types {
                api_version: text("/apiVersion"),
                kind: text("/kind"),
            },
            uid: text("/request/uid").unwrap_or_default(),
            error,
        })
    })
}

impl Reply {
    /// # Errors
    /// Never in practice: all parts have string keys and finite numbers.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let patch = match &self.answer {
            Answer::Patched(operations) => Some(BASE64_STANDARD.encode(operations.as_json())),
            _ => None,
        };
        #[derive(Serialize)]
        struct Envelope<'a> {
            #[serde(flatten)]
            types: &'a Types,
            response: Response<'a>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Response<'a> {
            uid: &'a str,
            allowed: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            status: Option<Status<'a>>,
            /// Base64, as Go encodes bytes.
            #[serde(skip_serializing_if = "Option::is_none")]
            patch: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            patch_type: Option<&'a str>,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            warnings: &'a [String],
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            audit_annotations: &'a BTreeMap<&'static str, String>,
        }
        #[derive(Serialize)]
        struct Status<'a> {
            metadata: serde_json::Map<String, serde_json::Value>,
            message: &'a str,
        }
        serde_json::to_vec(&Envelope {
            types: &self.types,
            response: Response {
                uid: &self.uid,
                allowed: !matches!(self.answer, Answer::Denied(_)),
                status: match &self.answer {
                    Answer::Denied(message) => Some(Status {
                        metadata: serde_json::Map::new(),
                        message,
                    }),
                    _ => None,
                },
                patch_type: patch.as_ref().map(|_| "JSONPatch"),
                patch: patch.as_deref(),
                warnings: &self.warnings,
                audit_annotations: &self.audit,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn encoded(answer: Answer, warnings: Vec<String>, types: Types) -> Value {
        let reply = Reply {
            types,
            uid: "u".into(),
            answer,
            warnings,
            audit: [("outcome", "injected".to_owned())].into(),
        };
        serde_json::from_slice(&reply.encode().unwrap()).unwrap()
    }

    #[test]
    fn answers_have_upstreams_shape() {
        let types = Types {
            api_version: Some("admission.k8s.io/v1".into()),
            kind: Some("AdmissionReview".into()),
        };
        assert_eq!(
            encoded(Answer::Allowed, vec!["w".into()], types),
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                   "response": {"uid": "u", "allowed": true, "warnings": ["w"],
                                "auditAnnotations": {"outcome": "injected"}}})
        );
        assert_eq!(
            encoded(Answer::Denied("no".into()), vec![], Types::default()),
            json!({"response": {"uid": "u", "allowed": false, "status": {"metadata": {}, "message": "no"},
                                "auditAnnotations": {"outcome": "injected"}}})
        );
        let mut operations = Operations::default();
        operations.add("/a", &1);
        let patched = encoded(Answer::Patched(operations), vec![], Types::default());
        assert_eq!(patched["response"]["patchType"], "JSONPatch");
        assert_eq!(
            BASE64_STANDARD
                .decode(patched["response"]["patch"].as_str().unwrap())
                .unwrap(),
            br#"[{"op":"add","path":"/a","value":1}]"#
        );
    }

    #[test]
    fn decodes_what_it_needs() {
        let body = json!({"kind": "AdmissionReview", "extra": {}, "request": {
            "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "namespace": "shop", "name": "p",
            "operation": "CREATE", "userInfo": {"username": "jane", "groups": null, "extra": {}}, "object": {"a": 1}}});
        let body = body.to_string();
        let review = decode(body.as_bytes()).unwrap();
        assert_eq!(review.kind.as_deref(), Some("AdmissionReview"));
        let request = review.request.unwrap();
        assert_eq!((request.uid.as_str(), request.kind.kind.as_str()), ("u", "Pod"));
        assert_eq!(request.user_info.username, "jane");
        assert_eq!(request.object.unwrap().get(), r#"{"a":1}"#);
        assert!(decode(br#"{"request":null}"#).unwrap().request.is_none());
    }

    #[test]
    fn keeps_the_uid_of_what_it_cannot_decode() {
        let broken = decode(br#"{"kind":"AdmissionReview","request":{"uid":"u","namespace":5}}"#).unwrap_err();
        assert_eq!(broken.uid, "u");
        assert_eq!(broken.types.kind.as_deref(), Some("AdmissionReview"));
        assert_eq!(decode(b"{").unwrap_err().uid, "");
    }
}
