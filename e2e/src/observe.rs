//! What can be seen of apps and their sidecars from outside, and waiting for it: conditions with one generous deadline.

use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams, PostParams},
};
use outrigger_core::annotations::LABEL_INJECTED;
use serde_json::{Value, json};

use crate::sample;

/// Everything that is waited for happens within seconds; this is for slow machines.
const DEADLINE: Duration = Duration::from_secs(180);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(3);

/// One namespace of a cluster.
#[derive(Clone)]
pub struct Observer {
    pub client: Client,
    pub namespace: String,
}

impl Observer {
    pub fn new(client: Client, namespace: impl Into<String>) -> Self {
        Self {
            client,
            namespace: namespace.into(),
        }
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until a pod of the app runs with a ready sidecar, and names it.
    ///
    /// # Errors
    /// What was waited for in vain.
    pub async fn pod_with_sidecar(&self, app: &str) -> anyhow::Result<String> {
        let (pods, list) = (self.pods(), ListParams::default().labels(&format!("app={app}")));
        within(&format!("a pod of {app} with a ready sidecar"), async || {
            let found = pods.list(&list).await?.items.into_iter().find(has_ready_sidecar);
            Ok(found.map(|pod| pod.name_any()))
        })
        .await
    }

    /// Restarts of all containers of a pod, native sidecars and other init containers included.
    ///
    /// # Errors
    /// When there is no such pod.
    pub async fn restarts(&self, pod: &str) -> anyhow::Result<i32> {
        let status = self.pods().get(pod).await?.status.unwrap_or_default();
        let statuses = [status.init_container_statuses, status.container_statuses];
        let all = statuses.iter().flatten().flatten();
        Ok(all.map(|status| status.restart_count).sum())
    }

    /// Names of the components that the sidecar of a pod has loaded, sorted.
    ///
    /// # Errors
    /// When the sidecar does not answer.
    pub async fn components(&self, pod: &str) -> anyhow::Result<Vec<String>> {
        let metadata: Value =
            serde_json::from_str(&self.get(pod, 3501, "/v1.0/metadata").await?).context("metadata")?;
        let listed = metadata["components"].as_array().into_iter().flatten();
        let mut names: Vec<_> = listed
            .filter_map(|component| component["name"].as_str().map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Waits until the sidecar's components are as wanted; answers when that was, and their names.
    ///
    /// # Errors
    /// What was waited for in vain.
    pub async fn until_components(
        &self,
        pod: &str,
        wanted: impl Fn(&[String]) -> bool,
    ) -> anyhow::Result<(Instant, Vec<String>)> {
        within("the sidecar's metadata to follow", async || {
            let names = self.components(pod).await?;
            Ok(wanted(&names).then(|| (Instant::now(), names)))
        })
        .await
    }

    /// Waits for a line of the sidecar's log that mentions `text`, and answers it.
    ///
    /// # Errors
    /// What was waited for in vain.
    pub async fn until_log(&self, pod: &str, text: &str) -> anyhow::Result<String> {
        let params = LogParams {
            container: Some("daprd".to_owned()),
            tail_lines: Some(100),
            ..Default::default()
        };
        within(&format!("the sidecar to log {text:?}"), async || {
            let log = self.pods().logs(pod, &params).await?;
            Ok(log.lines().rfind(|line| line.contains(text)).map(str::to_owned))
        })
        .await
    }

    /// Waits until new pods that ask for a sidecar get one, or none: the API server learns in its own time of what was changed,
    /// and dry runs tell when it has.
    ///
    /// # Errors
    /// What was waited for in vain.
    pub async fn until_injected(&self, expected: bool) -> anyhow::Result<()> {
        let annotations = json!({"dapr.io/enabled": "true", "dapr.io/app-id": "dry-run"});
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "dry-run", "labels": {"app": "dry-run"}, "annotations": annotations},
            "spec": {"containers": [sample::container("app", &[])]},
        }))?;
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let what = if expected {
            "pods with sidecars"
        } else {
            "pods without sidecars"
        };
        within(what, async || match self.pods().create(&dry, &pod).await {
            Ok(pod) => Ok((pod.labels().contains_key(LABEL_INJECTED) == expected).then_some(())),
            // As long as the namespace has no service account.
            Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(None),
            Err(error) => Err(error.into()),
        })
        .await
    }

    /// GET on a port of a pod, through the API server.
    ///
    /// # Errors
    /// Anything but a 2xx answer.
    pub async fn get(&self, pod: &str, port: u16, path: &str) -> anyhow::Result<String> {
        Ok(self
            .client
            .request_text(http::Request::get(self.proxy(pod, port, path)).body(Vec::new())?)
            .await?)
    }

    /// POST on a port of a pod, through the API server.
    ///
    /// # Errors
    /// Anything but a 2xx answer.
    pub async fn post(&self, pod: &str, port: u16, path: &str, body: &str) -> anyhow::Result<String> {
        let request = http::Request::post(self.proxy(pod, port, path)).body(body.as_bytes().to_vec())?;
        Ok(self.client.request_text(request).await?)
    }

    /// The path of a pod's port at the API server, as `kubectl get --raw` takes it.
    pub fn proxy(&self, pod: &str, port: u16, path: &str) -> String {
        format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy{path}", self.namespace)
    }
}

/// Whether a pod serves, with a sidecar, native or not.
pub(crate) fn has_ready_sidecar(pod: &Pod) -> bool {
    let Some(status) = pod
        .status
        .as_ref()
        .filter(|_| pod.metadata.deletion_timestamp.is_none())
    else {
        return false;
    };
    let containers = status.container_statuses.iter().flatten();
    let native = status.init_container_statuses.iter().flatten();
    let daprd = |status: &ContainerStatus| status.name == "daprd" && status.ready;
    containers.clone().all(|status| status.ready) && containers.chain(native).any(daprd)
}

/// Tries again until there is an answer.
///
/// # Errors
/// The attempt's own failure, or what was waited for in vain.
pub async fn within<T>(what: &str, mut attempt: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let wait = async {
        loop {
            if let Some(found) = attempt().await? {
                return Ok(found);
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait)
        .await
        .with_context(|| format!("waited {} s in vain for {what}", DEADLINE.as_secs()))?
}
