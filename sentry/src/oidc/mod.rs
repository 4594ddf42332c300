//! OIDC discovery and the JWKS over HTTP, for those who verify JWT-SVIDs.

mod document;
mod server;
mod tls;

use std::path::PathBuf;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

use crate::jwt::CurrentMinter;
use document::{Base, Discovery};
pub(crate) use server::serve;

const DISCOVERY: &str = "/.well-known/openid-configuration";
const JWKS: &str = "/jwks.json";

/// What the flags say about the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OidcOptions {
    pub(crate) address: String,
    pub(crate) port: u16,
    /// Certificate chain and key.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    pub(crate) jwks_uri: Option<String>,
    /// Empty, or starts with a slash and does not end with one.
    pub(crate) path_prefix: String,
    pub(crate) allowed_hosts: AllowedHosts,
}

/// The hosts that may be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    /// A star or an empty list allows every host.
    pub(crate) fn new(hosts: &[String]) -> Self {
        let hosts: Vec<_> = hosts
            .iter()
            .map(|host| host.trim().to_owned())
            .filter(|host| !host.is_empty())
            .collect();
        match hosts.iter().any(|host| host == "*") {
            true => Self::default(),
            false => Self(hosts),
        }
    }

    /// Only a list of hosts makes a header of a proxy trustworthy: otherwise a caller could have any issuer written into the
    /// discovery document.
    fn trusts_proxies(&self) -> bool {
        !self.0.is_empty()
    }

    fn allows(&self, host: &str) -> bool {
        let port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let name = host
            .rsplit_once(':')
            .filter(|(_, rest)| port(rest))
            .map_or(host, |(name, _)| name);
        self.0.is_empty() || self.0.iter().any(|allowed| allowed == host || allowed == name)
    }
}

/// What the handler needs.
#[derive(Clone)]
pub(crate) struct Oidc {
    pub(crate) current: CurrentMinter,
    pub(crate) options: OidcOptions,
    pub(crate) jwt_issuer: Option<String>,
    pub(crate) algorithm: &'static str,
}

impl Oidc {
    fn router(self) -> Router {
        Router::new().fallback(answer).with_state(self)
    }

    /// Scheme and host under which the caller knows this server.
    fn base(&self, uri: &Uri, headers: &HeaderMap) -> Base {
        let forwarded = |name: &str| {
            let value = text(headers, name).filter(|value| !value.is_empty());
            value.filter(|_| self.options.allowed_hosts.trusts_proxies())
        };
        let own = if self.options.tls.is_some() { "https" } else { "http" };
        let scheme = uri
            .scheme_str()
            .or_else(|| {
                // The first of several proxies is the one that the caller sees.
                let scheme = forwarded("x-forwarded-proto")?.split(',').next()?.trim();
                ["http", "https"].into_iter().find(|known| *known == scheme)
            })
            .unwrap_or(own);
        Base {
            scheme: scheme.to_owned(),
            host: forwarded("x-forwarded-host").map_or_else(|| host(uri, headers).to_owned(), str::to_owned),
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// HTTP/2 has the host in the URI.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let of_uri = uri.authority().map(axum::http::uri::Authority::as_str);
    of_uri.or_else(|| text(headers, "host")).unwrap_or_default()
}

async fn answer(State(oidc): State<Oidc>, request: Request) -> Response {
    let (uri, headers) = (request.uri(), request.headers());
    let path = uri.path().strip_prefix(oidc.options.path_prefix.as_str());
    let Some(path) = path.filter(|path| [DISCOVERY, JWKS].contains(path)) else {
        return error(StatusCode::NOT_FOUND, "404 page not found");
    };
    let asked = text(headers, "x-forwarded-host")
        .filter(|host| !host.is_empty())
        .unwrap_or_else(|| host(uri, headers));
    if !oidc.options.allowed_hosts.allows(asked) {
        return error(StatusCode::FORBIDDEN, "Forbidden: unauthorized domain");
    }
    // HEAD as well, as upstream has it.
    if request.method() != Method::GET {
        return error(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
    }
    let Some(minter) = oidc.current.load_full() else {
        return match path {
            JWKS => error(StatusCode::NOT_FOUND, "JWKS not available"),
            _ => error(StatusCode::NOT_FOUND, "OIDC configuration not available"),
        };
    };
    if path == JWKS {
        return json(minter.jwks().to_owned());
    }
    let discovery = Discovery::new(
        &oidc.base(uri, headers),
        oidc.jwt_issuer.as_deref().filter(|issuer| !issuer.is_empty()),
        oidc.options.jwks_uri.as_deref(),
        &format!("{}{JWKS}", oidc.options.path_prefix),
        oidc.algorithm,
    );
    match discovery {
        Ok(discovery) => json(discovery.json()),
        Err(_) => error(StatusCode::BAD_REQUEST, "Invalid host"),
    }
}

fn json(mut body: String) -> Response {
    if !body.ends_with('\n') {
        body.push('\n');
    }
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
    ];
    (headers, body).into_response()
}

fn error(status: StatusCode, message: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, format!("{message}\n")).into_response()
}

#[cfg(test)]
mod tests;
