//! The operator: serves resources to sidecars, converts them between their versions, reports on them in their status, keeps the
//! Services of apps, hands out the trust anchors, and restarts pods that lack their sidecar.

pub mod api;
pub mod args;
pub mod controllers;
pub mod convert;
pub mod core;
mod deadline;
pub mod environment;
pub mod events;
pub mod index;
pub mod injections;
pub mod kinds;
pub mod metrics;
pub mod missing;
pub mod pods;
pub mod queue;
pub mod reports;
pub mod run;
pub mod scope;
pub mod secrets;
pub mod system_configuration;
pub mod trust;
pub mod watchdog;
pub mod watches;

/// Field manager of everything that the operator writes.
pub const FIELD_MANAGER: &str = "outrigger-operator";
