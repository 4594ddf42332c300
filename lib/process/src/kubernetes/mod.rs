//! The API server: clients, leases, watches.

pub mod client;
pub mod lease;
pub mod watch;
