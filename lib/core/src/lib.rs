//! Names and small grammars that every part shares. Knows neither Kubernetes clients nor gRPC nor a runtime.

pub mod annotations;
pub mod app_id;
pub mod backoff;
pub mod cluster_domain;
pub mod control_plane;
pub mod duration;
pub mod markdown;
pub mod scopes;
pub mod spiffe;
pub mod text;

pub use duration::GoDuration;
pub use spiffe::{SpiffeId, TrustDomain};
