//! Flags about JWT-SVIDs.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use outrigger_core::GoDuration;
use outrigger_process::flags;
use time::Duration;

use crate::jwt::{Algorithm, JwtOptions};

#[derive(clap::Args, Debug, Clone)]
pub struct JwtArgs {
    /// Issue JWT-SVIDs.
    #[arg(long)]
    pub jwt_enabled: bool,
    /// Name of the key that signs them.
    #[arg(long, default_value = "jwt.key")]
    pub jwt_key_filename: PathBuf,
    /// Name of the set of public keys.
    #[arg(long, default_value = "jwks.json")]
    pub jwks_filename: PathBuf,
    /// Claim `iss` of the tokens; unset leaves the claim out.
    #[arg(long)]
    pub jwt_issuer: Option<String>,
    /// RS, PS or ES with 256, 384 or 512, or EdDSA.
    #[arg(long, default_value = "RS256")]
    pub jwt_signing_algorithm: String,
    /// Key id of the tokens, in place of the key's thumbprint.
    #[arg(long)]
    pub jwt_key_id: Option<String>,
    /// Lifetime of the tokens.
    #[arg(long, value_parser = flags::duration, default_value = "24h")]
    pub jwt_ttl: GoDuration,
}

impl JwtArgs {
    /// `credentials` is where relative names are looked for.
    pub(super) fn options(&self, credentials: &Path) -> anyhow::Result<JwtOptions> {
        if self.jwt_issuer.is_some() && !self.jwt_enabled {
            bail!("--jwt-issuer needs --jwt-enabled");
        }
        let parsed = self.jwt_signing_algorithm.parse();
        let algorithm: Algorithm = parsed.map_err(|reason: String| anyhow!("--jwt-signing-algorithm: {reason}"))?;
        if self.jwt_ttl.nanos() <= 0 {
            bail!("--jwt-ttl: found {}, expected a duration above 0", self.jwt_ttl);
        }
        Ok(JwtOptions {
            enabled: self.jwt_enabled,
            // Upstream ignores relative names; with the defaults the result is the same.
            key: credentials.join(&self.jwt_key_filename),
            jwks: credentials.join(&self.jwks_filename),
            issuer: self.jwt_issuer.clone(),
            algorithm,
            key_id: self.jwt_key_id.clone().filter(|id| !id.is_empty()),
            ttl: Duration::nanoseconds(self.jwt_ttl.nanos()),
        })
    }
}
