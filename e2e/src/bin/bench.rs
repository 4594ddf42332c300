//! Measures on a real cluster, which is removed afterwards.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match outrigger_e2e::bench::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
