//! The real binary on loopback: every way in which others depend on it that needs no API server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod fake_api;
mod flags;
mod insecure;
mod jwks;
mod jwt;
mod kubernetes;
mod oidc;
mod pki;
mod process;
mod reload;
mod secrets;
