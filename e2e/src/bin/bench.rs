//! Measurements. Without a subcommand on a real cluster, which is removed afterwards.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use outrigger_e2e::bench::{self, admission, fanout, signing};

#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Admission reviews of the injector
    Admission(admission::Args),
    /// The operator's update streams with many fake sidecars
    Fanout(fanout::Args),
    /// Certificates of sentry, and a storm of sidecars that ask for theirs
    Signing(signing::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let measured = match Cli::parse().command {
        None => bench::run().await,
        Some(Command::Admission(args)) => admission::run(args).await,
        Some(Command::Fanout(args)) => fanout::run(args).await,
        Some(Command::Signing(args)) => signing::run(args).await,
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
