//! The pages about rules.

use outrigger_core::markdown::{HEADER, table};

use crate::rules::{
    Check, Enforcement, Rule, Value,
    rejections::{self, BOUNDS},
    upstream, warnings,
};

const KINDS: [&str; 7] = [
    "Component",
    "Configuration",
    "HTTPEndpoint",
    "MCPServer",
    "Resiliency",
    "Subscription",
    "WorkflowAccessPolicy",
];

/// What the API server refuses.
pub(super) fn rules() -> String {
    let mut page = format!(
        "{HEADER}\
# Rules that are checked when a resource is applied

The API server refuses an object that breaks one of these. The message names the field, what was found and what was expected:

```text
The Component \"store\" is invalid: spec.type: Invalid value: \"redis\": \"redis\" is no component type: expected <category>.<name>, such as state.redis
```

Outrigger's own rules refuse only what no stock sidecar or operator can use; the tables name that failure. No rule asks for a field that
upstream's definitions let be absent. Everything else that looks like a mistake is a [warning](warnings.md).

An object that was stored before a rule existed stays editable: Kubernetes 1.30 and later check a rule again only where the value changes, a list as a
whole. Metadata, status and all other fields can be written as before.

## Outrigger's rules
"
    );
    for kind in KINDS {
        let rows: Vec<_> = of_kind(rejections::ALL, kind)
            .map(|rule| [fields(rule), text(rule.says), text(rule.effect), check(rule)])
            .collect();
        if !rows.is_empty() {
            page += &format!(
                "\n### {kind}\n\n{}",
                table(
                    [
                        "field",
                        "refused: the value …",
                        "what stock programs do with it",
                        "check"
                    ],
                    &rows
                )
            );
        }
    }
    page += "\n### Sizes\n\nKubernetes has to know how large a field can be before it computes rules over it. No real object comes near these.\n\n";
    let rows: Vec<_> = BOUNDS
        .iter()
        .map(|bound| {
            let limit = format!("`{}: {}`", bound.keyword, bound.value);
            [bound.kind.to_owned(), format!("`{}`", bound.field), limit]
        })
        .collect();
    page += &table(["kind", "field", "limit"], &rows);
    page += "\n## Upstream's rules\n\nUpstream's definitions have these too, and so have types (a string where a list is expected) and \
        required fields.\n";
    for kind in KINDS {
        let rows: Vec<_> = of_kind(upstream::ALL, kind)
            .map(|rule| [fields(rule), text(rule.says), check(rule)])
            .collect();
        if !rows.is_empty() {
            page += &format!("\n### {kind}\n\n{}", table(["field", "rule", "check"], &rows));
        }
    }
    page
}

/// What the operator reports.
pub(super) fn warnings() -> String {
    let mut page = format!(
        "{HEADER}\
# Warnings about a resource

A warning never refuses anything and never makes a condition False: some sidecar may know better. The operator lists warnings in the message of the
condition `Accepted`; what the API server [refuses](rules.md) is listed there too where an object was stored before the rule existed.

```sh
kubectl get component store -o jsonpath='{{.status.conditions[?(@.type==\"Accepted\")].message}}'
```
"
    );
    let row = |rule: &&Rule| [fields(rule), text(rule.says), text(rule.effect)];
    let head = [
        "field",
        "warned of: the value or field …",
        "what stock programs do with it",
    ];
    for kind in KINDS {
        let rows: Vec<_> = warnings::ALL
            .iter()
            .filter(|rule| rule.kinds == [kind])
            .map(row)
            .collect();
        if !rows.is_empty() {
            page += &format!("\n## {kind}\n\n{}", table(head, &rows));
        }
    }
    let shared = warnings::ALL.iter().filter(|rule| rule.kinds.len() > 1);
    let rows: Vec<_> = shared
        .map(|rule| {
            let [fields, says, effect] = row(rule);
            [rule.kinds.join(", "), fields, says, effect]
        })
        .collect();
    let [field, says, effect] = head;
    page + "\n## Several kinds\n\n" + &table(["kinds", field, says, effect], &rows)
}

fn of_kind(rules: &[&'static Rule], kind: &'static str) -> impl Iterator<Item = &'static Rule> {
    rules.iter().copied().filter(move |rule| rule.kinds.contains(&kind))
}

/// Markdown takes what stands in angle brackets for HTML.
fn text(text: &str) -> String {
    text.replace('<', "\\<")
}

fn fields(rule: &Rule) -> String {
    let fields: Vec<_> = rule.fields.iter().map(|field| format!("`{field}`")).collect();
    fields.join("<br>")
}

fn check(rule: &Rule) -> String {
    match &rule.enforcement {
        Enforcement::Warn => String::new(),
        Enforcement::Reject(Check::Keyword(keyword, value)) => format!("`{keyword}: {}`", value_text(value)),
        Enforcement::Reject(Check::Upstream(rule) | Check::Field { rule, .. }) => {
            // The longest code span may itself have backticks.
            format!("`` {rule} ``")
        }
    }
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Text(text) => (*text).to_owned(),
        Value::Words(words) => words.join(", "),
    }
}
