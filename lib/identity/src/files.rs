//! Following a mounted trust-anchors file. A slow poll covers mounts without inotify. Unreadable, empty or broken content keeps the
//! last good set.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use outrigger_core::backoff::Backoff;
use tokio_util::sync::CancellationToken;

use crate::{
    anchors::{AnchorSource, Anchors, Elsewhere},
    changes::Changes,
    error::Error,
};

const POLL: Duration = Duration::from_secs(60);
/// How often a file that does not exist yet is looked for.
const ABSENT_POLL: Duration = Duration::from_secs(1);
/// The same while there is a set to go on with, and the file cannot be read or its folder not be watched: a mount that is replaced comes back soon, one
/// that a pod does not have never does.
const UNWATCHED_POLL: Backoff = Backoff::new(Duration::from_secs(1), POLL);

/// Keeps a set of anchors up to date with its source.
pub(crate) struct AnchorsFollower {
    fixed: Option<Arc<Anchors>>,
    file: Option<PathBuf>,
    wait_for_file: bool,
    elsewhere: Option<Elsewhere>,
}

impl AnchorsFollower {
    /// The set to begin with, which is empty where a file has to be waited for.
    pub(crate) fn new(source: AnchorSource) -> Result<(Arc<Anchors>, Self), Error> {
        let mut elsewhere = None;
        let (fixed, file, wait_for_file) = match source {
            AnchorSource::Static(pem) => (Some(Arc::new(Anchors::from_pem(&pem)?)), None, false),
            AnchorSource::StaticAndFile { pem, file } => (Some(Arc::new(Anchors::from_pem(&pem)?)), Some(file), false),
            AnchorSource::File(file) => (None, Some(file), true),
            AnchorSource::FileOrElse { file, elsewhere: other } => {
                elsewhere = Some(other);
                (None, Some(file), true)
            }
        };
        let initial = fixed.clone().unwrap_or_else(|| Arc::new(Anchors::empty()));
        Ok((
            initial,
            Self {
                fixed,
                file,
                wait_for_file,
                elsewhere,
            },
        ))
    }

    /// Waits for a file that has to exist and reads it; `waiting` hears what is missing.
    pub(crate) async fn initial(&self, mut waiting: impl FnMut(String)) -> Result<Option<Arc<Anchors>>, Error> {
        let Some(file) = &self.file else { return Ok(None) };
        loop {
            match read(file) {
                Ok(anchors) => return Ok(Some(self.with_fixed(anchors))),
                Err(reason) if self.wait_for_file => {
                    if let Some(elsewhere) = &self.elsewhere
                        && let Some(anchors) = elsewhere.ask().await
                    {
                        return Ok(Some(self.with_fixed(anchors)));
                    }
                    let text = format!("waiting for trust anchors: {}: {reason}", file.display());
                    tracing::warn!("{text}");
                    waiting(text);
                }
                Err(reason) => {
                    tracing::info!(file = %file.display(), reason, "no trust anchors file; going on with the anchors given");
                    return Ok(None);
                }
            }
            tokio::time::sleep(ABSENT_POLL).await;
        }
    }

    /// Tells `hear` of every new set, and once of each reason why there is none, until `stop`.
    pub(crate) async fn follow(
        self,
        mut current: Arc<Anchors>,
        hear: impl Fn(Result<Arc<Anchors>, &str>),
        stop: CancellationToken,
    ) {
        let Some(file) = self.file.clone() else {
            stop.cancelled().await;
            return;
        };
        // Made again when the folder appears or is replaced.
        let mut watch = None;
        // Each reason is logged once, not with every look.
        let mut failing = None;
        let mut unwatched = UNWATCHED_POLL;
        tracing::info!(file = %file.display(), "watching trust anchors");
        loop {
            let changes = watch.get_or_insert_with(|| Changes::of([file.as_path()]));
            // While something is wrong it is looked at soon: what was told between the look and the new watch is lost.
            let poll = match (changes.is_complete(), &failing) {
                (true, None) => POLL,
                _ => unwatched.next_pause(),
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = changes.any(poll) => {}
            }
            if !changes.is_complete() {
                watch = None;
            }
            match read(&file) {
                Ok(anchors) => {
                    failing = None;
                    unwatched.reset();
                    let next = self.with_fixed(anchors);
                    if next != current {
                        tracing::info!(file = %file.display(), certificates = next.certificates().count(), "trust anchors changed");
                        current = next.clone();
                        hear(Ok(next));
                    }
                }
                Err(reason) => {
                    if failing.as_ref() != Some(&reason) {
                        tracing::warn!(file = %file.display(), reason, "trust anchors cannot be read; keeping the last good ones");
                        hear(Err(&reason));
                        failing = Some(reason);
                    }
                    watch = None;
                }
            }
        }
    }

    fn with_fixed(&self, from_file: Anchors) -> Arc<Anchors> {
        match &self.fixed {
            Some(fixed) => Arc::new(fixed.union(&from_file)),
            None => Arc::new(from_file),
        }
    }
}

fn read(file: &Path) -> Result<Anchors, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    Anchors::from_pem(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anchors::tests::root;
    use std::os::unix::fs::symlink;

    /// A folder as the kubelet lays it out.
    fn mount(dir: &Path, version: &str, pem: &str) {
        std::fs::create_dir(dir.join(version)).unwrap();
        std::fs::write(dir.join(version).join("ca.crt"), pem).unwrap();
        symlink(version, dir.join("..data_tmp")).unwrap();
        std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    }

    #[tokio::test]
    async fn a_missing_file_is_made_up_for_from_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let pem = root("elsewhere");
        let known = pem.clone();
        let elsewhere = Elsewhere::new(move || std::future::ready(Some(known.clone())));
        let file = dir.path().join("ca.crt");
        let source = AnchorSource::FileOrElse {
            file: file.clone(),
            elsewhere,
        };
        let (_, follower) = AnchorsFollower::new(source.clone()).unwrap();
        assert_eq!(follower.initial(|_| {}).await.unwrap().unwrap().pem(), pem);

        std::fs::write(&file, root("file")).unwrap();
        let (_, follower) = AnchorsFollower::new(source).unwrap();
        assert_ne!(
            follower.initial(|_| {}).await.unwrap().unwrap().pem(),
            pem,
            "the file comes first"
        );
    }

    #[tokio::test]
    async fn follows_the_kubelets_swap_and_keeps_the_last_good_set() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (root("one"), root("two"));
        mount(dir.path(), "..1", &first);
        symlink("..data/ca.crt", dir.path().join("ca.crt")).unwrap();

        let (_, follower) = AnchorsFollower::new(AnchorSource::File(dir.path().join("ca.crt"))).unwrap();
        let initial = follower.initial(|_| {}).await.unwrap().unwrap();
        assert_eq!(initial.pem(), first);

        let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let task = tokio::spawn(follower.follow(
            initial,
            move |heard| sender.send(heard.map_err(str::to_owned)).unwrap(),
            stop.clone(),
        ));
        // Broken content first: were it to replace the good set, it would arrive before the second one.
        tokio::task::yield_now().await;
        mount(dir.path(), "..2", "broken");
        mount(dir.path(), "..3", &second);
        let mut heard = Vec::new();
        loop {
            match seen.recv().await.unwrap() {
                Ok(anchors) => {
                    assert_eq!(anchors.pem(), second);
                    break;
                }
                Err(reason) => heard.push(reason),
            }
        }
        assert!(heard.len() <= 1, "each reason once: {heard:?}");
        stop.cancel();
        task.await.unwrap();
        assert!(seen.recv().await.is_none(), "exactly one change");
    }
}
