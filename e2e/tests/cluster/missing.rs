//! Why a pod has no sidecar: each way to lose one is seeded, and told in an Event on the pod or, when there is no pod, on its
//! owner.

use std::sync::Arc;

use anyhow::{Context, ensure};
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        core::v1::{Pod, Service},
        events::v1::Event,
    },
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use outrigger_e2e::observe::within;
use outrigger_testkit::certs::Authority;
use serde_json::{Value, json};

use crate::frame::{World, tests};

tests![every_pod_without_a_sidecar_is_told_why];

const INJECTOR: &str = "dapr-sidecar-injector";
const SYSTEM: &str = "dapr-system";
const IMAGE: &str = "localhost/outrigger/sample-app:0.1.0";

/// A reason that was seeded, and the pod that has no sidecar for it.
struct Seeded {
    pod: Pod,
    reason: &'static str,
    sentence: &'static str,
}

struct Cluster {
    client: Client,
    namespace: String,
    /// As the chart installed it.
    webhook: Value,
}

async fn every_pod_without_a_sidecar_is_told_why(world: World) -> anyhow::Result<()> {
    let client = world.access.client().await?;
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let installed = serde_json::to_value(webhooks.get(INJECTOR).await?)?;
    let cluster = Arc::new(Cluster {
        client,
        namespace: world.seen.namespace.clone(),
        webhook: installed["webhooks"][0].clone(),
    });
    let seeded = cluster.seed(&world).await;
    // Other tests share the install.
    cluster.restore(&world).await?;
    let seeded = seeded?;
    ensure!(seeded.len() >= 20, "{} reasons", seeded.len());
    for Seeded { pod, reason, sentence } in &seeded {
        let event = cluster.event(pod).await?;
        let (found, note) = (event.reason.unwrap_or_default(), event.note.unwrap_or_default());
        ensure!(
            found == *reason && note.contains(sentence),
            "{}: {reason} expected, {found}: {note}",
            pod.name_any()
        );
        let event_time = event.event_time.context("an Event has a time")?.0;
        let created = pod.creation_timestamp().context("a pod has a time")?.0;
        println!(
            "{reason}: {:.1} s after the pod was created at the latest",
            event_time.duration_since(created).as_secs_f64()
        );
    }
    cluster.denied(&world).await
}

impl Cluster {
    /// Every way, one after the other: most of them change what all share.
    async fn seed(&self, world: &World) -> anyhow::Result<Vec<Seeded>> {
        let mut all = Vec::new();
        let mut add = |pod, reason, sentence| all.push(Seeded { pod, reason, sentence });
        for value in ["yes", "1", "on"] {
            let pod = self
                .pod(|pod| pod["metadata"]["annotations"]["dapr.io/enabled"] = value.into())
                .await?;
            add(pod, "SidecarNotEnabled", "only \"true\" asks for one");
        }
        for list in ["containers", "initContainers"] {
            let own = json!([{"name": "daprd", "image": IMAGE}]);
            add(
                self.pod(|pod| pod["spec"][list] = own).await?,
                "ContainerNamedDaprd",
                "named daprd",
            );
        }
        add(
            self.by_a_stranger().await?,
            "CreatorNotAllowed",
            "allowedServiceAccounts",
        );
        let mirror = |pod: &mut Value| {
            pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "seeded".into();
            pod["spec"]["nodeName"] = "nowhere".into();
        };
        add(self.pod(mirror).await?, "StaticPod", "static pod");
        for namespace in ["kube-system", SYSTEM] {
            let pod = self.pod_in(namespace, |_| {}).await?;
            add(pod, "NamespaceExcluded", "leaves out namespace");
        }

        let selectors: [(&str, Value, &str, &str); 4] = [
            (
                "namespaceSelector",
                json!({"matchLabels": {"dapr": "on"}}),
                "NamespaceNotSelected",
                "dapr=on",
            ),
            (
                "namespaceSelector",
                json!({"matchExpressions": [{"key": "dapr", "operator": "Exists"}]}),
                "NamespaceNotSelected",
                "no label dapr",
            ),
            (
                "objectSelector",
                json!({"matchLabels": {"team": "blue"}}),
                "PodNotSelected",
                "team=blue",
            ),
            (
                "objectSelector",
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["seeded"]}]}),
                "PodNotSelected",
                "app notin (seeded)",
            ),
        ];
        for (field, selector, reason, sentence) in selectors {
            add(self.with(|webhook| webhook[field] = selector).await?, reason, sentence);
        }
        let condition = json!([{"name": "blue-only", "expression": "object.metadata.name == 'blue'"}]);
        add(
            self.with(|webhook| webhook["matchConditions"] = condition).await?,
            "MatchConditionNotMet",
            "blue-only",
        );
        add(
            self.with(|webhook| webhook["rules"][0]["operations"] = json!(["DELETE"]))
                .await?,
            "WebhookIgnoresPods",
            "rules",
        );
        add(
            self.with(|webhook| webhook["clientConfig"]["service"]["name"] = "other".into())
                .await?,
            "ServiceForeign",
            "/other",
        );
        add(
            self.with(|webhook| {
                webhook["name"] = "other.example.com".into();
                webhook["rules"][0]["operations"] = json!(["DELETE"]);
            })
            .await?,
            "WebhookIncomplete",
            "no webhook",
        );

        self.set_webhook(|_| {}).await?;
        self.set_port(world, "9").await?;
        // The API server holds on to a connection from before.
        let pods = [
            "-n",
            SYSTEM,
            "delete",
            "pod",
            "-l",
            "app=dapr-sidecar-injector",
            "--wait",
        ];
        world.access.kubectl(pods).await?;
        self.scale(world, "1").await?;
        add(self.unseen().await?, "InjectorUnreachable", "cannot be reached");
        self.set_port(world, "\"https\"").await?;

        self.scale(world, "0").await?;
        add(self.pod(|_| {}).await?, "InjectorNotReady", "no replica");
        // The injector would heal these.
        add(
            self.with(|webhook| webhook["clientConfig"]["caBundle"] = Value::Null)
                .await?,
            "CaBundleMissing",
            "caBundle",
        );
        let foreign = ByteString(Authority::new("other")?.pem().into_bytes());
        add(
            self.with(|webhook| webhook["clientConfig"]["caBundle"] = json!(foreign))
                .await?,
            "CaBundleForeign",
            "trust anchors",
        );
        self.set_webhook(|_| {}).await?;
        let services: Api<Service> = Api::namespaced(self.client.clone(), SYSTEM);
        let service = services.get(INJECTOR).await?;
        services.delete(INJECTOR, &DeleteParams::default()).await?;
        let pod = self.pod(|_| {}).await?;
        let told = self.event(&pod).await;
        let mut again = Service {
            metadata: kube::api::ObjectMeta {
                name: service.metadata.name,
                labels: service.metadata.labels,
                annotations: service.metadata.annotations,
                ..Default::default()
            },
            spec: service.spec,
            status: None,
        };
        if let Some(spec) = &mut again.spec {
            (spec.cluster_ip, spec.cluster_ips) = (None, None);
        }
        services.create(&PostParams::default(), &again).await?;
        told?;
        add(pod, "ServiceMissing", INJECTOR);

        let webhooks: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        webhooks.delete(INJECTOR, &DeleteParams::default()).await?;
        let pod = self.pod(|_| {}).await?;
        self.event(&pod).await?;
        add(pod, "WebhookMissing", "no MutatingWebhookConfiguration");
        Ok(all)
    }

    /// A pod that asks for a sidecar, after a change, by a member of system:masters.
    async fn pod(&self, change: impl FnOnce(&mut Value)) -> anyhow::Result<Pod> {
        self.pod_in(&self.namespace, change).await
    }

    async fn pod_in(&self, namespace: &str, change: impl FnOnce(&mut Value)) -> anyhow::Result<Pod> {
        self.create(namespace, change, &PostParams::default()).await
    }

    async fn create(
        &self,
        namespace: &str,
        change: impl FnOnce(&mut Value),
        params: &PostParams,
    ) -> anyhow::Result<Pod> {
        let mut pod = json!({
            "metadata": {
                "generateName": "seeded-", "labels": {"app": "seeded"},
                "annotations": {"dapr.io/enabled": "true", "dapr.io/app-id": "seeded"},
            },
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "app", "image": IMAGE}]},
        });
        change(&mut pod);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.create(params, &serde_json::from_value(pod)?).await?)
    }

    /// A pod that was created while the webhook was otherwise than installed, once it has its Event.
    async fn with(&self, change: impl FnOnce(&mut Value)) -> anyhow::Result<Pod> {
        self.set_webhook(change).await?;
        let pod = self.unseen().await?;
        self.event(&pod).await?;
        Ok(pod)
    }

    /// A pod that got no sidecar. The API server learns of changes in its own time: dry runs tell when it has.
    async fn unseen(&self) -> anyhow::Result<Pod> {
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        within("pods that get no sidecar", async || {
            let pod = self.create(&self.namespace, |_| {}, &dry).await?;
            Ok((!pod.labels().contains_key("dapr.io/sidecar-injected")).then_some(()))
        })
        .await?;
        self.pod(|_| {}).await
    }

    /// Where the injector's Service leads.
    async fn set_port(&self, world: &World, port: &str) -> anyhow::Result<()> {
        let patch = format!(r#"[{{"op":"replace","path":"/spec/ports/0/targetPort","value":{port}}}]"#);
        let service = [
            "-n", SYSTEM, "patch", "service", INJECTOR, "--type", "json", "-p", &patch,
        ];
        world.access.kubectl(service).await?;
        Ok(())
    }

    async fn set_webhook(&self, change: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
        let webhooks: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let mut webhook = self.webhook.clone();
        change(&mut webhook);
        let patch = Patch::Merge(json!({"webhooks": [webhook]}));
        webhooks.patch(INJECTOR, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// By a service account that may create pods, and no pods with sidecars.
    async fn by_a_stranger(&self) -> anyhow::Result<Pod> {
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "stranger"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": self.namespace}],
        });
        let bindings: Api<k8s_openapi::api::rbac::v1::RoleBinding> =
            Api::namespaced(self.client.clone(), &self.namespace);
        bindings
            .create(&PostParams::default(), &serde_json::from_value(role)?)
            .await?;
        let pod = json!({
            "metadata": {"name": "by-a-stranger", "annotations": {"dapr.io/enabled": "true"}},
            "spec": {"containers": [{"name": "app", "image": IMAGE}]},
        });
        within("the right to create pods", async || {
            let request = http::Request::post(format!("/api/v1/namespaces/{}/pods", self.namespace))
                .header("Content-Type", "application/json")
                .header(
                    "Impersonate-User",
                    format!("system:serviceaccount:{}:default", self.namespace),
                )
                .body(pod.to_string().into_bytes())?;
            match self.client.request::<Pod>(request).await {
                Ok(pod) => Ok(Some(pod)),
                Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    async fn event(&self, pod: &Pod) -> anyhow::Result<Event> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let name = format!("missing-sidecar.{}", pod.uid().unwrap_or_default());
        within(&format!("an Event about {}", pod.name_any()), async || {
            Ok(events.get_opt(&name).await?)
        })
        .await
    }

    async fn scale(&self, world: &World, replicas: &str) -> anyhow::Result<()> {
        let deployment = format!("deployment/{INJECTOR}");
        let replicas = format!("--replicas={replicas}");
        world
            .access
            .kubectl(["-n", SYSTEM, "scale", &deployment, &replicas])
            .await?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), SYSTEM);
        let list = ListParams::default().labels(&format!("app={INJECTOR}"));
        if replicas == "--replicas=0" {
            within("the end of the injector", async || {
                Ok(pods.list(&list).await?.items.is_empty().then_some(()))
            })
            .await?;
            return Ok(());
        }
        world
            .access
            .kubectl(["-n", SYSTEM, "rollout", "status", &deployment, "--timeout=120s"])
            .await?;
        Ok(())
    }

    /// Everything as it was installed.
    async fn restore(&self, world: &World) -> anyhow::Result<()> {
        let mut webhook = self.webhook.clone();
        webhook["clientConfig"]
            .as_object_mut()
            .context("clientConfig")?
            .remove("caBundle");
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": INJECTOR}, "webhooks": [webhook],
        });
        let webhooks: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let _ = webhooks.delete(INJECTOR, &DeleteParams::default()).await;
        webhooks
            .create(&PostParams::default(), &serde_json::from_value(configuration)?)
            .await?;
        for namespace in ["kube-system", SYSTEM] {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let seeded = ListParams::default().labels("app=seeded");
            pods.delete_collection(&DeleteParams::default(), &seeded).await?;
        }
        self.scale(world, "1").await
    }

    /// There is no pod: the Event is on the owner.
    async fn denied(&self, world: &World) -> anyhow::Result<()> {
        let app = crate::frame::sample_app("denied", "").replace("app-id: denied", "app-id: Not_An_Id");
        world.apply(&app).await?;
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let event = within("an Event about a pod that was denied", async || {
            let list = events.list(&ListParams::default().fields("reason=PodDenied")).await?;
            Ok(list.items.into_iter().next())
        })
        .await?;
        let regarding = event.regarding.context("an Event is about something")?;
        ensure!(regarding.kind.as_deref() == Some("ReplicaSet"), "{regarding:?}");
        ensure!(event.note.is_some_and(|note| note.contains("Not_An_Id")));
        Ok(())
    }
}
