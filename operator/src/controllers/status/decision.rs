//! From what is known of an object to its conditions. No I/O, no clock.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use outrigger_crds::{
    Status, Unresolved,
    secrets::Cause,
    status::{ConditionType, Reason},
};

/// What an object says by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It cannot be decoded, and why.
    Invalid(String),
    /// It can; warnings never make it unacceptable.
    Valid { warnings: Vec<String> },
}

/// What was found out about the things that an object refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretState {
    /// All Secrets could be looked at; these references lead nowhere.
    Checked(Vec<Unresolved>),
    /// The secret store component of this name does not exist.
    NoSuchStore(String),
    /// Whether they exist cannot be told, and why.
    Unknown(String),
}

/// The outcome for `Accepted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `None`: it cannot be told.
    pub accepted: Option<bool>,
    pub reason: Reason,
    pub message: String,
}

/// Judges an object.
pub fn judge(finding: &Finding, secrets: &SecretState) -> Verdict {
    let warnings = match finding {
        Finding::Invalid(error) => {
            return Verdict {
                accepted: Some(false),
                reason: Reason::InvalidSpec,
                message: error.clone(),
            };
        }
        Finding::Valid { warnings } => warnings,
    };
    let (accepted, reason, message) = match secrets {
        SecretState::Checked(unresolved) => match unresolved.first() {
            None => (Some(true), Reason::Accepted, String::new()),
            Some(first) => {
                let texts: Vec<_> = unresolved.iter().map(ToString::to_string).collect();
                (Some(false), reason_of(first.cause), texts.join("; "))
            }
        },
        SecretState::NoSuchStore(name) => (
            Some(false),
            Reason::SecretStoreNotFound,
            format!("auth.secretStore: there is no component {name:?} in this namespace"),
        ),
        SecretState::Unknown(why) => (None, Reason::SecretUnreadable, why.clone()),
    };
    let message = match (message.is_empty(), warnings.is_empty()) {
        (true, true) => "the spec is valid and everything it refers to exists".to_owned(),
        (true, false) => format!("warnings: {}", warnings.join("; ")),
        (false, true) => message,
        (false, false) => format!("{message}; warnings: {}", warnings.join("; ")),
    };
    Verdict {
        accepted,
        reason,
        message,
    }
}

fn reason_of(cause: Cause) -> Reason {
    match cause {
        Cause::NoSuchSecret => Reason::SecretNotFound,
        Cause::NoSuchKey => Reason::SecretKeyNotFound,
        Cause::NoKeyNamed => Reason::InvalidSpec,
    }
}

/// A status to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Next {
    pub status: Status,
    /// Whether `Accepted` has another value than before, and the object had one or is refused: worth an Event.
    pub notable: bool,
}

/// The status to write, unless the object has it already.
pub fn next_status(verdict: &Verdict, generation: Option<i64>, current: Option<&Status>, now: Time) -> Option<Next> {
    let (ready_reason, ready_message) = match verdict.accepted {
        // Sidecars report nothing yet, whether connected or not.
        Some(true) => (Reason::NoSidecars, "accepted; no sidecar has reported on it".to_owned()),
        _ => (Reason::NotAccepted, verdict.message.clone()),
    };
    let before = |type_: ConditionType| current.and_then(|status| status.condition(type_));
    let condition = |type_: ConditionType, reason: Reason, message: String| {
        let status = text(verdict.accepted);
        let unchanged = before(type_).filter(|condition| condition.status == status);
        Condition {
            type_: type_.as_str().to_owned(),
            status: status.to_owned(),
            reason: reason.as_str().to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: unchanged.map_or_else(|| now.clone(), |same| same.last_transition_time.clone()),
        }
    };
    let status = Status {
        observed_generation: generation,
        conditions: Some(vec![
            condition(ConditionType::Accepted, verdict.reason, verdict.message.clone()),
            condition(ConditionType::Ready, ready_reason, ready_message),
        ]),
        ..Default::default()
    };
    let same = current.is_some_and(|current| {
        current.observed_generation == status.observed_generation && current.conditions == status.conditions
    });
    let notable = match before(ConditionType::Accepted) {
        Some(before) => before.status != text(verdict.accepted),
        None => verdict.accepted == Some(false),
    };
    (!same).then_some(Next { status, notable })
}

fn text(accepted: Option<bool>) -> &'static str {
    match accepted {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid(warnings: &[&str]) -> Finding {
        Finding::Valid {
            warnings: warnings.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    fn unresolved(cause: Cause) -> SecretState {
        SecretState::Checked(vec![Unresolved {
            field: "spec.metadata[1]".into(),
            item: "redisPassword".into(),
            secret: "auth".into(),
            key: "password".into(),
            cause,
            fatal: true,
        }])
    }

    fn at(second: i64) -> Time {
        Time(jiff::Timestamp::from_second(second).unwrap())
    }

    fn nothing() -> SecretState {
        SecretState::Checked(Vec::new())
    }

    #[test]
    fn warnings_never_refuse() {
        let verdict = judge(&valid(&["spec.type: unknown category"]), &nothing());
        assert_eq!(verdict.accepted, Some(true));
        assert_eq!(verdict.reason, Reason::Accepted);
        assert_eq!(verdict.message, "warnings: spec.type: unknown category");
        assert_eq!(
            judge(&valid(&[]), &nothing()).message,
            "the spec is valid and everything it refers to exists"
        );
    }

    #[test]
    fn what_is_missing_refuses_and_is_named() {
        for (state, reason, message) in [
            (
                unresolved(Cause::NoSuchSecret),
                Reason::SecretNotFound,
                r#"spec.metadata[1] (redisPassword): Secret "auth" does not exist; warnings: w"#,
            ),
            (
                unresolved(Cause::NoSuchKey),
                Reason::SecretKeyNotFound,
                r#"spec.metadata[1] (redisPassword): Secret "auth" has no key "password"; warnings: w"#,
            ),
            (
                SecretState::NoSuchStore("vault".into()),
                Reason::SecretStoreNotFound,
                r#"auth.secretStore: there is no component "vault" in this namespace; warnings: w"#,
            ),
        ] {
            let verdict = judge(&valid(&["w"]), &state);
            assert_eq!((verdict.accepted, verdict.reason), (Some(false), reason));
            assert_eq!(verdict.message, message);
        }
        let verdict = judge(&Finding::Invalid("spec.tracing: no duration".into()), &nothing());
        assert_eq!((verdict.accepted, verdict.reason), (Some(false), Reason::InvalidSpec));
    }

    #[test]
    fn what_cannot_be_told_is_unknown() {
        let verdict = judge(&valid(&[]), &SecretState::Unknown("not allowed".into()));
        assert_eq!((verdict.accepted, verdict.message.as_str()), (None, "not allowed"));
        let next = next_status(&verdict, Some(1), None, at(1)).unwrap();
        assert_eq!(next.status.condition(ConditionType::Ready).unwrap().status, "Unknown");
        assert!(!next.notable);
    }

    #[test]
    fn nothing_is_written_twice() {
        let verdict = judge(&valid(&[]), &nothing());
        let first = next_status(&verdict, Some(3), None, at(1)).unwrap();
        assert!(!first.notable, "being accepted from the start is no news");
        let ready = first.status.condition(ConditionType::Ready).unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "NoSidecars"));
        assert_eq!(next_status(&verdict, Some(3), Some(&first.status), at(2)), None);

        let later = next_status(&verdict, Some(4), Some(&first.status), at(2)).unwrap();
        assert_eq!(later.status.observed_generation, Some(4));
        let accepted = later.status.condition(ConditionType::Accepted).unwrap();
        assert_eq!(accepted.last_transition_time, at(1), "its value did not change");
        assert!(!later.notable);

        let refused = judge(&Finding::Invalid("bad".into()), &nothing());
        let refused = next_status(&refused, Some(5), Some(&later.status), at(3)).unwrap();
        assert!(refused.notable);
        let accepted = refused.status.condition(ConditionType::Accepted).unwrap();
        assert_eq!(
            (accepted.status.as_str(), &accepted.last_transition_time),
            ("False", &at(3))
        );
    }
}
