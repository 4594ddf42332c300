//! Following objects in clusters that grant less than a watch.

use std::time::Duration;

use futures::{Stream, StreamExt};
use outrigger_process::kubernetes::watch::Change;

/// How often objects are read that cannot be watched.
pub(crate) const POLL: Duration = Duration::from_secs(30);

/// Hands changes to `apply` until the watch turns out to be forbidden; then returns, and the watch ends with the stream.
pub(super) async fn until_forbidden<K>(changes: impl Stream<Item = Change<K>>, mut apply: impl FnMut(Change<K>)) {
    let mut changes = std::pin::pin!(changes);
    while let Some(change) = changes.next().await {
        if matches!(change, Change::Forbidden) {
            return;
        }
        apply(change);
    }
}
