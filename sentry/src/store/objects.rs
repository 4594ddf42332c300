//! The Secret and the ConfigMap `dapr-trust-bundle`: read and updated, never created. Every update carries the version that was
//! read, so that of several replicas one wins and the others notice.

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{Api, Client, api::PostParams};
use outrigger_core::control_plane::TRUST_BUNDLE;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::{Published, StoreError};

/// Both objects, in the control plane's namespace.
#[derive(Clone)]
pub(crate) struct TrustBundle {
    client: Client,
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    namespace: String,
}

impl TrustBundle {
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client.clone(), namespace),
            client,
            namespace: namespace.to_owned(),
        }
    }

    /// For people: `Secret dapr-system/dapr-trust-bundle`.
    pub(crate) fn name(&self, kind: &str) -> String {
        format!("{kind} {}/{TRUST_BUNDLE}", self.namespace)
    }

    /// # Errors
    /// When it does not exist or the API server refuses.
    pub(crate) async fn secret(&self) -> Result<Secret, StoreError> {
        let secret = self.secrets.get(TRUST_BUNDLE).await;
        secret.map_err(|error| explain("read", &self.name("Secret"), error))
    }

    /// What time it is at the API server, to the second; `None` when its answers do not say.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn time(&self) -> Result<Option<OffsetDateTime>, StoreError> {
        // Every answer has the time, also one that refuses.
        let mut request = http::Request::new(kube::client::Body::empty());
        *request.uri_mut() = http::Uri::from_static("/version");
        let answer = self.client.send(request).await;
        let answer = answer.map_err(|error| explain("read", "the API server's clock", error))?;
        let date = answer.headers().get(http::header::DATE);
        let date = date.and_then(|date| date.to_str().ok());
        Ok(date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok()))
    }

    /// The text of one key; a key with nothing in it is as good as none.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub(crate) fn text(&self, secret: &Secret, key: &str) -> Result<Option<String>, StoreError> {
        match secret.data.as_ref().and_then(|data| data.get(key)) {
            Some(ByteString(bytes)) if !bytes.is_empty() => {
                String::from_utf8(bytes.clone())
                    .map(Some)
                    .map_err(|_| StoreError::NotText {
                        object: self.name("Secret"),
                        key: key.to_owned(),
                    })
            }
            _ => Ok(None),
        }
    }

    /// Stores `secret`, unless somebody changed it since it was read: then nothing is written and the answer is `false`.
    ///
    /// # Errors
    /// When the API server refuses.
    pub(crate) async fn update_secret(&self, secret: &Secret) -> Result<bool, StoreError> {
        match self.secrets.replace(TRUST_BUNDLE, &PostParams::default(), secret).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
            Err(error) => Err(explain("update", &self.name("Secret"), error)),
        }
    }

    /// Makes the ConfigMap carry `text` under `key`, unless what it has is as good.
    ///
    /// # Errors
    /// When the ConfigMap does not exist or the API server refuses.
    pub(crate) async fn heal_config_map(
        &self,
        key: &str,
        text: &str,
        is_as_good: impl FnOnce(&str) -> bool,
    ) -> Result<Published, StoreError> {
        let object = self.name("ConfigMap");
        let map = self.config_maps.get(TRUST_BUNDLE).await;
        let mut map = map.map_err(|error| explain("read", &object, error))?;
        let data = map.data.get_or_insert_default();
        if data.get(key).is_some_and(|current| is_as_good(current)) {
            return Ok(Published::AlreadyRight);
        }
        data.insert(key.to_owned(), text.to_owned());
        match self
            .config_maps
            .replace(TRUST_BUNDLE, &PostParams::default(), &map)
            .await
        {
            Ok(_) => Ok(Published::Written),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(Published::Conflict),
            Err(error) => Err(explain("update", &object, error)),
        }
    }
}

fn explain(action: &'static str, object: &str, error: kube::Error) -> StoreError {
    match error {
        kube::Error::Api(status) if status.is_not_found() => StoreError::Missing {
            object: object.to_owned(),
        },
        error => StoreError::Api {
            action,
            object: object.to_owned(),
            source: Box::new(error),
        },
    }
}
