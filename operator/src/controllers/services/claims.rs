//! Which workloads want which Service.

use std::collections::{BTreeMap, HashMap};

use outrigger_process::kubernetes::watch::ObjectKey;

use super::{
    desired::Desired,
    workload::{Kind, Owner},
};

/// Kind, namespace and name of a workload.
pub(super) type WorkloadId = (Kind, ObjectKey);

/// All wishes.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_workload: HashMap<WorkloadId, (Owner, ObjectKey)>,
    /// The older workload first.
    by_service: HashMap<ObjectKey, BTreeMap<Owner, Desired>>,
}

impl Claims {
    /// Replaces what a workload wants; returns the Services that are concerned, none if it wants what it wanted.
    pub(super) fn set(&mut self, workload: WorkloadId, desired: Option<Desired>) -> Vec<ObjectKey> {
        if desired.is_some() && self.by(&workload) == desired.as_ref() {
            return Vec::new();
        }
        let mut concerned = Vec::new();
        if let Some((owner, service)) = self.by_workload.remove(&workload) {
            if let Some(claims) = self.by_service.get_mut(&service) {
                claims.remove(&owner);
                if claims.is_empty() {
                    self.by_service.remove(&service);
                }
            }
            concerned.push(service);
        }
        if let Some(desired) = desired {
            let service = desired.key();
            self.by_workload
                .insert(workload, (desired.owner.clone(), service.clone()));
            let claims = self.by_service.entry(service.clone()).or_default();
            claims.insert(desired.owner.clone(), desired);
            if !concerned.contains(&service) {
                concerned.push(service);
            }
        }
        concerned
    }

    fn by(&self, workload: &WorkloadId) -> Option<&Desired> {
        let (owner, service) = self.by_workload.get(workload)?;
        self.by_service.get(service)?.get(owner)
    }

    /// Forgets all workloads of a kind; returns the Services that are concerned.
    pub(super) fn forget(&mut self, kind: Kind) -> Vec<ObjectKey> {
        let ids = self.by_workload.keys().filter(|(of, _)| *of == kind);
        let ids: Vec<_> = ids.cloned().collect();
        ids.into_iter().flat_map(|id| self.set(id, None)).collect()
    }

    /// The wish that counts, and the workloads that want the same: whoever has the Service keeps it, and the oldest gets one that
    /// nobody has. `holder` is the UID of the workload that has it.
    pub(super) fn of(&self, service: &ObjectKey, holder: Option<&str>) -> Option<(&Desired, Vec<&Owner>)> {
        let claims = self.by_service.get(service)?;
        let held = holder.and_then(|uid| claims.values().find(|desired| desired.owner.uid == uid));
        let winner = held.or_else(|| claims.values().next())?;
        let rivals = claims.keys().filter(|owner| **owner != winner.owner);
        Some((winner, rivals.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(workload: &str, app: &str, created: i64) -> Desired {
        Desired {
            owner: Owner {
                created: Some(jiff::Timestamp::from_second(created).unwrap()),
                key: ObjectKey::new("shop", workload),
                kind: Kind::DEPLOYMENT,
                uid: workload.into(),
            },
            app_id: app.into(),
            annotations: BTreeMap::new(),
            selector: BTreeMap::new(),
            ports: Vec::new(),
        }
    }

    fn id(workload: &str) -> WorkloadId {
        (Kind::DEPLOYMENT, ObjectKey::new("shop", workload))
    }

    fn service(app: &str) -> ObjectKey {
        ObjectKey::new("shop", format!("{app}-dapr"))
    }

    #[test]
    fn who_has_the_service_keeps_it_and_else_the_oldest_workload_wins() {
        for order in [["old", "new"], ["new", "old"]] {
            let mut claims = Claims::default();
            for name in order {
                let created = if name == "old" { 1 } else { 2 };
                claims.set(id(name), Some(desired(name, "cart", created)));
            }
            let (winner, losers) = claims.of(&service("cart"), None).unwrap();
            assert_eq!((&*winner.owner.uid, &*losers[0].uid), ("old", "new"));
            let (holder, losers) = claims.of(&service("cart"), Some("new")).unwrap();
            assert_eq!(
                (&*holder.owner.uid, &*losers[0].uid),
                ("new", "old"),
                "it has the Service already"
            );
            let (winner, _) = claims.of(&service("cart"), Some("gone")).unwrap();
            assert_eq!(winner.owner.uid, "old");
        }
    }

    #[test]
    fn a_change_concerns_the_old_and_the_new_service() {
        let mut claims = Claims::default();
        assert_eq!(claims.set(id("w"), Some(desired("w", "cart", 1))), [service("cart")]);
        assert!(claims.set(id("w"), Some(desired("w", "cart", 1))).is_empty(), "no news");
        let moved = claims.set(id("w"), Some(desired("w", "pay", 1)));
        assert_eq!(moved, [service("cart"), service("pay")]);
        assert!(claims.of(&service("cart"), None).is_none());
        assert_eq!(claims.set(id("w"), None), [service("pay")]);
        assert!(claims.set(id("w"), None).is_empty());
        claims.set(id("w"), Some(desired("w", "cart", 1)));
        assert!(claims.forget(Kind::ROLLOUT).is_empty());
        assert_eq!(claims.forget(Kind::DEPLOYMENT), [service("cart")]);
        assert!(claims.by_service.is_empty() && claims.by_workload.is_empty());
    }
}
