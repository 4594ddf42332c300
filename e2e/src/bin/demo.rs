//! Tells the main job on a real cluster, step by step.

use std::process::ExitCode;

use clap::Parser;
use outrigger_e2e::demo::{self, Target};

/// The main job on a real cluster, step by step.
#[derive(Debug, Parser)]
struct Args {
    /// A context of your kubeconfig to use instead of the local cluster
    #[arg(long)]
    context: Option<String>,
}

fn main() -> ExitCode {
    let Args { context } = Args::parse();
    let target = context
        .filter(|name| !name.is_empty())
        .map_or(Target::Local, Target::Context);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the demo cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(demo::run(target)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nthe demo stopped: {error:#}");
            ExitCode::FAILURE
        }
    }
}
