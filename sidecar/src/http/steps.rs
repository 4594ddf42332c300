//! What happens to every request before its handler sees it.

use std::time::Instant;

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::Limited;

use super::Api;
use crate::app::channel::TOKEN_HEADER;

const HEALTHZ: &str = "/v1.0/healthz";
const OUTBOUND: &str = "/v1.0/healthz/outbound";

/// Collapses repeated slashes and drops one at the end, before a route is chosen; limits the body.
pub fn prepare<B>(mut request: Request<B>, max_body: usize) -> Request
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    if let Some(uri) = normal(request.uri()) {
        *request.uri_mut() = uri;
    }
    request.map(|body| Body::new(Limited::new(body, max_body)))
}

/// Refuses callers without the token. Health is exempt, so that probes need none.
pub async fn check_token(State(api): State<Api>, request: Request, next: Next) -> Response {
    let exempt = request.method() == Method::GET && matches!(request.uri().path(), HEALTHZ | OUTBOUND);
    if let Some(expected) = api.token.as_deref().filter(|_| !exempt) {
        let presented = request
            .headers()
            .get(TOKEN_HEADER)
            .map(http::HeaderValue::as_bytes)
            .unwrap_or_default();
        if !same(presented, expected.as_bytes()) {
            return (StatusCode::UNAUTHORIZED, "invalid api token").into_response();
        }
    }
    next.run(request).await
}

/// Refuses headers beyond the limit. The connection's own buffer cannot be made that small.
pub async fn check_header_size(State(api): State<Api>, request: Request, next: Next) -> Response {
    let size: usize = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    // A few bytes of room, as Go's server leaves.
    if size > api.max_header + 4096 {
        return (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers are too large (--read-buffer-size)",
        )
            .into_response();
    }
    next.run(request).await
}

/// Counts and logs.
pub async fn measure(State(api): State<Api>, matched: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    let label = label(&api, matched.as_ref().map(MatchedPath::as_str), request.uri().path());
    let health = matches!(request.uri().path(), HEALTHZ | OUTBOUND);
    let log = (api.logging.enabled && !(health && api.logging.omit_health_checks)).then(|| {
        let shown = if api.logging.obfuscate_urls {
            label.clone()
        } else {
            request.uri().path().to_owned()
        };
        let agent = request
            .headers()
            .get(header::USER_AGENT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        (format!("{method} {shown}"), agent.to_owned())
    });
    let response = next.run(request).await;
    let (status, took) = (response.status().as_u16(), start.elapsed());
    api.metrics.http(verb(&method), &label, status, took);
    if let Some((method, useragent)) = log {
        let duration = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(method, useragent, code = status, duration, "HTTP API Called");
    }
    response
}

/// The label `path`: as upstream writes it for loaded stores, the route for everything else. What callers make up is no label.
fn label(api: &Api, matched: Option<&str>, path: &str) -> String {
    match matched {
        Some(route) if route.starts_with("/v1.0/state/") => {
            let store = path
                .strip_prefix("/v1.0/state/")
                .and_then(|rest| rest.split('/').next());
            match store.filter(|store| api.state.store(store).is_ok()) {
                Some(store) => format!("/v1.0/state/{store}"),
                None => route.to_owned(),
            }
        }
        Some("/v1.0/invoke/{*target}") => "/v1.0/invoke/{id}/method/{method}".to_owned(),
        Some(route) => route.to_owned(),
        None => String::new(),
    }
}

fn verb(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS => {
            method.as_str()
        }
        _ => "UNKNOWN",
    }
}

/// `None` when the path is normal already.
fn normal(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let trailing = path.len() > 1 && path.ends_with('/');
    if !path.contains("//") && !trailing {
        return None;
    }
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if !(c == '/' && out.ends_with('/')) {
            out.push(c);
        }
    }
    if out.len() > 1 && out.ends_with('/') {
        out.pop();
    }
    if let Some(query) = uri.query() {
        out = format!("{out}?{query}");
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(out).ok()?);
    Uri::from_parts(parts).ok()
}

/// Compares without telling through its duration where the first difference is.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differences, (x, y)| differences | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised() {
        let normal = |text: &str| super::normal(&text.parse().unwrap()).map(|uri| uri.to_string());
        assert_eq!(normal("/v1.0//state///x/"), Some("/v1.0/state/x".into()));
        assert_eq!(normal("/v1.0/x/?a=//"), Some("/v1.0/x?a=//".into()));
        assert_eq!(normal("/v1.0/x?a=b"), None);
        assert_eq!(normal("/"), None);
        assert_eq!(normal("//"), Some("/".into()));
    }

    #[test]
    fn tokens() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abd", b"abc") && !same(b"ab", b"abc") && !same(b"", b"abc"));
    }
}
