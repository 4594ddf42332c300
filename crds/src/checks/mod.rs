//! Findings in a spec: what the rules say about an object, as warnings.
//!
//! A rejection is looked for here too. The API server checks it only where the definitions are ours, and not again for
//! what was stored before.

mod access;
mod component;
mod configuration;
mod expression;
mod http_endpoint;
mod mcp_server;
mod metrics;
mod resiliency;
mod shared;
mod subscription;
mod workflow_access_policy;

use std::fmt;

pub(crate) use component::component;
pub(crate) use configuration::configuration;
pub(crate) use http_endpoint::http_endpoint;
pub(crate) use mcp_server::mcp_server;
pub(crate) use resiliency::resiliency;
pub(crate) use subscription::{is_match, subscription_v1alpha1, subscription_v2alpha1};
pub(crate) use workflow_access_policy::workflow_access_policy;

use outrigger_core::text::{shortened, without_credentials};

use crate::rules::Rule;

/// A warning about one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The rule that is broken.
    pub rule: &'static Rule,
    /// Path of the field, such as `spec.type`.
    pub field: String,
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Bytes of a value or a path that are shown at most.
const SHOWN: usize = 200;
/// Problems that are reported at most: a status is no place for thousands.
const MOST: usize = 50;

/// Collects problems.
#[derive(Default)]
struct Findings(Vec<Problem>);

impl Findings {
    /// A value that breaks a rule.
    fn value(&mut self, rule: &'static Rule, field: impl Into<String>, found: &str) {
        self.value_with(rule, field, found, String::new);
    }

    /// A URL that breaks a rule; conditions and Events are read by more people than may know what is secret in it.
    fn url(&mut self, rule: &'static Rule, field: impl Into<String>, found: &str) {
        self.value(rule, field, &without_credentials(found));
    }

    /// A value that breaks a rule, and what may help, which is looked for only if it will be shown.
    fn value_with(
        &mut self,
        rule: &'static Rule,
        field: impl Into<String>,
        found: &str,
        hint: impl FnOnce() -> String,
    ) {
        if !self.are_many() {
            self.push(
                rule,
                field,
                format!("\"{}\" {}{}", shortened(found.to_owned(), SHOWN), rule.says, hint()),
            );
        }
    }

    /// A field that breaks a rule by what is set in it and what is not.
    fn field(&mut self, rule: &'static Rule, field: impl Into<String>) {
        self.push(rule, field, rule.says.to_owned());
    }

    fn push(&mut self, rule: &'static Rule, field: impl Into<String>, message: String) {
        if !self.are_many() {
            self.0.push(Problem {
                rule,
                field: shortened(field.into(), SHOWN),
                message,
            });
        }
    }

    /// Whether more are useless.
    fn are_many(&self) -> bool {
        self.0.len() >= MOST
    }
}

/// The texts that stand in a list more than once, each once.
fn repeated<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut texts: Vec<&str> = texts.into_iter().collect();
    texts.sort_unstable();
    let mut repeated: Vec<&str> = texts
        .windows(2)
        .filter(|pair| pair[0] == pair[1])
        .map(|pair| pair[0])
        .collect();
    repeated.dedup();
    repeated
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Configuration, DaprResource, HTTPEndpoint, MCPServer, rules::rejections::COMPONENT_TYPE};

    #[test]
    fn messages_and_lists_are_bounded() {
        let mut findings = Findings::default();
        findings.value(&COMPONENT_TYPE, "spec.type", &"ä".repeat(1_000_000));
        assert_eq!(
            findings.0[0].to_string(),
            format!(
                "spec.type: \"{}…\" {}",
                "ä".repeat((SHOWN - "…".len()) / 2),
                COMPONENT_TYPE.says
            )
        );
        findings.field(&COMPONENT_TYPE, "x".repeat(1_000_000));
        assert_eq!(findings.0[1].field.len(), SHOWN);
        for _ in 0..1_000 {
            findings.field(&COMPONENT_TYPE, "spec.type");
        }
        assert_eq!(findings.0.len(), MOST);
    }

    #[test]
    fn what_is_secret_in_a_url_is_not_shown() {
        const SECRET: &str = "hunter1";
        let endpoint: HTTPEndpoint =
            crate::decode(r#"{"spec":{"baseUrl":"htp://user:hunter1@api/?token=hunter1"}}"#).unwrap();
        let server: MCPServer =
            crate::decode(r#"{"spec":{"endpoint":{"sse":{"url":"htp://user:hunter1@api/?token=hunter1"}}}}"#).unwrap();
        let configuration: Configuration = crate::decode(
            r#"{"spec":{"tracing":{"zipkin":{"endpointAddress":"user:hunter1@zipkin"},
            "otel":{"endpointAddress":"http://user:hunter1@otel?token=hunter1"}}}}"#,
        )
        .unwrap();
        let problems = [endpoint.problems(), server.problems(), configuration.problems()].concat();
        assert_eq!(problems.len(), 4);
        for problem in problems {
            assert!(!problem.message.contains(SECRET), "{problem}");
        }
        let invalid = crate::decode::<Configuration>(r#"{"spec":{"tracing":{"zipkin":"http://user:hunter1@zipkin"}}}"#);
        assert_eq!(
            invalid.unwrap_err().error,
            r#"spec.tracing.zipkin: found "http://…@zipkin", expected an object"#
        );
    }

    #[test]
    fn repeated_texts_are_named_once() {
        assert_eq!(repeated(["b", "a", "b", "c", "b", "a"]), ["a", "b"]);
        assert!(repeated([]).is_empty());
    }
}
