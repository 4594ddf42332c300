//! Why a pod that asks for a sidecar has none, by name. The page `docs/reference/missing-sidecars.md` is made from this.

use outrigger_core::markdown::{HEADER, table};

macro_rules! reasons {
    ($($reason:ident: $meaning:literal, $remedy:literal;)*) => {
        /// Reason of the Event, and label of the metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $meaning] $reason,)*
        }

        impl Reason {
            pub const ALL: &'static [Self] = &[$(Self::$reason,)*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$reason => stringify!($reason),)*
                }
            }

            /// What it means, and what people can do.
            pub const fn text(self) -> (&'static str, &'static str) {
                match self {
                    $(Self::$reason => ($meaning, $remedy),)*
                }
            }
        }
    };
}

reasons! {
    SidecarNotEnabled:
        "`dapr.io/enabled` has a value such as `yes` or `1`, and the injector takes only `true`.",
        "Write `dapr.io/enabled: \"true\"`.";
    ContainerNamedDaprd:
        "The pod has a container named `daprd` of its own, and gets no second one.",
        "Rename the container, or leave it out of the template.";
    StaticPod:
        "The pod is the mirror of a static pod: the kubelet runs it from a file, and nothing that admission adds to the mirror reaches it.",
        "Run the app in a Deployment, a DaemonSet or another workload of the API server.";
    CreatorNotAllowed:
        "The injector was asked, and whoever created the pod may not have sidecars injected.",
        "Add the account that the note names to `dapr_sidecar_injector.allowedServiceAccounts`, or create the pod through a workload.";
    CreatorUnknown:
        "The injector answers now and would inject the pod for a creator who is allowed. Who that is nobody knows: the pod has no owner, or one of a kind that is not Kubernetes' own.",
        "If the account that creates the pod is not allowed, add it to `dapr_sidecar_injector.allowedServiceAccounts`. Then replace the pod: the watchdog does not.";
    PodDenied:
        "The injector refused the pod: an annotation cannot be used. There is no pod; the Event is on its owner.",
        "Correct the annotation that the note names.";
    WebhookMissing:
        "There is no MutatingWebhookConfiguration `dapr-sidecar-injector`, so the API server asks nobody.",
        "Install the chart with `dapr_sidecar_injector.enabled`, or apply what was deleted.";
    WebhookIncomplete:
        "The MutatingWebhookConfiguration has no webhook `sidecar-injector.dapr.io`.",
        "Apply the chart again.";
    WebhookUnreadable:
        "The operator may not read the MutatingWebhookConfiguration, or what stands behind it, so it cannot tell more.",
        "Grant the operator what the chart's role `dapr-operator-injection` does.";
    PodOlderThanWebhook:
        "The pod was created before the webhook was.",
        "Replace the pod, for example with `kubectl rollout restart`.";
    WebhookIgnoresPods:
        "The webhook's rules do not cover the creation of pods.",
        "Apply the chart again.";
    NamespaceExcluded:
        "The webhook leaves out `kube-system` and the control plane's namespace.",
        "Run the app in another namespace.";
    NamespaceNotSelected:
        "The webhook's `namespaceSelector` does not select the namespace; the note names the requirement.",
        "Label the namespace, or change `dapr_sidecar_injector.namespaceSelector`. Then replace the pod.";
    PodNotSelected:
        "The webhook's `objectSelector` does not select the pod; the note names the requirement.",
        "Label the pod's template, or change `dapr_sidecar_injector.objectSelector`.";
    MatchConditionNotMet:
        "A match condition of the webhook left the pod out, or one that is not the chart's may have.",
        "Look at the condition that the note names.";
    CaBundleMissing:
        "The webhook has no `caBundle`, so that the API server cannot trust the injector. The injector writes it.",
        "Look at the injector's log: it cannot write the configuration, or does not run.";
    CaBundleForeign:
        "The webhook's `caBundle` has none of the control plane's trust anchors.",
        "Find out who overwrites it. The injector writes it again within a second, when it may.";
    ServiceMissing:
        "The Service `dapr-sidecar-injector` does not exist.",
        "Apply the chart again.";
    ServiceForeign:
        "The webhook calls something else than the control plane's injector.",
        "Apply the chart again, or remove the other installation.";
    InjectorNotReady:
        "No replica of the injector was ready, and the webhook's failure policy lets pods through.",
        "Look at the injector's pods. Then replace the pod, or let the watchdog do so.";
    InjectorUnreachable:
        "The operator cannot reach the injector through its Service either; the note has the error.",
        "Look at the injector's log, the network policies, and the certificate that the note speaks of.";
    InjectorFailed:
        "The injector answers, but not as it should.",
        "Look at the injector's log.";
    InjectorRefuses:
        "Asked again for the same pod in a dry run, the injector gives it no sidecar; the note says why.",
        "As the note says.";
    InjectorMissedPod:
        "The webhook selects the pod and the injector answers now; it did not in time when the pod was created.",
        "Replace the pod, or let the watchdog do so.";
}

/// A reason, and the sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub reason: Reason,
    pub note: String,
}

impl Finding {
    /// `why` continues "no Dapr sidecar: ".
    pub fn new(reason: Reason, why: impl std::fmt::Display) -> Self {
        Self {
            reason,
            note: format!("no Dapr sidecar: {why}"),
        }
    }
}

impl Reason {
    /// That an injector told; one of another version may have more.
    pub fn told(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }
}

/// The page of the reference, in Markdown.
pub fn reference() -> String {
    let rows: Vec<_> = Reason::ALL
        .iter()
        .map(|reason| {
            let (meaning, remedy) = reason.text();
            [format!("`{}`", reason.as_str()), meaning.to_owned(), remedy.to_owned()]
        })
        .collect();
    format!(
        "{HEADER}# Why a pod has no sidecar\n\n\
        Reasons of the Events on pods that ask for a sidecar and have none, and labels of the metric \
        `dapr_operator_missing_sidecars_total`.\n\n{}",
        table(["reason", "meaning", "what to do"], &rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_docs_is_this_one() {
        outrigger_testkit::docs::assert_current("missing-sidecars.md", &reference());
    }
}
