//! Hints that it is time to look again: folders whose files somebody may change (mounted Secrets and ConfigMaps, key sets), and what
//! others tell.
//!
//! The kubelet writes a new folder and renames the `..data` link over the old one, so watches are on folders, and every event
//! means "read it again".

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::watch, time::timeout};

/// A burst of events ends with this much silence: several files are written one after the other.
const QUIET: Duration = Duration::from_millis(100);
/// A burst that does not end is looked at anyway.
const BURST: Duration = Duration::from_secs(2);

/// Tells when something may have changed; each clone hears of everything. Where nobody says so, the poll interval does.
#[derive(Clone)]
pub struct Changes {
    sender: watch::Sender<()>,
    events: watch::Receiver<()>,
    /// Kept alive to keep the watch.
    _watcher: Option<Arc<RecommendedWatcher>>,
    complete: bool,
}

impl Changes {
    /// In the folders of `files`; those that cannot be watched are left to polling.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let (sender, events) = watch::channel(());
        let mut folders: Vec<PathBuf> = files.into_iter().map(folder).collect();
        folders.sort();
        folders.dedup();
        let hint = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading is an access event: it must not trigger the next reading.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                hint.send_replace(());
            }
        });
        let mut complete = true;
        let watcher = match watcher {
            Ok(mut watcher) => {
                for folder in &folders {
                    if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                        complete = false;
                        tracing::debug!(folder = %folder.display(), %error, "cannot watch the folder; polling");
                    }
                }
                Some(Arc::new(watcher))
            }
            Err(error) => {
                complete = false;
                tracing::warn!(%error, "folders cannot be watched; polling");
                None
            }
        };
        Self {
            sender,
            events,
            _watcher: watcher,
            complete,
        }
    }

    /// Whether all folders are watched.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Passes on the hints of `others`, as long as it is polled.
    pub fn forward<S: Stream<Item = ()>>(&self, others: S) -> impl Future<Output = ()> + use<S> {
        let sender = self.sender.clone();
        async move {
            let mut others = std::pin::pin!(others);
            while let Some(()) = others.next().await {
                sender.send_replace(());
            }
        }
    }

    /// Waits until something may have changed and a moment of silence has passed, or for `poll`.
    pub async fn any(&mut self, poll: Duration) {
        // Neither wait can fail: `self` keeps a sender.
        if timeout(poll, self.events.changed()).await.is_ok() {
            let silence = async { while matches!(timeout(QUIET, self.events.changed()).await, Ok(Ok(()))) {} };
            let _ = timeout(BURST, silence).await;
        }
    }
}

fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_write_is_noticed_long_before_the_poll_by_everyone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.crt");
        let mut changes = Changes::of([file.as_path(), Path::new("/nonexistent/x")]);
        let mut others = changes.clone();
        std::fs::write(&file, "x").unwrap();
        for changes in [&mut changes, &mut others] {
            assert!(timeout(Duration::from_secs(60), changes.any(HOUR)).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn hints_of_others_are_passed_on_and_the_poll_is_the_last_resort() {
        let mut changes = Changes::of([]);
        changes.any(HOUR).await;
        let forward = changes.forward(futures::stream::iter([(), ()]));
        forward.await;
        let started = tokio::time::Instant::now();
        changes.any(HOUR).await;
        assert!(started.elapsed() < HOUR);
    }
}
