//! Which application and method a request means.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// Header that names the application; the whole path is then the method.
pub const APP_ID: &str = "dapr-app-id";
/// Before the application in the URL.
const PREFIX: &str = "/v1.0/invoke/";
/// Between application and method.
const METHOD: &str = "/method";

/// What a path segment may not contain as it is.
const RESERVED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'%');

/// Why a request cannot be invoked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("failed getting app id either from the URL path or the header dapr-app-id")]
    NoAppId,
    #[error("invalid app id {0:?}: expected <app id> or <app id>.<namespace>")]
    AppId(String),
    #[error("{0:?} is a URL: this release does not invoke HTTP endpoints outside the mesh")]
    External(String),
    #[error("method {0:?} contains characters that a method cannot have")]
    Method(String),
}

/// An application and a method of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub app_id: String,
    /// `None` is the caller's own.
    pub namespace: Option<String>,
    /// Decoded and cleaned, without a slash in front.
    pub method: String,
}

impl Target {
    /// Reads the target of a request from its header, its credentials or its path, in this order.
    ///
    /// # Errors
    /// When none of them names one, or what they name is not legal.
    pub fn of(path: &str, headers: &HeaderMap) -> Result<Self, Error> {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &http::HeaderValue| value.to_str().ok())
        };
        if let Some(app) = text(APP_ID).filter(|app| !app.is_empty()) {
            return Self::new(app, path);
        }
        if let Some(app) = text(header::AUTHORIZATION.as_str()).and_then(app_of_credentials) {
            return Self::new(&app, path);
        }
        let rest = path.strip_prefix(PREFIX).ok_or(Error::NoAppId)?;
        let (app, rest) = rest.split_once('/').ok_or(Error::NoAppId)?;
        let method = match format!("/{rest}").strip_prefix(METHOD) {
            Some("") => String::new(),
            Some(method) if method.starts_with('/') => method.to_owned(),
            _ => return Err(Error::NoAppId),
        };
        Self::new(&decode(app).ok_or_else(|| Error::AppId(app.to_owned()))?, &method)
    }

    /// The target of an id such as `cart` or `cart.shop`, and a method as it stands in a URL.
    ///
    /// # Errors
    /// When one of them is not legal.
    pub fn new(id: &str, method: &str) -> Result<Self, Error> {
        if id.contains("://") || id.starts_with("http:") || id.starts_with("https:") {
            return Err(Error::External(id.to_owned()));
        }
        let (app_id, namespace) = match id.split_once('.') {
            None => (id, None),
            Some((app, namespace)) if !namespace.is_empty() && !namespace.contains('.') => {
                (app, Some(namespace.to_owned()))
            }
            Some(_) => return Err(Error::AppId(id.to_owned())),
        };
        if app_id.is_empty() || app_id.contains('/') {
            return Err(Error::AppId(id.to_owned()));
        }
        let method = decode(method).ok_or_else(|| Error::Method(method.to_owned()))?;
        Ok(Self {
            app_id: app_id.to_owned(),
            namespace,
            method: clean(&method)?,
        })
    }
}

/// Whether the request's credentials only name the application, so that they must not travel on.
pub fn credentials_name_app(headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.and_then(app_of_credentials).is_some()
}

/// A method as the path of a URL.
pub fn path(method: &str) -> String {
    format!("/{}", utf8_percent_encode(method.trim_start_matches('/'), RESERVED))
}

/// Resolves `.` and `..`, and refuses characters that would let a method mean something else further on.
///
/// # Errors
/// Names the method.
pub fn clean(method: &str) -> Result<String, Error> {
    if method.chars().any(|c| matches!(c, '#' | '?') || c.is_control()) {
        return Err(Error::Method(method.to_owned()));
    }
    let mut segments = Vec::new();
    for segment in method.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    Ok(segments.join("/"))
}

fn app_of_credentials(value: &str) -> Option<String> {
    let encoded = value.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    text.strip_prefix(APP_ID)?
        .strip_prefix(':')
        .filter(|app| !app.is_empty())
        .map(str::to_owned)
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text)
        .decode_utf8()
        .ok()
        .map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, headers: &[(&'static str, &str)]) -> Result<Target, Error> {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        Target::of(path, &headers)
    }

    fn target(app_id: &str, namespace: Option<&str>, method: &str) -> Target {
        Target {
            app_id: app_id.into(),
            namespace: namespace.map(str::to_owned),
            method: method.into(),
        }
    }

    #[test]
    fn from_the_path() {
        assert_eq!(
            of("/v1.0/invoke/cart/method/items/1", &[]),
            Ok(target("cart", None, "items/1"))
        );
        assert_eq!(
            of("/v1.0/invoke/cart.shop/method/a%20b", &[]),
            Ok(target("cart", Some("shop"), "a b"))
        );
        assert_eq!(of("/v1.0/invoke/cart/method", &[]), Ok(target("cart", None, "")));
        for bad in [
            "/v1.0/invoke/cart",
            "/v1.0/invoke/cart/methods/x",
            "/v1.0/publish/x/y",
            "/",
        ] {
            assert_eq!(of(bad, &[]), Err(Error::NoAppId), "{bad}");
        }
    }

    #[test]
    fn from_header_and_credentials_the_whole_path_is_the_method() {
        assert_eq!(
            of("/items/1", &[("dapr-app-id", "cart")]),
            Ok(target("cart", None, "items/1"))
        );
        let credentials = format!("Basic {}", STANDARD.encode("dapr-app-id:cart"));
        assert_eq!(
            of("/items", &[("authorization", &credentials)]),
            Ok(target("cart", None, "items"))
        );
        let others = format!("Basic {}", STANDARD.encode("me:secret"));
        assert_eq!(of("/items", &[("authorization", &others)]), Err(Error::NoAppId));
    }

    #[test]
    fn methods_are_cleaned() {
        assert_eq!(
            of("/v1.0/invoke/cart/method/a/../../admin/./x", &[]).unwrap().method,
            "admin/x"
        );
        assert_eq!(of("/v1.0/invoke/cart/method/a%2f..%2Fb", &[]).unwrap().method, "b");
        for bad in ["a%3Fb", "a%23b", "a%00b", "a%0Ab", "%FF"] {
            assert!(
                matches!(
                    of(&format!("/v1.0/invoke/cart/method/{bad}"), &[]),
                    Err(Error::Method(_))
                ),
                "{bad}"
            );
        }
        assert_eq!(path("a b/100%"), "/a%20b/100%25");
    }

    #[test]
    fn ids_that_are_not_apps_are_refused() {
        assert!(matches!(of("/v1.0/invoke/a.b.c/method/x", &[]), Err(Error::AppId(_))));
        assert!(matches!(
            of("/v1.0/invoke/https:%2F%2Fexample.com/method/x", &[]),
            Err(Error::External(_))
        ));
        assert!(matches!(of("/x", &[("dapr-app-id", "a/b")]), Err(Error::AppId(_))));
    }
}
