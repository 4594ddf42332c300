use super::*;
use crate::{Component, Configuration, HTTPEndpoint, MCPServer, decode, encode};

/// A namespace with one Secret, `auth`, with the keys `password` and `auth`.
fn lookup(secret: &str, key: &str) -> Lookup {
    match (secret, key) {
        ("auth", "password") => Lookup::Found(b"hunter1".into()),
        ("auth", "auth") => Lookup::Found(b"named-like-the-secret".into()),
        ("auth", "binary") => Lookup::Found(b"a\xff<".into()),
        ("auth", _) => Lookup::NoSuchKey,
        _ => Lookup::NoSuchSecret,
    }
}

fn component(auth: &str, pair: &str) -> Component {
    decode(&format!(
        r#"{{"auth":{auth},"spec":{{"metadata":[{{"name":"first"}},{pair}]}}}}"#
    ))
    .unwrap()
}

fn value_of(component: &Component) -> Option<&str> {
    component.properties()[1].value.as_ref().map(DynamicValue::json)
}

#[test]
fn a_component_gets_base64_and_keeps_its_reference() {
    for auth in ["null", r#"{"secretStore":""}"#, r#"{"secretStore":"kubernetes"}"#] {
        let object = component(
            auth,
            r#"{"name":"p","value":"old","secretKeyRef":{"name":"auth","key":"password"}}"#,
        );
        let resolved = resolve(&object, &lookup);
        assert_eq!(value_of(&resolved.object), Some(r#""aHVudGVyMQ==""#));
        assert!(resolved.object.properties()[1].secret().is_some());
        assert_eq!(resolved.unresolved, []);
        // The object that was given stays as it was.
        assert_eq!(value_of(&object), Some(r#""old""#));
    }
}

#[test]
fn an_empty_key_means_the_name_of_the_secret() {
    let object = component("null", r#"{"name":"p","secretKeyRef":{"name":"auth"}}"#);
    let expected = DynamicValue::base64(b"named-like-the-secret");
    assert_eq!(value_of(&resolve(&object, &lookup).object), Some(expected.json()));
}

#[test]
fn another_secret_store_is_the_sidecars_business() {
    let object = component(
        r#"{"secretStore":"vault"}"#,
        r#"{"name":"p","secretKeyRef":{"name":"gone","key":"k"}}"#,
    );
    let resolved = resolve(&object, &lookup);
    assert!(matches!(resolved.object, Cow::Borrowed(_)));
    assert_eq!(resolved.unresolved, []);
    assert_eq!(object.secret_refs(), []);
}

#[test]
fn a_component_keeps_its_value_when_the_key_is_missing() {
    let object = component(
        "null",
        r#"{"name":"p","value":"old","secretKeyRef":{"name":"auth","key":"no"}}"#,
    );
    let resolved = resolve(&object, &lookup);
    assert_eq!(value_of(&resolved.object), Some(r#""old""#));
    let [missing] = &resolved.unresolved[..] else {
        panic!("one finding expected")
    };
    assert_eq!(
        missing.to_string(),
        r#"spec.metadata[1] (p): Secret "auth" has no key "no""#
    );
    assert!(!missing.fatal);

    let object = component("null", r#"{"name":"p","secretKeyRef":{"name":"gone"}}"#);
    let [missing] = &resolve(&object, &lookup).unresolved[..] else {
        panic!("one finding expected")
    };
    assert_eq!(
        missing.to_string(),
        r#"spec.metadata[1] (p): Secret "gone" does not exist"#
    );
    assert_eq!((missing.secret.as_str(), missing.key.as_str()), ("gone", "gone"));
    assert!(missing.fatal);
}

#[test]
fn an_endpoint_unsets_values_whose_key_is_missing() {
    let object: HTTPEndpoint = decode(
        r#"{"spec":{"headers":[{"name":"h","value":"old","secretKeyRef":{"name":"auth","key":"no"}}],
            "clientTLS":{"rootCA":{"value":"old","secretKeyRef":{"name":"auth","key":"no"}},
                "certificate":{"secretKeyRef":{"name":"auth","key":"password"}},
                "privateKey":{"value":"inline"}}}}"#,
    )
    .unwrap();
    let resolved = resolve(&object, &lookup);
    let fields: Vec<_> = resolved
        .unresolved
        .iter()
        .map(|missing| missing.field.as_str())
        .collect();
    assert_eq!(fields, ["spec.headers[0]", "spec.clientTLS.rootCA"]);
    let json = String::from_utf8(encode(&*resolved.object, false).unwrap()).unwrap();
    for part in [
        r#"{"name":"h","value":null,"secretKeyRef":{"name":"auth","key":"no"}}"#,
        r#""rootCA":{"value":null,"secretKeyRef":{"name":"auth","key":"no"}}"#,
        r#""certificate":{"value":"aHVudGVyMQ==","secretKeyRef":{"name":"auth","key":"password"}}"#,
        r#""privateKey":{"value":"inline"}"#,
    ] {
        assert!(json.contains(part), "{part} in {json}");
    }
}

#[test]
fn a_configuration_gets_text_and_insists_on_a_key() {
    let otel = |pair: &str| -> Configuration {
        decode(&format!(
            r#"{{"spec":{{"tracing":{{"otel":{{"headers":[{pair}]}}}}}}}}"#
        ))
        .unwrap()
    };
    let sent = |object: &Configuration| {
        let resolved = resolve(object, &lookup);
        let json = String::from_utf8(encode(&*resolved.object, false).unwrap()).unwrap();
        (json, resolved.unresolved)
    };
    let (json, unresolved) = sent(&otel(r#"{"name":"h","secretKeyRef":{"name":"auth","key":"password"}}"#));
    assert!(json.contains(r#""value":"hunter1""#) && unresolved.is_empty(), "{json}");
    let (json, _) = sent(&otel(r#"{"name":"h","secretKeyRef":{"name":"auth","key":"binary"}}"#));
    assert!(json.contains("\"value\":\"a\u{fffd}\\u003c\""), "{json}");

    for (key, cause) in [("", Cause::NoKeyNamed), ("no", Cause::NoSuchKey)] {
        let (_, unresolved) = sent(&otel(&format!(
            r#"{{"name":"h","secretKeyRef":{{"name":"auth","key":"{key}"}}}}"#
        )));
        assert_eq!((unresolved[0].cause, unresolved[0].fatal), (cause, true));
    }
}

#[test]
fn an_mcp_server_has_the_pairs_of_its_transport_resolved() {
    let pairs = r#"[{"name":"k","secretKeyRef":{"name":"auth","key":"password"}}]"#;
    for (endpoint, field) in [
        (
            format!(r#"{{"streamableHTTP":{{"headers":{pairs}}}}}"#),
            Some("spec.endpoint.streamableHTTP.headers[0]"),
        ),
        (
            format!(r#"{{"sse":{{"headers":{pairs}}}}}"#),
            Some("spec.endpoint.sse.headers[0]"),
        ),
        (
            format!(r#"{{"stdio":{{"env":{pairs}}}}}"#),
            Some("spec.endpoint.stdio.env[0]"),
        ),
        (
            format!(r#"{{"sse":{{"headers":{pairs},"auth":{{"secretStore":"vault"}}}}}}"#),
            None,
        ),
        (
            r#"{"sse":{"auth":{"oauth2":{"issuer":"i","secretKeyRef":{"name":"auth"}}}}}"#.to_owned(),
            None,
        ),
    ] {
        let object: MCPServer = decode(&format!(r#"{{"spec":{{"endpoint":{endpoint}}}}}"#)).unwrap();
        let fields: Vec<_> = object.secret_refs().into_iter().map(|secret| secret.field).collect();
        assert_eq!(fields, field.into_iter().collect::<Vec<_>>(), "{endpoint}");
        let json = String::from_utf8(encode(&*resolve(&object, &lookup).object, false).unwrap()).unwrap();
        assert_eq!(json.contains(r#""value":"aHVudGVyMQ==""#), field.is_some(), "{json}");
    }
}

#[test]
fn a_client_secret_is_checked_and_not_sent() {
    for transport in ["streamableHTTP", "sse"] {
        let server = |store: &str, secret: &str| -> MCPServer {
            decode(&format!(
                r#"{{"spec":{{"endpoint":{{"{transport}":{{"url":"http://x","auth":{{"secretStore":"{store}",
                "oauth2":{{"issuer":"http://i","secretKeyRef":{secret}}}}}}}}}}}}}"#
            ))
            .unwrap()
        };
        for (secret, cause) in [
            (r#"{"name":"gone","key":"k"}"#, Some(Cause::NoSuchSecret)),
            (r#"{"name":"auth","key":"k"}"#, Some(Cause::NoSuchKey)),
            (r#"{"name":"auth","key":"password"}"#, None),
            (r#"{"name":"auth"}"#, None),
            (r#"{"name":""}"#, None),
        ] {
            let object = server("", secret);
            let missing = unresolved(&object, &lookup);
            assert_eq!(missing.first().map(|missing| missing.cause), cause, "{secret}");
            if let [missing] = &missing[..] {
                let text = missing.to_string();
                let field = format!("spec.endpoint.{transport}.auth.oauth2 (client secret): Secret ");
                assert!(text.starts_with(&field), "{text}");
            }
            let resolved = resolve(&object, &lookup);
            assert!(matches!(resolved.object, Cow::Borrowed(_)) && resolved.unresolved.is_empty());
            assert_eq!(unresolved(&server("vault", secret), &lookup), []);
        }
    }
}
