//! The operator as a source of resources: calls that wait for it, and update streams that come back after every break.

mod backoff;
pub mod follow;
pub mod operator;
