//! Probes of the sidecar, on its public port.

use k8s_openapi::{
    api::core::v1::{HTTPGetAction, Probe, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::PUBLIC_PORT;
use crate::sidecar;

/// How long a native sidecar may take to start: as long as liveness leaves an ordinary one alone by default.
const STARTUP_SECONDS: i32 = 180;

pub(super) fn readiness(numbers: sidecar::Probe) -> Probe {
    Probe {
        http_get: Some(get("/v1.0/healthz")),
        ..probe(numbers)
    }
}

pub(super) fn liveness(numbers: sidecar::Probe) -> Probe {
    Probe {
        tcp_socket: Some(TCPSocketAction {
            port: IntOrString::Int(PUBLIC_PORT),
            ..TCPSocketAction::default()
        }),
        ..probe(numbers)
    }
}

/// Containers behind a native sidecar start when it is started: with this probe that means it can be talked to. It asks for
/// outbound health, which does not wait for the app.
pub(super) fn startup() -> Probe {
    Probe {
        http_get: Some(get("/v1.0/healthz/outbound")),
        period_seconds: Some(1),
        timeout_seconds: Some(1),
        failure_threshold: Some(STARTUP_SECONDS),
        ..Probe::default()
    }
}

fn get(path: &str) -> HTTPGetAction {
    HTTPGetAction {
        path: Some(path.to_owned()),
        port: IntOrString::Int(PUBLIC_PORT),
        ..HTTPGetAction::default()
    }
}

/// Zeroes are left to the API server's defaults.
fn probe(numbers: sidecar::Probe) -> Probe {
    let number = |n: i32| (n != 0).then_some(n);
    Probe {
        initial_delay_seconds: number(numbers.delay),
        timeout_seconds: number(numbers.timeout),
        period_seconds: number(numbers.period),
        failure_threshold: number(numbers.threshold),
        ..Probe::default()
    }
}
