//! The sidecar.
#![allow(unreachable_pub, reason = "only `run` is used from outside: private modules let the compiler find dead code")]
#![allow(dead_code)]
mod api_error;
mod app;
mod args;
mod components;
mod grpc;
mod http;
mod invoke;
mod metadata;
mod metrics;
mod quantity;
mod resources;
mod settings;
mod shutdown;
mod text;
