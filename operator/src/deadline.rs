//! Calls of the API server that end in time.

use std::{future::Future, time::Duration};

use tokio::time::timeout;

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Awaits a call for at most ten seconds.
///
/// # Errors
/// The call's, or one that says that there was no answer.
pub(crate) async fn in_time<T>(call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    let late = |_| kube::Error::Service("the API server did not answer in time".into());
    timeout(DEADLINE, call).await.map_err(late)?
}
