//! Workload identity: SPIFFE certificates from sentry, renewed while the process runs, and TLS configurations that follow them.
//!
//! [`Identity`] is the live identity: servers and clients made from it read the newest certificate and trust anchors for
//! each connection. [`Renewal`] is the task behind it. Knows rustls and tonic, not Kubernetes.

mod anchors;
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
mod renewal;
mod schedule;
mod sentry;
mod socket;
mod svid;
mod tls;
mod token;
mod verify;

pub use anchors::{AnchorSource, Anchors, Elsewhere};
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
