//! The credential that goes with a certificate request. Read again for every request, since projected tokens rotate.

use std::{
    io,
    path::{Path, PathBuf},
};

use outrigger_proto::sentry::sign_certificate_request::TokenValidator;

use crate::error::{Error, FetchError};

/// Where the injector and the chart mount the projected token.
const SENTRY_TOKEN: &str = "/var/run/secrets/dapr.io/sentrytoken/token";
/// The service account's own token, for pods without the projected one.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Names a token file explicitly; set but empty is an error, as upstream has it.
const TOKEN_FILE_VARIABLE: &str = "DAPR_SENTRY_TOKEN_FILE";

/// Whether a pod's token is mounted for sentry. Where this process has none, pods it injects would not get one either.
pub fn token_is_mounted() -> bool {
    [SENTRY_TOKEN, SERVICE_ACCOUNT_TOKEN]
        .iter()
        .any(|path| Path::new(path).exists())
}

/// A token, and the validator that sentry is asked to use for it. Without `Debug`: a token is a secret.
pub(crate) struct Token {
    pub(crate) token: String,
    pub(crate) validator: TokenValidator,
}

/// Where to look, in order.
#[derive(Debug, Clone)]
pub(crate) struct TokenSource {
    pub(crate) kubernetes: bool,
    explicit: Option<PathBuf>,
    projected: PathBuf,
    fallback: PathBuf,
}

impl TokenSource {
    /// # Errors
    /// When the variable that names a token file is empty: nothing heals that while the process runs.
    pub(crate) fn from_environment(kubernetes: bool) -> Result<Self, Error> {
        let explicit = std::env::var_os(TOKEN_FILE_VARIABLE).map(PathBuf::from);
        if explicit.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(Error::TokenFile(TOKEN_FILE_VARIABLE));
        }
        Ok(Self {
            kubernetes,
            explicit,
            projected: SENTRY_TOKEN.into(),
            fallback: SERVICE_ACCOUNT_TOKEN.into(),
        })
    }

    pub(crate) fn read(&self) -> Result<Token, FetchError> {
        if let Some(path) = &self.explicit {
            let token = require(path)?;
            let validator = if self.kubernetes {
                TokenValidator::Kubernetes
            } else {
                TokenValidator::Jwks
            };
            return Ok(Token { token, validator });
        }
        if self.kubernetes {
            for (path, legacy) in [(&self.projected, false), (&self.fallback, true)] {
                match std::fs::read_to_string(path) {
                    Ok(token) if !token.is_empty() => {
                        if legacy {
                            tracing::warn!(path = %path.display(), "using the service account's token, since no token for sentry is mounted");
                        }
                        return Ok(Token {
                            token,
                            validator: TokenValidator::Kubernetes,
                        });
                    }
                    Ok(_) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(failed(path, &error.to_string())),
                }
            }
        }
        // Sentry picks its own default; in Kubernetes it will refuse, with a reason.
        Ok(Token {
            token: String::new(),
            validator: TokenValidator::Unknown,
        })
    }
}

fn require(path: &Path) -> Result<String, FetchError> {
    match std::fs::read_to_string(path) {
        Ok(token) if token.is_empty() => Err(failed(path, "is empty")),
        Ok(token) => Ok(token),
        Err(error) => Err(failed(path, &error.to_string())),
    }
}

fn failed(path: &Path, reason: &str) -> FetchError {
    FetchError::Token {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(dir: &Path, kubernetes: bool, explicit: Option<&str>) -> TokenSource {
        TokenSource {
            kubernetes,
            explicit: explicit.map(|name| dir.join(name)),
            projected: dir.join("projected"),
            fallback: dir.join("fallback"),
        }
    }

    #[test]
    fn looks_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let read = |kubernetes, explicit| {
            source(dir.path(), kubernetes, explicit)
                .read()
                .map(|t| (t.token, t.validator))
        };

        assert_eq!(read(true, None).unwrap(), (String::new(), TokenValidator::Unknown));
        std::fs::write(dir.path().join("fallback"), "legacy").unwrap();
        assert_eq!(read(true, None).unwrap(), ("legacy".into(), TokenValidator::Kubernetes));
        std::fs::write(dir.path().join("projected"), "mounted\n").unwrap();
        assert_eq!(
            read(true, None).unwrap(),
            ("mounted\n".into(), TokenValidator::Kubernetes)
        );
        assert_eq!(read(false, None).unwrap(), (String::new(), TokenValidator::Unknown));
        assert_eq!(read(false, Some("projected")).unwrap().1, TokenValidator::Jwks);
        assert!(read(true, Some("absent")).unwrap_err().to_string().contains("absent"));

        // Empty files: an explicit one is a mistake, a mounted one is not made up for by the other.
        std::fs::write(dir.path().join("projected"), "").unwrap();
        assert!(
            read(true, Some("projected"))
                .unwrap_err()
                .to_string()
                .contains("is empty")
        );
        assert_eq!(read(true, None).unwrap(), (String::new(), TokenValidator::Unknown));
    }
}
