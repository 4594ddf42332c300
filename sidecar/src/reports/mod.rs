//! What became of resources in this sidecar, told to the operator.
//!
//! One entry for a resource, whatever happens to it: a slow operator gets the newest, and memory is bounded by the resources.

pub mod stream;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use outrigger_core::text::shortened;
use outrigger_proto::outrigger::operator::v1::{Verdict, VerdictState};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::resources::{DecodeError, Revision};

/// Longest message that the operator takes, in bytes.
const MAX_MESSAGE: usize = 1024;
/// Most resources that the operator takes from one sidecar.
const MAX_RESOURCES: usize = 1000;

/// The verdicts of this sidecar; clones share them.
#[derive(Clone, Default)]
pub struct Reports {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    book: Mutex<Book>,
    /// Something is pending.
    changed: Notify,
    /// Another stream to the operator works again.
    reconnected: Notify,
}

#[derive(Default)]
struct Book {
    verdicts: BTreeMap<Subject, Verdict>,
    /// How many snapshots there were.
    snapshots: u64,
    /// Whether the stream of the last one has not ended.
    is_open: bool,
    /// What has changed since.
    pending: BTreeSet<Subject>,
}

/// Kind and name.
type Subject = (&'static str, String);

/// Why a resource is not what serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// One word in CamelCase.
    pub reason: &'static str,
    /// For people; never with the value of a secret.
    pub message: String,
}

impl Rejection {
    pub fn unreadable(error: &DecodeError) -> Self {
        Self {
            reason: "Unreadable",
            message: error.to_string(),
        }
    }
}

impl Reports {
    /// This version is what serves.
    pub fn loaded(&self, kind: &'static str, name: &str, revision: &Revision) {
        self.judge(kind, name, revision, None);
    }

    /// This version cannot be used.
    pub fn rejected(&self, kind: &'static str, name: &str, revision: &Revision, rejection: Rejection) {
        self.judge(kind, name, revision, Some(rejection));
    }

    /// What was judged has another generation now, and sidecars could not tell the two apart.
    pub fn revised(&self, kind: &'static str, name: &str, revision: &Revision) {
        let subject = (kind, name.to_owned());
        let mut book = self.inner.book.lock();
        let Some(verdict) = book.verdicts.get_mut(&subject) else {
            return;
        };
        if verdict.generation != revision.generation {
            verdict.generation = revision.generation;
            verdict.resource_version.clone_from(&revision.resource_version);
            book.changed(subject);
            self.inner.changed.notify_one();
        }
    }

    /// Nothing is said of the resource any more: it is gone, or not for this application.
    pub fn removed(&self, kind: &'static str, name: &str) {
        let subject = (kind, name.to_owned());
        let mut book = self.inner.book.lock();
        if book.verdicts.remove(&subject).is_some() {
            book.changed(subject);
            self.inner.changed.notify_one();
        }
    }

    /// Whether anything is rejected.
    pub fn any_rejected(&self) -> bool {
        let book = self.inner.book.lock();
        book.verdicts
            .values()
            .any(|verdict| verdict.state() == VerdictState::Rejected)
    }

    /// The operator can be reached again: it may be another one.
    pub fn reconnected(&self) {
        self.inner.reconnected.notify_waiters();
    }

    fn judge(&self, kind: &'static str, name: &str, revision: &Revision, rejection: Option<Rejection>) {
        let state = match &rejection {
            None => VerdictState::Loaded,
            Some(_) => VerdictState::Rejected,
        };
        let (reason, message) = match rejection {
            Some(Rejection { reason, message }) => (reason.to_owned(), shortened(message, MAX_MESSAGE)),
            None => Default::default(),
        };
        let mut verdict = Verdict {
            kind: kind.to_owned(),
            name: name.to_owned(),
            generation: revision.generation,
            resource_version: revision.resource_version.clone(),
            state: state.into(),
            reason,
            message,
            judged_at: Timestamp::now().as_second(),
        };
        let subject = (kind, name.to_owned());
        let mut book = self.inner.book.lock();
        match book.verdicts.get(&subject) {
            Some(before) => {
                let judged_at = std::mem::replace(&mut verdict.judged_at, before.judged_at);
                if *before == verdict {
                    return;
                }
                verdict.judged_at = judged_at;
            }
            None if book.verdicts.len() >= MAX_RESOURCES => return,
            None => {}
        }
        book.verdicts.insert(subject.clone(), verdict);
        book.changed(subject);
        self.inner.changed.notify_one();
    }

    /// Everything, and the number of this snapshot, after which [`Reports::next`] tells what changes.
    fn snapshot(&self) -> (u64, Vec<Verdict>) {
        let mut book = self.inner.book.lock();
        book.pending.clear();
        book.is_open = true;
        book.snapshots += 1;
        (book.snapshots, book.verdicts.values().cloned().collect())
    }

    /// What changes after a snapshot, once something does. `None` when there is a later one. Cancelling loses nothing.
    async fn next(&self, snapshot: u64) -> Option<Vec<Verdict>> {
        loop {
            {
                let mut book = self.inner.book.lock();
                if book.snapshots != snapshot {
                    // What woke this one was for the later one.
                    self.inner.changed.notify_one();
                    return None;
                }
                let pending = std::mem::take(&mut book.pending);
                if !pending.is_empty() {
                    return Some(pending.into_iter().map(|subject| book.verdict(subject)).collect());
                }
            }
            self.inner.changed.notified().await;
        }
    }

    /// The stream has ended: the next one begins with everything.
    fn close(&self) {
        let mut book = self.inner.book.lock();
        book.pending.clear();
        book.is_open = false;
    }
}

impl Book {
    fn changed(&mut self, subject: Subject) {
        if self.is_open {
            self.pending.insert(subject);
        }
    }

    fn verdict(&self, subject: Subject) -> Verdict {
        let known = self.verdicts.get(&subject).cloned();
        known.unwrap_or_else(|| Verdict {
            kind: subject.0.to_owned(),
            name: subject.1,
            state: VerdictState::Removed.into(),
            judged_at: Timestamp::now().as_second(),
            ..Verdict::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn revision(generation: i64) -> Revision {
        Revision {
            generation,
            resource_version: "7".into(),
        }
    }

    fn rejection(message: &str) -> Rejection {
        Rejection {
            reason: "InitFailed",
            message: message.into(),
        }
    }

    fn all(reports: &Reports) -> Vec<Verdict> {
        reports.snapshot().1
    }

    /// What is told on the last stream.
    fn told(reports: &Reports) -> Vec<(String, i64, VerdictState)> {
        let last = reports.inner.book.lock().snapshots;
        let verdicts = reports.next(last).now_or_never().flatten().unwrap_or_default();
        verdicts
            .into_iter()
            .map(|verdict| (verdict.name.clone(), verdict.generation, verdict.state()))
            .collect()
    }

    #[test]
    fn only_the_newest_of_each_is_told_and_nothing_twice() {
        let reports = Reports::default();
        assert!(all(&reports).is_empty());
        reports.loaded("Component", "db", &revision(1));
        reports.rejected("Component", "db", &revision(2), rejection("no route"));
        reports.loaded("Component", "bus", &revision(1));
        assert_eq!(
            told(&reports),
            [
                ("bus".into(), 1, VerdictState::Loaded),
                ("db".into(), 2, VerdictState::Rejected)
            ]
        );
        assert!(reports.any_rejected());
        reports.rejected("Component", "db", &revision(2), rejection("no route"));
        assert_eq!(told(&reports), []);
        reports.rejected("Component", "db", &revision(2), rejection("no host"));
        reports.removed("Component", "bus");
        reports.removed("Component", "never");
        assert_eq!(
            told(&reports),
            [
                ("bus".into(), 0, VerdictState::Removed),
                ("db".into(), 2, VerdictState::Rejected)
            ]
        );
        assert_eq!(all(&reports).len(), 1);

        reports.revised("Component", "db", &revision(3));
        reports.revised("Component", "never", &revision(3));
        assert_eq!(told(&reports), [("db".into(), 3, VerdictState::Rejected)]);
        reports.revised("Component", "db", &revision(3));
        assert_eq!(told(&reports), []);
    }

    #[test]
    fn a_snapshot_takes_what_is_pending_along() {
        let reports = Reports::default();
        reports.loaded("Component", "db", &revision(1));
        assert_eq!(all(&reports).len(), 1);
        assert_eq!(told(&reports), []);
        assert_eq!(
            reports.next(0).now_or_never(),
            Some(None),
            "an older stream takes nothing"
        );
        reports.loaded("Component", "db", &revision(2));
        reports.close();
        reports.removed("Component", "db");
        assert_eq!(told(&reports), [], "nothing is kept for nobody");
        assert!(all(&reports).is_empty());
    }

    #[test]
    fn messages_fit_and_so_does_their_number() {
        let reports = Reports::default();
        reports.rejected("Component", "db", &revision(1), rejection(&"x".repeat(5000)));
        assert_eq!(all(&reports)[0].message.len(), MAX_MESSAGE);
        for number in 0..2 * MAX_RESOURCES {
            reports.loaded("Component", &number.to_string(), &revision(1));
        }
        assert_eq!(all(&reports).len(), MAX_RESOURCES);
    }
}
