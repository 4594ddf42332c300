//! The metrics of a Configuration.

use regex_syntax::ast::parse::Parser;

use super::{Findings, repeated};
use crate::{configuration::Metrics, rules::warnings};

/// Bytes of a regular expression that is looked at; a longer one counts as correct.
const LONGEST_REGEX: usize = 2_048;

impl Findings {
    pub(super) fn metrics(&mut self, field: &str, metrics: &Metrics) {
        let workflow = metrics.workflow.as_ref();
        let workflow = workflow.and_then(|metrics| metrics.latency_distribution_buckets.as_deref());
        for (item, buckets) in [
            (
                "latencyDistributionBuckets",
                metrics.latency_distribution_buckets.as_deref(),
            ),
            ("workflow.latencyDistributionBuckets", workflow),
        ] {
            let buckets = buckets.unwrap_or_default();
            let rises = buckets.first().is_none_or(|first| *first > 0) && buckets.is_sorted_by(|a, b| a < b);
            if !rises {
                let found: Vec<String> = buckets.iter().map(ToString::to_string).collect();
                self.value(&warnings::METRIC_BUCKETS, format!("{field}.{item}"), &found.join(", "));
            }
        }
        for (rule_index, rule) in metrics.rules.iter().flatten().enumerate() {
            for (index, label) in rule.labels.iter().flatten().enumerate() {
                for (value, regex) in label.regex.iter().flatten() {
                    if !is_regex(regex) {
                        let field = format!("{field}.rules[{rule_index}].labels[{index}].regex[{value}]");
                        self.value(&warnings::METRIC_REGEX, field, regex);
                    }
                }
            }
        }
        let paths = metrics.http.as_ref().and_then(|http| http.path_matching.as_deref());
        for (index, path) in paths.unwrap_or_default().iter().enumerate() {
            if !is_pattern(path) {
                self.value(
                    &warnings::METRIC_PATH,
                    format!("{field}.http.pathMatching[{index}]"),
                    path,
                );
            }
        }
    }
}

/// Only the syntax: what the parts stand for takes many times the memory, kilobytes for each `\w`.
fn is_regex(text: &str) -> bool {
    text.len() > LONGEST_REGEX || Parser::new().parse(text).is_ok()
}

/// A pattern that Go's HTTP router takes, with the path of invocations before it, as sidecars register it too.
fn is_pattern(path: &str) -> bool {
    let segments: Vec<&str> = path.split('/').collect();
    let wildcards = segments
        .iter()
        .filter(|segment| segment.starts_with('{'))
        .map(|segment| segment.trim_end_matches("...}"));
    let wildcards: Vec<&str> = wildcards
        .map(|segment| segment.trim_end_matches('}'))
        .chain(["{app_id"])
        .collect();
    let last = segments.len() - 1;
    let legal = segments.iter().enumerate().all(|(index, segment)| {
        if !segment.contains(['{', '}']) {
            return true;
        }
        let Some(name) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            return false;
        };
        let rest_of_path = name.strip_suffix("...");
        if index != last && (rest_of_path.is_some() || name == "$") {
            return false;
        }
        let name = rest_of_path.unwrap_or(name);
        name == "$"
            || name.starts_with(|c: char| c.is_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_alphanumeric() || c == '_')
    });
    legal && repeated(wildcards).is_empty() && !path.contains([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_expressions_are_told_by_their_syntax() {
        for text in ["", "/orders/[^/]+", r"^\w+\.(?i:html?)$", r"\pN{2,5}?", "(?P<id>a|b)*"] {
            assert!(is_regex(text), "{text}");
        }
        for text in ["(", "[a", "*", "a{2", r"\", "(?<n", "a)"] {
            assert!(!is_regex(text), "{text}");
        }
    }

    #[test]
    fn a_long_regular_expression_costs_nothing() {
        let classes = r"\w".repeat(500_000);
        assert!(is_regex(&classes));
        assert!(is_regex(&format!("{classes}(")), "not looked at");
        assert!(!is_regex(&format!("{}(", &classes[..LONGEST_REGEX - 2])));
    }

    #[test]
    fn patterns_are_those_of_gos_router() {
        for path in [
            "/",
            "/orders",
            "orders/{orderID}/items/{itemID}",
            "/files/{path...}",
            "/exact/{$}",
            "/a//b",
            "",
        ] {
            assert!(is_pattern(path), "{path}");
        }
        for path in [
            "/orders/{",
            "/orders/{}",
            "/a{b}",
            "/{a}b",
            "/{1}",
            "/{a}/{a}",
            "/{a...}/b",
            "/{$}/b",
            "GET /x",
            "/{app_id}",
        ] {
            assert!(!is_pattern(path), "{path}");
        }
    }
}
