//! What would disturb others: the conversion of Subscriptions, whose definition other tests expect as the chart has it, and what
//! happens to an API server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod conversion;
mod faults;
mod registration;
mod support;
