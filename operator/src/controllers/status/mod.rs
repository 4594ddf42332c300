//! The conditions `Accepted` and `Ready` of every resource.
//!
//! All replicas know what there is to say; the one that holds the lease writes it.

mod board;
mod decision;
mod writer;

pub use self::{
    board::{Board, Id},
    decision::{Finding, Next, SecretState, Verdict, judge, next_status},
    writer::Writer,
};
