//! The parts of a Configuration that restrict: access control, the API, secrets.

use super::{Findings, repeated, shared::suggestion};
use crate::{
    configuration::{AccessControl, ApiAccess, ApiRule, AppPolicy, SecretsAccess},
    rules::{rejections, warnings},
};

/// Parts of the API of a stock sidecar.
const API_NAMES: [&str; 18] = [
    "invoke",
    "state",
    "publish",
    "subscribe",
    "bindings",
    "secrets",
    "actors",
    "metadata",
    "configuration",
    "lock",
    "unlock",
    "crypto",
    "subtlecrypto",
    "workflows",
    "healthz",
    "jobs",
    "shutdown",
    "conversation",
];
const API_VERSIONS: [&str; 4] = ["v1", "v1alpha1", "v1alpha2", "v1beta1"];
/// The older form begins with this, and its names are prefixes of routes.
const ROUTES: &str = "v1.0";

impl Findings {
    pub(super) fn access_control(&mut self, access: &AccessControl) {
        self.action(
            "spec.accessControl.defaultAction".into(),
            access.default_action.as_deref(),
        );
        let policies = access.policies.as_deref().unwrap_or_default();
        for (index, policy) in policies.iter().enumerate() {
            self.policy(&format!("spec.accessControl.policies[{index}]"), policy);
        }
        let callers: Vec<String> = policies
            .iter()
            .map(|policy| format!("{}||{}", policy.app_id, policy.namespace.as_deref().unwrap_or_default()))
            .collect();
        for caller in repeated(callers.iter().map(String::as_str)) {
            let app_id = caller.split("||").next().unwrap_or_default();
            self.value(&warnings::POLICY_TWICE, "spec.accessControl.policies", app_id);
        }
    }

    fn policy(&mut self, field: &str, policy: &AppPolicy) {
        if policy.app_id.is_empty() {
            self.value(&rejections::POLICY_APP_ID, format!("{field}.appId"), "");
        }
        let missing = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
        if missing(&policy.trust_domain) || missing(&policy.namespace) {
            self.field(&warnings::POLICY_IDENTITY, field);
        }
        self.action(format!("{field}.defaultAction"), policy.default_action.as_deref());
        for (index, operation) in policy.operations.iter().flatten().enumerate() {
            let field = format!("{field}.operations[{index}]");
            self.action(format!("{field}.action"), Some(&operation.action));
            for (index, verb) in operation.http_verb.iter().flatten().enumerate() {
                let legal = verb == "*" || !verb.is_empty() && verb.chars().all(|c| c.is_ascii_uppercase());
                if !legal {
                    self.value(&warnings::HTTP_VERB, format!("{field}.httpVerb[{index}]"), verb);
                }
            }
        }
    }

    /// `allow` or `deny`; where it may be unset, so may it be empty.
    fn action(&mut self, field: String, action: Option<&str>) {
        let optional = !field.ends_with(".action");
        let known = |action: &str| action.eq_ignore_ascii_case("allow") || action.eq_ignore_ascii_case("deny");
        match action {
            Some("") if optional => {}
            Some(action) if !known(action) => self.value(&warnings::DEFAULT_ACTION, field, action),
            _ => {}
        }
    }

    pub(super) fn api(&mut self, api: &ApiAccess) {
        for (item, rules) in [("allowed", &api.allowed), ("denied", &api.denied)] {
            for (index, rule) in rules.iter().flatten().enumerate() {
                self.api_rule(&format!("spec.api.{item}[{index}]"), rule);
            }
        }
    }

    fn api_rule(&mut self, field: &str, rule: &ApiRule) {
        let version = rule.version.as_str();
        let routes = version.starts_with(ROUTES);
        if !routes && !API_VERSIONS.contains(&version) {
            self.value(&warnings::API_VERSION, format!("{field}.version"), version);
        }
        if !routes && !API_NAMES.contains(&rule.name.as_str()) {
            let hint = || suggestion(&rule.name, API_NAMES);
            self.value_with(&warnings::API_NAME, format!("{field}.name"), &rule.name, hint);
        }
        let protocol = rule.protocol.as_deref().unwrap_or_default();
        if !matches!(protocol.to_lowercase().as_str(), "" | "http" | "grpc") {
            self.value(&warnings::API_PROTOCOL, format!("{field}.protocol"), protocol);
        }
    }

    pub(super) fn secrets(&mut self, secrets: &SecretsAccess) {
        let scopes = secrets.scopes.as_deref().unwrap_or_default();
        for (index, scope) in scopes.iter().enumerate() {
            let field = format!("spec.secrets.scopes[{index}]");
            let access = scope.default_access.as_deref().unwrap_or_default();
            if !matches!(access.to_lowercase().as_str(), "" | "allow" | "deny") {
                self.value(
                    &rejections::SECRET_DEFAULT_ACCESS,
                    format!("{field}.defaultAccess"),
                    access,
                );
            }
            let listed = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
            if listed(&scope.allowed_secrets) && listed(&scope.denied_secrets) {
                self.field(&warnings::SECRET_BOTH_LISTS, field);
            }
        }
        let stores: Vec<&str> = scopes.iter().map(|scope| scope.store_name.as_str()).collect();
        if !repeated(stores.iter().copied()).is_empty() {
            self.value(
                &rejections::SECRET_STORE_TWICE,
                "spec.secrets.scopes",
                &stores.join(", "),
            );
        }
    }
}
