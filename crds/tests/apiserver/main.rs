//! The rules in a real API server, which checks them when objects are written.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod corpus;
mod explain;
mod refused;
mod server;
mod stored;
mod unknown;
