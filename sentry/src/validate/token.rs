//! What a service account token says about its pod. Its signature is the API server's business, which has already vouched
//! for it when these functions are called.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

/// The pod that a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BoundPod {
    pub(super) name: String,
    /// Absent in tokens that only look like one.
    pub(super) uid: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<KubernetesClaim>,
}

#[derive(Deserialize)]
struct KubernetesClaim {
    pod: Option<PodClaim>,
}

#[derive(Deserialize)]
struct PodClaim {
    name: Option<String>,
    uid: Option<String>,
}

/// Reads the claim of a compact JWS, or of a bare JSON object of claims, which upstream accepts as well.
pub(super) fn bound_pod(token: &str) -> Result<BoundPod, String> {
    let unreadable = |reason: String| format!("failed to parse Kubernetes token: {reason}");
    let token = token.trim();
    let claims: Claims = if token.starts_with('{') {
        serde_json::from_str(token).map_err(|error| unreadable(error.to_string()))?
    } else {
        let mut parts = token.split('.');
        let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(unreadable("expected three parts separated by dots".to_owned()));
        };
        let payload = URL_SAFE_NO_PAD
            .decode(payload.trim_end_matches('='))
            .map_err(|error| unreadable(format!("payload is not base64: {error}")))?;
        serde_json::from_slice(&payload).map_err(|error| unreadable(error.to_string()))?
    };
    let pod = claims.kubernetes.and_then(|claim| claim.pod);
    match pod {
        Some(PodClaim { name: Some(name), uid }) if !name.is_empty() => Ok(BoundPod { name, uid }),
        _ => Err("kubernetes.io/pod/name claim is missing from Kubernetes token".to_owned()),
    }
}

/// Namespace and name of `system:serviceaccount:<namespace>:<name>`.
pub(super) fn service_account(username: &str) -> Result<(&str, &str), String> {
    let parts: Vec<_> = username.split(':').collect();
    match parts[..] {
        ["system", "serviceaccount", namespace, name] => Ok((namespace, name)),
        _ => Err("provided token is not a properly structured service account token".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMS: &str = r#"{"aud":["x"],"kubernetes.io":{"namespace":"shop","pod":{"name":"cart-1","uid":"u"}}}"#;

    #[test]
    fn reads_tokens_and_bare_claims() {
        let expected = BoundPod {
            name: "cart-1".into(),
            uid: Some("u".into()),
        };
        assert_eq!(bound_pod(CLAIMS).unwrap(), expected);
        let jws = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(CLAIMS));
        assert_eq!(bound_pod(&jws).unwrap(), expected);
    }

    #[test]
    fn says_what_is_missing() {
        assert!(
            bound_pod("abc")
                .unwrap_err()
                .starts_with("failed to parse Kubernetes token")
        );
        assert!(bound_pod("a.!!.c").unwrap_err().contains("base64"));
        assert!(bound_pod(r#"{"sub":"x"}"#).unwrap_err().contains("claim is missing"));
    }

    #[test]
    fn only_service_accounts_are_accepted() {
        assert_eq!(
            service_account("system:serviceaccount:shop:default").unwrap(),
            ("shop", "default")
        );
        for name in [
            "admin",
            "system:node:a:b",
            "system:serviceaccount:shop",
            "system:serviceaccount:a:b:c",
        ] {
            assert!(service_account(name).is_err(), "{name}");
        }
    }
}
