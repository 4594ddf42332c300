//! Rotates the root of all trust under load, and counts what fails.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match outrigger_e2e::rotations::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
