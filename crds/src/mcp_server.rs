//! `MCPServer`: a Model Context Protocol server whose tools apps call through their sidecars.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    checks::{self, Problem},
    duration::CanonicalDuration,
    dynamic_value::DynamicValue,
    go,
    resource::{Column, DaprResource, kube_resource},
    secrets::{self, SecretRules, SecretUse},
    shared::{NameValuePair, SecretKeyRef, SecretStore},
    status::{self, Status},
};

/// A Model Context Protocol server whose tools apps call through their sidecars.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct MCPServer {
    #[serde(deserialize_with = "go::nullable")]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// Where the server is, and what happens around calls to it.
    #[serde(deserialize_with = "go::nullable")]
    pub spec: MCPServerSpec,
    /// App ids that may use the server; empty means every app in the namespace.
    #[serde(deserialize_with = "go::nullable")]
    pub scopes: Vec<String>,
    /// What the operator and the sidecars found.
    #[serde(deserialize_with = "status::readable")]
    pub status: Option<Status>,
}

kube_resource!(MCPServer);

/// Where a server is, and what happens around calls to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct MCPServerSpec {
    /// Describes the server to people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog: Option<Catalog>,
    /// Where the server is: exactly one transport.
    #[serde(deserialize_with = "go::nullable")]
    pub endpoint: Endpoint,
    /// Lets the sidecar start when the server cannot be reached.
    #[serde(skip_serializing_if = "go::omitted")]
    pub ignore_errors: Option<bool>,
    /// Workflows that run around calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub middleware: Option<Middleware>,
}

/// Describes a server to people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Catalog {
    /// Name to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// What the server is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who is responsible for the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Words to find the server by.
    #[serde(skip_serializing_if = "go::omitted")]
    pub tags: Option<Vec<String>>,
    /// Links by name, such as documentation.
    #[serde(skip_serializing_if = "go::omitted")]
    pub links: Option<BTreeMap<String, String>>,
}

/// Who is responsible for a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Owner {
    /// Name of the team.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// How to reach the team.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
}

/// Where a server is: exactly one transport.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Endpoint {
    /// A server over the streamable HTTP transport.
    #[serde(rename = "streamableHTTP", skip_serializing_if = "Option::is_none")]
    pub streamable_http: Option<HttpTransport>,
    /// A server over the older transport with server-sent events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sse: Option<HttpTransport>,
    /// A program that the sidecar starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdio: Option<Stdio>,
}

/// A server over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct HttpTransport {
    /// URL of the server.
    #[serde(deserialize_with = "go::nullable")]
    pub url: String,
    /// Version of the protocol to ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<String>,
    /// Longest time for a call, as a duration such as `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<CanonicalDuration>,
    /// Headers that are added to every request.
    #[serde(skip_serializing_if = "go::omitted")]
    pub headers: Option<Vec<NameValuePair>>,
    /// How the sidecar identifies itself to the server, and where secret references are resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<TransportAuth>,
}

/// How a sidecar identifies itself to a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct TransportAuth {
    /// Secret store that secret references refer to. Empty or `kubernetes` means Secrets in the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_store: Option<String>,
    /// OAuth 2.0 client credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<OAuth2>,
    /// The sidecar's SPIFFE identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spiffe: Option<Spiffe>,
}

/// OAuth 2.0 client credentials.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct OAuth2 {
    /// URL of the authorisation server.
    #[serde(deserialize_with = "go::nullable")]
    pub issuer: String,
    /// Audience to ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Scopes to ask for.
    #[serde(skip_serializing_if = "go::omitted")]
    pub scopes: Option<Vec<String>>,
    /// Client id.
    #[serde(rename = "clientID", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Client secret, which the sidecar takes from its secret store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

/// The sidecar's SPIFFE identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Spiffe {
    /// Sends a JWT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<SpiffeJwt>,
}

/// A JWT in a header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct SpiffeJwt {
    /// Name of the header.
    #[serde(deserialize_with = "go::nullable")]
    pub header: String,
    /// Text before the token, such as `Bearer `.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_value_prefix: Option<String>,
    /// Audience of the token.
    #[serde(deserialize_with = "go::nullable")]
    pub audience: String,
}

/// A program that the sidecar starts and talks to over standard input and output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Stdio {
    /// The program.
    #[serde(deserialize_with = "go::nullable")]
    pub command: String,
    /// Its arguments.
    #[serde(skip_serializing_if = "go::omitted")]
    pub args: Option<Vec<String>>,
    /// Its environment.
    #[serde(skip_serializing_if = "go::omitted")]
    pub env: Option<Vec<NameValuePair>>,
}

/// Workflows that run around calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Middleware {
    /// Before a tool is called.
    #[serde(skip_serializing_if = "go::omitted")]
    pub before_call_tool: Option<Vec<MutatingHook>>,
    /// After a tool was called.
    #[serde(skip_serializing_if = "go::omitted")]
    pub after_call_tool: Option<Vec<MutatingHook>>,
    /// Before tools are listed.
    #[serde(skip_serializing_if = "go::omitted")]
    pub before_list_tools: Option<Vec<Hook>>,
    /// After tools were listed.
    #[serde(skip_serializing_if = "go::omitted")]
    pub after_list_tools: Option<Vec<MutatingHook>>,
}

/// A workflow that may change what passes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct MutatingHook {
    /// The workflow to run.
    #[serde(deserialize_with = "go::nullable")]
    pub workflow: WorkflowRef,
    /// Replaces what passes by the workflow's result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutate: Option<bool>,
}

/// A workflow that is told what passes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Hook {
    /// The workflow to run.
    #[serde(deserialize_with = "go::nullable")]
    pub workflow: WorkflowRef,
}

/// A workflow of an app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct WorkflowRef {
    /// Name of the workflow.
    #[serde(deserialize_with = "go::nullable")]
    pub workflow_name: String,
    /// App that the workflow belongs to; by default the calling app.
    #[serde(rename = "appID", skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
}

impl Endpoint {
    /// The pairs that the operator resolves, and their field: those of the first transport that is set.
    fn pairs(&self) -> (&'static str, &[NameValuePair]) {
        let (field, pairs) = match (&self.streamable_http, &self.sse, &self.stdio) {
            (Some(http), _, _) => ("spec.endpoint.streamableHTTP.headers", &http.headers),
            (None, Some(http), _) => ("spec.endpoint.sse.headers", &http.headers),
            (None, None, Some(stdio)) => ("spec.endpoint.stdio.env", &stdio.env),
            (None, None, None) => ("spec.endpoint", &None),
        };
        (field, pairs.as_deref().unwrap_or_default())
    }

    /// The client secret of the transport in use.
    fn client_secret(&self) -> Option<SecretUse<'_>> {
        let (field, http) = match (&self.streamable_http, &self.sse) {
            (Some(http), _) => ("spec.endpoint.streamableHTTP.auth.oauth2", http),
            (None, http) => ("spec.endpoint.sse.auth.oauth2", http.as_ref()?),
        };
        let secret = http.auth.as_ref()?.oauth2.as_ref()?.secret_key_ref.as_ref()?;
        (!secret.name.is_empty()).then(|| SecretUse {
            field: field.to_owned(),
            item: "client secret",
            name: &secret.name,
            key: secret.key(),
        })
    }

    fn pairs_mut(&mut self) -> Option<&mut [NameValuePair]> {
        match (&mut self.streamable_http, &mut self.sse, &mut self.stdio) {
            (Some(http), _, _) | (None, Some(http), _) => http.headers.as_deref_mut(),
            (None, None, Some(stdio)) => stdio.env.as_deref_mut(),
            (None, None, None) => None,
        }
    }
}

impl DaprResource for MCPServer {
    type Spec = MCPServerSpec;

    const KIND: &'static str = "MCPServer";
    const VERSION: &'static str = "v1alpha1";
    const PLURAL: &'static str = "mcpservers";
    const SINGULAR: &'static str = "mcpserver";
    const SHORT_NAMES: &'static [&'static str] = &["dmcp"];
    const COLUMNS: &'static [Column] = &[
        Column::string("Title", ".spec.catalog.displayName"),
        Column::string("Scopes", ".scopes"),
    ];
    const SECRET_RULES: SecretRules = SecretRules::BASE64_OR_UNSET;

    fn spec(&self) -> &MCPServerSpec {
        &self.spec
    }

    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// The secret store of the transport in use; a program has none, so Kubernetes serves it.
    fn secret_store(&self) -> SecretStore<'_> {
        let endpoint = &self.spec.endpoint;
        let http = endpoint.streamable_http.as_ref().or(endpoint.sse.as_ref());
        let auth = http.and_then(|http| http.auth.as_ref());
        SecretStore::named(auth.and_then(|auth| auth.secret_store.as_deref()))
    }

    fn secret_refs(&self) -> Vec<SecretUse<'_>> {
        match self.secret_store() {
            SecretStore::Kubernetes => {
                let (field, pairs) = self.spec.endpoint.pairs();
                secrets::refs_in(field, pairs)
            }
            SecretStore::Component(_) => Vec::new(),
        }
    }

    /// The client secret is among them, which the operator does not send.
    fn checked_refs(&self) -> Vec<SecretUse<'_>> {
        let mut all = self.secret_refs();
        if self.secret_store() == SecretStore::Kubernetes {
            all.extend(self.spec.endpoint.client_secret());
        }
        all
    }

    fn secret_values_mut(&mut self) -> Vec<&mut Option<DynamicValue>> {
        match self.secret_store() {
            SecretStore::Kubernetes => secrets::values_in(self.spec.endpoint.pairs_mut()),
            SecretStore::Component(_) => Vec::new(),
        }
    }

    fn problems(&self) -> Vec<Problem> {
        checks::mcp_server(self)
    }
}
