//! What nobody should send: each gets an answer that a person can act on, and the next request is answered as ever.

use super::*;

/// A review of a pod that is patched, after some change.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut review = review(json!({"dapr.io/enabled": "true", "dapr.io/app-id": "cart"}));
    change(&mut review["request"]);
    review.to_string()
}

async fn still_answers(server: &Server) {
    let answered = server.post(changed(|_| {})).await.json();
    assert_eq!(answered["response"]["patchType"], "JSONPatch", "{answered}");
}

/// The pod with the patch of the answer in it.
fn patched(review: &str, answer: &Value) -> Value {
    let patch = answer["response"]["patch"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"));
    let patch: json_patch::Patch = serde_json::from_slice(&BASE64_STANDARD.decode(patch).unwrap()).unwrap();
    let mut pod = serde_json::from_str::<Value>(review).unwrap()["request"]["object"].take();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

#[tokio::test]
async fn what_is_no_review_is_denied_with_the_place_of_the_mistake() {
    let server = Server::new();
    let object = |object: &'static str| changed(|request| request["object"] = serde_json::from_str(object).unwrap());
    for (body, expected) in [
        (
            "not JSON".to_owned(),
            "the body is not an AdmissionReview: expected ident at line 1 column 2",
        ),
        (
            "apiVersion: v1".to_owned(),
            "the body is not an AdmissionReview: expected value at line 1 column 1",
        ),
        (
            changed(|request| request["userInfo"] = 5.into()),
            "the body is not an AdmissionReview: invalid type: integer `5`",
        ),
        (
            changed(|request| request["object"] = Value::Null),
            "could not unmarshal raw object: the object is empty",
        ),
        (
            object(r#"{"spec":{"containers":"main"}}"#),
            "could not unmarshal raw object: spec.containers: invalid type: string \"main\"",
        ),
        (
            object(r#"{"spec":{"tolerations":[{"tolerationSeconds":99999999999999999999}]}}"#),
            "could not unmarshal raw object: spec.tolerations[0].tolerationSeconds: invalid type: floating point",
        ),
    ] {
        let response = server.post(body.clone()).await.json()["response"].take();
        let message = response["status"]["message"]
            .as_str()
            .unwrap_or_else(|| panic!("{response}"));
        assert!(message.starts_with(expected), "{message}");
        assert_eq!(response["allowed"], false);
        still_answers(&server).await;
    }
}

/// Mistakes are quoted in the answer, and logged.
#[tokio::test]
async fn long_mistakes_are_quoted_shortly() {
    let server = Server::new();
    let long = "x".repeat(1 << 20);
    for body in [
        changed(|request| request["userInfo"] = long.clone().into()),
        changed(|request| request["object"]["spec"]["containers"] = long.clone().into()),
        changed(|request| request["object"]["metadata"]["annotations"]["dapr.io/app-id"] = long.clone().into()),
    ] {
        let response = server.post(body).await.json()["response"].take();
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.len() <= 4096 && message.ends_with('…'), "{}", message.len());
    }
    still_answers(&server).await;
}

#[tokio::test]
async fn ten_megabytes_are_refused_before_they_are_read() {
    let server = Server::new();
    let answered = server
        .post(changed(|request| request["padding"] = "x".repeat(10 << 20).into()))
        .await;
    assert_eq!(
        (answered.status, answered.text()),
        (StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 8 MiB\n")
    );
    still_answers(&server).await;
}

#[tokio::test]
async fn what_is_no_creation_of_a_pod_passes_with_a_hint_at_the_registration() {
    let server = Server::new();
    for (field, value, expected) in [
        (
            "kind",
            json!({"group": "apps", "version": "v1", "kind": "Deployment"}),
            "the sidecar injector was asked about \"Deployment\" and acts on pods only",
        ),
        (
            "operation",
            json!("UPDATE"),
            "no Dapr sidecar: it can be added only when a pod is created, not by \"UPDATE\"",
        ),
        (
            "operation",
            json!("TELEPORT"),
            "no Dapr sidecar: it can be added only when a pod is created, not by \"TELEPORT\"",
        ),
    ] {
        let body = changed(|request| request[field] = value);
        let response = server.post(body).await.json()["response"].take();
        assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
        let warning = response["warnings"][0].as_str().unwrap();
        assert!(
            warning.starts_with(expected) && warning.contains("MutatingWebhookConfiguration"),
            "{warning}"
        );
        still_answers(&server).await;
    }
}

#[tokio::test]
async fn odd_pods_are_patched_as_far_as_they_can_be_and_told() {
    let server = Server::new();
    let annotation = |key: &'static str, value: &'static str| {
        move |request: &mut Value| request["object"]["metadata"]["annotations"][key] = value.into()
    };
    let spec = |key: &'static str, value: Value| move |request: &mut Value| request["object"]["spec"][key] = value;
    let twice = json!([{"name": "data"}, {"name": "data"}]);
    let debugger = json!([{"name": "daprd", "image": "busybox"}]);
    let cases: [(String, &[&str]); 5] = [
        (
            changed(annotation("dapr.io/app-port", "99999999999999999999")),
            &["annotation dapr.io/app-port: \"99999999999999999999\" is not a port; it is ignored"],
        ),
        (
            changed(annotation(
                "dapr.io/sidecar-readiness-probe-period-seconds",
                "4294967297",
            )),
            &[
                "annotation dapr.io/sidecar-readiness-probe-period-seconds: \"4294967297\" is not a 32-bit integer; it is ignored",
            ],
        ),
        (
            changed(spec("containers", json!([]))),
            &["the pod has no container of its own; the sidecar will be alone in it"],
        ),
        // The API server itself refuses both, and names them: the patch only has to apply.
        (changed(spec("ephemeralContainers", debugger)), &[]),
        (changed(spec("volumes", twice)), &[]),
    ];
    for (body, warnings) in cases {
        let answer = server.post(body.clone()).await.json();
        let pod = patched(&body, &answer);
        let containers = pod["spec"]["containers"].as_array().unwrap();
        assert_eq!(containers.last().unwrap()["name"], "daprd");
        let told = answer["response"].get("warnings").cloned().unwrap_or(json!([]));
        assert_eq!(told, json!(warnings), "{body}");
        still_answers(&server).await;
    }
    // A pod that asks for nothing is left alone, without a word.
    for nothing in [json!(null), json!({}), json!({"dapr.io/config": "c"})] {
        let body = changed(|request| request["object"]["metadata"]["annotations"] = nothing);
        let response = server.post(body).await.json()["response"].take();
        assert_eq!(response, json!({"uid": "u1", "allowed": true}));
    }
}
