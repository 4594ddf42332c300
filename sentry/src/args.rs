//! Command line of sentry: upstream's flags and defaults.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Parser;
use outrigger_core::{GoDuration, TrustDomain};
use outrigger_process::{flags, logs::LogArgs, metrics::MetricsArgs};

/// Below, certificates could not be renewed in time.
const MIN_CA_TTL: time::Duration = time::Duration::seconds(10);

/// Where sentry runs, which decides where its material is kept and who may ask for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Standalone,
    Kubernetes,
}

#[derive(Parser, Debug, Clone)]
#[command(
    name = "sentry",
    about = "Certificate authority that gives every process its SPIFFE identity"
)]
pub struct Args {
    #[command(flatten)]
    pub logs: LogArgs,
    #[command(flatten)]
    pub metrics: MetricsArgs,

    /// Kubernetes: name of the Configuration in the control plane's namespace. Standalone: path of a YAML file.
    #[arg(long, default_value = "daprsystem")]
    pub config: String,
    /// `standalone` or `kubernetes`.
    #[arg(long, default_value = "standalone")]
    pub mode: String,
    /// Directory of the authority's material.
    #[arg(long, default_value = "/var/run/secrets/dapr.io/credentials")]
    pub issuer_credentials: PathBuf,
    /// Name of the trust anchors.
    #[arg(long, default_value = "ca.crt")]
    pub issuer_ca_filename: PathBuf,
    /// Name of the issuer's certificate chain.
    #[arg(long, default_value = "issuer.crt")]
    pub issuer_certificate_filename: PathBuf,
    /// Name of the issuer's key.
    #[arg(long, default_value = "issuer.key")]
    pub issuer_key_filename: PathBuf,
    /// Trust domain of the control plane.
    #[arg(long, default_value = "localhost")]
    pub trust_domain: String,
    /// Port of the gRPC server.
    #[arg(long, default_value = "50001")]
    pub port: u16,
    /// Address of the gRPC server; empty means all interfaces.
    #[arg(long, default_value = "")]
    pub listen_address: String,
    /// Port of the health server.
    #[arg(long, default_value = "8080")]
    pub healthz_port: u16,
    /// Address of the health server; empty means all interfaces.
    #[arg(long, default_value = "")]
    pub healthz_listen_address: String,
    /// Kubeconfig for use outside a cluster.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,

    /// Lifetime of generated roots and issuers.
    #[arg(long, default_value = "8760h", value_parser = flags::duration)]
    pub ca_ttl: GoDuration,
    /// Renew the generated authority before it expires.
    #[arg(long, default_value_t = true)]
    pub ca_renewal_enabled: bool,
    /// Part of its life after which the authority is renewed, above 0 and below 1.
    #[arg(long, default_value_t = 0.9)]
    pub ca_renewal_threshold: f64,
    /// How long a new root is announced before it is used: longer than it takes to reach every pod.
    #[arg(long, default_value = "24h", value_parser = flags::duration)]
    pub trust_anchor_propagation_grace: GoDuration,

    /// Issue JWT-SVIDs.
    #[arg(long)]
    pub jwt_enabled: bool,
    #[arg(long, default_value = "jwt.key")]
    pub jwt_key_filename: PathBuf,
    #[arg(long, default_value = "jwks.json")]
    pub jwks_filename: PathBuf,
    #[arg(long)]
    pub jwt_issuer: Option<String>,
    #[arg(long, default_value = "RS256")]
    pub jwt_signing_algorithm: String,
    #[arg(long)]
    pub jwt_key_id: Option<String>,
    #[arg(long, default_value = "24h")]
    pub jwt_ttl: String,
    /// Serve OIDC discovery.
    #[arg(long)]
    pub oidc_enabled: bool,
    #[arg(long, default_value = "9080")]
    pub oidc_server_listen_port: u16,
    #[arg(long, default_value = "localhost")]
    pub oidc_server_listen_address: String,
    #[arg(long, default_value_t = true)]
    pub oidc_server_tls_enabled: bool,
    #[arg(long)]
    pub oidc_server_tls_cert_file: Option<PathBuf>,
    #[arg(long)]
    pub oidc_server_tls_key_file: Option<PathBuf>,
    #[arg(long)]
    pub oidc_jwks_uri: Option<String>,
    #[arg(long)]
    pub oidc_path_prefix: Option<String>,
    #[arg(long, value_delimiter = ',')]
    pub oidc_allowed_hosts: Vec<String>,
}

/// Flags after validation, and the environment.
#[derive(Debug, Clone)]
pub struct Options {
    pub mode: Mode,
    pub trust_domain: TrustDomain,
    /// Namespace of the control plane.
    pub namespace: String,
    pub names: Names,
    pub renewal: Renewal,
}

/// How the authority is renewed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Renewal {
    pub enabled: bool,
    pub ttl: time::Duration,
    pub threshold: f64,
    pub grace: time::Duration,
}

/// Paths of the material as files. In Kubernetes their last parts are the keys in Secret and ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub anchors: PathBuf,
    pub issuer_chain: PathBuf,
    pub issuer_key: PathBuf,
}

impl Names {
    /// The key that stands for a path in the Secret and the ConfigMap.
    pub fn key(path: &Path) -> String {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// The announced issuer's chain and key stand beside those in use, with `.next` before the extension.
    pub fn next(path: &Path) -> PathBuf {
        beside(path, "next")
    }

    /// Where certificates are that lead to further anchors than the chain.
    pub fn cross(&self) -> PathBuf {
        beside(&self.issuer_chain, "cross")
    }
}

fn beside(path: &Path, infix: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{infix}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

impl Args {
    /// Checks what clap cannot.
    ///
    /// # Errors
    /// Names the flag, what was found and what was expected.
    pub fn options(&self) -> anyhow::Result<Options> {
        let mode = match self.mode.as_str() {
            "standalone" => Mode::Standalone,
            "kubernetes" => Mode::Kubernetes,
            other => bail!("--mode: found {other:?}, expected standalone or kubernetes"),
        };
        if self.jwt_issuer.is_some() && !self.jwt_enabled {
            bail!("--jwt-issuer needs --jwt-enabled");
        }
        if self.jwt_enabled {
            bail!("--jwt-enabled: JWT-SVIDs are not part of this release");
        }
        if self.oidc_enabled {
            bail!("--oidc-enabled: OIDC discovery is not part of this release");
        }
        let trust_domain = TrustDomain::new(&self.trust_domain).context("--trust-domain")?;
        let namespace = match (
            std::env::var("NAMESPACE")
                .ok()
                .filter(|namespace| !namespace.is_empty()),
            mode,
        ) {
            (Some(namespace), _) => namespace,
            (None, Mode::Standalone) => outrigger_core::control_plane::DEFAULT_NAMESPACE.to_owned(),
            (None, Mode::Kubernetes) => bail!("'NAMESPACE' environment variable not set"),
        };
        // An absolute name wins over the directory: `join` does just that.
        let names = Names {
            anchors: self.issuer_credentials.join(&self.issuer_ca_filename),
            issuer_chain: self.issuer_credentials.join(&self.issuer_certificate_filename),
            issuer_key: self.issuer_credentials.join(&self.issuer_key_filename),
        };
        Ok(Options {
            mode,
            trust_domain,
            namespace,
            names,
            renewal: self.renewal()?,
        })
    }

    fn renewal(&self) -> anyhow::Result<Renewal> {
        let ttl = time::Duration::nanoseconds(self.ca_ttl.nanos());
        if ttl < MIN_CA_TTL {
            bail!("--ca-ttl: found {}, expected at least 10s", self.ca_ttl);
        }
        let threshold = self.ca_renewal_threshold;
        if !(threshold > 0.0 && threshold < 1.0) {
            bail!("--ca-renewal-threshold: found {threshold}, expected a number above 0 and below 1");
        }
        let grace = time::Duration::nanoseconds(self.trust_anchor_propagation_grace.nanos());
        if grace.is_negative() {
            let found = self.trust_anchor_propagation_grace;
            bail!("--trust-anchor-propagation-grace: found {found}, expected a duration that is not negative");
        }
        Ok(Renewal {
            enabled: self.ca_renewal_enabled,
            ttl,
            threshold,
            grace,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> anyhow::Result<Options> {
        let words = std::iter::once("sentry").chain(words.iter().copied()).map(Into::into);
        flags::parse::<Args>(flags::Style::Pflag, words).unwrap().options()
    }

    #[test]
    fn absolute_names_win_over_the_directory() {
        let names = options(&["-issuer-credentials", "/creds", "-issuer-key-filename=/keys/tls.key"])
            .unwrap()
            .names;
        assert_eq!(names.anchors, Path::new("/creds/ca.crt"));
        assert_eq!(names.issuer_key, Path::new("/keys/tls.key"));
        assert_eq!(Names::key(&names.issuer_key), "tls.key");
        assert_eq!(Names::next(&names.issuer_key), Path::new("/keys/tls.next.key"));
        assert_eq!(Names::next(Path::new("/keys/issuer")), Path::new("/keys/issuer.next"));
        assert_eq!(names.cross(), Path::new("/creds/issuer.cross.crt"));
    }

    #[test]
    fn renewal_has_upstreams_defaults() {
        let renewal = options(&[]).unwrap().renewal;
        assert_eq!((renewal.enabled, renewal.threshold), (true, 0.9));
        assert_eq!(renewal.ttl, time::Duration::days(365));
        assert_eq!(renewal.grace, time::Duration::days(1));
        let words = [
            "-ca-ttl",
            "10m",
            "--ca-renewal-enabled=false",
            "--trust-anchor-propagation-grace",
            "90s",
        ];
        let renewal = options(&words).unwrap().renewal;
        assert_eq!((renewal.enabled, renewal.ttl), (false, time::Duration::minutes(10)));
        assert_eq!(renewal.grace, time::Duration::seconds(90));
    }

    #[test]
    fn mistakes_name_the_flag() {
        for (words, text) in [
            (&["-mode", "k8s"][..], "--mode: found \"k8s\""),
            (&["-trust-domain", "Upper"], "--trust-domain"),
            (&["-jwt-issuer", "https://x"], "--jwt-issuer needs --jwt-enabled"),
            (&["-jwt-enabled"], "--jwt-enabled: JWT-SVIDs are not part"),
            (&["-ca-ttl", "9s"], "--ca-ttl: found 9s, expected at least 10s"),
            (
                &["-ca-renewal-threshold", "1"],
                "--ca-renewal-threshold: found 1, expected a number above 0",
            ),
            (
                &["-trust-anchor-propagation-grace", "-1s"],
                "--trust-anchor-propagation-grace: found -1s",
            ),
            (&["-oidc-enabled"], "--oidc-enabled: OIDC discovery is not part"),
        ] {
            assert!(options(words).unwrap_err().to_string().contains(text), "{words:?}");
        }
    }
}
