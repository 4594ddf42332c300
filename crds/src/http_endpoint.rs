//! `HTTPEndpoint`: a service outside the mesh that apps invoke by name.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    checks::{self, Problem},
    dynamic_value::DynamicValue,
    go,
    resource::{Column, DaprResource, kube_resource},
    secrets::{self, SecretRules, SecretUse},
    shared::{Auth, NameValuePair, SecretKeyRef, SecretStore},
    status::{self, Status},
};

/// A service outside of Dapr that apps invoke by the name of this object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct HTTPEndpoint {
    #[serde(deserialize_with = "go::nullable")]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// Where the service is and how to talk to it.
    #[serde(deserialize_with = "go::nullable")]
    pub spec: HTTPEndpointSpec,
    /// Where secret references are resolved.
    #[serde(deserialize_with = "go::nullable")]
    pub auth: Auth,
    /// App ids that may invoke the service; empty means every app in the namespace.
    #[serde(deserialize_with = "go::nullable")]
    pub scopes: Vec<String>,
    /// What the operator and the sidecars found.
    #[serde(deserialize_with = "status::readable")]
    pub status: Option<Status>,
}

kube_resource!(HTTPEndpoint);

/// Where a service is and how to talk to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct HTTPEndpointSpec {
    /// URL that the paths of invocations are appended to.
    #[serde(deserialize_with = "go::nullable")]
    pub base_url: String,
    /// Headers that are added to every request.
    pub headers: Option<Vec<NameValuePair>>,
    /// TLS settings for the connection.
    #[serde(rename = "clientTLS", skip_serializing_if = "Option::is_none")]
    pub client_tls: Option<Tls>,
}

/// TLS settings of a client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Tls {
    /// Certificates of the authorities that the server's certificate may come from.
    #[serde(rename = "rootCA")]
    pub root_ca: Option<TlsDocument>,
    /// Certificate of the client.
    pub certificate: Option<TlsDocument>,
    /// Private key of the client's certificate.
    pub private_key: Option<TlsDocument>,
    /// Whether the server may ask for a renegotiation.
    #[schemars(extend("default" = "Never"))]
    pub renegotiation: Option<String>,
}

/// PEM text, given directly or by a secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct TlsDocument {
    /// The PEM text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<DynamicValue>,
    /// Takes the PEM text from a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

impl TlsDocument {
    fn secret(&self) -> Option<&SecretKeyRef> {
        self.secret_key_ref.as_ref().filter(|secret| !secret.name.is_empty())
    }
}

impl Tls {
    fn documents(&self) -> impl Iterator<Item = (&'static str, &TlsDocument)> {
        let all = [
            ("certificate", &self.certificate),
            ("privateKey", &self.private_key),
            ("rootCA", &self.root_ca),
        ];
        all.into_iter()
            .filter_map(|(name, document)| document.as_ref().map(|document| (name, document)))
    }

    fn documents_mut(&mut self) -> impl Iterator<Item = &mut TlsDocument> {
        [&mut self.certificate, &mut self.private_key, &mut self.root_ca]
            .into_iter()
            .flatten()
    }
}

impl DaprResource for HTTPEndpoint {
    type Spec = HTTPEndpointSpec;

    const KIND: &'static str = "HTTPEndpoint";
    const VERSION: &'static str = "v1alpha1";
    const PLURAL: &'static str = "httpendpoints";
    const SINGULAR: &'static str = "httpendpoint";
    const SHORT_NAMES: &'static [&'static str] = &["dhttp"];
    const COLUMNS: &'static [Column] = &[
        Column::string("URL", ".spec.baseUrl"),
        Column::string("Scopes", ".scopes"),
    ];
    const SECRET_RULES: SecretRules = SecretRules::BASE64_OR_UNSET;

    fn spec(&self) -> &HTTPEndpointSpec {
        &self.spec
    }

    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    fn auth(&self) -> Option<&Auth> {
        Some(&self.auth)
    }

    fn scopes(&self) -> &[String] {
        &self.scopes
    }

    fn secret_refs(&self) -> Vec<SecretUse<'_>> {
        if self.secret_store() != SecretStore::Kubernetes {
            return Vec::new();
        }
        let mut all = secrets::refs_in("spec.headers", self.spec.headers.as_deref().unwrap_or_default());
        let documents = self.spec.client_tls.iter().flat_map(Tls::documents);
        all.extend(documents.filter_map(|(item, document)| {
            document.secret().map(|secret| SecretUse {
                field: format!("spec.clientTLS.{item}"),
                item,
                name: &secret.name,
                key: secret.key(),
            })
        }));
        all
    }

    fn secret_values_mut(&mut self) -> Vec<&mut Option<DynamicValue>> {
        if self.secret_store() != SecretStore::Kubernetes {
            return Vec::new();
        }
        let mut all = secrets::values_in(self.spec.headers.as_deref_mut());
        let documents = self.spec.client_tls.iter_mut().flat_map(Tls::documents_mut);
        all.extend(
            documents
                .filter(|document| document.secret().is_some())
                .map(|document| &mut document.value),
        );
        all
    }

    fn problems(&self) -> Vec<Problem> {
        checks::http_endpoint(self)
    }
}
