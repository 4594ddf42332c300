//! The kind Configuration, as far as this release acts on it.

use serde::Deserialize;
use serde_json::Value;

use super::{DecodeError, decode, null_as_default};

/// What a Configuration says; absent fields have upstream's defaults.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Configuration {
    #[serde(deserialize_with = "null_as_default")]
    access_control: AccessControl,
    #[serde(deserialize_with = "null_as_default")]
    api: Api,
    #[serde(deserialize_with = "null_as_default")]
    components: Components,
    #[serde(deserialize_with = "null_as_default")]
    features: Vec<Feature>,
    metric: Option<Metric>,
    metrics: Option<Metric>,
    #[serde(deserialize_with = "null_as_default")]
    http_pipeline: Pipeline,
    #[serde(deserialize_with = "null_as_default")]
    app_http_pipeline: Pipeline,
    pub name_resolution: Option<NameResolution>,
    #[serde(deserialize_with = "null_as_default")]
    logging: Logging,
    tracing: Option<Tracing>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AccessControl {
    #[serde(deserialize_with = "null_as_default")]
    default_action: String,
    #[serde(deserialize_with = "null_as_default")]
    policies: Vec<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Api {
    #[serde(deserialize_with = "null_as_default")]
    allowed: Vec<Value>,
    #[serde(deserialize_with = "null_as_default")]
    denied: Vec<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Components {
    #[serde(deserialize_with = "null_as_default")]
    deny: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Feature {
    name: String,
    enabled: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Metric {
    enabled: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Pipeline {
    #[serde(deserialize_with = "null_as_default")]
    handlers: Vec<Value>,
}

/// How app ids become addresses.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NameResolution {
    #[serde(deserialize_with = "null_as_default")]
    pub component: String,
    #[serde(deserialize_with = "null_as_default")]
    pub version: String,
    pub configuration: Value,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Logging {
    #[serde(deserialize_with = "null_as_default")]
    api_logging: ApiLogging,
}

/// Whether and how API calls are logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiLogging {
    pub enabled: bool,
    #[serde(rename = "obfuscateURLs")]
    pub obfuscate_urls: bool,
    pub omit_health_checks: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Tracing {
    #[serde(deserialize_with = "null_as_default")]
    sampling_rate: String,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default, deserialize_with = "null_as_default")]
    spec: Configuration,
}

impl Configuration {
    pub const KIND: &str = "Configuration";

    /// Reads the JSON of a Kubernetes object.
    ///
    /// # Errors
    /// Names the field that cannot be read.
    pub fn from_json(json: &[u8]) -> Result<Self, DecodeError> {
        decode::<Manifest>(json).map(|manifest| manifest.spec)
    }

    /// Fields that restrict who may do what, or put code in front of it, and that this release does not implement.
    /// Starting in spite of them would leave open what the user closed.
    pub fn not_enforced(&self) -> Vec<&'static str> {
        let closed =
            !self.access_control.policies.is_empty() || self.access_control.default_action.eq_ignore_ascii_case("deny");
        [
            (closed, "spec.accessControl"),
            (!self.api.allowed.is_empty(), "spec.api.allowed"),
            (!self.api.denied.is_empty(), "spec.api.denied"),
            (!self.http_pipeline.handlers.is_empty(), "spec.httpPipeline.handlers"),
            (
                !self.app_http_pipeline.handlers.is_empty(),
                "spec.appHttpPipeline.handlers",
            ),
        ]
        .into_iter()
        .filter_map(|(used, field)| used.then_some(field))
        .collect()
    }

    /// Whether spans are asked for, which this release does not record.
    pub fn wants_tracing(&self) -> bool {
        self.tracing
            .as_ref()
            .is_some_and(|tracing| tracing.sampling_rate.parse::<f64>().is_ok_and(|rate| rate > 0.0))
    }

    /// `metrics` overrides `metric`; the default is on.
    pub fn metrics_enabled(&self) -> bool {
        let enabled = |metric: &Option<Metric>| metric.as_ref().and_then(|metric| metric.enabled);
        enabled(&self.metrics).or_else(|| enabled(&self.metric)).unwrap_or(true)
    }

    /// `HotReload` is on unless the last entry of that name says otherwise.
    pub fn hot_reload(&self) -> bool {
        self.features
            .iter()
            .rfind(|feature| feature.name == HOT_RELOAD)
            .is_none_or(|feature| feature.enabled)
    }

    /// Names of the features that are on, as the metadata API lists them.
    pub fn enabled_features(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for feature in &self.features {
            names.retain(|name| *name != feature.name);
            if feature.enabled {
                names.push(feature.name.clone());
            }
        }
        if self.hot_reload() && !names.iter().any(|name| name == HOT_RELOAD) {
            names.push(HOT_RELOAD.to_owned());
        }
        names
    }

    pub fn denied_components(&self) -> &[String] {
        &self.components.deny
    }

    pub fn api_logging(&self) -> ApiLogging {
        self.logging.api_logging
    }

    /// Whether going from this one to `next` needs a restart: everything but the deny list is read at start.
    pub fn needs_restart(&self, next: &Self) -> bool {
        let mut same_denials = next.clone();
        same_denials.components = self.components.clone();
        *self != same_denials
    }
}

const HOT_RELOAD: &str = "HotReload";

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Configuration {
        Configuration::from_json(format!(r#"{{"kind":"Configuration","spec":{json}}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn restrictions_that_are_not_built_are_named() {
        let open =
            r#"{"accessControl":{"defaultAction":"allow","trustDomain":"public"},"mtls":{"enabled":true},"api":null}"#;
        assert_eq!(spec(open).not_enforced(), Vec::<&str>::new());
        assert_eq!(
            spec(r#"{"accessControl":{"defaultAction":"deny"}}"#).not_enforced(),
            ["spec.accessControl"]
        );
        let many = r#"{"accessControl":{"policies":[{"appId":"a"}]},"api":{"denied":[{"name":"state"}]},"httpPipeline":{"handlers":[{}]}}"#;
        assert_eq!(
            spec(many).not_enforced(),
            ["spec.accessControl", "spec.api.denied", "spec.httpPipeline.handlers"]
        );
    }

    #[test]
    fn defaults_are_upstreams() {
        let none = Configuration::default();
        assert!(none.metrics_enabled() && none.hot_reload() && !none.wants_tracing());
        assert_eq!(none.enabled_features(), ["HotReload"]);
        assert!(!spec(r#"{"metric":{"enabled":true},"metrics":{"enabled":false}}"#).metrics_enabled());
        let off = spec(
            r#"{"features":[{"name":"HotReload","enabled":true},{"name":"HotReload","enabled":false},{"name":"X","enabled":true}]}"#,
        );
        assert!(!off.hot_reload());
        assert_eq!(off.enabled_features(), ["X"]);
    }

    #[test]
    fn only_the_deny_list_changes_live() {
        let before = spec(r#"{"components":{"deny":["state.a"]}}"#);
        assert!(!before.needs_restart(&spec(r#"{"components":{"deny":[]}}"#)));
        assert!(before.needs_restart(&spec(r#"{"metric":{"enabled":false}}"#)));
    }
}
