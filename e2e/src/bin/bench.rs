//! Measurements. Without a subcommand on a real cluster, which is removed afterwards.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use outrigger_e2e::bench::{self, admission, fanout, signing};
use tokio::runtime;

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

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let mut runtime = runtime::Builder::new_multi_thread();
    runtime.enable_all();
    if matches!(command, Some(Command::Fanout(_))) {
        runtime.on_thread_start(fanout::give_way);
    }
    let measured = runtime.build().map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            match command {
                None => bench::run().await,
                Some(Command::Admission(args)) => admission::run(args).await,
                Some(Command::Fanout(args)) => fanout::run(args).await,
                Some(Command::Signing(args)) => signing::run(args).await,
            }
        })
    });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
