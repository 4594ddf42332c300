//! Flags of the OIDC server.

use std::path::PathBuf;

use anyhow::{Context, bail};
use http::Uri;

use crate::oidc::{AllowedHosts, OidcOptions};

#[derive(clap::Args, Debug, Clone)]
pub struct OidcArgs {
    /// Serve OIDC discovery and the JWKS; needs `jwt-enabled`.
    #[arg(long)]
    pub oidc_enabled: bool,
    /// Port of the OIDC server.
    #[arg(long, default_value = "9080")]
    pub oidc_server_listen_port: u16,
    /// Address of the OIDC server.
    #[arg(long, default_value = "localhost")]
    pub oidc_server_listen_address: String,
    /// Serve OIDC over TLS, which needs both files.
    #[arg(long, default_value_t = true)]
    pub oidc_server_tls_enabled: bool,
    /// Certificate chain of the OIDC server.
    #[arg(long)]
    pub oidc_server_tls_cert_file: Option<PathBuf>,
    /// Key of the OIDC server.
    #[arg(long)]
    pub oidc_server_tls_key_file: Option<PathBuf>,
    /// Value of `jwks_uri` in the discovery document.
    #[arg(long)]
    pub oidc_jwks_uri: Option<String>,
    /// Prefix of the OIDC paths.
    #[arg(long)]
    pub oidc_path_prefix: Option<String>,
    /// Hosts that may be asked for; `*` or none means any.
    #[arg(long, value_delimiter = ',')]
    pub oidc_allowed_hosts: Vec<String>,
}

impl OidcArgs {
    /// `None` when nothing is to be served.
    pub(super) fn options(&self, jwt_enabled: bool) -> anyhow::Result<Option<OidcOptions>> {
        let given = |file: &Option<PathBuf>| file.clone().filter(|path| !path.as_os_str().is_empty());
        let tls = match (
            given(&self.oidc_server_tls_cert_file),
            given(&self.oidc_server_tls_key_file),
        ) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(_), None) => bail!("--oidc-server-tls-cert-file needs --oidc-server-tls-key-file"),
            (None, Some(_)) => bail!("--oidc-server-tls-key-file needs --oidc-server-tls-cert-file"),
            (None, None) if self.oidc_enabled && self.oidc_server_tls_enabled => bail!(
                "--oidc-enabled: TLS needs --oidc-server-tls-cert-file and --oidc-server-tls-key-file; \
                 --oidc-server-tls-enabled=false serves plain HTTP"
            ),
            (None, None) => None,
        };
        if !self.oidc_enabled {
            return Ok(None);
        }
        if !jwt_enabled {
            tracing::warn!("--oidc-enabled has no effect without --jwt-enabled");
            return Ok(None);
        }
        let prefix = self.oidc_path_prefix.as_deref().unwrap_or_default();
        if !prefix.is_empty() {
            if !prefix.starts_with('/') {
                bail!("--oidc-path-prefix: found {prefix:?}, expected a path that starts with /");
            }
            prefix
                .parse::<Uri>()
                .with_context(|| format!("--oidc-path-prefix: {prefix:?} is not a path"))?;
        }
        Ok(Some(OidcOptions {
            address: self.oidc_server_listen_address.clone(),
            port: self.oidc_server_listen_port,
            tls,
            jwks_uri: self.oidc_jwks_uri.clone().filter(|uri| !uri.is_empty()),
            path_prefix: prefix.trim_end_matches('/').to_owned(),
            allowed_hosts: AllowedHosts::new(&self.oidc_allowed_hosts),
        }))
    }
}
