//! The real binary on the loopback interface, from outside.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "one test binary: everything in it is a test or a helper of tests"
)]

mod kubernetes;
mod mesh;
mod process;
mod reload;
mod reports;
mod state;
mod support;
