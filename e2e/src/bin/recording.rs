//! Records how the programs run, for the compiler and the linker of releases.

use std::process::ExitCode;

use outrigger_e2e::release::recording;

#[tokio::main]
async fn main() -> ExitCode {
    match recording::record().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
