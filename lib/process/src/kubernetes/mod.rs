//! The API server: clients, leases, watches.

pub mod client;
pub mod lease;
pub mod trust_bundle;
pub mod watch;
