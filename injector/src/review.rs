//! The envelope of an admission review. `apiVersion` and `kind` are repeated, not checked: `v1beta1` has the same shape.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use outrigger_core::text::shortened;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{authorise::Requester, patch::Operations, pod::or_default, text::Text};

/// A review as the API server sends it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Review<'a> {
    #[serde(borrow)]
    pub api_version: Option<Text<'a>>,
    #[serde(borrow)]
    pub kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub request: Option<Request<'a>>,
}

/// Repeated in the answer as found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Types<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text<'a>>,
}

/// What is asked. The object stays text until it is known to matter.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Request<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    pub uid: Text<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub kind: Kind<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub namespace: Text<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub operation: Text<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub user_info: Requester<'a>,
    /// Nothing will be stored.
    #[serde(deserialize_with = "or_default")]
    pub dry_run: bool,
    #[serde(borrow)]
    pub object: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Kind<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    pub kind: Text<'a>,
}

/// Bytes of what a denial says: as much as all warnings take together. Mistakes are quoted, and may be as long as the review.
const MAX_DENIAL: usize = 4096;

/// Bytes of most answers without their patch.
const ENVELOPE_SIZE: usize = 1024;

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
pub struct Reply<'a> {
    pub types: Types<'a>,
    pub uid: Text<'a>,
    pub answer: Answer,
    pub warnings: Vec<String>,
    /// The API server puts the webhook's name in front of the keys.
    pub audit: BTreeMap<&'static str, String>,
}

/// Why a body is no review, with what could still be read of it.
#[derive(Debug)]
pub struct Undecodable {
    pub types: Types<'static>,
    pub uid: Text<'static>,
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
        let text = |pointer: &str| Some(Text::from(readable.pointer(pointer)?.as_str()?.to_owned()));
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

impl Reply<'_> {
    /// # Errors
    /// Never in practice: all parts have string keys and finite numbers.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        struct Envelope<'a> {
            #[serde(flatten)]
            types: &'a Types<'a>,
            response: Response<'a>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Response<'a> {
            uid: &'a str,
            allowed: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            status: Option<Status<'a>>,
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
        let (patch, denial) = match &self.answer {
            Answer::Allowed => (None, None),
            Answer::Denied(message) => (None, Some(message)),
            Answer::Patched(operations) => (Some(operations.as_json()), None),
        };
        let envelope = Envelope {
            types: &self.types,
            response: Response {
                uid: &self.uid,
                allowed: denial.is_none(),
                status: denial.map(|message| Status {
                    metadata: serde_json::Map::new(),
                    message,
                }),
                patch_type: patch.map(|_| "JSONPatch"),
                warnings: &self.warnings,
                audit_annotations: &self.audit,
            },
        };
        let mut json = Vec::with_capacity(ENVELOPE_SIZE + patch.map_or(0, <[u8]>::len) / 3 * 4);
        serde_json::to_writer(&mut json, &envelope)?;
        if let Some(patch) = patch {
            add_patch(&mut json, patch);
        }
        Ok(json)
    }
}

/// Adds a patch to an answer, whose last member is the response: in base64, as Go encodes bytes, which as a string of JSON has
/// nothing to escape. Most of an answer is this.
fn add_patch(answer: &mut Vec<u8>, patch: &[u8]) {
    const END: &[u8] = b"}}";
    debug_assert!(answer.ends_with(END));
    answer.truncate(answer.len() - END.len());
    answer.extend_from_slice(br#","patch":""#);
    let begin = answer.len();
    answer.resize(begin + patch.len().div_ceil(3) * 4, b'=');
    let length = BASE64_STANDARD.encode_slice(patch, &mut answer[begin..]);
    answer.truncate(begin + length.expect("there is room for every three bytes as four"));
    answer.push(b'"');
    answer.extend_from_slice(END);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn encoded(answer: Answer, warnings: Vec<String>, types: Types<'_>) -> Value {
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
        assert_eq!((&*request.uid, &*request.kind.kind), ("u", "Pod"));
        assert_eq!(&*request.user_info.username, "jane");
        assert_eq!(request.object.unwrap().get(), r#"{"a":1}"#);
        assert!(decode(br#"{"request":null}"#).unwrap().request.is_none());
    }

    #[test]
    fn keeps_the_uid_of_what_it_cannot_decode() {
        let broken = decode(br#"{"kind":"AdmissionReview","request":{"uid":"u","namespace":5}}"#).unwrap_err();
        assert_eq!(&*broken.uid, "u");
        assert_eq!(broken.types.kind.as_deref(), Some("AdmissionReview"));
        assert_eq!(decode(b"{").unwrap_err().uid.len(), 0);
    }
}
