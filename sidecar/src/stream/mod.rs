//! The operator as a source of resources: calls that wait for it, and update streams that come back after every break.

pub mod follow;
pub mod operator;

use std::time::Duration;

/// First pause after a failure.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
