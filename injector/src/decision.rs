//! What to answer to a review: the checks, in upstream's order. No I/O: the cluster is a snapshot.

use std::{collections::BTreeMap, ops::Deref};

use outrigger_core::{app_id, text::shortened};
use outrigger_proto::outrigger::operator::v1::{Owner, Refusal};

use crate::{
    annotations as key,
    authorise::Allowed,
    cluster::Cluster,
    patch::{self, Injection},
    pod::Pod,
    review::{Answer, Request},
    settings::Settings,
    sidecar::Sidecar,
    warnings,
};

/// Bytes of a name in what is told of a pod; a valid `apiVersion` is the longest with a group of 253 and a version of 63. Nobody
/// has checked the pod's own yet, and an app id may be as long as the whole pod.
pub const MAX_NAME: usize = 253 + 1 + 63;
/// Bytes of a message, as an Event's note has them.
pub const MAX_MESSAGE: usize = 1024;

/// All that a decision depends on beside the request.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub settings: &'a Settings,
    pub allowed: &'a Allowed,
    pub cluster: &'a Cluster,
    /// PEM; `None` before they were read.
    pub trust_anchors: Option<&'a str>,
}

/// An answer, with what metrics and people want to know of it.
#[derive(Debug)]
pub struct Decision {
    pub answer: Answer,
    pub outcome: Outcome,
    /// The annotation, else the pod's name, else empty: what upstream labels its metrics with.
    pub app_id: String,
    pub warnings: Vec<String>,
    /// What the operator is told of a pod that gets no sidecar.
    pub refusal: Option<Refusal>,
}

impl Decision {
    /// For the API server's audit log: what became of a pod that concerns us.
    pub fn audit(&self) -> BTreeMap<&'static str, String> {
        let about_us = !matches!(self.outcome, Outcome::NotAPod | Outcome::NotEnabled) || !self.warnings.is_empty();
        if !about_us {
            return BTreeMap::new();
        }
        let all = [
            ("outcome", self.outcome.name().to_owned()),
            ("app-id", name(&self.app_id)),
            ("message", self.message()),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    /// What there is to say to the pod's creator, for those who keep it.
    fn message(&self) -> String {
        let message = match &self.answer {
            Answer::Denied(message) => message.clone(),
            _ => warnings::fit(self.warnings.clone()).join("; "),
        };
        shortened(message, MAX_MESSAGE)
    }
}

impl Outcome {
    /// In metrics and in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::NotAPod => "not_a_pod",
            Self::NotCreated => "not_created",
            Self::NotEnabled => "not_enabled",
            Self::NotAllowed => "not_allowed",
            Self::AlreadyInjected => "already_injected",
            Self::Denied => "denied",
        }
    }
}

/// How a review ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Injected,
    /// The review is not about a pod.
    NotAPod,
    /// The pod exists already, and what runs in a pod is fixed when it is created.
    NotCreated,
    NotEnabled,
    /// The requester may not have pods injected.
    NotAllowed,
    /// The pod has a sidecar.
    AlreadyInjected,
    Denied,
}

/// Decides a review.
pub fn decide(request: &Request<'_>, context: Context<'_>) -> Decision {
    if &*request.kind.kind != "Pod" {
        return Decision {
            warnings: vec![warnings::not_a_pod(&request.kind.kind)],
            ..plain(Answer::Allowed, Outcome::NotAPod, String::new())
        };
    }
    // Upstream does not look at the operation, and an update with its patch is refused by the API server.
    if !matches!(&*request.operation, "" | "CREATE") {
        return Decision {
            warnings: vec![warnings::not_created(&request.operation)],
            ..plain(Answer::Allowed, Outcome::NotCreated, String::new())
        };
    }
    let pod = match request.object {
        Some(object) => Pod::decode(object.get()).map_err(|error| error.to_string()),
        None => Err("the object is empty".to_owned()),
    };
    let mut decision = judge(&pod, request, context);
    if context.settings.strict {
        decision = strictly(decision);
    }
    if let (Ok(pod), false) = (&pod, request.dry_run) {
        decision.refusal = refusal(pod, &request.namespace, &decision);
    }
    decision
}

/// What is warned of otherwise is denied in strict mode, with the same sentences.
fn strictly(decision: Decision) -> Decision {
    if decision.warnings.is_empty() || matches!(decision.answer, Answer::Denied(_)) {
        return decision;
    }
    plain(
        Answer::denied(warnings::fit(decision.warnings).join("; ")),
        Outcome::Denied,
        decision.app_id,
    )
}

fn name(text: &str) -> String {
    shortened(text.to_owned(), MAX_NAME)
}

/// Who asked for a sidecar, or seems to have, and gets none for a reason that can be mended here: a static pod has another.
fn refusal(pod: &Pod<'_>, namespace: &str, decision: &Decision) -> Option<Refusal> {
    if pod.is_static() {
        return None;
    }
    let reason = match decision.outcome {
        Outcome::Injected | Outcome::NotAPod | Outcome::NotCreated => return None,
        Outcome::NotEnabled | Outcome::AlreadyInjected if decision.warnings.is_empty() => return None,
        Outcome::NotEnabled => "SidecarNotEnabled",
        Outcome::AlreadyInjected => "ContainerNamedDaprd",
        Outcome::NotAllowed => "CreatorNotAllowed",
        Outcome::Denied => "PodDenied",
    };
    Some(Refusal {
        namespace: name(namespace),
        pod: name(&pod.metadata.name),
        generate_name: name(&pod.metadata.generate_name),
        owner: pod.controller().map(|owner| Owner {
            api_version: name(&owner.api_version),
            kind: name(&owner.kind),
            name: name(&owner.name),
            uid: name(&owner.uid),
        }),
        reason: reason.to_owned(),
        message: decision.message(),
        denied: decision.outcome == Outcome::Denied,
    })
}

fn judge(pod: &Result<Pod<'_>, String>, request: &Request<'_>, context: Context<'_>) -> Decision {
    // What cannot be decoded counts as enabled, so that the requester is told.
    let label = pod.as_ref().map(metric_label).unwrap_or_default();
    if let Ok(pod) = pod
        && !is_enabled(pod)
    {
        return Decision {
            warnings: warnings::not_enabled(pod).into_iter().collect(),
            ..plain(Answer::Allowed, Outcome::NotEnabled, label)
        };
    }
    let requester = &request.user_info;
    if !context
        .allowed
        .permits(requester, |uid| context.cluster.is_allowed_uid(uid))
    {
        return Decision {
            warnings: vec![warnings::not_allowed(&requester.username)],
            ..plain(Answer::Allowed, Outcome::NotAllowed, label)
        };
    }
    match pod {
        Ok(pod) => inject(pod, &request.namespace, context, label),
        Err(error) => plain(
            Answer::denied(format!("could not unmarshal raw object: {error}")),
            Outcome::Denied,
            label,
        ),
    }
}

/// Only `true`, in any case and without white space around it: the operator's watchdog is more lenient, upstream's injector is
/// not.
fn is_enabled(pod: &Pod<'_>) -> bool {
    pod.annotation(key::ENABLED)
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

fn inject(pod: &Pod<'_>, namespace: &str, context: Context<'_>, label: String) -> Decision {
    let denied = |message: String, label| plain(Answer::denied(message), Outcome::Denied, label);
    let Some(trust_anchors) = context.trust_anchors else {
        return denied("the injector has no trust anchors yet".to_owned(), label);
    };
    if pod.has_sidecar() {
        let ours = pod.metadata.labels.get(outrigger_core::annotations::LABEL_INJECTED);
        return Decision {
            // The API server asks again after other webhooks changed the pod.
            warnings: match ours.map(Deref::deref) {
                Some("true") => Vec::new(),
                _ => vec![warnings::foreign_sidecar()],
            },
            ..plain(Answer::Allowed, Outcome::AlreadyInjected, label)
        };
    }
    if let Err(error) = app_id::validate(pod.app_id()) {
        return Decision {
            warnings: pod.app_id().is_empty().then(warnings::no_name).into_iter().collect(),
            ..denied(error.to_string(), label)
        };
    }
    let mut sidecar = Sidecar::resolve(pod, context.settings);
    let too_old = context.cluster.too_old_for_native_sidecars().filter(|_| sidecar.native);
    sidecar.native &= too_old.is_none();
    let components = if sidecar.inject_pluggable_components {
        context.cluster.component_containers(namespace)
    } else {
        Ok(Vec::new())
    };
    let components = match components {
        Ok(components) => components,
        Err(error) => return denied(format!("error when fetching components: {error}"), label),
    };
    let mut warnings = warnings::of_pod(pod, &sidecar);
    warnings.extend(too_old.map(|version| warnings::no_native_sidecars(&version)));
    let injection = Injection {
        pod,
        namespace,
        settings: context.settings,
        mtls: context.cluster.mtls(),
        trust_anchors,
        components: &components,
    };
    let operations = patch::patch(&injection, &sidecar, &mut warnings);
    Decision {
        warnings,
        ..plain(Answer::Patched(operations), Outcome::Injected, label)
    }
}

fn metric_label(pod: &Pod<'_>) -> String {
    pod.annotation(key::APP_ID).unwrap_or(&pod.metadata.name).to_owned()
}

fn plain(answer: Answer, outcome: Outcome, app_id: String) -> Decision {
    Decision {
        answer,
        outcome,
        app_id,
        warnings: Vec::new(),
        refusal: None,
    }
}

#[cfg(test)]
mod tests;
