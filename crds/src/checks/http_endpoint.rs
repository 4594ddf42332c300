//! HTTPEndpoint.

use super::{Findings, Problem, shared::has_host};
use crate::{
    DaprResource, HTTPEndpoint, SecretStore,
    http_endpoint::{Tls, TlsDocument},
    rules::warnings,
};

pub(crate) fn http_endpoint(endpoint: &HTTPEndpoint) -> Vec<Problem> {
    let mut findings = Findings::default();
    let store = endpoint.secret_store();
    if !has_host(&endpoint.spec.base_url, &["http", "https"]) {
        findings.url(&warnings::ENDPOINT_URL, "spec.baseUrl", &endpoint.spec.base_url);
    }
    findings.pairs(
        "spec.headers",
        endpoint.spec.headers.as_deref().unwrap_or_default(),
        store,
    );
    if let Some(tls) = &endpoint.spec.client_tls {
        findings.tls(tls, store);
    }
    findings.scopes(&endpoint.scopes);
    findings.0
}

impl Findings {
    fn tls(&mut self, tls: &Tls, store: SecretStore<'_>) {
        let documents = [
            ("rootCA", &tls.root_ca),
            ("certificate", &tls.certificate),
            ("privateKey", &tls.private_key),
        ];
        for (item, document) in documents {
            if let Some(document) = document {
                self.document(&format!("spec.clientTLS.{item}"), document, store);
            }
        }
        if tls.root_ca.is_none() && tls.private_key.is_none() {
            self.field(&warnings::TLS_EMPTY, "spec.clientTLS");
        }
        match (&tls.certificate, &tls.private_key) {
            (None, Some(_)) => self.field(&warnings::TLS_NO_CERTIFICATE, "spec.clientTLS"),
            (Some(_), None) => self.field(&warnings::TLS_NO_KEY, "spec.clientTLS"),
            _ => {}
        }
    }

    fn document(&mut self, field: &str, document: &TlsDocument, store: SecretStore<'_>) {
        match (&document.value, &document.secret_key_ref) {
            (None, None) => self.field(&warnings::TLS_DOCUMENT, field),
            (Some(_), Some(_)) => self.field(&warnings::TLS_BOTH, field),
            (Some(value), None) if !value.text().contains("-----BEGIN ") => self.field(&warnings::TLS_NOT_PEM, field),
            _ => {}
        }
        if let Some(secret) = &document.secret_key_ref {
            self.secret(field, secret, store);
        }
    }
}
