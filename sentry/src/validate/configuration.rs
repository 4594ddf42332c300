//! Configurations, as far as they decide about identities: the trust domain of the apps that name them.

use outrigger_process::kubernetes::slim::{self, Slim};
use serde_json::Value;

pub(super) type Configuration = Slim<slim::Configuration, Value>;

/// `spec.accessControl.trustDomain`; empty where it says none.
pub(super) fn trust_domain(configuration: &Configuration) -> String {
    let domain = configuration.spec["accessControl"]["trustDomain"].as_str();
    domain.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trust_domain_is_found_and_nothing_else_matters() {
        for (json, expected) in [
            (
                r#"{"metadata": {"name": "a"}, "spec": {"accessControl": {"trustDomain": "bank"}, "tracing": 1}}"#,
                "bank",
            ),
            (r#"{"metadata": {"name": "a"}, "spec": {"accessControl": []}}"#, ""),
            (r#"{"metadata": {"name": "a"}}"#, ""),
        ] {
            assert_eq!(trust_domain(&serde_json::from_str(json).unwrap()), expected, "{json}");
        }
    }
}
