//! What the operator writes, done by the replica that holds the lease.

pub mod services;
pub mod status;
