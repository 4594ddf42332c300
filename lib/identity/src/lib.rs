//! Workload identity: SPIFFE certificates from sentry, renewed while the process runs, and TLS configurations that follow them.
//!
//! [`Identity`] is the live identity: servers and clients made from it read the newest certificate and trust anchors for
//! each connection. [`Renewal`] is the task behind it. Knows rustls and tonic, not Kubernetes.

mod anchors;
mod changes;
mod channel;
mod directory;
mod error;
mod files;
mod identity;
mod jwt;
mod key;
pub mod listener;
mod metrics;
pub mod pem;
mod places;
mod renewal;
mod schedule;
mod sentry;
mod socket;
mod svid;
mod tls;
mod token;
mod verify;

pub use anchors::{AnchorSource, Anchors, Elsewhere};
pub use changes::Changes;
pub use channel::{anonymous_channel, plain_channel};
pub use error::{Error, FetchError};
pub use identity::{Identity, Options};
pub use jwt::{JwtError, JwtSvid, JwtUnavailable};
pub use key::KeyAlgorithm;
pub use listener::{Limits, Listener, Peer};
pub use metrics::Metrics;
pub use renewal::{Renewal, Status};
pub use sentry::{Issued, Issuer, SigningRequest};
pub use svid::Svid;
pub use tls::{ClientAuth, ServerTls};
pub use token::token_is_mounted;
pub use verify::{Expect, spiffe_id_of};

/// What fuzz targets reach and nobody else; `cargo fuzz` sets the condition.
#[cfg(fuzzing)]
pub mod fuzzing {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    /// Reads a token as such, and as the claims of one.
    pub fn token(text: &str) {
        let now = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
        let _ = crate::jwt::JwtSvid::parse(text, now);
        let wrapped = format!(
            "{}.{}.c2ln",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#),
            URL_SAFE_NO_PAD.encode(text)
        );
        let _ = crate::jwt::JwtSvid::parse(&wrapped, now);
    }
}
