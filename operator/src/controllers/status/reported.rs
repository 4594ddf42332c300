//! What sidecars report of an object, as its status says it. No I/O, no clock.
//!
//! A connection that breaks takes its reports along, and its sidecar comes back with them a moment later, perhaps at another
//! replica. So what stands in the status is not taken back at once when there is less to go by: not when a sidecar or a
//! replica goes, and not when a new leader begins, who knows nothing.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use outrigger_crds::{
    Status,
    status::{ConditionType, Reason, Rejection, SidecarCounts},
};

use crate::reports::NEWEST;

/// How long sidecars and replicas that are gone may take to come back before what they said is taken back.
pub const GRACE: Duration = Duration::from_secs(30);
/// How long ago a sidecar that ends again and again may have rejected an object last: the kubelet waits up to five minutes before
/// it starts a container again.
pub(super) const RETURNS: SignedDuration = SignedDuration::from_mins(10);
/// How long a new generation waits for the sidecars that follow it. Who has not judged it by then holds nobody up.
pub const JUDGING: Duration = Duration::from_secs(10);

/// What connected sidecars say of the current generation of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reported {
    pub counts: SidecarCounts,
    /// Sidecars that are expected to judge it, and have not.
    pub awaited: i32,
    /// The newest, newest first.
    pub rejections: Vec<Rejection>,
}

impl Reported {
    /// Whether less is known than the status says. With `strict`, fewer rejections are less too, even if as many sidecars are
    /// heard as before: it may not be the same ones.
    pub(super) fn lacks(&self, published: &Published<'_>, strict: bool) -> bool {
        let (now, before) = (&self.counts, &published.counts);
        if !published.is_current {
            return false;
        }
        now.matching < before.matching
            || now.loaded + now.rejected < before.loaded + before.rejected
            || (strict && now.rejected < before.rejected)
    }

    /// Adds what the status says and is not known now. Nobody counts twice: who is known to reject it now may have loaded it
    /// before.
    pub(super) fn keep(&mut self, published: &Published<'_>) {
        let (now, before) = (&mut self.counts, &published.counts);
        now.matching = now.matching.max(before.matching);
        now.rejected = now.rejected.max(before.rejected);
        now.loaded = now.loaded.max(before.loaded).min((now.matching - now.rejected).max(0));
        let kept: Vec<_> = self.unknown(published).cloned().collect();
        self.rejections.extend(kept);
        newest(&mut self.rejections);
    }

    /// Adds the rejections of sidecars that the status tells of, that are missing now and that will come back: not more of them
    /// than sidecars are missing. Returns how many there are.
    pub(super) fn keep_returning(
        &mut self,
        published: &Published<'_>,
        comes_back: impl Fn(&Rejection) -> bool,
    ) -> usize {
        let counts = &self.counts;
        let missing = usize::try_from(published.counts.matching - counts.matching).unwrap_or(0);
        // Only the newest are listed. Those that are only counted may be the same ones.
        let listed = self.rejections.len();
        let unlisted = usize::try_from(counts.rejected).unwrap_or(0).saturating_sub(listed);
        let mut kept: Vec<_> = self
            .unknown(published)
            .filter(|kept| comes_back(kept))
            .cloned()
            .collect();
        kept.truncate(kept.len().saturating_sub(unlisted).min(missing));
        let returning = kept.len();
        let more = i32::try_from(returning).unwrap_or(i32::MAX);
        self.counts.matching = self.counts.matching.saturating_add(more);
        self.counts.rejected = self.counts.rejected.saturating_add(more);
        self.rejections.extend(kept);
        newest(&mut self.rejections);
        returning
    }

    /// The rejections in the status that are not known now.
    fn unknown<'a>(&'a self, published: &Published<'a>) -> impl Iterator<Item = &'a Rejection> {
        let is_known = |kept: &Rejection| {
            let mut known = self.rejections.iter();
            known.any(|new| (&new.app, &new.pod) == (&kept.app, &kept.pod))
        };
        published.rejections.iter().filter(move |kept| !is_known(kept))
    }
}

/// Whether a sidecar rejected an object so lately that it may only have ended for a moment. Its clock may be ahead.
pub(super) fn is_recent(rejection: &Rejection, now: Timestamp) -> bool {
    now.duration_since(rejection.at.0).abs() < RETURNS
}

/// Keeps the newest rejections, newest first.
pub(super) fn newest(rejections: &mut Vec<Rejection>) {
    rejections.sort_by(|one, other| (other.at.0, &one.app, &one.pod).cmp(&(one.at.0, &other.app, &other.pod)));
    rejections.truncate(NEWEST);
}

/// What the status of an object says about sidecars.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Published<'a> {
    pub(super) counts: SidecarCounts,
    pub(super) rejections: &'a [Rejection],
    /// Whether it is about the generation that the object has.
    pub(super) is_current: bool,
    /// Whether that generation is known to be ready.
    pub(super) is_ready: bool,
}

impl<'a> Published<'a> {
    pub(super) fn of(status: Option<&'a Status>, generation: Option<i64>) -> Self {
        let Some(status) = status else {
            return Self::default();
        };
        let is_current = status.observed_generation == generation;
        let ready = status.condition(ConditionType::Ready);
        Self {
            counts: status.sidecars.unwrap_or_default(),
            rejections: status.rejections.as_deref().unwrap_or_default(),
            is_current,
            is_ready: is_current
                && ready.is_some_and(|ready| ready.status == "True" && ready.observed_generation == generation),
        }
    }
}

/// Value, reason and message of `Ready` for an object that is accepted.
pub(super) fn ready(reported: &Reported) -> (Option<bool>, Reason, String) {
    let SidecarCounts {
        matching,
        loaded,
        rejected,
    } = reported.counts;
    let of = sidecars(matching.max(loaded).max(rejected));
    if rejected > 0 {
        let first = reported.rejections.first().map_or_else(String::new, |first| {
            format!("; {}: {}: {}", first.pod, first.reason, first.message)
        });
        return (
            Some(false),
            Reason::Rejected,
            format!("rejected by {rejected} of {of}{first}"),
        );
    }
    if reported.awaited > 0 {
        let message = format!("{} of {of} have yet to judge this generation", reported.awaited);
        return (None, Reason::AwaitingReports, message);
    }
    let (reason, message) = match (matching, loaded) {
        (0, 0) => (
            Reason::NoSidecars,
            "accepted; it is meant for no connected sidecar".to_owned(),
        ),
        (_, 0) => (Reason::NotReported, format!("accepted; of {of} none reports on it")),
        _ => (Reason::Loaded, format!("loaded by {loaded} of {of}")),
    };
    (Some(true), reason, message)
}

fn sidecars(count: i32) -> String {
    match count {
        1 => "1 sidecar".to_owned(),
        _ => format!("{count} sidecars"),
    }
}

#[cfg(test)]
#[path = "reported_tests.rs"]
mod tests;
