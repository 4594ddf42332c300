//! The tasks of a process: named, awaited, and none of them may end unnoticed.

use std::{future::Future, time::Duration};

use anyhow::{Context, anyhow};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// A set of tasks that live as long as the process.
pub struct Tasks {
    set: JoinSet<(&'static str, anyhow::Result<()>)>,
    stop: CancellationToken,
}

impl Tasks {
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            set: JoinSet::new(),
            stop,
        }
    }

    /// The token that ends all tasks.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts a task. It has to end soon after the stop token is cancelled, and not before.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.set.spawn(async move { (name, task.await) });
    }

    /// Waits for the stop token or for the first task that ends, then stops all and waits `drain` for them.
    ///
    /// # Errors
    /// The first task's failure, or the name of a task that ended before it was told to.
    pub async fn run(mut self, drain: Duration) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        tokio::select! {
            () = self.stop.cancelled() => {}
            Some(ended) = self.set.join_next() => {
                outcome = match ended {
                    Ok((_, Ok(()))) if self.stop.is_cancelled() => Ok(()),
                    Ok((name, Ok(()))) => Err(anyhow!("{name} ended before it was told to")),
                    Ok((name, Err(error))) => Err(error.context(name)),
                    Err(error) => Err(error).context("a task panicked"),
                };
            }
        }
        self.stop.cancel();
        let rest = async {
            while let Some(ended) = self.set.join_next().await {
                let failure = match ended {
                    Ok((_, Ok(()))) => continue,
                    Ok((name, Err(error))) => error.context(name),
                    Err(error) => anyhow!(error).context("a task panicked"),
                };
                if outcome.is_ok() {
                    outcome = Err(failure);
                } else {
                    tracing::warn!(error = format!("{failure:#}"), "a task failed while stopping");
                }
            }
        };
        if tokio::time::timeout(drain, rest).await.is_err() {
            tracing::warn!(
                seconds = drain.as_secs(),
                "tasks still running after the drain deadline were abandoned"
            );
        }
        outcome
    }
}

/// A token that the first SIGINT or SIGTERM cancels; the second ends the process at once with exit code 1.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = interrupt.recv() => "interrupt",
                _ = terminate.recv() => "terminated",
            };
            if token.is_cancelled() {
                tracing::error!(signal = name, "Received signal during shutdown; exiting immediately");
                std::process::exit(1);
            }
            tracing::info!(signal = name, "Received signal; beginning shutdown");
            token.cancel();
        }
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_stops_all_and_is_reported() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        let waiting = stop.clone();
        tasks.spawn("waits", async move {
            waiting.cancelled().await;
            Ok(())
        });
        tasks.spawn("listener", async { Err(anyhow!("port 80 is taken")) });
        let error = tasks.run(Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "listener: port 80 is taken");
        assert!(stop.is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_ends_early_is_a_failure_and_a_stop_is_not() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("watch", async { Ok(()) });
        assert!(
            tasks
                .run(Duration::from_secs(60))
                .await
                .unwrap_err()
                .to_string()
                .contains("watch ended")
        );

        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        let waiting = stop.clone();
        tasks.spawn("watch", async move {
            waiting.cancelled().await;
            Ok(())
        });
        stop.cancel();
        assert!(tasks.run(Duration::from_secs(60)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_drain_has_a_deadline() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        tasks.spawn("stuck", std::future::pending());
        stop.cancel();
        assert!(tasks.run(Duration::from_secs(5)).await.is_ok());
    }
}
