//! Which workloads want which Service.

use std::collections::{BTreeMap, HashMap};

use outrigger_process::kubernetes::watch::ObjectKey;

use super::{desired::Desired, workload::Owner};

/// Kind, namespace and name of a workload.
pub(super) type WorkloadId = (&'static str, ObjectKey);

/// All wishes.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_workload: HashMap<WorkloadId, (Owner, ObjectKey)>,
    by_service: HashMap<ObjectKey, BTreeMap<Owner, Desired>>,
}

impl Claims {
    /// Replaces what a workload wants; returns the Services that are concerned.
    pub(super) fn set(&mut self, workload: WorkloadId, desired: Option<Desired>) -> Vec<ObjectKey> {
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

    /// The oldest workload's wish, and the others who want the same.
    pub(super) fn of(&self, service: &ObjectKey) -> Option<(&Desired, Vec<&Owner>)> {
        let mut claims = self.by_service.get(service)?.values();
        let first = claims.next()?;
        Some((first, claims.map(|desired| &desired.owner).collect()))
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
                kind: "Deployment".into(),
                api_version: "apps/v1".into(),
                uid: workload.into(),
            },
            app_id: app.into(),
            annotations: BTreeMap::new(),
            selector: BTreeMap::new(),
            ports: Vec::new(),
        }
    }

    fn id(workload: &str) -> WorkloadId {
        ("Deployment", ObjectKey::new("shop", workload))
    }

    fn service(app: &str) -> ObjectKey {
        ObjectKey::new("shop", format!("{app}-dapr"))
    }

    #[test]
    fn the_oldest_workload_wins_in_whatever_order_they_come() {
        for order in [["old", "new"], ["new", "old"]] {
            let mut claims = Claims::default();
            for name in order {
                let created = if name == "old" { 1 } else { 2 };
                claims.set(id(name), Some(desired(name, "cart", created)));
            }
            let (winner, losers) = claims.of(&service("cart")).unwrap();
            assert_eq!(winner.owner.uid, "old");
            assert_eq!(losers[0].uid, "new");
        }
    }

    #[test]
    fn a_change_concerns_the_old_and_the_new_service() {
        let mut claims = Claims::default();
        assert_eq!(claims.set(id("w"), Some(desired("w", "cart", 1))), [service("cart")]);
        assert_eq!(claims.set(id("w"), Some(desired("w", "cart", 1))), [service("cart")]);
        let moved = claims.set(id("w"), Some(desired("w", "pay", 1)));
        assert_eq!(moved, [service("cart"), service("pay")]);
        assert!(claims.of(&service("cart")).is_none());
        assert_eq!(claims.set(id("w"), None), [service("pay")]);
        assert!(claims.set(id("w"), None).is_empty());
        assert!(claims.by_service.is_empty() && claims.by_workload.is_empty());
    }
}
