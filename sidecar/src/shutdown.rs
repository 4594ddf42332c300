//! How the process ends: signals, the shutdown API, and how long it goes on before and after.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between the answer to a forced shutdown and the exit.
const FORCED: Duration = Duration::from_millis(100);

/// What the shutdown APIs use; clones share the tokens.
#[derive(Clone)]
pub struct Shutdown {
    stop: CancellationToken,
}

impl Shutdown {
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop }
    }

    /// Ends the process gracefully.
    pub fn start(&self) {
        tracing::info!("shutdown was asked for over the API");
        self.stop.cancel();
    }

    /// Ends the process without waiting for anything, with exit code 1.
    pub fn force(&self) {
        tracing::warn!("a forced shutdown was asked for over the API");
        tokio::spawn(async {
            tokio::time::sleep(FORCED).await;
            std::process::exit(1);
        });
    }
}

/// Cancels `stop` after a signal: at once, or as long after it as was asked for while the application is healthy.
pub async fn follow_signals(
    signal: CancellationToken,
    stop: CancellationToken,
    block: Option<Duration>,
    mut app_healthy: watch::Receiver<bool>,
) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = signal.cancelled() => {}
    }
    if let Some(block) = block.filter(|block| !block.is_zero()) {
        tracing::info!("Blocking graceful shutdown for {block:?} or until app reports unhealthy...");
        tokio::select! {
            () = tokio::time::sleep(block) => tracing::info!("Block shutdown period expired, entering shutdown..."),
            Ok(_) = app_healthy.wait_for(|healthy| !healthy) => tracing::info!("App reported unhealthy, entering shutdown..."),
            () = stop.cancelled() => {}
        }
    }
    stop.cancel();
}

/// Ends the process with exit code 1 when it has not ended itself within `grace` of `stop`.
pub async fn enforce(grace: Option<Duration>, stop: CancellationToken) {
    stop.cancelled().await;
    tracing::info!("Dapr is shutting down");
    match grace {
        None => {
            tracing::warn!("Graceful shutdown timeout is infinite, will wait indefinitely to shutdown.");
            std::future::pending::<()>().await;
        }
        Some(grace) => tokio::time::sleep(grace).await,
    }
    tracing::error!("Graceful shutdown timeout exceeded, forcing shutdown");
    std::process::exit(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_signal_stops_at_once_or_after_the_block() {
        let (signal, stop) = (CancellationToken::new(), CancellationToken::new());
        let (_healthy, receiver) = watch::channel(true);
        signal.cancel();
        follow_signals(signal.clone(), stop.clone(), None, receiver.clone()).await;
        assert!(stop.is_cancelled());

        let stop = CancellationToken::new();
        let task = tokio::spawn(follow_signals(
            signal,
            stop.clone(),
            Some(Duration::from_secs(10)),
            receiver,
        ));
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(!stop.is_cancelled());
        task.await.unwrap();
        assert!(stop.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unhealthy_application_ends_the_block() {
        let (signal, stop) = (CancellationToken::new(), CancellationToken::new());
        let (healthy, receiver) = watch::channel(true);
        signal.cancel();
        let task = tokio::spawn(follow_signals(
            signal,
            stop.clone(),
            Some(Duration::from_secs(3600)),
            receiver,
        ));
        healthy.send_replace(false);
        task.await.unwrap();
        assert!(stop.is_cancelled());
    }
}
