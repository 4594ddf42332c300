//! The conversion of Subscriptions on a real API server. The definition exists once in a server, and other tests expect it as
//! the chart has it: these have a server of their own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod conversion;
mod registration;
mod support;
