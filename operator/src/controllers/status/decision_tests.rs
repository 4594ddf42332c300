use outrigger_crds::Component;

use super::*;

fn valid(warnings: &[&str]) -> Finding {
    Finding::Valid {
        warnings: warnings.iter().map(|text| (*text).to_owned()).collect(),
    }
}

fn unresolved(cause: Cause) -> SecretState {
    SecretState {
        unresolved: vec![Unresolved {
            field: "spec.metadata[1]".into(),
            item: "redisPassword".into(),
            secret: "auth".into(),
            key: "password".into(),
            cause,
            fatal: true,
        }],
        ..nothing()
    }
}

fn at(second: i64) -> Time {
    Time(jiff::Timestamp::from_second(second).unwrap())
}

fn nothing() -> SecretState {
    SecretState::default()
}

fn alone() -> Surroundings {
    Surroundings::default()
}

fn store(store: Store) -> Surroundings {
    Surroundings { store, ..alone() }
}

fn outcome(accepted: bool, reason: Reason) -> Outcome {
    Outcome { accepted, reason }
}

#[test]
fn warnings_never_refuse() {
    let surroundings = Surroundings {
        warnings: vec!["scopes[0]: no app".into()],
        ..alone()
    };
    let verdict = judge(&valid(&["spec.type: unknown category"]), &surroundings, &nothing());
    assert_eq!(verdict.outcome, outcome(true, Reason::Accepted));
    assert_eq!(
        verdict.message,
        "warnings: spec.type: unknown category; scopes[0]: no app"
    );
    assert_eq!(
        judge(&valid(&[]), &alone(), &nothing()).message,
        "the spec is valid and everything it refers to exists"
    );
}

#[test]
fn what_is_missing_refuses_and_is_named() {
    for (surroundings, secrets, reason, message) in [
        (
            alone(),
            unresolved(Cause::NoSuchSecret),
            Reason::SecretNotFound,
            r#"spec.metadata[1] (redisPassword): Secret "auth" does not exist; warnings: w"#,
        ),
        (
            alone(),
            unresolved(Cause::NoSuchKey),
            Reason::SecretKeyNotFound,
            r#"spec.metadata[1] (redisPassword): Secret "auth" has no key "password"; warnings: w"#,
        ),
        (
            alone(),
            unresolved(Cause::NoKeyNamed),
            Reason::InvalidSpec,
            r#"spec.metadata[1] (redisPassword): secretKeyRef names Secret "auth" but no key; warnings: w"#,
        ),
        (
            store(Store::Missing("auth.secretStore: none".into())),
            nothing(),
            Reason::SecretStoreNotFound,
            "auth.secretStore: none; warnings: w",
        ),
    ] {
        let verdict = judge(&valid(&["w"]), &surroundings, &secrets);
        assert_eq!(verdict.outcome, outcome(false, reason));
        assert_eq!(verdict.message, message);
    }
    let verdict = judge(
        &Finding::Invalid("spec.tracing: no duration".into()),
        &alone(),
        &nothing(),
    );
    assert_eq!(verdict.outcome, outcome(false, Reason::InvalidSpec));
}

#[test]
fn what_may_not_be_read_is_a_warning_and_nothing_to_wait_for() {
    let unchecked = |names: &[&str]| SecretState {
        unchecked: names.iter().map(|name| (*name).to_owned()).collect(),
        ..nothing()
    };
    let verdict = judge(&valid(&["w"]), &alone(), &unchecked(&["auth"]));
    assert_eq!(verdict.outcome, outcome(true, Reason::Accepted));
    assert_eq!(
        verdict.message,
        r#"warnings: the operator may not read Secret "auth" in this namespace: not checked, expected to exist; w"#
    );
    let status = next_status(&verdict, &Reported::default(), Some(1), None, &at(1)).unwrap();
    for type_ in [ConditionType::Accepted, ConditionType::Ready] {
        assert_eq!(status.condition(type_).unwrap().status, "True");
    }
    let verdict = judge(&valid(&[]), &alone(), &unchecked(&["a", "b", "c", "d"]));
    assert_eq!(
        verdict.message,
        r#"warnings: the operator may not read Secrets "a", "b", "c" and others in this namespace: not checked, expected to exist"#
    );

    // Others may be missing all the same.
    let component = r#"{"spec": {"type": "state.redis", "metadata": [
        {"name": "x", "secretKeyRef": {"name": "hidden", "key": "k"}}, {"name": "y", "secretKeyRef": {"name": "gone", "key": "k"}}
    ]}}"#;
    let component: Component = outrigger_crds::decode(component).unwrap();
    let found = BTreeMap::from([
        ("hidden".to_owned(), Found::Forbidden),
        ("gone".to_owned(), Found::Missing),
    ]);
    let verdict = judge(&valid(&[]), &alone(), &SecretState::of(&component, &found));
    assert_eq!(verdict.outcome, outcome(false, Reason::SecretNotFound));
    assert_eq!(
        verdict.message,
        r#"spec.metadata[1] (y): Secret "gone" does not exist; warnings: the operator may not read Secret "hidden" in this namespace: not checked, expected to exist"#
    );
}

#[test]
fn messages_are_bounded() {
    let many: Vec<_> = (0..50).map(|n| format!("warning {n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let message = judge(&valid(&many), &alone(), &nothing()).message;
    assert!(message.ends_with("warning 19; and others"), "{message}");
    let long = judge(&Finding::Invalid("x".repeat(100_000)), &alone(), &nothing());
    assert_eq!(long.message.len(), MAX_MESSAGE);
}

#[test]
fn nothing_is_written_twice() {
    let verdict = judge(&valid(&[]), &alone(), &nothing());
    let next = |verdict, generation, current, second| {
        next_status(verdict, &Reported::default(), Some(generation), current, &at(second))
    };
    let first = next(&verdict, 3, None, 1).unwrap();
    let ready = first.condition(ConditionType::Ready).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "NoSidecars"));
    assert_eq!(next(&verdict, 3, Some(&first), 2), None);

    let later = next(&verdict, 4, Some(&first), 2).unwrap();
    assert_eq!(later.observed_generation, Some(4));
    let accepted = later.condition(ConditionType::Accepted).unwrap();
    assert_eq!(accepted.last_transition_time, at(1), "its value did not change");

    let refused = judge(&Finding::Invalid("bad".into()), &alone(), &nothing());
    let refused = next(&refused, 5, Some(&later), 3).unwrap();
    let accepted = refused.condition(ConditionType::Accepted).unwrap();
    assert_eq!(
        (accepted.status.as_str(), &accepted.last_transition_time),
        ("False", &at(3))
    );
}

#[test]
fn what_others_add_to_a_status_is_left_alone_and_what_they_change_is_mended() {
    let verdict = judge(&valid(&[]), &alone(), &nothing());
    let mut status = next_status(&verdict, &Reported::default(), Some(3), None, &at(1)).unwrap();
    let conditions = status.conditions.as_mut().unwrap();
    conditions.reverse();
    let foreign = Condition {
        type_: "Synced".into(),
        ..conditions[0].clone()
    };
    conditions.push(foreign);
    assert_eq!(
        next_status(&verdict, &Reported::default(), Some(3), Some(&status), &at(2)),
        None
    );

    status.conditions.as_mut().unwrap()[0].message = "mine".into();
    assert!(next_status(&verdict, &Reported::default(), Some(3), Some(&status), &at(2)).is_some());
}

#[test]
fn an_outcome_is_read_back_from_a_status() {
    for verdict in [
        judge(&valid(&[]), &alone(), &nothing()),
        judge(&valid(&[]), &alone(), &unresolved(Cause::NoSuchKey)),
        judge(&valid(&[]), &store(Store::Missing("none".into())), &nothing()),
    ] {
        let status = next_status(&verdict, &Reported::default(), Some(1), None, &at(1)).unwrap();
        assert_eq!(Outcome::of(&status), Some(verdict.outcome));
    }
    assert_eq!(Outcome::of(&Status::default()), None);
}
