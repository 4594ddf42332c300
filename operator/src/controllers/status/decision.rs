//! From what is known of an object to its conditions. No I/O, no clock.

use std::{collections::BTreeMap, iter};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use outrigger_crds::{
    Status, Unresolved,
    secrets::Cause,
    status::{ConditionType, Reason, SidecarCounts},
};

use super::{
    links::{NAMED, Store, Surroundings, some_of},
    reported::{self, Reported},
    view::References,
};
use crate::{events::shortened, secrets::Found};

/// Longest message that Kubernetes's conventions allow a condition, in bytes.
const MAX_MESSAGE: usize = 32 * 1024;
/// Most warnings that are written out.
pub(super) const MAX_WARNINGS: usize = 20;

/// What an object says by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It cannot be decoded, and why.
    Invalid(String),
    /// It can; warnings never make it unacceptable.
    Valid { warnings: Vec<String> },
}

/// What was found out about the Secrets that an object refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretState {
    /// References that lead nowhere.
    pub unresolved: Vec<Unresolved>,
    /// Secrets that may not be read: worth a warning, and nothing to wait for.
    pub unchecked: Vec<String>,
}

impl SecretState {
    /// Sorts what was found of an object's Secrets.
    pub(super) fn of(references: &dyn References, found: &BTreeMap<String, Found>) -> Self {
        let may_not_read = |name: &str| matches!(found.get(name), Some(Found::Forbidden));
        let mut unresolved = references.unresolved(found);
        unresolved.retain(|missing| missing.cause == Cause::NoKeyNamed || !may_not_read(&missing.secret));
        let unchecked = found.keys().filter(|name| may_not_read(name)).cloned();
        Self {
            unresolved,
            unchecked: unchecked.collect(),
        }
    }
}

/// Value and reason of `Accepted`; a change of it is worth an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub accepted: bool,
    pub reason: Reason,
}

/// The outcome for `Accepted`, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub outcome: Outcome,
    pub message: String,
}

/// Judges an object.
pub fn judge(finding: &Finding, surroundings: &Surroundings, secrets: &SecretState) -> Verdict {
    let (accepted, reason, message, own) = match finding {
        Finding::Invalid(error) => (false, Reason::InvalidSpec, error.clone(), &Vec::new()),
        Finding::Valid { warnings } => {
            let (accepted, reason, message) = judge_references(&surroundings.store, secrets);
            (accepted, reason, message, warnings)
        }
    };
    // First what tells that there may be more to say.
    let unchecked = unchecked(&secrets.unchecked);
    let warnings: Vec<_> = unchecked
        .iter()
        .chain(own)
        .chain(&surroundings.warnings)
        .map(String::as_str)
        .collect();
    let message = match (message.is_empty(), warnings.is_empty()) {
        (true, true) => "the spec is valid and everything it refers to exists".to_owned(),
        (true, false) => format!("warnings: {}", listed(&warnings)),
        (false, true) => message,
        (false, false) => format!("{message}; warnings: {}", listed(&warnings)),
    };
    Verdict {
        outcome: Outcome { accepted, reason },
        message: shortened(message, MAX_MESSAGE),
    }
}

fn judge_references(store: &Store, secrets: &SecretState) -> (bool, Reason, String) {
    if let Store::Missing(text) = store {
        return (false, Reason::SecretStoreNotFound, text.clone());
    }
    let Some(first) = secrets.unresolved.first() else {
        return (true, Reason::Accepted, String::new());
    };
    let shown = secrets.unresolved.iter().take(MAX_WARNINGS + 1);
    let texts: Vec<_> = shown.map(ToString::to_string).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    (false, reason_of(first.cause), listed(&texts))
}

fn unchecked(secrets: &[String]) -> Option<String> {
    let [first, others @ ..] = secrets else {
        return None;
    };
    let many = if others.is_empty() { "" } else { "s" };
    let names = iter::once(first).chain(others).take(NAMED + 1);
    let names = some_of(names.map(|name| format!("{name:?}")).collect());
    Some(format!(
        "the operator may not read Secret{many} {names} in this namespace: not checked, expected to exist"
    ))
}

fn reason_of(cause: Cause) -> Reason {
    match cause {
        Cause::NoSuchSecret => Reason::SecretNotFound,
        Cause::NoSuchKey => Reason::SecretKeyNotFound,
        Cause::NoKeyNamed => Reason::InvalidSpec,
    }
}

fn listed(texts: &[&str]) -> String {
    match texts.get(..MAX_WARNINGS) {
        // Not how many: a text changes only while what it shows does.
        Some(shown) if shown.len() < texts.len() => format!("{}; and others", shown.join("; ")),
        _ => texts.join("; "),
    }
}

/// Value, reason and message of `Ready`.
fn ready(verdict: &Verdict, reported: &Reported) -> (Option<bool>, Reason, String) {
    match verdict.outcome.accepted {
        true => reported::ready(reported),
        false => (Some(false), Reason::NotAccepted, verdict.message.clone()),
    }
}

/// The status to write, unless the object has it already. Whatever else the status holds is not ours.
pub fn next_status(
    verdict: &Verdict,
    reported: &Reported,
    generation: Option<i64>,
    current: Option<&Status>,
    now: &Time,
) -> Option<Status> {
    let Outcome { accepted, reason } = verdict.outcome;
    let (is_ready, ready_reason, ready_message) = ready(verdict, reported);
    let conditions = [
        (ConditionType::Accepted, Some(accepted), reason, verdict.message.clone()),
        (
            ConditionType::Ready,
            is_ready,
            ready_reason,
            shortened(ready_message, MAX_MESSAGE),
        ),
    ];
    let before = |type_| current.and_then(|status| status.condition(type_));
    let conditions = conditions.map(|(type_, value, reason, message)| {
        let status = text(value);
        let unchanged = before(type_).filter(|condition| condition.status == status);
        Condition {
            type_: type_.as_str().to_owned(),
            status: status.to_owned(),
            reason: reason.as_str().to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: unchanged.map_or_else(|| now.clone(), |same| same.last_transition_time.clone()),
        }
    });
    let sidecars = Some(reported.counts).filter(|counts| *counts != SidecarCounts::default());
    let rejections = Some(&reported.rejections).filter(|rejections| !rejections.is_empty());
    let same = current.is_some_and(|current| {
        let found = [ConditionType::Accepted, ConditionType::Ready].map(|type_| current.condition(type_));
        current.observed_generation == generation
            && found == conditions.each_ref().map(Some)
            && current.sidecars == sidecars
            && current.rejections.as_ref() == rejections
    });
    (!same).then(|| Status {
        observed_generation: generation,
        conditions: Some(conditions.into()),
        sidecars,
        rejections: rejections.cloned(),
    })
}

impl Outcome {
    /// What a status says, if it is a word of ours.
    pub fn of(status: &Status) -> Option<Self> {
        let condition = status.condition(ConditionType::Accepted)?;
        let known = |reason: &&Reason| reason.as_str() == condition.reason;
        Some(Self {
            accepted: [true, false]
                .into_iter()
                .find(|value| text(Some(*value)) == condition.status)?,
            reason: *Reason::ALL.iter().find(known)?,
        })
    }
}

fn text(value: Option<bool>) -> &'static str {
    match value {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    }
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
