//! From the Service there is and the one there should be to what is to be done.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;
use outrigger_core::{annotations, app_id};
use outrigger_process::kubernetes::owner::controller;

use super::{desired::Desired, workload::Kind};
use crate::FIELD_MANAGER;

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Nothing,
    Create,
    Update,
    /// The Service belongs to a workload that does not want it any more.
    Delete,
    /// The Service is not ours to change, and why.
    Refuse(String),
}

/// Decides. `known_kinds` are the kinds of workloads whose wishes are completely known.
pub(super) fn decide(existing: Option<&Service>, desired: Option<&Desired>, known_kinds: &BTreeSet<Kind>) -> Action {
    match (existing, desired) {
        (None, None) => Action::Nothing,
        (None, Some(_)) => Action::Create,
        (Some(existing), None) => match left_behind(existing, known_kinds) {
            true => Action::Delete,
            false => Action::Nothing,
        },
        (Some(existing), Some(desired)) => match controller(existing) {
            Some(owner) if owner.uid == desired.owner.uid => match is_as_desired(existing, desired) {
                true => Action::Nothing,
                false => Action::Update,
            },
            // Its workload gave it up, or is gone: the new owner gets a new one.
            Some(_) if left_behind(existing, known_kinds) => Action::Delete,
            Some(owner) => Action::Refuse(format!("it belongs to {} {}", owner.kind, owner.name)),
            None => Action::Refuse("it was not created for a workload".to_owned()),
        },
    }
}

/// Whether this is an app Service, by its label, annotation and name, whose owner is of a kind that we know all of. Only asked when
/// that owner does not want it.
fn left_behind(existing: &Service, known_kinds: &BTreeSet<Kind>) -> bool {
    let metadata = &existing.metadata;
    let label = metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(annotations::ENABLED));
    let app = metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(annotations::APP_ID));
    let owner = controller(existing);
    label.is_some_and(|value| value == "true")
        && app.is_some_and(|app| metadata.name.as_deref() == Some(&*app_id::service_name(app)))
        && owner.is_some_and(|owner| known_kinds.iter().any(|kind| kind.is_of(owner)))
}

/// Whether writing would change nothing. Labels and annotations of others are left alone.
fn is_as_desired(existing: &Service, desired: &Desired) -> bool {
    let object = desired.object();
    let (Some(is), Some(should)) = (&existing.spec, &object.spec) else {
        return false;
    };
    let label = existing
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(annotations::ENABLED));
    let values = existing.metadata.annotations.clone().unwrap_or_default();
    let same_annotations = desired.annotations.iter().all(|(key, value)| values.get(key) == Some(value))
        // What is wanted no longer has to go.
        && owned_annotations(existing) == desired.annotations.keys().map(String::as_str).collect();
    label.is_some_and(|value| value == "true")
        && same_annotations
        && controller(existing) == Some(&desired.owner.reference())
        && is.cluster_ip == should.cluster_ip
        && is.selector.clone().unwrap_or_default() == desired.selector
        && is.ports == should.ports
}

/// The annotations that we set, as the API server noted.
fn owned_annotations(existing: &Service) -> BTreeSet<&str> {
    let entries = existing.metadata.managed_fields.as_deref().unwrap_or_default();
    entries
        .iter()
        .filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
        .filter_map(|entry| {
            entry
                .fields_v1
                .as_ref()?
                .0
                .get("f:metadata")?
                .get("f:annotations")?
                .as_object()
        })
        .flat_map(|fields| fields.keys().filter_map(|key| key.strip_prefix("f:")))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
    use outrigger_process::kubernetes::watch::ObjectKey;
    use serde_json::json;

    use super::*;
    use crate::controllers::services::workload::Owner;

    fn desired() -> Desired {
        Desired {
            owner: Owner {
                created: None,
                key: ObjectKey::new("shop", "cart"),
                kind: Kind::DEPLOYMENT,
                uid: "u1".into(),
            },
            app_id: "cart".into(),
            annotations: BTreeMap::from([("dapr.io/app-id".into(), "cart".into())]),
            selector: BTreeMap::from([("app".into(), "cart".into())]),
            ports: Vec::new(),
        }
    }

    /// The Service as the API server has it after we applied it.
    fn applied() -> Service {
        let mut service = desired().object();
        let fields = json!({"f:metadata": {"f:annotations": {"f:dapr.io/app-id": {}}}});
        service.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
            manager: Some(FIELD_MANAGER.into()),
            fields_v1: Some(FieldsV1(fields)),
            ..Default::default()
        }]);
        service
    }

    fn act(existing: Option<&Service>, desired: Option<&Desired>) -> Action {
        decide(
            existing,
            desired,
            &BTreeSet::from([Kind::DEPLOYMENT, Kind::STATEFUL_SET]),
        )
    }

    #[test]
    fn writes_only_what_differs() {
        assert_eq!(act(None, None), Action::Nothing);
        assert_eq!(act(None, Some(&desired())), Action::Create);
        assert_eq!(act(Some(&applied()), Some(&desired())), Action::Nothing);

        let mut others = applied();
        others
            .metadata
            .labels
            .as_mut()
            .unwrap()
            .insert("team".into(), "a".into());
        assert_eq!(
            act(Some(&others), Some(&desired())),
            Action::Nothing,
            "others' labels are theirs"
        );

        let mut edited = applied();
        edited.spec.as_mut().unwrap().selector = None;
        assert_eq!(act(Some(&edited), Some(&desired())), Action::Update);

        let mut upstreams = applied();
        upstreams.metadata.managed_fields = None;
        assert_eq!(
            act(Some(&upstreams), Some(&desired())),
            Action::Update,
            "taken over from upstream"
        );

        let mut fewer = desired();
        fewer.annotations.clear();
        assert_eq!(
            act(Some(&applied()), Some(&fewer)),
            Action::Update,
            "an annotation has to go"
        );
    }

    #[test]
    fn what_belongs_to_others_is_left_alone() {
        let mut foreign = applied();
        foreign.metadata.owner_references = None;
        let refused = Action::Refuse("it was not created for a workload".into());
        assert_eq!(act(Some(&foreign), Some(&desired())), refused);
        assert_eq!(act(Some(&foreign), None), Action::Nothing);

        let mut other = applied();
        other.metadata.name = Some("cart-canary".into());
        assert_eq!(
            act(Some(&other), None),
            Action::Nothing,
            "its owner's, and not its app Service"
        );

        let mut rollout = applied();
        let owner = &mut rollout.metadata.owner_references.as_mut().unwrap()[0];
        (owner.kind, owner.api_version) = ("Rollout".into(), "argoproj.io/v1alpha1".into());
        owner.uid = "u2".into();
        assert_eq!(act(Some(&rollout), None), Action::Nothing);
        assert_eq!(
            act(Some(&rollout), Some(&desired())),
            Action::Refuse("it belongs to Rollout cart".into())
        );
    }

    #[test]
    fn what_nobody_wants_any_more_goes() {
        assert_eq!(act(Some(&applied()), None), Action::Delete);
        let unknown = decide(Some(&applied()), None, &BTreeSet::new());
        assert_eq!(unknown, Action::Nothing, "its owner may not have been seen yet");

        let mut other = desired();
        other.owner.uid = "u2".into();
        assert_eq!(
            act(Some(&applied()), Some(&other)),
            Action::Delete,
            "to be created anew"
        );
    }
}
