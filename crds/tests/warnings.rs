//! Bad manifests, and the warnings that the operator finds in them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "apiserver/corpus.rs"]
mod corpus;

use corpus::{Case, Outcome, assert_as_expected, cases};
use outrigger_crds::{
    Component, Configuration, DaprResource, HTTPEndpoint, InvalidObject, MCPServer, Problem, Resiliency,
    WorkflowAccessPolicy, decode,
    rules::{rejections, warnings},
    subscription::{v1alpha1, v2alpha1},
};

/// What the operator makes of an object.
fn problems(case: &Case) -> Result<Vec<Problem>, InvalidObject> {
    let text = case.manifest.to_string();
    let field = |name: &str| case.manifest[name].as_str().unwrap();
    match (field("kind"), field("apiVersion")) {
        ("Component", _) => of::<Component>(&text),
        ("Configuration", _) => of::<Configuration>(&text),
        ("HTTPEndpoint", _) => of::<HTTPEndpoint>(&text),
        ("MCPServer", _) => of::<MCPServer>(&text),
        ("Resiliency", _) => of::<Resiliency>(&text),
        ("Subscription", "dapr.io/v1alpha1") => of::<v1alpha1::Subscription>(&text),
        ("Subscription", _) => of::<v2alpha1::Subscription>(&text),
        ("WorkflowAccessPolicy", _) => of::<WorkflowAccessPolicy>(&text),
        (kind, _) => panic!("{}: unknown kind {kind}", case.name),
    }
}

fn of<K: DaprResource>(text: &str) -> Result<Vec<Problem>, InvalidObject> {
    Ok(decode::<K>(text)?.problems())
}

#[test]
fn what_is_usable_is_warned_of_in_these_words() {
    let cases = cases();
    let differences = cases
        .iter()
        .filter(|case| case.outcome == Outcome::Warned)
        .filter_map(|case| {
            let found: Vec<String> = problems(case).unwrap().iter().map(ToString::to_string).collect();
            (found != case.messages).then_some((case, found))
        });
    assert_as_expected(&differences.collect::<Vec<_>>());
}

/// An object that was stored before a rule existed is described with the words with which it would be refused.
#[test]
fn what_is_refused_is_warned_of_where_it_was_stored_before() {
    let ours = |message: &str| rejections::ALL.iter().any(|rule| message.ends_with(rule.says));
    let cases = cases();
    let mut seen = 0;
    for case in cases
        .iter()
        .filter(|case| case.messages.iter().any(|message| ours(message)))
    {
        // A duration that cannot be decoded is the decoder's to describe.
        let Ok(problems) = problems(case) else { continue };
        let [problem] = &problems[..] else {
            panic!("{}: {problems:?}", case.name)
        };
        let [message] = &case.messages[..] else {
            panic!("{}: {:?}", case.name, case.messages)
        };
        assert!(
            message.starts_with(&format!("{}: ", problem.field)),
            "{}: {problem}",
            case.name
        );
        assert!(message.ends_with(problem.rule.says), "{}: {problem}", case.name);
        seen += 1;
    }
    assert!(seen > 20, "{seen} cases");
}

#[test]
fn every_rule_has_a_bad_manifest() {
    let cases = cases();
    let warned: Vec<_> = cases.iter().filter_map(|case| problems(case).ok()).flatten().collect();
    for rule in warnings::ALL {
        assert!(
            warned.iter().any(|problem| std::ptr::eq(problem.rule, *rule)),
            "no manifest breaks {rule:?}"
        );
    }
    let messages: Vec<_> = cases
        .iter()
        .filter(|case| case.outcome == Outcome::Rejected)
        .flat_map(|case| &case.messages)
        .collect();
    for rule in rejections::ALL {
        for kind in rule.kinds {
            let told = messages.iter().any(|message| message.ends_with(rule.says));
            assert!(told, "no manifest of {kind} breaks {rule:?}");
        }
    }
}

/// As far as the words are ours.
#[test]
fn every_message_names_the_field_what_was_found_and_what_was_expected() {
    for case in cases() {
        for message in &case.messages {
            let ours = rejections::ALL.iter().any(|rule| message.contains(rule.says));
            if case.outcome == Outcome::Rejected && !ours {
                continue;
            }
            let (field, rest) = message.split_once(": ").unwrap();
            let is_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '[' | ']' | '-' | '/');
            assert!(field.chars().all(is_path), "{}: {message}", case.name);
            let (found, expected) = rest.rsplit_once(": expected ").unwrap_or_default();
            // The server puts numbers and texts before our words, and no lists.
            let wrong = found.strip_prefix("Invalid value: ").unwrap_or(found);
            let mut rules = rejections::ALL.iter().chain(warnings::ALL);
            let told = rules.any(|rule| rule.says.starts_with(wrong.rsplit(": ").next().unwrap_or_default()));
            assert!(
                !wrong.is_empty() && (wrong.contains('"') || told),
                "{}: {message}",
                case.name
            );
            assert!(!expected.is_empty(), "{}: {message}", case.name);
        }
    }
}

#[test]
fn there_are_more_than_a_hundred() {
    assert!(cases().len() > 100);
}
