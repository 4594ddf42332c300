//! The real binary against a real API server: bundle, token reviews, refusals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod bundle;
mod renewal;
mod rotation;
mod sentry;
mod signing;
