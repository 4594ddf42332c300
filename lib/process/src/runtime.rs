//! The frame of every `main`: crypto provider, logs, runtime, exit code.

use std::{future::Future, process::ExitCode};

use anyhow::Context;

use crate::{
    logs::{self, LogArgs, Service},
    open_files,
};

/// Installs the crypto provider and the logger, runs `main` on a runtime, and turns its result into an exit code: 0, or 1
/// after logging what failed.
pub fn run<F: Future<Output = anyhow::Result<()>>>(
    service: Service,
    logs: &LogArgs,
    main: impl FnOnce() -> F,
) -> ExitCode {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("another TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    let output = match logs::init(&service, logs) {
        Ok(output) => output,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    tracing::info!("Starting {} -- version {}", service.title, crate::VERSION);
    tracing::info!("Log level set to: {}", logs.log_level);
    open_files::raise_limit();
    let result = tokio::runtime::Builder::new_multi_thread()
        // The work is short and mostly waiting: more threads would only cost memory.
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(1, 4)))
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| {
            let result = runtime.block_on(main());
            // Blocking work (name look-ups) must not hold up the exit.
            runtime.shutdown_background();
            result
        });
    let code = match result {
        Ok(()) => {
            tracing::info!("{} shut down gracefully", service.title);
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("Fatal error: {error:#}");
            ExitCode::FAILURE
        }
    };
    output.flush();
    code
}
