//! The API server: clients, leases, watches, and webhooks that it calls.

pub mod access;
pub mod client;
pub mod lease;
pub mod owner;
pub mod pace;
pub mod slim;
pub mod trust_bundle;
pub mod watch;
pub mod webhook;
