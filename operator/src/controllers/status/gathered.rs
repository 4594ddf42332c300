//! What all replicas have summed up of their sidecars' reports. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use outrigger_crds::status::{Rejection, SidecarCounts};
use outrigger_process::kubernetes::watch::ObjectKey;
use outrigger_proto::outrigger::operator::v1::{Attendance, ShareRequest, Tally};

use super::{
    board::Id,
    reported::{Reported, newest},
};
use crate::kinds;

/// Everything that was shared with the leader.
#[derive(Default)]
pub(super) struct Gathered {
    tallies: HashMap<Id, BTreeMap<Of, Tally>>,
    /// By namespace.
    attendances: HashMap<String, BTreeMap<(String, u64), Attendance>>,
}

/// Who said it of which generation.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Of {
    app: String,
    replica: u64,
    generation: i64,
}

/// What a change is about.
#[derive(Default)]
pub(super) struct Affected {
    pub(super) objects: BTreeSet<Id>,
    /// All objects in these.
    pub(super) namespaces: BTreeSet<String>,
}

/// The apps that an object is meant for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Audience<'a> {
    /// These; all if there are none.
    Scopes(&'a [String]),
    /// Those whose pods name it.
    Users(Option<&'a HashMap<String, usize>>),
}

impl Audience<'_> {
    fn contains(&self, app: &str) -> bool {
        match self {
            Self::Scopes(scopes) => outrigger_core::scopes::in_scope(scopes, app),
            Self::Users(users) => users.is_some_and(|users| users.contains_key(app)),
        }
    }
}

impl Gathered {
    /// Takes in what a replica shares.
    pub(super) fn take(&mut self, replica: u64, request: ShareRequest) -> Affected {
        let mut affected = Affected::default();
        for attendance in request.attendances {
            let (namespace, key) = (attendance.namespace.clone(), (attendance.app.clone(), replica));
            let apps = self.attendances.entry(namespace.clone()).or_default();
            if attendance.sidecars == 0 && attendance.followers.is_empty() {
                apps.remove(&key);
            } else {
                apps.insert(key, attendance);
            }
            if apps.is_empty() {
                self.attendances.remove(&namespace);
            }
            affected.namespaces.insert(namespace);
        }
        for tally in request.tallies {
            // A replica of another version may know more kinds.
            let Some(kind) = kinds::kind(&tally.kind) else { continue };
            let id = Id {
                kind,
                key: ObjectKey::new(&*tally.namespace, &*tally.name),
            };
            let of = Of {
                app: tally.app.clone(),
                replica,
                generation: tally.generation,
            };
            let of_object = self.tallies.entry(id.clone()).or_default();
            if tally.loaded == 0 && tally.rejected == 0 {
                of_object.remove(&of);
            } else {
                of_object.insert(of, tally);
            }
            if of_object.is_empty() {
                self.tallies.remove(&id);
            }
            affected.objects.insert(id);
        }
        affected
    }

    /// Forgets what a replica shared.
    pub(super) fn forget(&mut self, replica: u64) -> Affected {
        let mut affected = Affected::default();
        for (namespace, apps) in &mut self.attendances {
            let before = apps.len();
            apps.retain(|(_, of), _| *of != replica);
            if apps.len() != before {
                affected.namespaces.insert(namespace.clone());
            }
        }
        for (id, tallies) in &mut self.tallies {
            let before = tallies.len();
            tallies.retain(|of, _| of.replica != replica);
            if tallies.len() != before {
                affected.objects.insert(id.clone());
            }
        }
        self.attendances.retain(|_, apps| !apps.is_empty());
        self.tallies.retain(|_, tallies| !tallies.is_empty());
        affected
    }

    /// What is known of one generation of an object. Only apps that it is meant for count, whatever others say.
    pub(super) fn sum(&self, id: &Id, generation: i64, audience: Audience<'_>) -> Reported {
        let mut counts = SidecarCounts::default();
        let mut rejections = Vec::new();
        let tallies = self.tallies.get(id).into_iter().flatten();
        for (of, tally) in tallies.filter(|(of, _)| of.generation == generation && audience.contains(&of.app)) {
            add(&mut counts.loaded, tally.loaded);
            add(&mut counts.rejected, tally.rejected);
            rejections.extend(tally.rejections.iter().map(|rejection| {
                let at = jiff::Timestamp::from_second(rejection.judged_at).unwrap_or_default();
                Rejection {
                    app: of.app.clone(),
                    pod: rejection.pod.clone(),
                    reason: rejection.reason.clone(),
                    message: rejection.message.clone(),
                    at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at),
                }
            }));
        }
        let mut followers = 0;
        let attendances = self.attendances.get(&id.key.namespace).into_iter().flatten();
        for ((app, _), attendance) in attendances {
            if audience.contains(app) {
                add(&mut counts.matching, attendance.sidecars);
                let of_kind = attendance
                    .followers
                    .iter()
                    .filter(|followers| followers.kind == id.kind);
                of_kind.for_each(|of_kind| add(&mut followers, of_kind.sidecars));
            }
        }
        newest(&mut rejections);
        Reported {
            awaited: (followers - counts.loaded - counts.rejected).max(0),
            counts,
            rejections,
        }
    }
}

fn add(sum: &mut i32, more: u32) {
    *sum = sum.saturating_add(i32::try_from(more).unwrap_or(i32::MAX));
}

#[cfg(test)]
#[path = "gathered_tests.rs"]
mod tests;
