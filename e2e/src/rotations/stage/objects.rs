//! What people would have applied: settings of the control plane, resources, and a workload whose pod missed its sidecar.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Event, Pod},
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use outrigger_core::{
    annotations::SIDECAR_CONTAINER,
    control_plane::{SIDECAR_INJECTOR, SYSTEM_CONFIGURATION, TRUST_BUNDLE},
};
use outrigger_testkit::ApiServer;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{DOMAIN, Stage, eventually, named};

/// App id, and names of what belongs to it.
pub(super) const APP: &str = "orders";
/// Who creates the pods that the API server has reviewed.
const CREATOR: &str = "replicaset-controller";

impl Stage {
    pub(super) async fn create_settings(&self) -> anyhow::Result<()> {
        let manifests = format!(
            "
apiVersion: v1
kind: Secret
metadata: {{name: {TRUST_BUNDLE}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: {TRUST_BUNDLE}}}
---
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {{name: {SYSTEM_CONFIGURATION}}}
spec:
  mtls:
    enabled: true
    controlPlaneTrustDomain: {DOMAIN}
    sentryAddress: {sentry}
    workloadCertTTL: 1h
    allowedClockSkew: 1s
---
# Where the API server finds the injector.
apiVersion: v1
kind: Service
metadata: {{name: {SIDECAR_INJECTOR}}}
spec: {{type: ExternalName, externalName: localhost}}
---
# Nobody answers there for the operator, so the pod that missed its sidecar stays.
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {SIDECAR_INJECTOR}, labels: {{kubernetes.io/service-name: {SIDECAR_INJECTOR}}}}}
addressType: IPv4
endpoints: [{{addresses: [192.0.2.1], conditions: {{ready: false, serving: false, terminating: false}}}}]
ports: [{{name: https, port: 4000, protocol: TCP}}]
",
            sentry = named(self.sentries[0]),
        );
        self.access.apply_text(&self.control_plane, &manifests).await?;
        // The controllers that may create pods with sidecars.
        let account = |name: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        let items = [CREATOR, "job-controller"].map(account);
        let accounts = json!({"apiVersion": "v1", "kind": "List", "items": items});
        self.access.apply_text("kube-system", &accounts.to_string()).await?;
        Ok(())
    }

    /// Resources of five kinds; a component with a Secret, and one that lacks its own. Sidecars here load only what is not scoped.
    pub(super) async fn create_resources(&self) -> anyhow::Result<()> {
        let manifests = format!(
            "
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {{name: mesh}}
spec:
  nameResolution:
    component: nameformat
    version: v1
    configuration: {{format: '127.0.0.{{appid}}:{internal}'}}
---
apiVersion: v1
kind: Secret
metadata: {{name: credentials}}
stringData: {{note: something}}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: notes}}
spec:
  type: state.in-memory
  version: v1
  metadata: [{{name: note, secretKeyRef: {{name: credentials, key: note}}}}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: lost}}
spec:
  type: state.in-memory
  version: v1
  metadata: [{{name: note, secretKeyRef: {{name: nowhere, key: note}}}}]
scopes: [{APP}]
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {{name: news}}
spec: {{pubsubname: news, topic: news, routes: {{default: /news}}}}
scopes: [{APP}]
---
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {{name: elsewhere}}
spec: {{baseUrl: 'https://127.0.0.1:1'}}
scopes: [{APP}]
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {{name: patience}}
spec: {{policies: {{timeouts: {{general: 5s}}}}, targets: {{apps: {{notes: {{timeout: general}}}}}}}}
scopes: [{APP}]
",
            internal = self.internal,
        );
        self.access.apply_text(&self.apps, &manifests).await?;
        Ok(())
    }

    /// A pod from before there was a webhook, its owner, and then the webhook. Nobody creates pods for owners here, and the injector
    /// has no endpoints: the watchdog sees the pod, and waits.
    pub(super) async fn create_workload(&self, webhook: &Value) -> anyhow::Result<()> {
        let spec = json!({"selector": {"matchLabels": {"app": APP}}, "template": template()});
        let owners = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": APP}, "spec": spec},
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": APP}, "spec": spec},
        ]});
        self.access.apply_text(&self.apps, &owners.to_string()).await?;
        let owner = Api::<ReplicaSet>::namespaced(self.client.clone(), &self.apps)
            .get(APP)
            .await?;
        let mut pod = template();
        pod["metadata"]["name"] = APP.into();
        pod["metadata"]["ownerReferences"] = json!([
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": APP, "uid": owner.metadata.uid, "controller": true},
        ]);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.apps);
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
            .await?;
        running(&pods, APP).await?;
        // Objects are as old as the second that they were created in.
        sleep(Duration::from_secs(1)).await;
        self.access.apply_text(&self.apps, &webhook.to_string()).await?;
        Ok(())
    }

    /// Waits until sidecars have loaded what is for them, problems were told, the app has its Service, and the API server has had a
    /// pod reviewed.
    pub(super) async fn settle(&self) -> anyhow::Result<()> {
        let condition = |kind: &str| format!(".status.conditions[?(@.type==\"{kind}\")].reason");
        for (object, field, expected) in [
            ("component/notes", condition("Ready"), "Loaded"),
            ("component/lost", condition("Accepted"), "SecretNotFound"),
            (&format!("service/{APP}-dapr"), ".metadata.name".to_owned(), APP),
        ] {
            let path = format!("jsonpath={{{field}}}");
            let get = ["get", object, "-n", &self.apps, "-o", &path];
            let is_so = |found: &String| found.contains(expected);
            eventually(&format!("{expected} at {object}"), async || {
                self.access.kubectl(get).await.ok().filter(is_so)
            })
            .await?;
        }
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.apps);
        let of_pod = ListParams::default().fields(&format!("involvedObject.kind=Pod,involvedObject.name={APP}"));
        eventually("an Event of the pod that missed its sidecar", async || {
            let told = events.list(&of_pod).await.ok()?.items;
            let older = |event: &Event| event.reason.as_deref() == Some("PodOlderThanWebhook");
            told.iter().any(older).then_some(())
        })
        .await?;
        eventually("a review that the API server asks for", async || {
            self.admit().await.ok()
        })
        .await
    }

    /// Has the API server ask the injector, with the authority that it knows at this moment; no pod is created.
    pub(in super::super) async fn admit(&self) -> anyhow::Result<()> {
        let mut pod = template();
        pod["metadata"]["name"] = "new".into();
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let controller = format!("system:serviceaccount:kube-system:{CREATOR}");
        let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
        let client = ApiServer::shared().await.client_as(&controller, &groups);
        let pods: Api<Pod> = Api::namespaced(client, &self.apps);
        let admitted = pods.create(&dry, &serde_json::from_value(pod)?).await?;
        let containers = admitted.spec.map(|spec| spec.containers).unwrap_or_default();
        ensure!(
            containers.iter().any(|container| container.name == SIDECAR_CONTAINER),
            "the pod has no sidecar"
        );
        Ok(())
    }
}

/// Says of a pod what its kubelet would.
pub(super) async fn running(pods: &Api<Pod>, name: &str) -> anyhow::Result<()> {
    let since = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": since});
    let conditions = ["Initialized", "PodScheduled", "ContainersReady", "Ready"].map(condition);
    let status = json!({"status": {
        "phase": "Running", "startTime": since, "qosClass": "BestEffort",
        "conditions": conditions,
        "containerStatuses": [{
            "name": "main", "image": "none", "imageID": "none", "ready": true, "started": true, "restartCount": 0,
            "state": {"running": {"startedAt": since}},
        }],
    }});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

/// Of the workload's pods.
fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": APP}, "annotations": {"dapr.io/enabled": "true", "dapr.io/app-id": APP}},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    })
}
