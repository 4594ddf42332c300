//! The settings of a component: templates, secrets and references to the environment become plain text.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::resources::component::{Component, Item};

/// Why the settings of a component cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("metadata {0:?} uses the template {{podName}}, but the environment variable POD_NAME is not set")]
    NoPodName(String),
    #[error("metadata {0:?} is a secret, but its value is not the base64 that the operator sends")]
    NotBase64(String),
    #[error(
        "metadata {item:?} refers to the secret {secret:?} in the secret store {store:?}, and this release has no secret stores"
    )]
    NoSecretStore {
        item: String,
        secret: String,
        store: String,
    },
    #[error("metadata {name:?}: {found:?} is not {expected}")]
    Value {
        name: String,
        found: String,
        expected: &'static str,
    },
}

/// What settings may refer to.
pub struct Context {
    pub app_id: String,
    pub namespace: String,
    pub pod_name: Option<String>,
    /// In Kubernetes mode the operator puts secrets of the store `kubernetes` into the values.
    pub kubernetes: bool,
    /// Names that `envRef` may use; `None` allows all but the reserved ones.
    pub env_keys: Option<Vec<String>>,
    /// Looks up an environment variable.
    pub env: fn(&str) -> Option<String>,
}

/// Settings by name; names are compared without case, as upstream does.
#[derive(Default)]
pub struct Properties(BTreeMap<String, Property>);

struct Property {
    text: String,
    /// Whether it comes from where secrets come from.
    hidden: bool,
}

impl Properties {
    /// Resolves all settings of `component`.
    ///
    /// # Errors
    /// The first setting that cannot be resolved.
    pub fn resolve(component: &Component, context: &Context) -> Result<Self, Error> {
        let mut properties = BTreeMap::new();
        for item in &component.spec.metadata {
            let text = text(item, &component.auth.secret_store, context)?;
            if let Some(text) = text {
                let property = Property {
                    text: templates(&item.name, &text, context)?,
                    hidden: item.secret_key_ref.is_some() || !item.env_ref.is_empty(),
                };
                properties.insert(item.name.to_lowercase(), property);
            }
        }
        Ok(Self(properties))
    }

    /// The value of `name`; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(&name.to_lowercase())
            .map(|property| property.text.as_str())
            .filter(|value| !value.is_empty())
    }

    /// The value of `name` for messages, which never show what may be a secret.
    pub fn shown(&self, name: &str) -> String {
        match self.0.get(&name.to_lowercase()) {
            Some(property) if property.hidden => "(a value that is not shown)".to_owned(),
            Some(property) => property.text.clone(),
            None => String::new(),
        }
    }
}

fn text(item: &Item, store: &str, context: &Context) -> Result<Option<String>, Error> {
    if let Some(secret) = item.secret_key_ref.as_ref().filter(|secret| !secret.name.is_empty()) {
        if !(context.kubernetes && matches!(store, "" | "kubernetes")) {
            return Err(Error::NoSecretStore {
                item: item.name.clone(),
                secret: secret.name.clone(),
                store: store.to_owned(),
            });
        }
        // The operator leaves the value out when the Secret lacks the key; upstream goes on without it.
        let Some(value) = &item.value else {
            tracing::warn!(
                metadata = item.name,
                secret = secret.name,
                key = secret.key,
                "the Secret has no such key"
            );
            return Ok(None);
        };
        let bytes = STANDARD
            .decode(value.text())
            .map_err(|_| Error::NotBase64(item.name.clone()))?;
        return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
    }
    match &item.value {
        Some(value) if !value.text().is_empty() => Ok(Some(value.text())),
        _ if !item.env_ref.is_empty() => Ok(from_env(&item.env_ref, context)),
        value => Ok(value.as_ref().map(crate::resources::component::Value::text)),
    }
}

/// Reserved names stay hidden from components, so that nobody reads the API tokens through one.
fn from_env(name: &str, context: &Context) -> Option<String> {
    let upper = name.to_uppercase();
    let reserved = upper == "APP_API_TOKEN" || upper.starts_with("DAPR_") || upper.contains(' ');
    let listed = context
        .env_keys
        .as_ref()
        .is_none_or(|keys| keys.iter().any(|key| key.to_uppercase() == upper));
    if reserved || !listed {
        tracing::warn!(variable = name, "a component may not read this environment variable");
        return None;
    }
    (context.env)(name)
}

fn templates(name: &str, text: &str, context: &Context) -> Result<String, Error> {
    if !text.contains('{') {
        return Ok(text.to_owned());
    }
    let mut out = text.to_owned();
    while out.contains("{uuid}") {
        out = out.replacen("{uuid}", &uuid::Uuid::new_v4().to_string(), 1);
    }
    if out.contains("{podName}") {
        let pod = context
            .pod_name
            .as_ref()
            .ok_or_else(|| Error::NoPodName(name.to_owned()))?;
        out = out.replace("{podName}", pod);
    }
    // Not the namespace alone: upstream's meaning.
    let namespaced = format!("{}.{}", context.namespace, context.app_id);
    Ok(out
        .replace("{namespace}", &namespaced)
        .replace("{appID}", &context.app_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            app_id: "cart".into(),
            namespace: "shop".into(),
            pod_name: Some("cart-0".into()),
            kubernetes: true,
            env_keys: None,
            env: |name| Some(format!("env of {name}")),
        }
    }

    fn component(items: &str, store: &str) -> Component {
        let json = format!(r#"{{"spec":{{"type":"x","metadata":{items}}},"auth":{{"secretStore":"{store}"}}}}"#);
        Component::from_json(json.as_bytes()).unwrap()
    }

    fn resolve(items: &str, store: &str, context: &Context) -> Result<Properties, Error> {
        Properties::resolve(&component(items, store), context)
    }

    #[test]
    fn templates_are_filled() {
        let items = r#"[{"name":"ID","value":"{appID}-{podName}-{namespace}"},{"name":"u","value":"{uuid}{uuid}"},{"name":"n","value":5}]"#;
        let properties = resolve(items, "", &context()).unwrap();
        assert_eq!(properties.get("id"), Some("cart-cart-0-shop.cart"));
        assert_eq!(properties.get("n"), Some("5"));
        let both = properties.get("u").unwrap();
        assert_eq!(both.len(), 72);
        assert_ne!(both[..36], both[36..], "each {{uuid}} is another one");
        let error = resolve(
            items,
            "",
            &Context {
                pod_name: None,
                ..context()
            },
        )
        .err()
        .unwrap();
        assert_eq!(error, Error::NoPodName("ID".into()));
    }

    #[test]
    fn secrets_come_decoded_from_the_operator() {
        let items = r#"[{"name":"p","value":"aHVudGVyMQ==","secretKeyRef":{"name":"s","key":"k"}},{"name":"q","secretKeyRef":{"name":"s"}}]"#;
        let properties = resolve(items, "", &context()).unwrap();
        assert_eq!((properties.get("p"), properties.get("q")), (Some("hunter1"), None));
        assert!(
            resolve(items, "vault", &context())
                .err()
                .unwrap()
                .to_string()
                .contains("secret store \"vault\"")
        );
        assert!(
            resolve(
                items,
                "",
                &Context {
                    kubernetes: false,
                    ..context()
                }
            )
            .is_err()
        );
        let broken = r#"[{"name":"p","value":"hunter1!","secretKeyRef":{"name":"s"}}]"#;
        assert_eq!(
            resolve(broken, "", &context()).err(),
            Some(Error::NotBase64("p".into()))
        );
    }

    #[test]
    fn the_environment_is_read_only_as_far_as_allowed() {
        let items = r#"[{"name":"a","envRef":"HOME"},{"name":"b","envRef":"dapr_api_token"},{"name":"c","envRef":"App_Api_Token"},
            {"name":"d","value":"given","envRef":"HOME"}]"#;
        let properties = resolve(items, "", &context()).unwrap();
        assert_eq!(properties.get("a"), Some("env of HOME"));
        assert_eq!((properties.get("b"), properties.get("c")), (None, None));
        assert_eq!(properties.get("d"), Some("given"));
        let limited = Context {
            env_keys: Some(vec!["PATH".into()]),
            ..context()
        };
        assert_eq!(resolve(items, "", &limited).unwrap().get("a"), None);
    }
}
