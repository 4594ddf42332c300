//! The injector against a real API server: admission over its own TLS, the webhook's registration, the cluster's snapshot.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod admission;
mod cluster;
mod golden;
mod registration;
mod support;
