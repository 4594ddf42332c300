//! What the flags say about the application.

use std::time::Duration;

use super::{
    Error,
    values::{optional_port, unbracketed, value},
};
use crate::args::Args;

/// What the application speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Https,
    H2c,
    Grpc,
    Grpcs,
}

impl Protocol {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::Grpc => "grpc",
            Self::Grpcs => "grpcs",
        }
    }
}

/// How to reach and watch the application.
#[derive(Debug, Clone)]
pub struct App {
    pub host: String,
    pub port: u16,
    pub protocol: Protocol,
    /// `None` is unlimited.
    pub max_concurrency: Option<usize>,
    pub probe: Option<Probe>,
    /// Sent to the application with every call.
    pub token: Option<String>,
}

/// How the application's health is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
    /// Failures in a row that make the application unhealthy.
    pub threshold: u32,
}

/// The application that `args` describe; `None` without a port. `token` is sent to it.
///
/// # Errors
/// Names the flag that cannot be used.
pub(super) fn app(args: &Args, token: Option<String>) -> Result<Option<App>, Error> {
    let protocol = match (args.app_protocol.trim().to_ascii_lowercase().as_str(), args.app_ssl) {
        ("" | "http", false) => Protocol::Http,
        ("" | "http", true) | ("https", _) => Protocol::Https,
        ("h2c", _) => Protocol::H2c,
        ("grpc", false) => Protocol::Grpc,
        ("grpc", true) | ("grpcs", _) => Protocol::Grpcs,
        _ => {
            return Err(value(
                "app-protocol",
                &args.app_protocol,
                "http, https, h2c, grpc or grpcs",
            ));
        }
    };
    let probe = probe(args)?;
    let port = optional_port("app-port", &args.app_port)?;
    Ok((port != 0).then(|| App {
        host: unbracketed(&args.app_channel_address),
        port,
        protocol,
        max_concurrency: usize::try_from(args.app_max_concurrency).ok().filter(|n| *n > 0),
        probe,
        token,
    }))
}

fn probe(args: &Args) -> Result<Option<Probe>, Error> {
    if !args.enable_app_health_check {
        return Ok(None);
    }
    let positive = |n: i64, default: u64| u64::try_from(n).ok().filter(|n| *n > 0).unwrap_or(default);
    let probe = Probe {
        path: args.app_health_check_path.clone(),
        interval: Duration::from_secs(positive(args.app_health_probe_interval, 5)),
        timeout: Duration::from_millis(positive(args.app_health_probe_timeout, 500)),
        threshold: u32::try_from(args.app_health_threshold)
            .ok()
            .filter(|n| *n > 0)
            .unwrap_or(3),
    };
    if probe.timeout >= probe.interval {
        return Err(Error::ProbeTimeout);
    }
    Ok(Some(probe))
}
