//! What is the same for every kind.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    checks::Problem,
    dynamic_value::DynamicValue,
    secrets::{SecretRules, SecretUse},
    shared::{Auth, SecretStore},
    status::Status,
};

/// API group of every kind.
pub const GROUP: &str = "dapr.io";

/// A column of `kubectl get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    pub json_path: &'static str,
}

impl Column {
    pub(crate) const fn string(name: &'static str, json_path: &'static str) -> Self {
        Self {
            name,
            kind: "string",
            json_path,
        }
    }
}

/// A kind of the group `dapr.io`, in one version.
///
/// The types are written out flat instead of derived with `kube::CustomResource`, whose root holds everything beside
/// `spec` (`auth`, `scopes`) in one flattened field: serde parses what is flattened into a buffer first, and there the
/// text of a [`DynamicValue`] is lost.
pub trait DaprResource:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Serialize
    + DeserializeOwned
    + JsonSchema
    + Clone
    + Debug
    + PartialEq
    + Send
    + Sync
    + 'static
{
    type Spec: Serialize;

    const KIND: &'static str;
    const VERSION: &'static str;
    const PLURAL: &'static str;
    const SINGULAR: &'static str;
    /// They start with `d`, since the plain abbreviations are taken: `sub` by OLM, `comp` by KubeVela.
    const SHORT_NAMES: &'static [&'static str];
    /// Columns of its own; readiness and age follow them for every kind.
    const COLUMNS: &'static [Column];
    /// How its references to Secrets are resolved.
    const SECRET_RULES: SecretRules = SecretRules::BASE64_OR_KEEP;

    fn spec(&self) -> &Self::Spec;

    fn status(&self) -> Option<&Status>;

    /// `auth` at the top level, for the kinds that have one there.
    fn auth(&self) -> Option<&Auth> {
        None
    }

    /// App ids that may see the object; empty means every app in the namespace.
    fn scopes(&self) -> &[String] {
        &[]
    }

    /// Where the object's secret references point to.
    fn secret_store(&self) -> SecretStore<'_> {
        SecretStore::named(self.auth().map(|auth| auth.secret_store.as_str()))
    }

    /// References that the operator resolves from Kubernetes Secrets of the object's namespace; none when a secret
    /// store of the sidecar is responsible.
    fn secret_refs(&self) -> Vec<SecretUse<'_>> {
        Vec::new()
    }

    /// References whose Secret and key have to exist: those above, and those that the sidecar itself reads from Kubernetes.
    fn checked_refs(&self) -> Vec<SecretUse<'_>> {
        self.secret_refs()
    }

    /// The values that [`secret_refs`](Self::secret_refs) replaces, in the same order.
    fn secret_values_mut(&mut self) -> Vec<&mut Option<DynamicValue>> {
        Vec::new()
    }

    /// What is suspicious in the spec, as warnings: sidecars have the last word, and stock ones know more than we do.
    fn problems(&self) -> Vec<Problem>;

    /// `dapr.io/<version>`.
    fn api_version_text() -> String {
        format!("{GROUP}/{}", Self::VERSION)
    }
}

/// Implements `kube::Resource` and `Serialize` from the constants in the type's [`DaprResource`].
macro_rules! kube_resource {
    ($type:ident) => {
        impl kube::Resource for $type {
            type DynamicType = ();
            type Scope = k8s_openapi::NamespaceResourceScope;

            fn kind(_: &()) -> std::borrow::Cow<'_, str> {
                <Self as $crate::DaprResource>::KIND.into()
            }

            fn group(_: &()) -> std::borrow::Cow<'_, str> {
                $crate::GROUP.into()
            }

            fn version(_: &()) -> std::borrow::Cow<'_, str> {
                <Self as $crate::DaprResource>::VERSION.into()
            }

            fn plural(_: &()) -> std::borrow::Cow<'_, str> {
                <Self as $crate::DaprResource>::PLURAL.into()
            }

            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }

        /// The whole object, as the API server takes it.
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serde::Serialize::serialize(&$crate::encode::Document::for_api_server(self), serializer)
            }
        }
    };
}

pub(crate) use kube_resource;
