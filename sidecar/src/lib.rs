//! The sidecar: serves the Dapr APIs to one application, with resources from the operator or from files.
#![allow(
    unreachable_pub,
    reason = "only `run` is used from outside: private modules let the compiler find dead code"
)]

mod api_error;
mod app;
mod args;
mod components;
mod grpc;
mod host;
mod http;
mod invoke;
mod metadata;
mod metrics;
mod quantity;
mod reload;
mod reports;
mod resources;
mod runtime;
mod settings;
mod shutdown;
mod stream;
mod text;
mod wait;

use std::process::ExitCode;

use outrigger_process::{
    flags::{self, Style},
    logs::Service,
};

use crate::args::Args;

/// The whole process.
pub fn run() -> ExitCode {
    let args: Args = flags::parse_or_exit(Style::Pflag);
    if args.version {
        println!("{}", outrigger_process::VERSION);
        return ExitCode::SUCCESS;
    }
    if args.build_info {
        let commit = option_env!("GIT_COMMIT").unwrap_or("unknown");
        println!(
            "Version: {}\nGit Commit: {commit}\nGit Version: {commit}",
            outrigger_process::VERSION
        );
        return ExitCode::SUCCESS;
    }
    if args.wait {
        return wait::run(&args.dapr_http_port);
    }
    let service = Service {
        title: "Dapr Runtime",
        scope: "dapr.runtime",
        app_id: Some(args.app_id.clone()),
    };
    let logs = args.logs.clone();
    outrigger_process::runtime::run(service, &logs, || runtime::run(args))
}
