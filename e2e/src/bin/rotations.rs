//! Rotates the root of all trust under load, and counts what fails.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, builder::RangedU64ValueParser};
use outrigger_e2e::rotations;

/// Rotations of the root under load
#[derive(Debug, Parser)]
struct Args {
    /// In pods of a cluster of its own, in place of processes beside an API server
    #[arg(long, conflicts_with_all = ["programs", "roots"])]
    pods: bool,
    /// Folder of the programs to run; without it the one that this program is in
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Roots to be replaced before it ends
    #[arg(long, default_value_t = rotations::ROTATIONS, value_parser = at_least_one())]
    roots: usize,
}

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.pods {
        true => rotations::pods::run().await,
        false => rotations::run(args.programs, args.roots).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
