//! Identities against certificate authorities in the test.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod acceptance;
mod fetching;
mod mtls;
mod sentry;
mod support;
mod world;
