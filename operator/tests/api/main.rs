//! The operator against a real API server: what is applied reaches sidecars, statuses, Services and pods.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod fixture;
mod grants;
mod injections;
mod killed;
mod missing;
mod policy;
mod process;
mod reports;
mod secrets;
mod services;
mod setup;
mod stalled;
mod stand_in;
mod status_counts;
mod status_model;
mod status_oracle;
mod statuses;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod system_configuration;
mod trust;
mod watchdog;
