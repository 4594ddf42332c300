//! `--wait`: waits until a sidecar on this machine serves its application.

use std::{process::ExitCode, time::Duration};

use axum::body::Body;
use http::{Request, StatusCode};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::time::{Instant, sleep, timeout};

const TOTAL: Duration = Duration::from_secs(60);
const ATTEMPT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(100);

/// Waits at most a minute and says on stderr what came of it. The exit code is 0 either way: scripts rely on that.
pub fn run(port: &str) -> ExitCode {
    let url = format!("http://localhost:{port}/v1.0/healthz/outbound");
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => eprintln!("{}", runtime.block_on(until_ready(&url))),
        Err(error) => eprintln!("cannot wait for the sidecar: {error}"),
    }
    ExitCode::SUCCESS
}

async fn until_ready(url: &str) -> String {
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let deadline = Instant::now() + TOTAL;
    let mut last = "no answer".to_owned();
    while Instant::now() < deadline {
        let request = match Request::get(url).body(Body::empty()) {
            Ok(request) => request,
            Err(error) => return format!("cannot wait for the sidecar: {error}"),
        };
        match timeout(ATTEMPT, client.request(request)).await {
            Ok(Ok(response)) if response.status() == StatusCode::NO_CONTENT => {
                return format!("the sidecar is ready: {url}");
            }
            Ok(Ok(response)) => last = response.status().to_string(),
            Ok(Err(error)) => last = outrigger_core::text::chain(&error),
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
    format!("the sidecar is not ready after {TOTAL:?}: {url}: {last}")
}
