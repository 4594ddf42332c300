use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use tower::ServiceExt;

use super::{AllowedHosts, Oidc, OidcOptions};
use crate::jwt::{CurrentMinter, tests::minter};

fn oidc(hosts: &[&str], prefix: &str) -> Oidc {
    let current = CurrentMinter::default();
    current.store(Some(Arc::new(minter(None))));
    Oidc {
        current,
        options: OidcOptions {
            address: String::new(),
            port: 0,
            tls: None,
            jwks_uri: None,
            path_prefix: prefix.to_owned(),
            allowed_hosts: AllowedHosts::new(&hosts.iter().map(ToString::to_string).collect::<Vec<_>>()),
        },
        jwt_issuer: None,
        algorithm: "ES256",
    }
}

/// Status, headers of interest, body.
async fn ask(oidc: &Oidc, method: &str, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String, String) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = oidc
        .clone()
        .router()
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    let cache = answer
        .headers()
        .get("cache-control")
        .map(|value| value.to_str().unwrap().to_owned());
    let status = answer.status();
    let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    // The answer to HEAD has no body.
    assert!(
        method == "HEAD" || (body.ends_with('\n') && !body.ends_with("\n\n")),
        "{body:?}"
    );
    (status, format!("{kind} {}", cache.unwrap_or_default()), body)
}

const HOST: (&str, &str) = ("host", "sentry:9080");
const DISCOVERY: &str = "/.well-known/openid-configuration";

#[tokio::test]
async fn serves_both_documents() {
    let oidc = oidc(&[], "");
    let (status, headers, body) = ask(&oidc, "GET", "/jwks.json", &[HOST]).await;
    assert_eq!(
        (status, headers.as_str()),
        (StatusCode::OK, "application/json public, max-age=3600")
    );
    assert_eq!(body.trim_end(), oidc.current.load_full().unwrap().jwks());
    let (status, _, body) = ask(&oidc, "GET", DISCOVERY, &[HOST]).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        body.starts_with(r#"{"issuer":"http://sentry:9080","jwks_uri":"http://sentry:9080/jwks.json","#),
        "{body}"
    );
}

#[tokio::test]
async fn refusals_say_why() {
    let allowed = oidc(&["good.example"], "");
    for (method, path, headers, status, text) in [
        ("HEAD", "/jwks.json", &[("host", "good.example")][..], 405, ""),
        (
            "POST",
            DISCOVERY,
            &[("host", "good.example:1")],
            405,
            "Method not allowed\n",
        ),
        (
            "POST",
            DISCOVERY,
            &[("host", "bad.example")],
            403,
            "Forbidden: unauthorized domain\n",
        ),
        (
            "GET",
            DISCOVERY,
            &[("host", "good.example"), ("x-forwarded-host", "bad.example")],
            403,
            "Forbidden: unauthorized domain\n",
        ),
        (
            "GET",
            "/other",
            &[("host", "good.example")],
            404,
            "404 page not found\n",
        ),
    ] {
        let (found, kind, body) = ask(&allowed, method, path, headers).await;
        assert_eq!((found.as_u16(), body.as_str()), (status, text), "{method} {path}");
        assert_eq!(kind, "text/plain; charset=utf-8 ");
    }
    let (status, _, body) = ask(&oidc(&[], ""), "GET", DISCOVERY, &[("host", "a b")]).await;
    assert_eq!((status.as_u16(), body.as_str()), (400, "Invalid host\n"));

    let empty = oidc(&[], "");
    empty.current.store(None);
    assert_eq!(
        ask(&empty, "GET", "/jwks.json", &[HOST]).await.2,
        "JWKS not available\n"
    );
    let (status, _, body) = ask(&empty, "GET", DISCOVERY, &[HOST]).await;
    assert_eq!(
        (status.as_u16(), body.as_str()),
        (404, "OIDC configuration not available\n")
    );
}

#[tokio::test]
async fn headers_of_proxies_count_only_with_a_list_of_hosts() {
    let forwarded = [
        HOST,
        ("x-forwarded-host", "public.example"),
        ("x-forwarded-proto", "https"),
    ];
    for hosts in [&[][..], &["*"], &["public.example", "*"]] {
        let (_, _, body) = ask(&oidc(hosts, ""), "GET", DISCOVERY, &forwarded).await;
        assert!(
            body.starts_with(r#"{"issuer":"http://sentry:9080","#),
            "{hosts:?} {body}"
        );
    }
    let (_, _, body) = ask(&oidc(&["public.example"], ""), "GET", DISCOVERY, &forwarded).await;
    assert!(body.starts_with(r#"{"issuer":"https://public.example","#), "{body}");
}

#[tokio::test]
async fn a_prefix_moves_both_documents() {
    let oidc = oidc(&[], "/a/b");
    let (_, _, body) = ask(&oidc, "GET", "/a/b/.well-known/openid-configuration", &[HOST]).await;
    assert!(
        body.contains(r#""jwks_uri":"http://sentry:9080/a/b/jwks.json""#),
        "{body}"
    );
    assert_eq!(ask(&oidc, "GET", "/a/b/jwks.json", &[HOST]).await.0, StatusCode::OK);
    assert_eq!(ask(&oidc, "GET", "/jwks.json", &[HOST]).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn no_header_brings_a_foreign_host_into_the_document() {
    let allowed = oidc(&["idp.example.com"], "");
    let (status, _, _) = ask(
        &allowed,
        "GET",
        DISCOVERY,
        &[("host", "idp.example.com:x@idp.example.co")],
    )
    .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    for (scheme, expected) in [
        ("https", "https"),
        ("https, http", "https"),
        ("https://evil.example/", "http"),
    ] {
        let headers = [("host", "idp.example.com"), ("x-forwarded-proto", scheme)];
        let (status, _, body) = ask(&allowed, "GET", DISCOVERY, &headers).await;
        assert_eq!(status, StatusCode::OK);
        let issuer = format!(r#"{{"issuer":"{expected}://idp.example.com","#);
        assert!(body.starts_with(&issuer) && !body.contains("evil"), "{body}");
    }
}
