//! MCPServer.

use outrigger_core::GoDuration;

use super::{Findings, Problem, shared::has_host};
use crate::{
    DaprResource, MCPServer, SecretStore,
    mcp_server::{HttpTransport, Stdio},
    rules::{rejections, warnings},
};

pub(crate) fn mcp_server(server: &MCPServer) -> Vec<Problem> {
    let mut findings = Findings::default();
    let (endpoint, store) = (&server.spec.endpoint, server.secret_store());
    for (item, transport) in [("streamableHTTP", &endpoint.streamable_http), ("sse", &endpoint.sse)] {
        if let Some(transport) = transport {
            findings.http_transport(&format!("spec.endpoint.{item}"), transport, store);
        }
    }
    if let Some(stdio) = &endpoint.stdio {
        findings.stdio(stdio, store);
    }
    findings.scopes(&server.scopes);
    findings.0
}

impl Findings {
    fn http_transport(&mut self, field: &str, transport: &HttpTransport, store: SecretStore<'_>) {
        if !has_host(&transport.url, &["http", "https"]) {
            self.url(&rejections::MCP_URL, format!("{field}.url"), &transport.url);
        }
        if let Some(timeout) = transport.timeout.filter(|timeout| timeout.0 <= GoDuration::default()) {
            self.value(
                &warnings::MCP_TIMEOUT_ZERO,
                format!("{field}.timeout"),
                &timeout.0.to_string(),
            );
        }
        self.pairs(
            &format!("{field}.headers"),
            transport.headers.as_deref().unwrap_or_default(),
            store,
        );
        let Some(auth) = &transport.auth else { return };
        let Some(oauth2) = &auth.oauth2 else { return };
        match &oauth2.secret_key_ref {
            None => self.field(&warnings::MCP_NO_SECRET, format!("{field}.auth.oauth2")),
            Some(secret) => self.secret(&format!("{field}.auth.oauth2"), secret, store),
        }
        if auth.spiffe.as_ref().is_some_and(|spiffe| spiffe.jwt.is_some()) {
            self.field(&warnings::MCP_TWO_IDENTITIES, format!("{field}.auth"));
        }
    }

    fn stdio(&mut self, stdio: &Stdio, store: SecretStore<'_>) {
        self.field(&warnings::MCP_STDIO, "spec.endpoint.stdio");
        let env = stdio.env.as_deref().unwrap_or_default();
        for (index, pair) in env.iter().enumerate() {
            if pair.name.contains(['=', '\n', '\0']) {
                self.value(
                    &warnings::MCP_ENV_NAME,
                    format!("spec.endpoint.stdio.env[{index}].name"),
                    &pair.name,
                );
            }
        }
        self.pairs("spec.endpoint.stdio.env", env, store);
    }
}
