//! The reference page of conditions and Events.

use outrigger_core::markdown::{HEADER, table};

use super::reason::{ConditionType, EventReason, Reason, WARNINGS};

const HEAD: &str = "\
# Conditions and Events

Every resource of the group `dapr.io` has two conditions, written by the operator that holds the Lease `operator.dapr.io`.
`status.observedGeneration` is the generation that they are about. A condition is written when it changes, at most once a second for an
object.

";

const WARNINGS_HEAD: &str = "\
## Warnings

Warnings never make a condition False: they stand in the message of `Accepted`, each with its field, what was found and what was
expected. Those about the object alone come from its own fields. These depend on other objects, and come and go with them:

";

const EVENTS_HEAD: &str = "
## Events

When the status or the reason of `Accepted` changes, the resource gets an Event with that reason: of type Normal if it became True, otherwise
a Warning. A resource that is accepted from the start gets none. When sidecars begin to reject a resource, it gets a Warning with the reason
`Rejected`, and when none does any longer, a Normal one with the new reason of `Ready`. These are the other Events of the operator:

";

/// The whole page, in Markdown.
pub fn page() -> String {
    let mut page = format!("{HEADER}{HEAD}");
    for condition in [ConditionType::Accepted, ConditionType::Ready] {
        let reasons = Reason::ALL.iter().filter(|reason| reason.text().condition == condition);
        let rows: Vec<_> = reasons
            .map(|reason| {
                let text = reason.text();
                [text.status, &code(reason.as_str()), text.meaning, text.remedy].map(str::to_owned)
            })
            .collect();
        let table = table(["status", "reason", "meaning", "what to do"], &rows);
        page += &format!("## {}\n\n{table}\n", condition.as_str());
    }
    let rows: Vec<_> = WARNINGS
        .iter()
        .map(|warning| [warning.kinds, warning.field, warning.meaning].map(str::to_owned))
        .collect();
    page += WARNINGS_HEAD;
    page += &table(["kind", "field", "warns when"], &rows);
    let rows: Vec<_> = EventReason::ALL
        .iter()
        .map(|reason| {
            let text = reason.text();
            [text.regarding, &code(reason.as_str()), text.meaning, text.remedy].map(str::to_owned)
        })
        .collect();
    page += EVENTS_HEAD;
    page += &table(["about", "reason", "meaning", "what to do"], &rows);
    page
}

fn code(word: &str) -> String {
    format!("`{word}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_words() {
        let words = Reason::ALL.iter().map(|reason| reason.as_str());
        for word in words.chain(EventReason::ALL.iter().map(|reason| reason.as_str())) {
            assert!(word.chars().all(char::is_alphabetic) && word.starts_with(char::is_uppercase));
        }
    }
}
