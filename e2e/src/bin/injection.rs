//! Proves what injection promises where that takes too long for every run of the tests.

use std::process::ExitCode;

use clap::Parser;
use outrigger_e2e::injection::{self, Proof};

/// Injection on a cluster of its own, where it is hard
#[derive(Debug, Parser)]
struct Args {
    /// All of them when none is named
    proofs: Vec<Proof>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match injection::run(&Args::parse().proofs).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
