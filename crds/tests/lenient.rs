//! Objects that do not fit their kind, made from those of the corpus by chance: none stops a list or a watch, and the
//! message about it names the field.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod corpus;

use corpus::for_kind;
use kube::{
    ResourceExt,
    core::{ObjectList, WatchEvent},
};
use outrigger_crds::{DaprResource, Guarded, decode, encode};
use serde_json::{Value, value::RawValue};

/// Always the same, so that a failure happens again.
const SEED: u64 = 20_260_301;
const ROUNDS: usize = 20;

/// SplitMix64: enough to choose by, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// JSON that a mutation puts somewhere, as text, since a parsed value could not hold some of it.
fn replacements() -> Vec<String> {
    let plain = [
        "null",
        "true",
        "false",
        "0",
        "-1",
        "5",
        "1.5",
        "1e3",
        "1E+2",
        "2147483648",
        "9223372036854775808",
        "99999999999999999999",
        "-0.0",
        r#""""#,
        r#""text""#,
        r#""5""#,
        r#""5s""#,
        r#""soon""#,
        r#""<&>""#,
        "[]",
        "{}",
        "[null]",
        "[[]]",
        "[{}]",
        "[1,\"a\",{}]",
        r#"{"":{}}"#,
        r#"{"a":1}"#,
        r#"{"name":null}"#,
        r#"{"name":{}}"#,
        // Legal JSON texts that are no legal values, or not for everybody.
        "1e400",
        r#""\ud800""#,
        r#""\u0000""#,
        r#""\ud83d\ude00\/""#,
        r#"{"name":"a","name":"b"}"#,
    ];
    let mut all: Vec<String> = plain.map(str::to_owned).into();
    let deep = 5000;
    all.push(format!("{}{}", "[".repeat(deep), "]".repeat(deep)));
    all.push(format!("{}1{}", r#"{"a":"#.repeat(deep), "}".repeat(deep)));
    all.push(format!("\"{}\"", "long ü ".repeat(5_000)));
    all.push(format!(r#"{{"{}":[]}}"#, "key".repeat(5_000)));
    all.push(format!("[{}0]", "0,".repeat(5_000)));
    all
}

/// A place in a document.
#[derive(Clone)]
struct Place {
    pointer: String,
    /// As messages spell it.
    path: String,
}

fn places(value: &Value, here: &Place, found: &mut Vec<Place>) {
    for (name, member) in value.as_object().into_iter().flatten() {
        let dot = if here.path.is_empty() { "" } else { "." };
        let place = Place {
            pointer: format!("{}/{}", here.pointer, name.replace('~', "~0").replace('/', "~1")),
            path: format!("{}{dot}{name}", here.path),
        };
        places(member, &place, found);
        found.push(place);
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        let place = Place {
            pointer: format!("{}/{index}", here.pointer),
            path: format!("{}[{index}]", here.path),
        };
        places(item, &place, found);
        found.push(place);
    }
}

/// Stands where text is put in afterwards.
const HOLE: &str = "hole-in-the-document";

/// The document with something else at a place, or with nothing there.
fn mutated(document: &Value, place: &Place, replacement: Option<&str>) -> String {
    let mut document = document.clone();
    match replacement {
        Some(text) => {
            *document.pointer_mut(&place.pointer).unwrap() = Value::from(HOLE);
            document.to_string().replace(&format!("\"{HOLE}\""), text)
        }
        None => {
            let (parent, last) = place.pointer.rsplit_once('/').unwrap();
            match document.pointer_mut(parent).unwrap() {
                Value::Object(members) => drop(members.remove(&last.replace("~1", "/").replace("~0", "~"))),
                Value::Array(items) => drop(items.remove(last.parse().unwrap())),
                other => panic!("{other} has no members"),
            }
            document.to_string()
        }
    }
}

/// Reads a document between two good ones and on its own, and checks all that has to hold whatever it says.
fn survives<K: DaprResource>(good: &str, bad: &str, place: &Place) {
    let shown = &bad[..bad.floor_char_boundary(2000)];
    let body = format!(
        r#"{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"9"}},"items":[{good},{bad},{good}]}}"#
    );
    let list: ObjectList<Guarded<K>> = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {shown}"));
    let expected: K = decode(good).unwrap();
    let [before, Guarded(read), after] = &list.items[..] else {
        panic!("three items expected")
    };
    for neighbour in [before, after] {
        assert_eq!(neighbour.0.as_ref().unwrap(), &expected, "{shown}");
    }
    let line = format!(r#"{{"type":"MODIFIED","object":{bad}}}"#);
    let event: WatchEvent<Guarded<K>> = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {shown}"));
    assert!(matches!(event, WatchEvent::Modified(_)), "{shown}");

    match read {
        Ok(object) => {
            let sent = encode(object, true).unwrap();
            let sent = str::from_utf8(&sent).unwrap();
            // Whoever reads it, to whatever depth, finds JSON.
            serde_json::from_str::<&RawValue>(sent).unwrap_or_else(|error| panic!("{error}: {shown}"));
            let again: K = decode(sent).unwrap();
            assert_eq!(encode(&again, true).unwrap(), sent.as_bytes(), "{shown}");
        }
        Err(invalid) => {
            let message = &invalid.error;
            assert!(message.chars().count() < 1100, "{message}");
            let path = &place.path;
            assert!(
                message.starts_with(&path[..path.len().min(400)]),
                "{message} is not about {path} in {shown}"
            );
            // A text that is no JSON to anyone is not expected to be anything.
            let unreadable = ["out of range", "surrogate", "duplicate field"];
            let explained = message.contains("expected ") || unreadable.iter().any(|words| message.contains(words));
            assert!(explained, "{message}");
            if !path.starts_with("metadata") {
                assert_eq!(invalid.metadata.name, expected.meta().name, "{shown}");
            }
            assert_eq!(
                list.items[1].name_any(),
                invalid.metadata.name.clone().unwrap_or_default()
            );
        }
    }
}

#[test]
fn what_does_not_fit_is_isolated_and_explained() {
    let mut random = Random(SEED);
    let replacements = replacements();
    let (mut tried, mut refused) = (0, 0);
    for manifest in corpus::valid() {
        let good = manifest.sent();
        if manifest.name().starts_with("large") {
            continue;
        }
        let document: Value = serde_json::from_str(&good).unwrap();
        let mut all = Vec::new();
        let root = Place {
            pointer: String::new(),
            path: String::new(),
        };
        places(&document, &root, &mut all);
        for _ in 0..ROUNDS {
            let place = random.pick(&all);
            let replacement = (random.below(10) > 0).then(|| random.pick(&replacements).as_str());
            let bad = mutated(&document, place, replacement);
            for_kind!(manifest.kind(), K => {
                survives::<K>(&good, &bad, place);
                refused += usize::from(decode::<K>(&bad).is_err());
            });
            tried += 1;
        }
    }
    // Neither all of them nor none: the mutations reach both.
    assert!(
        refused * 10 > tried && refused * 10 < tried * 9,
        "{refused} of {tried} refused"
    );
}

#[test]
fn a_status_that_cannot_be_read_does_not_make_an_object_unusable() {
    for status in [
        "5",
        "[]",
        r#"{"conditions":5}"#,
        r#"{"rejections":[{}]}"#,
        r#"{"observedGeneration":"x"}"#,
    ] {
        let json = format!(r#"{{"metadata":{{"name":"c"}},"spec":{{"type":"state.redis"}},"status":{status}}}"#);
        let component: outrigger_crds::Component = decode(&json).unwrap();
        assert_eq!(component.spec.type_, "state.redis");
    }
}
