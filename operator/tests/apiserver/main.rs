//! The operator while things happen to its API server. Each test has a server of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod absent;
mod fixture;
mod model;
#[path = "../support/mod.rs"]
mod support;
