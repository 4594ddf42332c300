//! The part of the control plane's Configuration that sentry follows: lifetimes and validators.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, anyhow, bail};
use arc_swap::ArcSwap;
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use outrigger_core::GoDuration;
use serde::Deserialize;
use time::Duration;

use crate::{expand::expand, validate::JwksOptions};

/// Lifetimes of the certificates that sentry signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Lifetime after now.
    pub ttl: Duration,
    /// Backdating, for clocks that are behind.
    pub skew: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: Duration::hours(24),
            skew: Duration::minutes(15),
        }
    }
}

/// The settings of the moment; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct LiveSettings(Arc<ArcSwap<Settings>>);

impl LiveSettings {
    pub(crate) fn new(settings: Settings) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(settings)))
    }

    pub(crate) fn get(&self) -> Settings {
        **self.0.load()
    }

    pub(crate) fn set(&self, settings: Settings) {
        self.0.store(Arc::new(settings));
    }
}

/// Everything that a Configuration says to sentry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Configured {
    pub(crate) settings: Settings,
    pub(crate) jwks: Option<JwksOptions>,
    /// Of no effect but a warning: the flag wins, as it does upstream.
    pub(crate) trust_domain: Option<String>,
}

/// Where the Configuration is.
pub(crate) enum Source {
    /// One YAML document; an empty file is valid.
    File(String),
    Kubernetes {
        client: Client,
        namespace: String,
        name: String,
    },
}

impl Source {
    /// Reads it. It has to exist: lifetimes must not depend on what is installed first.
    ///
    /// # Errors
    /// Names the file or object, the field, what was found and what was expected.
    pub(crate) async fn load(&self) -> anyhow::Result<Configured> {
        match self {
            Self::File(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.with_context(|| format!("cannot read the configuration file {path}"))?;
                let configured = from_yaml(&expand(&text, |name| std::env::var(name).ok()));
                configured.with_context(|| format!("configuration file {path}"))
            }
            Self::Kubernetes {
                client,
                namespace,
                name,
            } => {
                let resource = ApiResource::from_gvk_with_plural(
                    &GroupVersionKind::gvk("dapr.io", "v1alpha1", "Configuration"),
                    "configurations",
                );
                let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
                let object = api.get(name).await;
                let object = object.with_context(|| format!("cannot read the Configuration {namespace}/{name}"))?;
                let configured = from_object(&object);
                configured.with_context(|| format!("Configuration {namespace}/{name}"))
            }
        }
    }
}

fn from_yaml(text: &str) -> anyhow::Result<Configured> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct File {
        spec: Spec,
    }
    if text.trim().is_empty() {
        return Ok(Configured::default());
    }
    serde_saphyr::from_str::<File>(text)?.spec.configured()
}

fn from_object(object: &DynamicObject) -> anyhow::Result<Configured> {
    match object.data.get("spec") {
        None | Some(serde_json::Value::Null) => Ok(Configured::default()),
        Some(spec) => serde_json::from_value::<Spec>(spec.clone())
            .context("spec")?
            .configured(),
    }
}

/// `spec` of a Configuration, as far as it concerns sentry.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    mtls: Option<Mtls>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mtls {
    #[serde(rename = "workloadCertTTL")]
    workload_cert_ttl: Option<String>,
    allowed_clock_skew: Option<String>,
    control_plane_trust_domain: Option<String>,
    token_validators: Option<Vec<TokenValidator>>,
}

#[derive(Debug, Deserialize)]
struct TokenValidator {
    name: String,
    #[serde(default)]
    options: Option<BTreeMap<String, Text>>,
}

/// A scalar as text: who writes YAML by hand writes `minRefreshInterval: 60`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Number(i64),
}

impl Spec {
    fn configured(self) -> anyhow::Result<Configured> {
        let defaults = Settings::default();
        let Some(mtls) = self.mtls else {
            return Ok(Configured::default());
        };
        let mut jwks = None;
        for (index, validator) in mtls.token_validators.into_iter().flatten().enumerate() {
            let field = format!("spec.mtls.tokenValidators[{index}]");
            match validator.name.to_ascii_lowercase().as_str() {
                "jwks" => {
                    let options = validator.options.into_iter().flatten().map(|(key, value)| match value {
                        Text::Text(text) => (key, text),
                        Text::Number(number) => (key, number.to_string()),
                    });
                    let parsed = JwksOptions::parse(&options.collect());
                    // Later duplicates win, as they do upstream.
                    jwks = Some(parsed.map_err(|reason| anyhow!("{field}.options.{reason}"))?);
                }
                "kubernetes" | "insecure" => bail!("{field}.name: {} cannot be configured manually", validator.name),
                _ => bail!("{field}.name: found {:?}, expected jwks", validator.name),
            }
        }
        Ok(Configured {
            settings: Settings {
                ttl: not_negative(
                    "spec.mtls.workloadCertTTL",
                    mtls.workload_cert_ttl.as_deref(),
                    defaults.ttl,
                )?,
                skew: not_negative(
                    "spec.mtls.allowedClockSkew",
                    mtls.allowed_clock_skew.as_deref(),
                    defaults.skew,
                )?,
            },
            jwks,
            trust_domain: mtls.control_plane_trust_domain.filter(|domain| !domain.is_empty()),
        })
    }
}

fn not_negative(field: &str, text: Option<&str>, default: Duration) -> anyhow::Result<Duration> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(default);
    };
    let parsed = GoDuration::parse(text).context(field.to_owned())?;
    if parsed.nanos() < 0 {
        bail!("{field}: found {text:?}, expected a duration that is not negative");
    }
    Ok(Duration::nanoseconds(parsed.nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(mtls: serde_json::Value) -> anyhow::Result<Configured> {
        serde_json::from_value::<Spec>(serde_json::json!({"mtls": mtls}))
            .unwrap()
            .configured()
    }

    #[test]
    fn reads_lifetimes() {
        assert_eq!(configured(serde_json::Value::Null).unwrap(), Configured::default());
        let found = configured(serde_json::json!({"workloadCertTTL": "1h30m", "allowedClockSkew": "0"})).unwrap();
        assert_eq!(
            found.settings,
            Settings {
                ttl: Duration::minutes(90),
                skew: Duration::ZERO
            }
        );
    }

    #[test]
    fn reads_validators_from_yaml() {
        let yaml = r#"
kind: Configuration
spec:
  mtls:
    tokenValidators:
    - name: JWKS
      options: {source: "https://first.example/", minRefreshInterval: 60}
    - name: jwks
      options: {source: "https://idp.example/keys"}
"#;
        let found = from_yaml(yaml).unwrap().jwks.unwrap();
        let expected = BTreeMap::from([("source".to_owned(), "https://idp.example/keys".to_owned())]);
        assert_eq!(found, JwksOptions::parse(&expected).unwrap(), "the later one wins");
        assert_eq!(from_yaml(" \n").unwrap(), Configured::default());
    }

    #[test]
    fn mistakes_name_the_field() {
        let validator = |name: &str| serde_json::json!({"tokenValidators": [{"name": name}]});
        for (mtls, text) in [
            (
                serde_json::json!({"workloadCertTTL": "soon"}),
                "spec.mtls.workloadCertTTL",
            ),
            (serde_json::json!({"allowedClockSkew": "-1s"}), "not negative"),
            (
                validator("jwks"),
                "spec.mtls.tokenValidators[0].options.source: missing",
            ),
            (
                validator("Kubernetes"),
                "spec.mtls.tokenValidators[0].name: Kubernetes cannot be configured manually",
            ),
            (
                validator("ldap"),
                "spec.mtls.tokenValidators[0].name: found \"ldap\", expected jwks",
            ),
        ] {
            let error = configured(mtls).unwrap_err();
            assert!(format!("{error:#}").contains(text), "{error:#}");
        }
    }
}
