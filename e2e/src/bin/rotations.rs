//! Rotates the root of all trust under load, and counts what fails.

use std::process::ExitCode;

use clap::Parser;
use outrigger_e2e::rotations;

/// Three rotations of the root under load
#[derive(Debug, Parser)]
struct Args {
    /// In pods of a cluster of its own, in place of processes beside an API server
    #[arg(long)]
    pods: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Args::parse().pods {
        true => rotations::pods::run().await,
        false => rotations::run().await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
