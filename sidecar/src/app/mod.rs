//! The application beside the sidecar: waiting for it, calling it, watching its health.

pub mod channel;
pub mod health;

use std::time::Duration;

use tokio::net::TcpStream;

use crate::settings::App;

/// Time for one attempt to reach the port.
const DIAL: Duration = Duration::from_millis(500);
/// Time between attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until the application listens, for as long as that takes.
pub async fn wait_for_port(app: &App) {
    let (protocol, port) = (app.protocol.as_str(), app.port);
    tracing::info!(
        "application protocol: {protocol}. waiting on port {port}.  This will block until the app is listening on that port."
    );
    let mut tries = 0_u32;
    loop {
        match tokio::time::timeout(DIAL, TcpStream::connect((app.host.as_str(), port))).await {
            Ok(Ok(_)) => break,
            Ok(Err(error)) if tries.is_multiple_of(100) => {
                tracing::debug!(%error, "the application does not listen yet");
            }
            _ => {}
        }
        tries += 1;
        if tries.is_multiple_of(100) {
            tracing::info!("waiting for application to listen on port {port}");
        }
        tokio::time::sleep(PAUSE).await;
    }
    tracing::info!("application discovered on port {port}");
}
