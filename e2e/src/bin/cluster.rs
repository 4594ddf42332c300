//! The local cluster's command line.

use std::process::ExitCode;

use clap::Parser;
use outrigger_e2e::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        // Returned from main it would come with a backtrace, which says nothing to users.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
