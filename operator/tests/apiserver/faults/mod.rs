//! The operator while things happen to its API server. Each test has a server of its own.

mod absent;
mod fixture;
mod model;
#[path = "../../support/mod.rs"]
mod support;
