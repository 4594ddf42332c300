use kube::core::{ObjectList, WatchEvent};

use super::*;
use crate::{Component, Configuration, DaprResource, DynamicValue, encode};

const SPELLED: &str = r#"{"b":1.0,"a":[1e3, 5]}"#;
const SENT: &str = r#"{"b":1.0,"a":[1e3,5]}"#;

fn component(value: &str) -> String {
    format!(
        r#"{{"apiVersion":"dapr.io/v1alpha1","kind":"Component","metadata":{{"name":"c","resourceVersion":"7"}},
            "spec":{{"type":"state.redis","version":"v1","metadata":[{{"name":"x","value":{value}}}]}}}}"#
    )
}

/// What kube does with the body of a list.
fn through_list<T: DeserializeOwned + Clone>(items: &str) -> Vec<T> {
    let body = format!(
        r#"{{"apiVersion":"dapr.io/v1alpha1","kind":"ComponentList","metadata":{{"resourceVersion":"9"}},"items":{items}}}"#
    );
    serde_json::from_str::<ObjectList<T>>(&body).unwrap().items
}

/// What kube does with a line of a watch.
fn through_watch<T: DeserializeOwned + Clone>(object: &str) -> T {
    let line = format!(r#"{{"type":"MODIFIED","object":{object}}}"#);
    match serde_json::from_str::<WatchEvent<T>>(&line).unwrap() {
        WatchEvent::Modified(object) => object,
        other => panic!("{other:?}"),
    }
}

fn sent_value(component: &Component) -> String {
    let json = String::from_utf8(encode(component, false).unwrap()).unwrap();
    let (_, after) = json.split_once(r#""value":"#).unwrap();
    after.split_once(r#","secretKeyRef""#).unwrap().0.to_owned()
}

#[test]
fn values_are_sent_byte_for_byte_after_a_list_and_after_a_watch() {
    let object = component(SPELLED);
    let [Guarded(listed)] = &through_list::<Guarded<Component>>(&format!("[{object}]"))[..] else {
        panic!("one item expected")
    };
    let Guarded(watched) = through_watch::<Guarded<Component>>(&object);
    let (listed, watched) = (listed.as_ref().unwrap(), watched.unwrap());
    assert_eq!(sent_value(listed), SENT);
    assert_eq!(sent_value(&watched), SENT);
    assert_eq!(*listed, watched);
    assert_eq!(encode(listed, true).unwrap(), encode(&watched, true).unwrap());
}

#[test]
fn values_survive_without_the_guard_too() {
    let object = component(SPELLED);
    assert_eq!(sent_value(&through_list::<Component>(&format!("[{object}]"))[0]), SENT);
    assert_eq!(sent_value(&through_watch::<Component>(&object)), SENT);
}

/// No API server writes events so, but tools that pretend to be one may.
#[test]
fn an_event_with_the_object_first_keeps_the_value_if_not_its_spelling() {
    let line = format!(r#"{{"object":{},"type":"ADDED"}}"#, component(SPELLED));
    let WatchEvent::Added(Guarded(read)) = serde_json::from_str::<WatchEvent<Guarded<Component>>>(&line).unwrap()
    else {
        panic!("an addition expected")
    };
    let value = read.unwrap().properties()[0].value.clone().unwrap();
    assert_eq!(value.json(), r#"{"a":[1000.0,5],"b":1.0}"#);
}

#[test]
fn one_bad_object_leaves_the_others_alone() {
    let good = r#"{"metadata":{"name":"good"},"spec":{"tracing":{"samplingRate":"1"}}}"#;
    let bad = r#"{"metadata":{"name":"bad","namespace":"shop","generation":3},
        "spec":{"tracing":{"samplingRate":"1","otel":{"protocol":"grpc","endpointAddress":"a","isSecure":false,"timeout":"5"}}}}"#;
    let items = through_list::<Guarded<Configuration>>(&format!("[{good},{bad},{good}]"));
    assert_eq!(items.iter().filter(|item| item.0.is_ok()).count(), 2);

    for Guarded(result) in [items[1].clone(), through_watch(bad)] {
        let invalid = result.unwrap_err();
        assert_eq!(
            invalid.error,
            r#"spec.tracing.otel.timeout: "5" has no unit: expected one of ns, us, ms, s, m, h"#
        );
        assert_eq!(invalid.metadata.name.as_deref(), Some("bad"));
        assert_eq!(invalid.metadata.namespace.as_deref(), Some("shop"));
        assert_eq!(invalid.metadata.generation, Some(3));
    }
    assert_eq!(kube::Resource::meta(&items[1]).name.as_deref(), Some("bad"));
}

#[test]
fn objects_that_are_no_objects_are_isolated_as_well() {
    let items = through_list::<Guarded<Component>>(r#"[{"metadata":{"name":5}},[1],{"metadata":{"name":"x"}}]"#);
    assert!(items[0].0.is_err() && items[1].0.is_err() && items[2].0.is_ok());
}

#[test]
fn absent_null_and_unknown_fields_are_taken_as_go_takes_them() {
    let minimal: Component = decode("{}").unwrap();
    assert_eq!(minimal, Component::default());
    let nulls = r#"{"metadata":null,"spec":{"type":null,"version":null,"ignoreErrors":null,"metadata":null,"initTimeout":null},
        "auth":null,"scopes":null,"status":null}"#;
    assert_eq!(decode::<Component>(nulls).unwrap(), minimal);
    let unknown = r#"{"metadata":{"name":"c","more":1},"spec":{"type":"t","Type":"u","extra":{"a":[1]}},"other":true}"#;
    assert_eq!(decode::<Component>(unknown).unwrap().spec.type_, "t");

    let empty = r#"{"kind":"ComponentList","apiVersion":"dapr.io/v1alpha1","metadata":{},"items":null}"#;
    assert!(
        serde_json::from_str::<ObjectList<Guarded<Component>>>(empty)
            .unwrap()
            .items
            .is_empty()
    );
}

#[test]
fn every_reading_of_a_field_without_value_is_unset() {
    let read = |pair: &str| {
        let json = format!(r#"{{"spec":{{"metadata":[{pair}]}}}}"#);
        decode::<Component>(&json).unwrap().properties()[0].value.clone()
    };
    assert_eq!(read(r#"{"name":"a"}"#), None);
    assert_eq!(read(r#"{"name":"a","value":null}"#), None);
    assert_eq!(read(r#"{"name":"a","value":""}"#), Some(DynamicValue::string("")));
}

#[test]
fn names_are_those_of_the_api() {
    assert_eq!(
        <Guarded<Component> as kube::Resource>::url_path(&(), Some("shop")),
        "/apis/dapr.io/v1alpha1/namespaces/shop/components"
    );
    assert_eq!(Configuration::api_version_text(), "dapr.io/v1alpha1");
}
