use serde_json::{Value, json};

use super::*;

fn converted(object: &Value, to: Version) -> Result<Value, String> {
    let converted = convert(&raw(object), to).map_err(|error| error.to_string())?;
    Ok(serde_json::from_str(converted.get()).unwrap())
}

fn v1(spec: Value) -> Value {
    json!({"apiVersion": "dapr.io/v1alpha1", "kind": "Subscription",
           "metadata": {"name": "orders", "namespace": "shop"}, "spec": spec})
}

fn v2(spec: Value) -> Value {
    let mut object = v1(spec);
    object["apiVersion"] = "dapr.io/v2alpha1".into();
    object
}

fn to_v1(object: &Value) -> Value {
    converted(object, Version::V1Alpha1).unwrap()
}

fn to_v2(object: &Value) -> Value {
    converted(object, Version::V2Alpha1).unwrap()
}

fn annotation(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][ROUTES_ANNOTATION].as_str()
}

fn annotated(text: &str) -> Value {
    let mut object = v1(json!({"pubsubname": "p", "topic": "t", "route": "/r"}));
    object["metadata"]["annotations"] = json!({ROUTES_ANNOTATION: text, "mine": "kept"});
    object
}

#[test]
fn fields_move_as_upstream_moves_them() {
    let spec = json!({
        "pubsubname": "broker", "topic": "orders", "route": "/orders", "deadLetterTopic": "failed",
        "metadata": {"a": "b"}, "bulkSubscribe": {"enabled": true, "maxMessagesCount": 50, "maxAwaitDurationMs": 0},
    });
    let mut object = v1(spec.clone());
    object["scopes"] = json!(["cart"]);
    object["status"] = json!({"observedGeneration": 3});
    let mut expected = object.clone();
    expected["apiVersion"] = "dapr.io/v2alpha1".into();
    expected["spec"].as_object_mut().unwrap().remove("route");
    expected["spec"]["routes"] = json!({"default": "/orders"});
    assert_eq!(to_v2(&object), expected);
    assert_eq!(to_v1(&expected), object);
}

#[test]
fn what_upstream_always_writes_is_written() {
    let empty = json!({"pubsubname": "", "topic": "", "bulkSubscribe": {"enabled": false}});
    let mut first = empty.clone();
    first["route"] = "".into();
    let mut second = empty;
    second["routes"] = json!({});
    for spec in [
        json!({}),
        json!(null),
        json!({"route": null, "routes": null, "bulkSubscribe": null}),
    ] {
        let mut object = v1(spec.clone());
        object["spec"].as_object_mut().map(|spec| spec.remove("routes"));
        assert_eq!(to_v2(&object)["spec"], second);
        let mut object = v2(spec);
        object["spec"].as_object_mut().map(|spec| spec.remove("route"));
        assert_eq!(to_v1(&object)["spec"], first);
    }
}

#[test]
fn what_is_not_known_stays_text_for_text() {
    let text = r#"{"apiVersion":"dapr.io/v1alpha1","kind":"Subscription","metadata":{"name":"a","uid":"u"},
        "spec":{"future":1.0e2,"topic":"\u00e9"},"later":[18446744073709551616]}"#;
    let object: Box<RawValue> = serde_json::from_str(text).unwrap();
    let converted = convert(&object, Version::V2Alpha1).unwrap();
    let back = convert(&converted, Version::V1Alpha1).unwrap();
    for part in [
        r#""future":1.0e2"#,
        r#""topic":"\u00e9""#,
        "[18446744073709551616]",
        r#"{"name":"a","uid":"u"}"#,
    ] {
        assert!(
            converted.get().contains(part) && back.get().contains(part),
            "{part}: {converted}"
        );
    }
}

#[test]
fn rules_wait_in_an_annotation() {
    let rules = json!([{"match": "event.type == \"a\"", "path": "/a"}, {"match": "", "path": "", "weight": 1.5}]);
    let object = v2(
        json!({"pubsubname": "p", "topic": "t", "bulkSubscribe": {"enabled": false},
                           "routes": {"rules": rules, "default": "/other"}}),
    );
    let mut first = to_v1(&object);
    assert_eq!(first["spec"]["route"], "/other");
    let kept: Value = serde_json::from_str(annotation(&first).unwrap()).unwrap();
    assert_eq!(kept, json!({"rules": rules}));
    assert_eq!(to_v2(&first), object);

    // An edit of the route leaves the rules alone.
    first["spec"]["route"] = "/new".into();
    assert_eq!(
        to_v2(&first)["spec"]["routes"],
        json!({"rules": rules, "default": "/new"})
    );
    first["spec"].as_object_mut().unwrap().remove("route");
    assert_eq!(to_v2(&first)["spec"]["routes"], json!({"rules": rules}));
}

#[test]
fn an_edited_annotation_is_used_or_left_alone() {
    let rules = json!([{"match": "true", "path": "/a"}]);
    let object = to_v2(&annotated(
        r#" {"rules": [{"match": "true", "path": "/a"}], "default": "/stale"} "#,
    ));
    assert_eq!(object["spec"]["routes"], json!({"rules": rules, "default": "/r"}));
    assert_eq!(object["metadata"]["annotations"], json!({"mine": "kept"}));

    for text in [
        "",
        "rules",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"rules": 5}"#,
        r#"{"rules": ["a"]}"#,
        r#"{"rules": [{"match": "a"}]}"#,
        r#"{"rules": [["a", "b"]]}"#,
        r#"{"rules": [{"match": "a", "path": 5}]}"#,
        r#"{"rules": null}"#,
    ] {
        let object = annotated(text);
        let second = to_v2(&object);
        assert_eq!(second["spec"]["routes"], json!({"default": "/r"}), "{text}");
        assert_eq!(second["metadata"], object["metadata"], "{text}");
        assert_eq!(to_v1(&second)["metadata"], object["metadata"], "{text}");
    }
}

#[test]
fn rules_that_v2_refuses_are_refused_in_the_annotation() {
    let rule = |text: &str| json!({"match": text, "path": "/a"});
    let refused = |rules: &Value| {
        let error = converted(&annotated(&json!({"rules": rules}).to_string()), Version::V2Alpha1);
        error.unwrap_err()
    };
    let head = "Subscription shop/orders: metadata.annotations[dapr.io/v2alpha1-routes]: ";
    for (rules, expected) in [
        (
            json!([rule("true"), rule("a and b")]),
            r#"rules[1].match: found "a and b", expected an expression of CEL, such as event.type == "order.created""#,
        ),
        (json!(vec![rule("true"); 126]), "rules: found 126, expected 125 at most"),
    ] {
        assert_eq!(
            refused(&rules),
            format!("{head}{expected}; edit it as dapr.io/v2alpha1")
        );
    }
    let error = refused(&json!([rule(&format!("'{}'", "é".repeat(2047)))]));
    assert!(
        error.ends_with("expected 2048 characters at most; edit it as dapr.io/v2alpha1"),
        "{error}"
    );
    assert!(error.len() < 400, "{error}");
    let longest = format!("'{}'", "é".repeat(2046));
    assert_eq!(
        to_v2(&annotated(&json!({"rules": [rule(&longest)]}).to_string()))["spec"]["routes"]["rules"],
        json!([rule(&longest)])
    );

    // One that was stored before there were rules about it can be read, and not lost by an edit in the old version.
    let stored = v2(json!({"routes": {"rules": [rule("a and b")]}}));
    let error = converted(&to_v1(&stored), Version::V2Alpha1).unwrap_err();
    assert!(error.contains("rules[0].match"), "{error}");
}

#[test]
fn a_round_trip_loses_what_means_nothing() {
    let object = to_v2(&to_v1(&v2(json!({"routes": {"default": ""}}))));
    assert_eq!(object["spec"]["routes"], json!({}));
    let mut noted = v2(json!({"routes": {"rules": [{"match": "true", "path": "/a"}]}}));
    noted["metadata"]["annotations"] = json!({ROUTES_ANNOTATION: "any", "mine": "kept"});
    let object = to_v2(&to_v1(&noted));
    assert_eq!(object["metadata"]["annotations"], json!({"mine": "kept"}));
    assert_eq!(object["spec"]["routes"], noted["spec"]["routes"]);
}

#[test]
fn an_annotation_copied_to_v2_does_not_come_into_force() {
    let mut object = v2(json!({"routes": {"default": "/r"}}));
    object["metadata"]["annotations"] = json!({ROUTES_ANNOTATION: r#"{"rules":[{"match":"a","path":"/old"}]}"#});
    let first = to_v1(&object);
    assert_eq!(first["metadata"], json!({"name": "orders", "namespace": "shop"}));
    object["spec"]["routes"]["rules"] = json!([{"match": "a", "path": "/new"}]);
    assert_eq!(to_v2(&to_v1(&object))["spec"]["routes"], object["spec"]["routes"]);
}

#[test]
fn routes_that_fit_no_annotation_can_be_read_and_not_overwritten() {
    let rule = json!({"match": "a".repeat(1000), "path": "/a"});
    let object = v2(json!({"routes": {"rules": vec![rule; 260], "default": "/r"}}));
    let first = to_v1(&object);
    assert_eq!(
        (annotation(&first), &first["spec"]["route"]),
        (Some(OMITTED_ROUTES), &json!("/r"))
    );
    let error = converted(&first, Version::V2Alpha1).unwrap_err();
    assert_eq!(
        error,
        "Subscription shop/orders: metadata.annotations[dapr.io/v2alpha1-routes]: its routes are too long for \
         dapr.io/v1alpha1, so this version can only be read; edit it as dapr.io/v2alpha1"
    );
}

#[test]
fn mistakes_name_the_object_and_the_field() {
    let mut component = v1(json!({}));
    component["kind"] = "Component".into();
    let mut old = v1(json!({}));
    old["apiVersion"] = "dapr.io/v1".into();
    let mut noted = v1(json!({}));
    noted["metadata"]["annotations"] = json!({"a": 1});
    for (object, expected) in [
        (
            v1(json!("x")),
            "Subscription shop/orders: spec: found \"x\", expected an object",
        ),
        (
            v1(json!({"route": 5})),
            "Subscription shop/orders: spec.route: found 5, expected a string",
        ),
        (
            component,
            "Component shop/orders: kind: found \"Component\", expected \"Subscription\"",
        ),
        (
            old,
            "Subscription shop/orders: apiVersion: found \"dapr.io/v1\", expected \"dapr.io/v1alpha1\" or \
             \"dapr.io/v2alpha1\"",
        ),
        (
            noted,
            "Subscription shop/orders: metadata.annotations: found {\"a\":1}, expected an object of strings",
        ),
        (
            v2(json!({})),
            "Subscription shop/orders: apiVersion: conversion is not allowed between same type: the object is \
             dapr.io/v2alpha1 already",
        ),
        (
            json!(["x"]),
            "object without a name: the object: found [\"x\"], expected an object",
        ),
        (
            json!({"kind": ""}),
            "object without a name: kind: found \"\", expected \"Subscription\"",
        ),
    ] {
        assert_eq!(converted(&object, Version::V2Alpha1).unwrap_err(), expected);
    }
    for routes in [json!(["/a"]), json!({"default": 5})] {
        let error = converted(&v2(json!({"routes": routes})), Version::V1Alpha1).unwrap_err();
        assert!(error.starts_with("Subscription shop/orders: spec.routes"), "{error}");
    }
}

/// Makes objects by chance, the same for the same seed.
struct Maker(fastrand::Rng);

impl Maker {
    fn text(&mut self) -> String {
        let length = self.0.usize(1..12);
        let any = ["a", "/", "\"", "\\", "<", "\u{2028}", "é", "\n", "{", "}", "🦀", " "];
        (0..length).map(|_| any[self.0.usize(..any.len())]).collect()
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.0.usize(..if depth == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => self.0.bool().into(),
            2 => self.0.i64(..).into(),
            // Exact in any spelling.
            3 => (f64::from(self.0.i32(..)) / 8.0).into(),
            4 => self.text().into(),
            5 => (0..self.0.usize(..4)).map(|_| self.value(depth - 1)).collect(),
            _ => (0..self.0.usize(..4))
                .map(|_| (self.text(), self.value(depth - 1)))
                .collect(),
        }
    }

    fn texts(&mut self) -> Value {
        (0..self.0.usize(..4))
            .map(|_| (self.text(), Value::from(self.text())))
            .collect()
    }

    fn maybe(&mut self, object: &mut Value, name: &str, make: impl FnOnce(&mut Self) -> Value) {
        if self.0.bool() {
            object[name] = make(self);
        }
    }

    fn rules(&mut self) -> Value {
        let rule = |maker: &mut Self| {
            let matches = ["", " ", "true", "event.type == \"é\\n\"", "has(event.data.a)\n"];
            let mut rule = json!({"match": matches[maker.0.usize(..matches.len())], "path": maker.text()});
            maker.maybe(&mut rule, "future", |maker| maker.value(2));
            rule
        };
        (0..self.0.usize(..4)).map(|_| rule(self)).collect()
    }

    /// Without a route.
    fn object(&mut self, version: Version) -> Value {
        let mut metadata = json!({"name": self.text(), "namespace": self.text(), "uid": self.text()});
        self.maybe(&mut metadata, "labels", Self::texts);
        self.maybe(&mut metadata, "managedFields", |maker| maker.value(3));
        if self.0.bool() {
            metadata["annotations"] = json!({self.text(): self.text()});
        }
        let bulk = json!({"enabled": self.0.bool(), "maxMessagesCount": self.0.i32(..)});
        let mut spec = json!({"pubsubname": self.text(), "topic": self.text(), "bulkSubscribe": bulk});
        self.maybe(&mut spec, "metadata", Self::texts);
        self.maybe(&mut spec, "deadLetterTopic", |maker| maker.text().into());
        self.maybe(&mut spec, "future", |maker| maker.value(3));
        let mut object = json!({
            "apiVersion": version.api_version(), "kind": "Subscription", "metadata": metadata, "spec": spec,
        });
        self.maybe(&mut object, "scopes", |maker| {
            (0..maker.0.usize(..3)).map(|_| maker.text()).collect()
        });
        self.maybe(&mut object, "status", |maker| maker.value(3));
        self.maybe(&mut object, "later", |maker| maker.value(3));
        object
    }

    fn v1(&mut self) -> Value {
        let mut object = self.object(Version::V1Alpha1);
        object["spec"]["route"] = match self.0.bool() {
            true => self.text().into(),
            false => "".into(),
        };
        match self.0.usize(..3) {
            // Compact, as it is written.
            0 => {
                object["metadata"]["annotations"][ROUTES_ANNOTATION] =
                    json!({"rules": self.rules()}).to_string().into();
            }
            1 => object["metadata"]["annotations"][ROUTES_ANNOTATION] = self.text().into(),
            _ => {}
        }
        object
    }

    fn v2(&mut self) -> Value {
        let mut object = self.object(Version::V2Alpha1);
        let mut routes = json!({});
        self.maybe(&mut routes, "default", |maker| maker.text().into());
        self.maybe(&mut routes, "rules", Self::rules);
        object["spec"]["routes"] = routes;
        object
    }
}

#[test]
fn any_object_survives_a_round_trip() {
    for seed in 0..3000 {
        let mut maker = Maker(fastrand::Rng::with_seed(seed));
        let first = maker.v1();
        let second = to_v2(&first);
        assert_eq!(to_v1(&second), first, "seed {seed}: by way of {second}");
        let second = maker.v2();
        let first = to_v1(&second);
        assert_eq!(to_v2(&first), second, "seed {seed}: by way of {first}");
    }
}

/// Kubernetes lets a conversion change labels and annotations only.
#[test]
fn nothing_else_of_the_metadata_changes() {
    for seed in 0..500 {
        let mut maker = Maker(fastrand::Rng::with_seed(seed));
        let (first, second) = (maker.v1(), maker.v2());
        for (from, to) in [(&first, to_v2(&first)), (&second, to_v1(&second))] {
            let others = |object: &Value| {
                let mut object = object.clone();
                let metadata = object["metadata"].as_object_mut().unwrap();
                if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
                    annotations.remove(ROUTES_ANNOTATION);
                    if annotations.is_empty() {
                        metadata.remove("annotations");
                    }
                }
                metadata.clone()
            };
            assert_eq!(others(from), others(&to), "seed {seed}");
        }
    }
}

#[test]
fn nothing_makes_it_panic() {
    let mut maker = Maker(fastrand::Rng::with_seed(1));
    for _ in 0..3000 {
        let mut object = if maker.0.bool() { maker.v1() } else { maker.v2() };
        let names = ["apiVersion", "kind", "metadata", "spec", "scopes"];
        let within = ["annotations", "route", "routes", "bulkSubscribe", "name"];
        let name = names[maker.0.usize(..names.len())];
        let value = maker.value(3);
        match object[name].as_object_mut() {
            Some(fields) if maker.0.bool() => {
                fields.insert(within[maker.0.usize(..within.len())].to_owned(), value);
            }
            _ => object[name] = value,
        }
        for to in [Version::V1Alpha1, Version::V2Alpha1] {
            if let Err(error) = converted(&object, to) {
                assert!(error.len() < 1000, "{error}");
            }
        }
    }
}
