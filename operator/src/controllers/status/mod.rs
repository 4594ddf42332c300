//! The conditions `Accepted` and `Ready` of every resource.
//!
//! All replicas know what there is to say; the one that holds the lease writes it.

mod board;
mod decision;
mod facts;
mod gate;
mod gathered;
mod links;
mod reported;
mod topics;
mod view;
mod workers;
mod writer;

pub use self::{
    board::{Board, Id},
    decision::{Finding, Outcome, SecretState, Verdict, judge, next_status},
    facts::{Knowledge, Source},
    links::{Store, Surroundings},
    reported::{GRACE, JUDGING, Reported},
    writer::Writer,
};
