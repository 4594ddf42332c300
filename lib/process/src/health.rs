//! Health as a set of named targets: ready when there is at least one and all are ready.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::any};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::http;

/// What a target says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Ready,
    /// Ready, with something that people should look at.
    Warning(String),
    NotReady(String),
}

impl Condition {
    fn is_ready(&self) -> bool {
        !matches!(self, Self::NotReady(_))
    }
}

/// The process's health; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    targets: Arc<watch::Sender<Targets>>,
}

type Targets = BTreeMap<&'static str, Condition>;

/// Reports on one target. Dropping it leaves the last report standing.
#[derive(Debug, Clone)]
pub struct Target {
    health: Health,
    name: &'static str,
}

impl Health {
    /// Registers a target, which is not ready until it says so.
    pub fn target(&self, name: &'static str) -> Target {
        let target = Target {
            health: self.clone(),
            name,
        };
        target.not_ready("starting");
        target
    }

    pub fn is_ready(&self) -> bool {
        all_ready(&self.targets.borrow())
    }

    /// Waits until [`Health::is_ready`] holds.
    pub async fn until_ready(&self) {
        // The sender lives as long as `self`.
        _ = self.targets.subscribe().wait_for(all_ready).await;
    }

    /// Names and reasons of what is not ready yet, for people who ask why.
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        let targets = self.targets.borrow();
        targets
            .iter()
            .filter_map(|(name, condition)| match condition {
                Condition::Ready | Condition::Warning(_) => None,
                Condition::NotReady(reason) => Some((*name, reason.clone())),
            })
            .collect()
    }

    /// What people should look at although it is ready.
    pub fn warnings(&self) -> Vec<(&'static str, String)> {
        let targets = self.targets.borrow();
        targets
            .iter()
            .filter_map(|(name, condition)| match condition {
                Condition::Warning(warning) => Some((*name, warning.clone())),
                Condition::Ready | Condition::NotReady(_) => None,
            })
            .collect()
    }

    /// `/healthz` as upstream serves it: 200 or 503 with an empty body. `/livez` says only that the process runs.
    /// `/healthz/detail` lists what is missing and what to look at, a line each.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/healthz", any(healthz))
            .route("/healthz/detail", any(detail))
            .route("/livez", any(|| async { StatusCode::OK }))
            .with_state(self.clone())
    }

    /// Serves [`Health::router`] until `stop`; the server itself is the target `healthz-server`.
    ///
    /// # Errors
    /// When the port cannot be bound or accepting fails.
    pub async fn serve(self, host: &str, port: u16, stop: CancellationToken) -> anyhow::Result<()> {
        let target = self.target("healthz-server");
        let listener = http::bind(host, port, "health checks").await?;
        target.ready();
        http::serve(listener, self.router(), stop).await?;
        Ok(())
    }
}

impl Target {
    pub fn ready(&self) {
        self.set(Condition::Ready);
    }

    /// Ready, but `warning` is shown to people.
    pub fn ready_with_warning(&self, warning: impl Into<String>) {
        self.set(Condition::Warning(warning.into()));
    }

    /// Withdraws readiness; `reason` is shown to people.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Condition::NotReady(reason.into()));
    }

    fn set(&self, condition: Condition) {
        let mut previous = None;
        self.health
            .targets
            .send_modify(|targets| previous = targets.insert(self.name, condition.clone()));
        if previous.as_ref() != Some(&condition) {
            match condition {
                Condition::Ready | Condition::Warning(_) => {
                    tracing::debug!(target = self.name, "health target is ready");
                }
                Condition::NotReady(reason) => {
                    tracing::debug!(target = self.name, reason, "health target is not ready");
                }
            }
        }
    }
}

fn all_ready(targets: &Targets) -> bool {
    !targets.is_empty() && targets.values().all(Condition::is_ready)
}

async fn healthz(State(health): State<Health>) -> StatusCode {
    if health.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn detail(State(health): State<Health>) -> (StatusCode, String) {
    let missing = health
        .missing()
        .into_iter()
        .map(|(name, reason)| format!("{name}: {reason}\n"));
    let warnings = health
        .warnings()
        .into_iter()
        .map(|(name, warning)| format!("{name}: warning: {warning}\n"));
    let lines: String = missing.chain(warnings).collect();
    (healthz(State(health)).await, lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_all_targets_are() {
        let health = Health::default();
        assert!(!health.is_ready(), "nothing registered");
        let (a, b) = (health.target("a"), health.target("b"));
        a.ready();
        assert!(!health.is_ready());
        assert_eq!(health.missing(), [("b", "starting".to_owned())]);
        b.ready();
        assert!(health.is_ready());
        b.ready_with_warning("certificate expires soon");
        assert!(health.is_ready());
        assert_eq!(health.warnings(), [("b", "certificate expires soon".to_owned())]);
        b.not_ready("certificate expired");
        assert_eq!(health.missing(), [("b", "certificate expired".to_owned())]);
    }

    #[tokio::test]
    async fn the_last_target_ends_the_wait() {
        let health = Health::default();
        let (a, b) = (health.target("a"), health.target("b"));
        let wait = tokio::spawn({
            let health = health.clone();
            async move { health.until_ready().await }
        });
        a.ready();
        tokio::task::yield_now().await;
        assert!(!wait.is_finished());
        b.ready();
        wait.await.unwrap();
    }
}
