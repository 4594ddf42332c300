//! Headers on their way between applications: what is dropped, what is renamed, what is added.

use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use outrigger_proto::{common::http_extension::Verb, internals::ListStringValue};

/// Headers of one connection, which must not travel further.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "te",
    "trailer",
    "proxy-authorization",
    "proxy-authenticate",
];
/// Meant for this sidecar, or set anew by whoever writes the message.
const OURS: [&str; 5] = [
    "content-length",
    "host",
    "dapr-app-id",
    "dapr-api-token",
    "destination-app-id",
];

/// Header names that gRPC metadata carries with a prefix.
const PERMANENT: [&str; 13] = [
    "cache-control",
    "content-type",
    "cookie",
    "date",
    "expect",
    "from",
    "host",
    "max-forwards",
    "origin",
    "pragma",
    "referer",
    "via",
    "warning",
];

const CALLER_APP_ID: &str = "dapr-caller-app-id";
const CALLER_NAMESPACE: &str = "dapr-caller-namespace";
const CALLEE_APP_ID: &str = "dapr-callee-app-id";

/// Metadata of the internal protocol.
pub type Metadata = HashMap<String, ListStringValue>;

/// Who calls whom.
pub struct Route<'a> {
    pub caller: &'a str,
    pub caller_namespace: &'a str,
    /// Address and app id of this sidecar.
    pub host: &'a str,
    pub callee: &'a str,
}

/// Headers of a request or an answer, for the internal protocol.
pub fn to_metadata(headers: &HeaderMap) -> Metadata {
    let named = named_in_connection(headers);
    let mut metadata = Metadata::new();
    for (name, value) in headers {
        let name = name.as_str();
        if HOP_BY_HOP.contains(&name) || OURS.contains(&name) || named.iter().any(|other| other == name) {
            continue;
        }
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        metadata.entry(name.to_owned()).or_default().values.push(value);
    }
    metadata
}

/// Metadata of the internal protocol as headers of a request to an application, or of an answer to a caller.
/// What is not a legal header is dropped.
pub fn from_metadata(metadata: Metadata) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, list) in metadata {
        let name = name.to_ascii_lowercase();
        if HOP_BY_HOP.contains(&name.as_str()) || OURS.contains(&name.as_str()) || name.ends_with("-bin") {
            continue;
        }
        let name = match name.strip_prefix(':') {
            Some(pseudo) => format!("dapr-{pseudo}"),
            None if name.starts_with("grpc-") => format!("dapr-{name}"),
            None => name,
        };
        let Ok(name) = HeaderName::try_from(name) else { continue };
        for value in list.values {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.append(name.clone(), value);
            }
        }
    }
    headers
}

/// Headers for an application beside this sidecar.
pub fn local(headers: &HeaderMap) -> HeaderMap {
    from_metadata(to_metadata(headers))
}

/// Headers of an application's answer as metadata of a gRPC answer. Names that gRPC or proxies give a meaning are renamed.
pub fn to_grpc(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        let text = name.as_str();
        if HOP_BY_HOP.contains(&text) || text == "content-length" || text.ends_with("-bin") || text.starts_with("grpc-")
        {
            continue;
        }
        let permanent = PERMANENT.contains(&text) || text.starts_with("accept") || text.starts_with("if-");
        let renamed = if permanent {
            HeaderName::try_from(format!("dapr-{text}")).ok()
        } else {
            Some(name.clone())
        };
        if let Some(name) = renamed {
            metadata.append(name, value.clone());
        }
    }
    metadata
}

/// Tells the callee who calls. What a client claims about itself is overwritten.
pub fn add_route(metadata: &mut Metadata, route: &Route<'_>) {
    let set = |metadata: &mut Metadata, name: &str, value: &str| {
        metadata.insert(
            name.to_owned(),
            ListStringValue {
                values: vec![value.to_owned()],
            },
        );
    };
    set(metadata, CALLER_APP_ID, route.caller);
    set(metadata, CALLER_NAMESPACE, route.caller_namespace);
    set(metadata, CALLEE_APP_ID, route.callee);
    set(metadata, "destination-app-id", route.callee);
    let mut add = |name: &str, value: String| metadata.entry(name.to_owned()).or_default().values.push(value);
    add("x-forwarded-for", route.host.to_owned());
    add("x-forwarded-host", route.caller.to_owned());
    add(
        "forwarded",
        format!("for={0};by={0};host={1}", route.host, route.caller),
    );
}

/// Sets the content type that the message carries beside its headers.
pub fn set_content_type(headers: &mut HeaderMap, content_type: &str) {
    if let Ok(value) = HeaderValue::try_from(content_type)
        && !content_type.is_empty()
    {
        headers.insert(header::CONTENT_TYPE, value);
    }
}

pub fn content_type(headers: &HeaderMap) -> String {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

/// The verb of the internal protocol; `None` for methods that it does not know.
pub fn verb(method: &Method) -> Option<Verb> {
    Verb::from_str_name(method.as_str()).filter(|verb| *verb != Verb::None)
}

/// The method of a verb. A caller that names none means POST.
pub fn method(verb: i32) -> Option<Method> {
    match Verb::try_from(verb) {
        Ok(Verb::None) => Some(Method::POST),
        Ok(verb) => Method::from_bytes(verb.as_str_name().as_bytes()).ok(),
        Err(_) => None,
    }
}

fn named_in_connection(headers: &HeaderMap) -> Vec<String> {
    let values = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn what_belongs_to_one_connection_or_to_the_sidecar_stays_here() {
        let sent = headers(&[
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("host", "localhost"),
            ("content-length", "5"),
            ("dapr-api-token", "secret"),
            ("dapr-app-id", "cart"),
            ("accept", "a"),
            ("traceparent", "00-1"),
        ]);
        let metadata = to_metadata(&sent);
        let mut names: Vec<_> = metadata.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "traceparent"]);
    }

    #[test]
    fn names_that_http_cannot_carry_are_renamed_or_dropped() {
        let list = |value: &str| ListStringValue {
            values: vec![value.to_owned()],
        };
        let metadata = Metadata::from([
            (":authority".to_owned(), list("x")),
            ("grpc-timeout".to_owned(), list("1S")),
            ("grpc-trace-bin".to_owned(), list("b")),
            (
                "X-Two".to_owned(),
                ListStringValue {
                    values: vec!["1".into(), "2".into()],
                },
            ),
            ("bad name".to_owned(), list("x")),
            ("bad-value".to_owned(), list("a\nb")),
        ]);
        let headers = from_metadata(metadata);
        assert_eq!(headers["dapr-authority"], "x");
        assert_eq!(headers["dapr-grpc-timeout"], "1S");
        assert_eq!(headers.get_all("x-two").iter().count(), 2);
        assert_eq!(headers.len(), 4);
    }

    #[test]
    fn a_caller_cannot_claim_to_be_someone_else() {
        let mut metadata = to_metadata(&headers(&[
            ("dapr-caller-app-id", "admin"),
            ("x-forwarded-for", "1.2.3.4"),
        ]));
        add_route(
            &mut metadata,
            &Route {
                caller: "cart",
                caller_namespace: "shop",
                host: "10.0.0.1",
                callee: "till",
            },
        );
        assert_eq!(metadata[CALLER_APP_ID].values, ["cart"]);
        assert_eq!(metadata[CALLEE_APP_ID].values, ["till"]);
        assert_eq!(metadata["x-forwarded-for"].values, ["1.2.3.4", "10.0.0.1"]);
        assert_eq!(metadata["forwarded"].values, ["for=10.0.0.1;by=10.0.0.1;host=cart"]);
    }

    #[test]
    fn answers_over_grpc_rename_what_http_defines() {
        let metadata = to_grpc(&headers(&[
            ("content-type", "a/b"),
            ("x-mine", "1"),
            ("content-length", "5"),
            ("accept-ranges", "none"),
        ]));
        assert_eq!(
            (
                &metadata["dapr-content-type"],
                &metadata["x-mine"],
                &metadata["dapr-accept-ranges"]
            ),
            (&"a/b".parse().unwrap(), &"1".parse().unwrap(), &"none".parse().unwrap())
        );
        assert_eq!(metadata.len(), 3);
    }

    #[test]
    fn verbs() {
        assert_eq!(verb(&Method::PATCH), Some(Verb::Patch));
        assert_eq!(verb(&Method::from_bytes(b"BREW").unwrap()), None);
        assert_eq!(method(Verb::None.into()), Some(Method::POST));
        assert_eq!(method(Verb::Delete.into()), Some(Method::DELETE));
        assert_eq!(method(99), None);
    }
}
