//! The identity's renewal as a task of the process, reporting to its health.

use outrigger_identity::{Renewal, Status};
use tokio_util::sync::CancellationToken;

use crate::health::{Health, Target};

/// Obtains and renews the certificate until `stop`. Readiness target `security-provider`, as upstream names it.
///
/// # Errors
/// When the issuer keeps refusing the first certificate.
pub fn renew(
    renewal: Renewal,
    health: Health,
    stop: CancellationToken,
) -> impl Future<Output = anyhow::Result<()>> + Send {
    // Before the task begins: until then nobody would wait for it.
    let target = health.target("security-provider");
    follow(renewal, target, stop)
}

async fn follow(renewal: Renewal, target: Target, stop: CancellationToken) -> anyhow::Result<()> {
    let report = |status| match status {
        Status::Ready => target.ready(),
        Status::Warning(reason) => target.ready_with_warning(reason),
        Status::NotReady(reason) => target.not_ready(reason),
    };
    let result = renewal.run(report, stop).await;
    target.not_ready("stopped");
    result.map_err(Into::into)
}
