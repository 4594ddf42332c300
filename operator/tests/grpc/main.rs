//! The API as sidecars see it, over an index that the test fills.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod answers;
mod endings;
mod fixture;
mod isolation;
mod methods;
mod reports;
#[path = "../support/mod.rs"]
mod support;
