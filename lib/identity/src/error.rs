//! What can go wrong with an identity.

use std::{io, path::PathBuf};

use outrigger_core::spiffe::SpiffeIdError;

use crate::jwt::JwtError;

/// Mistakes in options or files that stop a process at its start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("trust anchors: {0}")]
    Anchors(String),
    #[error("{0} is set but empty: expected the path of a token file")]
    TokenFile(&'static str),
    #[error("identity")]
    SpiffeId(#[from] SpiffeIdError),
    #[error("address {0:?}: expected host:port")]
    Address(String),
    #[error("cannot connect")]
    Connect(#[source] tonic::transport::Error),
    #[error("TLS configuration")]
    Tls(#[from] rustls::Error),
    #[error("sentry refuses this identity for good: {0}")]
    Refused(String),
    #[error("identity directory {path}: {reason}")]
    Directory { path: PathBuf, reason: String },
}

/// Why one attempt to get a certificate failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("cannot create a key and certificate request")]
    Key(#[source] rcgen::Error),
    #[error("token file {path}: {reason}")]
    Token { path: PathBuf, reason: String },
    #[error("cannot reach sentry at {address}: {reason}")]
    Connect { address: String, reason: String },
    #[error("sentry answered {code:?}: {message}")]
    Sign { code: tonic::Code, message: String },
    #[error("the certificate that sentry issued cannot be used: {0}")]
    Response(String),
    #[error("sentry's answer has no valid_until, or one that is no time")]
    Timestamp,
    #[error("a token that sentry issued cannot be used")]
    Jwt(#[from] JwtError),
}

impl FetchError {
    /// Upstream's names for what failed.
    pub(crate) fn metric_reason(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "sentry_conn",
            Self::Token { .. } => "sentry_token",
            Self::Timestamp => "invalid_ts",
            Self::Jwt(JwtError::Malformed(_)) => "jwt_parse",
            Self::Jwt(JwtError::Audience { .. }) => "jwt_aud",
            Self::Key(_) | Self::Sign { .. } | Self::Response(_) => "sign",
        }
    }

    /// Whether the same request may be answered in a moment. Upstream retries these and no others; its own deadline has another
    /// code there.
    pub(crate) fn is_transient(&self) -> bool {
        use tonic::Code;
        matches!(
            self,
            Self::Sign {
                code: Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled,
                ..
            }
        )
    }

    /// Whether sentry decided against the request, as opposed to not being able to decide now.
    pub(crate) fn is_refusal(&self) -> bool {
        use tonic::Code;
        matches!(
            self,
            Self::Sign {
                code: Code::PermissionDenied | Code::InvalidArgument | Code::Unauthenticated | Code::Unimplemented,
                ..
            }
        )
    }
}

/// Any error as the I/O error that connectors have to return.
pub(crate) fn io_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}
