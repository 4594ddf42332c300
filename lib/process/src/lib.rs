//! What every process shares: flags, logs, metrics, health, tasks and shutdown, and (with the feature `kubernetes`) the API
//! server's client, leases and watches.

pub mod flags;
pub mod health;
pub mod http;
pub mod identity;
pub mod logs;
pub mod metrics;
mod open_files;
pub mod privileges;
pub mod runtime;
pub mod tasks;

#[cfg(feature = "kubernetes")]
pub mod kubernetes;

/// Version of this build, as shown in logs and the metadata API.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
