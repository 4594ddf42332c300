//! What became of resources in sidecars: sidecars report to the replica that they are connected to, replicas pass the sums on to
//! the one that leads, and that one writes them into statuses.
//!
//! Replicas find the leader through the Lease: its holder identity begins with the name of the holder's pod, whose address the
//! API server knows.

mod check;
mod gather;
mod intake;
mod ledger;
mod relay;

pub use self::{
    check::{Invalid, check_hello, check_verdicts},
    gather::{Gatherer, Gathering},
    intake::Intake,
    ledger::{Attended, Entry, Feed, Ledger},
    relay::{Relay, pod_of},
};

/// The version of the protocol that sidecars speak.
pub const PROTOCOL: u32 = 1;
/// Rejections of an object that are told one by one; of others only the number.
pub const NEWEST: usize = 10;

/// What a sidecar says of an object, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'a> {
    pub kind: &'static str,
    pub name: &'a str,
    pub generation: i64,
    pub resource_version: &'a str,
    pub state: State<'a>,
    /// Seconds since 1970, not in the future.
    pub judged_at: i64,
}

/// What became of an object in a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State<'a> {
    Loaded,
    Rejected {
        /// One word in CamelCase.
        reason: &'a str,
        message: &'a str,
    },
    Removed,
}
