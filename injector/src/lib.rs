//! The sidecar injector: an admission webhook that gives annotated pods a `daprd` container.
//!
//! [`decision`] and [`patch`] are pure: a pod, settings and a snapshot of the cluster in, an answer out. Around them are
//! the webhook ([`webhook`]), the snapshot ([`cluster`]) and the webhook's registration ([`registration`]).

pub mod annotations;
pub mod args;
pub mod authorise;
pub mod cluster;
pub mod decision;
pub mod environment;
pub mod glob;
pub mod metrics;
pub mod patch;
pub mod pod;
pub mod refusals;
pub mod registration;
pub mod review;
pub mod settings;
pub mod sidecar;
pub mod text;
pub mod warnings;
pub mod webhook;
