//! The part of the control plane's Configuration that sentry follows: lifetimes and validators.

use anyhow::{Context, bail};
use outrigger_core::GoDuration;
use serde::Deserialize;
use time::Duration;

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

/// `spec` of a Configuration, as far as it concerns sentry.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Spec {
    mtls: Option<Mtls>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mtls {
    #[serde(rename = "workloadCertTTL")]
    workload_cert_ttl: Option<String>,
    allowed_clock_skew: Option<String>,
    token_validators: Vec<TokenValidator>,
}

#[derive(Debug, Deserialize)]
struct TokenValidator {
    name: String,
}

impl Spec {
    /// # Errors
    /// Names the field, what was found and what was expected.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let defaults = Settings::default();
        let Some(mtls) = &self.mtls else { return Ok(defaults) };
        if let Some(validator) = mtls.token_validators.first() {
            match validator.name.to_ascii_lowercase().as_str() {
                "jwks" => bail!("spec.mtls.tokenValidators: the validator jwks is not part of this release"),
                "kubernetes" | "insecure" => {
                    bail!(
                        "spec.mtls.tokenValidators: {} cannot be configured manually",
                        validator.name
                    )
                }
                _ => bail!("spec.mtls.tokenValidators: found {:?}, expected jwks", validator.name),
            }
        }
        Ok(Settings {
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

/// A standalone configuration file: one YAML document of kind Configuration; an empty file is valid.
///
/// # Errors
/// Names the file and what is wrong with it.
pub(crate) fn from_file(path: &str) -> anyhow::Result<Settings> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct File {
        spec: Spec,
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the configuration file {path}"))?;
    if text.trim().is_empty() {
        return Ok(Settings::default());
    }
    let file: File = serde_saphyr::from_str(&text).with_context(|| format!("configuration file {path}"))?;
    file.spec
        .settings()
        .with_context(|| format!("configuration file {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: serde_json::Value) -> anyhow::Result<Settings> {
        serde_json::from_value::<Spec>(json).unwrap().settings()
    }

    #[test]
    fn reads_lifetimes() {
        assert_eq!(settings(serde_json::json!({})).unwrap(), Settings::default());
        let found =
            settings(serde_json::json!({"mtls": {"workloadCertTTL": "1h30m", "allowedClockSkew": "0"}})).unwrap();
        assert_eq!(
            found,
            Settings {
                ttl: Duration::minutes(90),
                skew: Duration::ZERO
            }
        );
    }

    #[test]
    fn mistakes_name_the_field() {
        for (mtls, text) in [
            (
                serde_json::json!({"workloadCertTTL": "soon"}),
                "spec.mtls.workloadCertTTL",
            ),
            (serde_json::json!({"allowedClockSkew": "-1s"}), "not negative"),
            (
                serde_json::json!({"tokenValidators": [{"name": "jwks"}]}),
                "not part of this release",
            ),
        ] {
            let error = settings(serde_json::json!({"mtls": mtls})).unwrap_err();
            assert!(format!("{error:#}").contains(text), "{error:#}");
        }
    }
}
