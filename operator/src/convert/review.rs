//! A ConversionReview: its bytes in, the answer's bytes out.

use outrigger_crds::subscription::convert::{ConvertError, Version, convert};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

/// What is answered, and what is counted.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
    /// What was asked for, if that is a version of ours.
    pub(super) version: Option<Version>,
    /// How many objects were converted, or why one was not.
    pub(super) result: Result<usize, String>,
}

/// A body that cannot be answered with a review, since nothing tells which it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswerable {
    #[error("the body is no ConversionReview: {0}")]
    Malformed(serde_json::Error),
    #[error("the ConversionReview has no request")]
    NoRequest,
}

const GROUP: &str = "apiextensions.k8s.io/";
const KIND: &str = "ConversionReview";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Review {
    api_version: Option<String>,
    kind: Option<String>,
    request: Option<Request>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Request {
    uid: String,
    #[serde(rename = "desiredAPIVersion")]
    desired_api_version: Option<String>,
    objects: Option<Vec<Box<RawValue>>>,
}

/// As `metav1.Status` has it. The objects are `null`, as upstream writes it, after a failure and when there are none.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'a str>,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    converted_objects: Option<&'a [Box<RawValue>]>,
    result: Status<'a>,
}

#[derive(Serialize)]
struct Status<'a> {
    metadata: serde_json::Map<String, Value>,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// Answers a review: all of its objects converted, or why the first that is not cannot be.
///
/// # Errors
/// When the body is so far from a review that it has no request.
pub(super) fn answer(body: &[u8]) -> Result<Answer, Unanswerable> {
    let (review, malformed) = read(body)?;
    let request = review.request.unwrap_or_default();
    let desired = request.desired_api_version.as_deref().unwrap_or_default();
    let version = desired.parse::<Version>();
    let converted = match (malformed, &version) {
        (Some(error), _) => Err(format!("the request of the ConversionReview: {error}")),
        (None, _) if !is_review(review.api_version.as_deref(), review.kind.as_deref()) => Err(format!(
            "found {} {}, expected a {KIND} of {GROUP}v1",
            review.api_version.as_deref().unwrap_or("no apiVersion"),
            review.kind.as_deref().unwrap_or("and no kind")
        )),
        (None, Err(error)) => Err(format!("request.desiredAPIVersion: {error}")),
        (None, Ok(version)) => {
            all(request.objects.as_deref().unwrap_or_default(), *version).map_err(|error| error.to_string())
        }
    };
    let objects = converted.as_deref().ok().filter(|objects| !objects.is_empty());
    let reply = Reply {
        kind: review.kind.as_deref(),
        api_version: review.api_version.as_deref(),
        response: Response {
            uid: &request.uid,
            converted_objects: objects,
            result: Status {
                metadata: serde_json::Map::new(),
                status: if converted.is_ok() { "Success" } else { "Failure" },
                message: converted.as_ref().err().map(String::as_str),
            },
        },
    };
    Ok(Answer {
        body: serde_json::to_vec(&reply).expect("texts and JSON are JSON"),
        version: version.ok(),
        result: converted.map(|objects| objects.len()),
    })
}

fn all(objects: &[Box<RawValue>], to: Version) -> Result<Vec<Box<RawValue>>, ConvertError> {
    objects.iter().map(|object| convert(object, to)).collect()
}

/// Every version of the review has this shape.
fn is_review(api_version: Option<&str>, kind: Option<&str>) -> bool {
    kind == Some(KIND) && api_version.is_some_and(|version| version.starts_with(GROUP))
}

/// A review, or as much of it as an answer repeats, together with what is wrong: the API server takes no answer without the
/// request's UID.
fn read(body: &[u8]) -> Result<(Review, Option<serde_json::Error>), Unanswerable> {
    let error = match serde_json::from_slice::<Review>(body) {
        Ok(review) if review.request.is_some() => return Ok((review, None)),
        Ok(_) => return Err(Unanswerable::NoRequest),
        Err(error) => error,
    };
    let Ok(readable) = serde_json::from_slice::<Value>(body) else {
        return Err(Unanswerable::Malformed(error));
    };
    let text = |pointer: &str| Some(readable.pointer(pointer)?.as_str()?.to_owned());
    let Some(uid) = text("/request/uid") else {
        return Err(Unanswerable::Malformed(error));
    };
    let review = Review {
        api_version: text("/apiVersion"),
        kind: text("/kind"),
        request: Some(Request {
            uid,
            desired_api_version: text("/request/desiredAPIVersion"),
            objects: None,
        }),
    };
    Ok((review, Some(error)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subscription(name: &str) -> Value {
        json!({"apiVersion": "dapr.io/v1alpha1", "kind": "Subscription", "metadata": {"name": name, "namespace": "shop"},
               "spec": {"pubsubname": "p", "topic": "t", "route": "/r"}})
    }

    fn review(desired: &str, objects: Value) -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
               "request": {"uid": "u-1", "desiredAPIVersion": desired, "objects": objects}})
    }

    fn answered(review: &Value) -> Value {
        serde_json::from_slice(&answer(review.to_string().as_bytes()).unwrap().body).unwrap()
    }

    fn failure(review: &Value) -> String {
        let answer = answered(review);
        assert_eq!(answer["response"]["uid"], "u-1");
        assert_eq!(answer["response"]["result"]["status"], "Failure");
        assert_eq!(answer["response"]["convertedObjects"], Value::Null);
        answer["response"]["result"]["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn converts_in_order_and_repeats_the_uid() {
        let objects = json!([subscription("a"), subscription("b")]);
        let answer = answered(&review("dapr.io/v2alpha1", objects));
        let mut a = subscription("a");
        a["apiVersion"] = "dapr.io/v2alpha1".into();
        a["spec"] =
            json!({"pubsubname": "p", "topic": "t", "routes": {"default": "/r"}, "bulkSubscribe": {"enabled": false}});
        let mut b = a.clone();
        b["metadata"]["name"] = "b".into();
        assert_eq!(
            answer,
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": {
                "uid": "u-1", "convertedObjects": [a, b], "result": {"metadata": {}, "status": "Success"},
            }})
        );
        for nothing in [json!([]), json!(null)] {
            let response = &answered(&review("dapr.io/v2alpha1", nothing))["response"];
            assert_eq!(
                response,
                &json!({"uid": "u-1", "convertedObjects": null, "result": {"metadata": {}, "status": "Success"}})
            );
        }
    }

    #[test]
    fn failures_say_what_to_change() {
        let mut broken = subscription("b");
        broken["spec"]["route"] = json!({});
        let with_broken = review("dapr.io/v2alpha1", json!([subscription("a"), broken]));
        let mut other = review("dapr.io/v2alpha1", json!([]));
        other["kind"] = "AdmissionReview".into();
        let mut nothing = review("dapr.io/v2alpha1", json!([]));
        nothing.as_object_mut().unwrap().retain(|name, _| name == "request");
        for (review, expected) in [
            (
                with_broken,
                "Subscription shop/b: spec.route: found {}, expected a string",
            ),
            (
                review("dapr.io/v3", json!([])),
                "request.desiredAPIVersion: found \"dapr.io/v3\", expected \"dapr.io/v1alpha1\" or \"dapr.io/v2alpha1\"",
            ),
            (
                other,
                "found apiextensions.k8s.io/v1 AdmissionReview, expected a ConversionReview of apiextensions.k8s.io/v1",
            ),
            (
                nothing,
                "found no apiVersion and no kind, expected a ConversionReview of apiextensions.k8s.io/v1",
            ),
            (
                review("dapr.io/v2alpha1", json!("x")),
                "the request of the ConversionReview: invalid type: string \"x\", expected a sequence at line 1",
            ),
        ] {
            let message = failure(&review);
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn what_is_no_review_is_told_so() {
        let text = |body: &str| answer(body.as_bytes()).unwrap_err().to_string();
        assert_eq!(text("{}"), "the ConversionReview has no request");
        assert_eq!(
            text(r#"{"kind":"ConversionReview","request":null}"#),
            "the ConversionReview has no request"
        );
        for body in ["", "x", "5", "{\"request\":5}", "\u{0}"] {
            assert!(text(body).starts_with("the body is no ConversionReview: "), "{body}");
        }
        assert!(answer(b"\xff{}").is_err());
    }

    /// Changes a valid review at random places, with bytes and with tokens.
    #[test]
    fn whatever_comes_in_is_answered() {
        let valid = review("dapr.io/v2alpha1", json!([subscription("a"), subscription("b")])).to_string();
        let tokens = [
            "null", "{}", "[]", "\"\"", "{", "}", "[", "]", ",", ":", "\"", "1e999", "-", "\\", "\\ud800", "é",
        ];
        let (mut answers, mut failures) = (0, 0);
        for seed in 0..20_000 {
            let mut chance = fastrand::Rng::with_seed(seed);
            let mut body = valid.clone().into_bytes();
            for _ in 0..chance.usize(..4) {
                let at = chance.usize(..body.len());
                let end = (at + chance.usize(..16)).min(body.len());
                let new = match chance.usize(..3) {
                    0 => vec![chance.u8(..); chance.usize(..4)],
                    1 => tokens[chance.usize(..tokens.len())].into(),
                    _ => Vec::new(),
                };
                body.splice(at..end, new);
            }
            let Ok(answer) = answer(&body) else {
                continue;
            };
            // Half a surrogate pair passes as text; Go reads it, serde_json does not.
            let Ok(sent) = serde_json::from_slice::<Value>(&body) else {
                continue;
            };
            let reply: Value = serde_json::from_slice(&answer.body).unwrap();
            let response = &reply["response"];
            let uid = sent["request"]["uid"].as_str().unwrap_or_default();
            assert_eq!(response["uid"], uid, "seed {seed}");
            let objects = response["convertedObjects"].as_array().map_or(0, Vec::len);
            match answer.result {
                Ok(count) => {
                    assert_eq!(
                        (&response["result"]["status"], objects),
                        (&json!("Success"), count),
                        "seed {seed}"
                    );
                    answers += 1;
                }
                Err(message) => {
                    assert_eq!(response["result"]["status"], "Failure", "seed {seed}");
                    assert_eq!(response["result"]["message"], *message, "seed {seed}");
                    assert_eq!(objects, 0, "seed {seed}");
                    failures += 1;
                }
            }
        }
        assert!(answers > 1000 && failures > 1000, "{answers} {failures}");
    }
}
