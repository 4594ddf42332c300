//! What goes to the replica that leads: first everything, then what changes, with a pause between two batches.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc, time::Duration};

use outrigger_proto::outrigger::operator::v1::{Attendance, Followers, ShareRequest, TalliedRejection, Tally};
use tokio::{sync::Notify, time::sleep};

use super::{App, Inner, Ledger, Object};
use crate::reports::NEWEST;

/// What changes within this time goes to the leader at once.
pub(super) const COALESCE: Duration = Duration::from_millis(100);
/// About how large a batch may become, in bytes; receivers take four times as much.
pub(super) const BATCH: usize = 1 << 20;
/// Changes that wait for the leader, at most: so many, and two for each sum. A feed with more of them ends: what is gone
/// need not be told to who begins anew.
pub(super) const PENDING: usize = 10_000;

/// What the feed has to send still.
pub(super) struct Open {
    objects: BTreeSet<Object>,
    apps: BTreeSet<App>,
    wake: Arc<Notify>,
}

/// Everything in the ledger, and then what changes. Only the newest feed is fed, and none that falls too far behind.
pub struct Feed {
    pub(super) ledger: Arc<Ledger>,
    wake: Arc<Notify>,
    /// Whether the last batch held all that was to be sent.
    drained: bool,
}

impl Open {
    pub(super) fn add_app(&mut self, app: &App) {
        if self.apps.insert(app.clone()) {
            self.wake.notify_one();
        }
    }
}

impl Ledger {
    /// Begins to tell everything; what was fed before gets nothing any more.
    pub fn feed(self: &Arc<Self>) -> Feed {
        let mut inner = self.inner.lock();
        let wake = Arc::new(Notify::new());
        let open = Open {
            objects: inner.sums.keys().cloned().collect(),
            apps: inner.apps.keys().cloned().collect(),
            wake: wake.clone(),
        };
        open.wake.notify_one();
        if let Some(before) = inner.feed.replace(open) {
            before.wake.notify_one();
        }
        Feed {
            ledger: self.clone(),
            wake,
            drained: false,
        }
    }
}

impl Inner {
    pub(super) fn changed(&mut self, object: Object) {
        let bound = 2 * self.sums.len() + PENDING;
        let Some(feed) = &mut self.feed else { return };
        if feed.objects.insert(object) {
            feed.wake.notify_one();
        }
        if feed.objects.len() > bound {
            tracing::warn!("more has changed than the leader was told; it will be told everything anew");
            self.feed = None;
        }
    }

    fn tally(&self, object: &Object) -> Tally {
        let mut tally = Tally {
            kind: object.kind.to_owned(),
            namespace: object.app.namespace.as_ref().to_owned(),
            name: object.name.as_ref().to_owned(),
            app: object.app.name.as_ref().to_owned(),
            generation: object.generation,
            ..Tally::default()
        };
        if let Some(sum) = self.sums.get(object) {
            tally.loaded = sum.loaded;
            tally.rejected = u32::try_from(sum.rejections.len()).unwrap_or(u32::MAX);
            let newest = sum.rejections.iter().take(NEWEST);
            let rejections = newest.filter_map(|((Reverse(at), id), cause)| {
                Some(TalliedRejection {
                    pod: self.reporters.get(id)?.pod.as_ref().to_owned(),
                    reason: cause.reason.as_ref().to_owned(),
                    message: cause.message.as_ref().to_owned(),
                    judged_at: *at,
                })
            });
            tally.rejections = rejections.collect();
        }
        tally
    }

    fn attendance_of(&self, app: &App) -> Attendance {
        let attending = self.apps.get(app);
        let followers = attending.into_iter().flat_map(|attending| &attending.followers);
        Attendance {
            namespace: app.namespace.as_ref().to_owned(),
            app: app.name.as_ref().to_owned(),
            sidecars: attending.map_or(0, |attending| attending.sidecars),
            followers: followers
                .map(|(kind, sidecars)| Followers {
                    kind: (*kind).to_owned(),
                    sidecars: *sidecars,
                })
                .collect(),
        }
    }

    /// Takes what is to be sent, up to about [`BATCH`] bytes. `None` if nothing is.
    pub(super) fn batch(&mut self) -> Option<ShareRequest> {
        let mut open = self.feed.take()?;
        let mut batch = ShareRequest::default();
        let mut size = 0;
        while size < BATCH
            && let Some(app) = open.apps.pop_first()
        {
            size += app.namespace.len() + app.name.len() + 64;
            batch.attendances.push(self.attendance_of(&app));
        }
        while size < BATCH
            && let Some(object) = open.objects.pop_first()
        {
            let tally = self.tally(&object);
            let texts = |rejection: &TalliedRejection| {
                rejection.pod.len() + rejection.reason.len() + rejection.message.len() + 16
            };
            size += object.name.len() + 128 + tally.rejections.iter().map(texts).sum::<usize>();
            batch.tallies.push(tally);
        }
        self.feed = Some(open);
        (size > 0).then_some(batch)
    }
}

impl Feed {
    /// The next batch, once something has changed. `None` when there is a newer feed, or too much was pending.
    pub async fn next(&mut self) -> Option<ShareRequest> {
        // What changed while that batch was sent waits for the rest as well.
        if std::mem::take(&mut self.drained) {
            sleep(COALESCE).await;
        }
        loop {
            {
                let mut inner = self.ledger.inner.lock();
                if !self.is_current(&inner) {
                    return None;
                }
                if let Some(batch) = inner.batch() {
                    let open = inner.feed.as_ref();
                    self.drained = open.is_none_or(|open| open.objects.is_empty() && open.apps.is_empty());
                    return Some(batch);
                }
            }
            self.wake.notified().await;
            sleep(COALESCE).await;
        }
    }

    pub(super) fn is_current(&self, inner: &Inner) -> bool {
        inner
            .feed
            .as_ref()
            .is_some_and(|open| Arc::ptr_eq(&open.wake, &self.wake))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut inner = self.ledger.inner.lock();
        if self.is_current(&inner) {
            inner.feed = None;
        }
    }
}
