//! Resiliency.

use std::collections::BTreeMap;

use outrigger_core::GoDuration;

use super::{Findings, Problem, expression, shared::suggestion};
use crate::{
    Resiliency,
    resiliency::{CircuitBreaker, Policies, Retry},
    rules::{Rule, rejections, warnings},
};

/// What a `trip` expression can refer to.
const COUNTS: [&str; 5] = [
    "requests",
    "totalSuccesses",
    "totalFailures",
    "consecutiveSuccesses",
    "consecutiveFailures",
];

/// Policies of stock sidecars that an object may replace, as long as they retry often enough.
const BUILT_IN: [&str; 4] = [
    "DaprBuiltInServiceRetries",
    "DaprBuiltInActorRetries",
    "DaprBuiltInActorReminderRetries",
    "DaprBuiltInInitializationRetries",
];
/// The one that it may not replace.
const PROTECTED: &str = "DaprBuiltInActorNotFoundRetries";
/// Policies that a message lists at most.
const MOST_SHOWN: usize = 10;
/// Retries of a built-in policy at least.
const FEWEST: i64 = 3;

pub(crate) fn resiliency(resiliency: &Resiliency) -> Vec<Problem> {
    let mut findings = Findings::default();
    let policies = &resiliency.spec.policies;
    for (name, timeout) in policies.timeouts.iter().flatten() {
        findings.duration(
            &rejections::RESILIENCY_TIMEOUT,
            format!("spec.policies.timeouts[{name}]"),
            timeout,
        );
    }
    for (name, retry) in policies.retries.iter().flatten() {
        findings.retry(name, retry);
    }
    for (name, breaker) in policies.circuit_breakers.iter().flatten() {
        findings.circuit_breaker(&format!("spec.policies.circuitBreakers[{name}]"), breaker);
    }
    findings.targets(resiliency);
    findings.scopes(&resiliency.scopes);
    findings.0
}

impl Findings {
    /// A duration, or a number of milliseconds.
    fn duration(&mut self, rule: &'static Rule, field: String, text: &str) {
        if text.parse::<i64>().is_err() && GoDuration::parse(text).is_err() {
            self.value(rule, field, text);
        }
    }

    fn retry(&mut self, name: &str, retry: &Retry) {
        let field = format!("spec.policies.retries[{name}]");
        let policy = retry.policy.as_deref().unwrap_or_default().to_lowercase();
        if !matches!(policy.as_str(), "" | "constant" | "exponential") {
            let found = retry.policy.as_deref().unwrap_or_default();
            self.value(&rejections::RETRY_POLICY, format!("{field}.policy"), found);
        }
        for (item, text, used) in [
            ("duration", &retry.duration, policy != "exponential"),
            ("maxInterval", &retry.max_interval, policy == "exponential"),
        ] {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                self.duration(&rejections::RESILIENCY_DURATION, format!("{field}.{item}"), text);
                if !used {
                    self.value(&warnings::RETRY_UNUSED, format!("{field}.{item}"), text);
                }
            }
        }
        match retry.max_retries {
            Some(count) if count < -1 => {
                self.value(
                    &warnings::RETRY_COUNT,
                    format!("{field}.maxRetries"),
                    &count.to_string(),
                );
            }
            Some(count) if BUILT_IN.contains(&name) && count < FEWEST => {
                self.value(
                    &warnings::RETRY_BUILT_IN,
                    format!("{field}.maxRetries"),
                    &count.to_string(),
                );
            }
            _ => {}
        }
        if name == PROTECTED {
            self.field(&warnings::RETRY_PROTECTED, &field);
        }
        if let Some(matching) = &retry.matching {
            for (rule, item, codes, range) in [
                (
                    &rejections::HTTP_STATUS_CODES,
                    "httpStatusCodes",
                    &matching.http_status_codes,
                    100..=599,
                ),
                (
                    &rejections::GRPC_STATUS_CODES,
                    "gRPCStatusCodes",
                    &matching.grpc_status_codes,
                    0..=16,
                ),
            ] {
                let codes = codes.as_deref().unwrap_or_default();
                let code = |text: &str| text.parse().ok().filter(|code: &i32| range.contains(code));
                if !codes.split(',').all(|part| part.is_empty() || is_range(part, code)) {
                    self.value(rule, format!("{field}.matching.{item}"), codes);
                }
            }
        }
    }

    fn circuit_breaker(&mut self, field: &str, breaker: &CircuitBreaker) {
        for (item, text) in [("interval", &breaker.interval), ("timeout", &breaker.timeout)] {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                self.duration(&rejections::RESILIENCY_DURATION, format!("{field}.{item}"), text);
            }
        }
        if let Some(count) = breaker.max_requests.filter(|count| *count < 0) {
            let field = format!("{field}.maxRequests");
            self.value(&rejections::CIRCUIT_BREAKER_MAX_REQUESTS, field, &count.to_string());
        }
        let Some(trip) = breaker.trip.as_deref().filter(|trip| !trip.is_empty()) else {
            return;
        };
        let field = format!("{field}.trip");
        let Some(names) = expression::names(trip) else {
            return self.value(&rejections::CIRCUIT_BREAKER_TRIP, field, trip);
        };
        if let Some(unknown) = names.into_iter().find(|name| !COUNTS.contains(name)) {
            self.value_with(&warnings::TRIP_UNKNOWN, field, unknown, || suggestion(unknown, COUNTS));
        }
    }

    fn targets(&mut self, resiliency: &Resiliency) {
        let (policies, targets) = (&resiliency.spec.policies, &resiliency.spec.targets);
        for (name, app) in targets.apps.iter().flatten() {
            let field = format!("spec.targets.apps[{name}]");
            self.names(policies, &field, &app.timeout, &app.retry, &app.circuit_breaker, true);
            self.cache(&field, app.circuit_breaker_cache_size);
        }
        for (name, actor) in targets.actors.iter().flatten() {
            let field = format!("spec.targets.actors[{name}]");
            self.names(
                policies,
                &field,
                &actor.timeout,
                &actor.retry,
                &actor.circuit_breaker,
                true,
            );
            self.cache(&field, actor.circuit_breaker_cache_size);
            let breaker = actor.circuit_breaker.as_deref().unwrap_or_default();
            match actor.circuit_breaker_scope.as_deref().unwrap_or_default() {
                _ if breaker.is_empty() => {}
                "" => self.field(&warnings::ACTOR_SCOPE, &field),
                "id" | "type" | "both" => {}
                scope => self.value(
                    &warnings::CIRCUIT_BREAKER_SCOPE,
                    format!("{field}.circuitBreakerScope"),
                    scope,
                ),
            }
        }
        for (name, component) in targets.components.iter().flatten() {
            let field = format!("spec.targets.components[{name}]");
            if component.inbound.is_none() && component.outbound.is_none() {
                self.field(&warnings::TARGET_EMPTY, &field);
            }
            for (item, names) in [("inbound", &component.inbound), ("outbound", &component.outbound)] {
                if let Some(names) = names {
                    let field = format!("{field}.{item}");
                    self.names(
                        policies,
                        &field,
                        &names.timeout,
                        &names.retry,
                        &names.circuit_breaker,
                        false,
                    );
                }
            }
        }
    }

    /// The names of policies in a target.
    fn names(
        &mut self,
        policies: &Policies,
        field: &str,
        timeout: &Option<String>,
        retry: &Option<String>,
        breaker: &Option<String>,
        whole: bool,
    ) {
        let set = |name: &Option<String>| name.as_ref().is_some_and(|name| !name.is_empty());
        if whole && ![timeout, retry, breaker].into_iter().any(set) {
            self.field(&warnings::TARGET_EMPTY, field);
        }
        self.name(policies.timeouts.as_ref(), &[], format!("{field}.timeout"), timeout);
        self.name(policies.retries.as_ref(), &BUILT_IN, format!("{field}.retry"), retry);
        self.name(
            policies.circuit_breakers.as_ref(),
            &[],
            format!("{field}.circuitBreaker"),
            breaker,
        );
    }

    fn name<V>(
        &mut self,
        defined: Option<&BTreeMap<String, V>>,
        built_in: &[&str],
        field: String,
        name: &Option<String>,
    ) {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else {
            return;
        };
        let is_defined = defined.is_some_and(|defined| defined.contains_key(name));
        if !is_defined && !built_in.contains(&name) && name != PROTECTED {
            let known = defined.into_iter().flat_map(BTreeMap::keys).map(String::as_str);
            self.value_with(&warnings::POLICY_UNKNOWN, field, name, || {
                let some: Vec<&str> = known.clone().take(MOST_SHOWN + 1).collect();
                let defined = match &some[..] {
                    [] => " (it defines none)".to_owned(),
                    [shown @ .., _] if shown.len() == MOST_SHOWN => {
                        format!(" (it defines {} and others)", shown.join(", "))
                    }
                    all => format!(" (it defines {})", all.join(", ")),
                };
                defined + &suggestion(name, known)
            });
        }
    }

    fn cache(&mut self, field: &str, size: Option<i64>) {
        if let Some(size) = size.filter(|size| *size < 0) {
            let field = format!("{field}.circuitBreakerCacheSize");
            self.value(&rejections::CIRCUIT_BREAKER_CACHE_SIZE, field, &size.to_string());
        }
    }
}

/// `code`, or `code-code` in this order.
fn is_range(text: &str, code: impl Fn(&str) -> Option<i32>) -> bool {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (code(first), code(last)) {
        (Some(first), Some(last)) => first <= last,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_unknown_names_cost_little() {
        let names = |letter: char| (0..20_000).map(move |n| format!("{}{n:05}", letter.to_string().repeat(58)));
        let timeouts = names('a').map(|name| (name, "1s".to_owned())).collect();
        let apps = names('b').map(|name| {
            let app = crate::resiliency::AppPolicies {
                timeout: Some(name.clone()),
                ..Default::default()
            };
            (name, app)
        });
        let mut object = Resiliency::default();
        object.spec.policies.timeouts = Some(timeouts);
        object.spec.targets.apps = Some(apps.collect());
        assert_eq!(resiliency(&object).len(), 50);
    }

    #[test]
    fn ranges_of_codes() {
        let code = |text: &str| text.parse().ok().filter(|code: &i32| (100..=599).contains(code));
        for text in ["429", "500-599", "+500", "0500-599", "500-500"] {
            assert!(is_range(text, code), "{text}");
        }
        for text in [
            "99",
            "600",
            "599-500",
            "500-",
            "-500",
            "500-550-599",
            "5xx",
            " 500",
            "500 - 599",
        ] {
            assert!(!is_range(text, code), "{text}");
        }
    }
}
