//! App ids, Service names and well-known objects of the control plane.

use crate::spiffe::{SpiffeId, SpiffeIdError, TrustDomain};

/// A process of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    Sentry,
    Operator,
    Injector,
    Placement,
    Scheduler,
}

impl Service {
    pub const ALL: [Self; 5] = [
        Self::Sentry,
        Self::Operator,
        Self::Injector,
        Self::Placement,
        Self::Scheduler,
    ];

    /// The app id in its SPIFFE id.
    pub const fn app_id(self) -> &'static str {
        match self {
            Self::Sentry => "dapr-sentry",
            Self::Operator => "dapr-operator",
            Self::Injector => "dapr-injector",
            Self::Placement => "dapr-placement",
            Self::Scheduler => "dapr-scheduler",
        }
    }

    /// Value of the annotation `dapr.io/control-plane` on its pods.
    pub const fn annotation(self) -> &'static str {
        match self {
            Self::Sentry => "sentry",
            Self::Operator => "operator",
            Self::Injector => "injector",
            Self::Placement => "placement",
            Self::Scheduler => "scheduler",
        }
    }

    pub fn from_annotation(value: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.annotation() == value)
    }

    pub fn from_app_id(app_id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.app_id() == app_id)
    }

    /// Its identity in a control plane.
    ///
    /// # Errors
    /// When the namespace is not a legal SPIFFE path segment.
    pub fn spiffe_id(self, trust_domain: &TrustDomain, namespace: &str) -> Result<SpiffeId, SpiffeIdError> {
        SpiffeId::new(trust_domain.clone(), namespace, self.app_id())
    }
}

/// Secret and ConfigMap with the certificate authority's material, in the control plane's namespace.
pub const TRUST_BUNDLE: &str = "dapr-trust-bundle";
/// Configuration that configures the control plane itself.
pub const SYSTEM_CONFIGURATION: &str = "daprsystem";
/// MutatingWebhookConfiguration and Service of the injector.
pub const SIDECAR_INJECTOR: &str = "dapr-sidecar-injector";
/// Trust domain of apps whose Configuration names none.
pub const PUBLIC_TRUST_DOMAIN: &str = "public";
/// Namespace that identities use when the environment names none.
pub const DEFAULT_NAMESPACE: &str = "default";
