//! What the chart installs beside its pods: accounts and their rights, which the programs run with, and the webhook.

use std::path::PathBuf;

use anyhow::Context;
use outrigger_testkit::ApiServer;
use serde_json::{Value, json};

use super::{Stage, objects::APP};
use crate::{command, release};

const WEBHOOK: &str = "MutatingWebhookConfiguration";
const RIGHTS: [&str; 5] = [
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
];

impl Stage {
    /// Applies accounts and rights; the webhook, for later.
    pub(super) async fn create_rights(&self) -> anyhow::Result<Value> {
        let values = json!({
            "dapr_operator": {"watchInterval": "10s"},
            "dapr_sidecar_injector": {
                "webhookFailurePolicy": "Fail",
                "objectSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": [APP]}]},
            },
        });
        let args = ["template", "dapr", "charts/dapr", "-n", &self.control_plane, "-f", "-"];
        let mut helm = self.access.helm_command(args);
        helm.current_dir(release::workspace());
        let rendered = command::run_with_input(helm, Some(&values.to_string())).await?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&rendered).context("the chart's objects")?;
        let (rights, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| {
            let kind = object["kind"].as_str();
            kind.is_some_and(|kind| RIGHTS.contains(&kind))
        });
        let rights = json!({"apiVersion": "v1", "kind": "List", "items": rights});
        self.access.apply_text(&self.control_plane, &rights.to_string()).await?;
        let mut webhook = others
            .into_iter()
            .find(|object| object["kind"] == WEBHOOK)
            .context("the chart has no webhook")?;
        // There is no Service in front of the injector that would translate.
        webhook["webhooks"][0]["clientConfig"]["service"]["port"] = self.injector.into();
        Ok(webhook)
    }

    /// A kubeconfig with an account's rights, and its token in a file, as pods have it.
    pub(super) async fn kubeconfig(&self, account: &str) -> anyhow::Result<PathBuf> {
        let server = ApiServer::shared().await;
        let content = self.token(&self.control_plane, account, &[], Value::Null).await?;
        let folder = self.folder.path();
        let (token, authority) = (
            folder.join(format!("{account}.api-token")),
            folder.join("api-server.crt"),
        );
        std::fs::write(&token, content)?;
        std::fs::write(&authority, server.authority_pem())?;
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": account,
            "clusters": [{"name": account, "cluster": {
                "server": server.server_url(), "certificate-authority": authority,
            }}],
            "contexts": [{"name": account, "context": {"cluster": account, "user": account}}],
            "users": [{"name": account, "user": {"tokenFile": token}}],
        });
        let file = folder.join(format!("{account}.kubeconfig"));
        std::fs::write(&file, config.to_string())?;
        Ok(file)
    }
}
