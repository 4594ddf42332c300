//! Environment of the sidecar.

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, SecretKeySelector};

use super::volumes::TRUST_ANCHORS_FILE;
use crate::{settings::Settings, sidecar::Sidecar};

/// Where the sidecar finds the sockets of pluggable components, and where those put them.
pub const COMPONENT_SOCKETS_FOLDER: &str = "DAPR_COMPONENT_SOCKETS_FOLDER";

/// The key that upstream reads tokens under.
const TOKEN_KEY: &str = "token";

/// An environment, and what it says beside its variables.
pub struct Environment {
    pub variables: Vec<EnvVar>,
    /// The user gave the sidecar a folder of certificates, which upstream takes for a Windows pod.
    pub has_certificate_folder: bool,
}

/// Later variables of the same name win, so users can override what comes before theirs.
pub fn environment(
    sidecar: &Sidecar<'_>,
    settings: &Settings,
    namespace: &str,
    trust_anchors: &str,
    component_sockets: bool,
) -> Environment {
    let mut variables = vec![
        variable("NAMESPACE", namespace),
        variable("DAPR_TRUST_ANCHORS", trust_anchors),
        from_field("POD_NAME", "metadata.name"),
        variable("DAPR_CONTROLPLANE_NAMESPACE", &settings.namespace),
        variable("DAPR_CONTROLPLANE_TRUST_DOMAIN", &settings.trust_domain),
    ];
    if settings.trust_anchors_config_map.is_some() {
        // Not the flag: released sidecars of upstream do not know it, and would not start.
        variables.push(variable("DAPR_TRUST_ANCHORS_FILE", TRUST_ANCHORS_FILE));
    }
    if settings.downward_apis {
        variables.push(from_field("DAPR_HOST_IP", "status.podIP"));
    }
    let mut names = Vec::new();
    for (name, value) in assignments(sidecar.env) {
        names.push(name);
        variables.push(variable(name, value));
    }
    for (name, value) in assignments(sidecar.env_from_secret) {
        names.push(name);
        variables.extend(secret_reference(value).map(|(secret, key)| from_secret(name, secret, key)));
    }
    if !names.is_empty() {
        variables.push(variable("DAPR_ENV_KEYS", &names.join(" ")));
    }
    let has_certificate_folder = variables.iter().any(|variable| variable.name == "SSL_CERT_DIR");
    if component_sockets {
        variables.push(variable(COMPONENT_SOCKETS_FOLDER, sidecar.component_sockets_folder));
    }
    for (name, secret) in [
        ("DAPR_API_TOKEN", sidecar.api_token_secret),
        ("APP_API_TOKEN", sidecar.app_token_secret),
    ] {
        if !secret.is_empty() {
            variables.push(from_secret(name, secret, TOKEN_KEY));
        }
    }
    Environment {
        variables,
        has_certificate_folder,
    }
}

pub fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()).filter(|value| !value.is_empty()),
        ..EnvVar::default()
    }
}

fn from_field(name: &str, path: &str) -> EnvVar {
    let source = EnvVarSource {
        field_ref: Some(ObjectFieldSelector {
            field_path: path.to_owned(),
            ..ObjectFieldSelector::default()
        }),
        ..EnvVarSource::default()
    };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(source),
        ..EnvVar::default()
    }
}

fn from_secret(name: &str, secret: &str, key: &str) -> EnvVar {
    let source = EnvVarSource {
        secret_key_ref: Some(SecretKeySelector {
            name: secret.to_owned(),
            key: key.to_owned(),
            optional: None,
        }),
        ..EnvVarSource::default()
    };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(source),
        ..EnvVar::default()
    }
}

/// Name and value of each entry; entries without `=` are dropped.
pub fn assignments(text: &str) -> impl Iterator<Item = (&str, &str)> {
    entries(text).filter_map(|entry| entry.split_once('='))
}

/// The entries of a list, trimmed. A comma separates only when an identifier and `=` follow: other commas belong to the value.
pub fn entries(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let separator = text
            .match_indices(',')
            .map(|(at, _)| at)
            .find(|at| starts_assignment(&text[at + 1..]));
        let entry = match separator {
            Some(at) => {
                rest = Some(&text[at + 1..]);
                &text[..at]
            }
            None => {
                rest = None;
                text
            }
        };
        Some(entry.trim())
    })
}

/// `[A-Za-z_][A-Za-z0-9_]*=` behind optional white space. Looks no further than the next comma, so that a text is read twice at
/// most, however many commas it has.
fn starts_assignment(text: &str) -> bool {
    let text = text.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
    let behind = text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && behind.starts_with('=')
}

/// Secret and key: `name:key`, or one text for both. `None` when there are more colons.
pub fn secret_reference(value: &str) -> Option<(&str, &str)> {
    let value = value.trim();
    match value.split_once(':') {
        None => Some((value, value)),
        Some((_, key)) if key.contains(':') => None,
        Some((name, key)) => Some((name.trim(), key.trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(&str, &str)> {
        assignments(text).collect()
    }

    #[test]
    fn commas_separate_only_before_an_assignment() {
        assert_eq!(
            pairs(r#"A=1, OTEL=k=v,l=w x,B="q""#),
            [("A", "1"), ("OTEL", "k=v"), ("l", "w x"), ("B", "\"q\"")]
        );
        let attributes = "OTEL_RESOURCE_ATTRIBUTES=service.name=a,k8s.pod.name=b";
        assert_eq!(
            pairs(attributes),
            [("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,k8s.pod.name=b")]
        );
        assert_eq!(pairs("A=,B=,C= x "), [("A", ""), ("B", ""), ("C", " x")]);
        assert_eq!(pairs("A=1,,B=2"), [("A", "1,"), ("B", "2")]);
        assert_eq!(pairs("A=1,9B=2"), [("A", "1,9B=2")]);
        assert_eq!(pairs("nothing"), []);
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("x,A=1"), [("A", "1")]);
        assert_eq!(pairs("A=1,=2, =3,_b9\t=4"), [("A", "1,=2, =3,_b9\t=4")]);
        assert_eq!(pairs("A=1,\t\r\n _b9=4"), [("A", "1"), ("_b9", "4")]);
    }

    /// Looking behind each comma for an `=` anywhere would take hours.
    #[test]
    fn long_texts_take_no_longer_than_their_length() {
        const SIZE: usize = 1 << 20;
        assert_eq!(pairs(&",".repeat(SIZE)), []);
        assert_eq!(pairs(&", ".repeat(SIZE / 2)), []);
        assert_eq!(pairs(&",a".repeat(SIZE / 2)), []);
        assert_eq!(pairs(&",a=".repeat(SIZE / 3)).len(), SIZE / 3);
        let spaces = format!("A=1,{}", " ".repeat(SIZE));
        assert_eq!(pairs(&spaces).len(), 1);
    }

    #[test]
    fn secrets_are_named_once_or_with_a_key() {
        assert_eq!(secret_reference(" s "), Some(("s", "s")));
        assert_eq!(secret_reference("s : k"), Some(("s", "k")));
        assert_eq!(secret_reference("s:k:x"), None);
    }
}
