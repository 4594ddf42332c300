//! The words that conditions and Events are explained with: what they mean, and what to do about them. The reference page
//! is generated from here.

/// The conditions of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionType {
    /// The spec is valid and everything that it refers to exists.
    Accepted,
    /// Accepted, and no connected sidecar rejects the object. Tools such as `kubectl wait` and Argo CD read this one.
    Ready,
}

impl ConditionType {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Ready => "Ready",
        }
    }
}

/// What the reference says about a [`Reason`].
#[derive(Clone, Copy, Debug)]
pub struct ReasonText {
    pub condition: ConditionType,
    /// Values of the condition that have this reason.
    pub status: &'static str,
    pub meaning: &'static str,
    /// What people can do.
    pub remedy: &'static str,
}

macro_rules! reasons {
    ($($reason:ident: $condition:ident $status:literal, $meaning:literal, $remedy:literal;)*) => {
        /// Why a condition has its status; users match on these words.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

            pub const fn text(self) -> ReasonText {
                match self {
                    $(Self::$reason => ReasonText {
                        condition: ConditionType::$condition,
                        status: $status,
                        meaning: $meaning,
                        remedy: $remedy,
                    },)*
                }
            }
        }
    };
}

reasons! {
    Accepted: Accepted "True",
        "The spec can be used and everything it has to refer to exists. The message lists warnings, if there are any.",
        "Nothing. Read the warnings: each names a field, what was found and what was expected.";
    InvalidSpec: Accepted "False",
        "The spec cannot be decoded, or a secret reference in it is incomplete.",
        "Correct the field that the message names. Sidecars go on with the last version that could be decoded.";
    SecretNotFound: Accepted "False",
        "A Secret that the spec refers to does not exist in the namespace.",
        "Create the Secret, or correct the name in `secretKeyRef`.";
    SecretKeyNotFound: Accepted "False",
        "A Secret that the spec refers to lacks the key.",
        "Add the key to the Secret, or correct `secretKeyRef.key`.";
    SecretStoreNotFound: Accepted "False",
        "`secretStore` names no Component of the namespace, or one whose type is not `secretstores.*`.",
        "Apply the secret store, or correct the name. An empty name means Kubernetes Secrets.";
    NotAccepted: Ready "False",
        "The resource is not accepted. The message is that of `Accepted`.",
        "As for the reason of `Accepted`.";
    NoSidecars: Ready "True",
        "The resource is accepted, and meant for no sidecar that is connected.",
        "Nothing.";
    NotReported: Ready "True",
        "The resource is accepted, and none of the connected sidecars that it is meant for reports on it: upstream's sidecars do not, and ours report on Components and on the Configuration of their pod.",
        "Nothing. The logs of the sidecars tell what became of it.";
    Loaded: Ready "True",
        "Connected sidecars have loaded this generation, and none rejects it. The message counts them.",
        "Nothing.";
    AwaitingReports: Ready "Unknown",
        "Connected sidecars have been sent this generation and have not judged it yet, or the operator has just begun to lead and does not hear of all sidecars yet.",
        "Wait: 10 seconds after the edit, or 30 after the change of the leader, who has not reported counts no longer.";
    Rejected: Ready "False",
        "A connected sidecar cannot use this generation. `status.rejections` names up to ten pods, each with reason and message; they go on with the last version that they could use, if there was one.",
        "Correct what the message names. A sidecar that is gone counts for 30 seconds more, and for as long as its pod cannot stay connected.";
}

/// What the reference says about an [`EventReason`].
#[derive(Clone, Copy, Debug)]
pub struct EventText {
    /// What the Event is about.
    pub regarding: &'static str,
    pub meaning: &'static str,
    /// What people can do.
    pub remedy: &'static str,
}

macro_rules! event_reasons {
    ($($reason:ident: $regarding:literal, $meaning:literal, $remedy:literal;)*) => {
        /// Reasons of Events that are no reasons of a condition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EventReason {
            $(#[doc = $meaning] $reason,)*
        }

        impl EventReason {
            pub const ALL: &'static [Self] = &[$(Self::$reason,)*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$reason => stringify!($reason),)*
                }
            }

            pub const fn text(self) -> EventText {
                match self {
                    $(Self::$reason => EventText { regarding: $regarding, meaning: $meaning, remedy: $remedy },)*
                }
            }
        }
    };
}

event_reasons! {
    ServiceRefused: "Deployment, StatefulSet, DaemonSet, Rollout",
        "The Service `<app-id>-dapr` of the workload is not written.",
        "Correct the annotation that the note names, or rename one of the two apps or the foreign Service of that name.";
    RestartRequired: "Configuration, the control plane's own",
        "A field was changed that the operator uses as it was when it started, or the operator would not start with what the object holds now. The note names the field.",
        "Restart the operator, or take the change back. After a change of the trust domain restart all of the control plane, and then the pods with sidecars.";
    SidecarMissing: "Pod, or the owner of pods",
        "The watchdog found a pod without the sidecar that it asks for. The note says whether it was evicted, or why not.",
        "As the note says; look at the injector when replacements get no sidecar either.";
}

/// A kind of warning that `Accepted` lists although it is true.
#[derive(Clone, Copy, Debug)]
pub(super) struct WarningText {
    pub(super) kinds: &'static str,
    pub(super) field: &'static str,
    pub(super) meaning: &'static str,
}

/// The warnings about things outside of the object, which appear and vanish without an edit of it.
pub(super) const WARNINGS: &[WarningText] = &[
    WarningText {
        kinds: "all but Configuration",
        field: "`scopes[]`",
        meaning: "no pod of the namespace has the app id",
    },
    WarningText {
        kinds: "Subscription",
        field: "`spec.pubsubname`",
        meaning: "no component of the name, one of another type than `pubsub.*`, or one whose scopes share no app with the subscription",
    },
    WarningText {
        kinds: "Subscription",
        field: "`spec.topic`",
        meaning: "another Subscription for an app of the scopes has the same topic of the same component",
    },
    WarningText {
        kinds: "Configuration",
        field: "`metadata.name`",
        meaning: "no pod names the Configuration in its annotation `dapr.io/config`; never said of the control plane's own",
    },
    WarningText {
        kinds: "Configuration",
        field: "`spec.mtls`",
        meaning: "of the control plane's own: the trust domain or sentry's address is another one than the leading operator started with, or cannot be used",
    },
    WarningText {
        kinds: "Configuration",
        field: "`spec.httpPipeline.handlers[].name`, `spec.appHttpPipeline.handlers[].name`",
        meaning: "no component of the name, or one of another type than `middleware.*`",
    },
    WarningText {
        kinds: "Configuration",
        field: "`spec.secrets.scopes[].storeName`",
        meaning: "no component of the name, or one of another type than `secretstores.*`",
    },
    WarningText {
        kinds: "Component, HTTPEndpoint, MCPServer",
        field: "`auth.secretStore`, `spec.endpoint.*.auth.secretStore`",
        meaning: "the scopes of the secret store share no app with those of the resource, or the operator may not list Components and did not look for it",
    },
    WarningText {
        kinds: "Component, Configuration, HTTPEndpoint, MCPServer",
        field: "`….secretKeyRef`",
        meaning: "the operator may not read the Secret and did not check that it exists; the chart's value `dapr_operator.secretNamespaces` limits the right",
    },
    WarningText {
        kinds: "Resiliency",
        field: "`spec.targets.apps`, `spec.targets.components`",
        meaning: "no pod of the namespace has the app id; no component of the name, or one whose scopes share no app with the resource",
    },
    WarningText {
        kinds: "MCPServer",
        field: "`spec.middleware.*[].workflow.appID`",
        meaning: "no pod of the namespace has the app id",
    },
    WarningText {
        kinds: "WorkflowAccessPolicy",
        field: "`spec.rules[].callers[].appID`, `spec.rules[].*.requires[].appID`",
        meaning: "no pod of the namespace has the app id",
    },
];
