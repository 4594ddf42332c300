//! What pods without a sidecar are seeded with, and what is put right afterwards.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use anyhow::{Context, ensure};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    core::v1::{Pod, Service},
    events::v1::Event,
    rbac::v1::RoleBinding,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use outrigger_e2e::{injector, observe::within, sample::container};
use serde_json::{Value, json};

use super::Told;
use crate::frame::{World, sample_app};

pub(super) const INJECTOR: &str = "dapr-sidecar-injector";
pub(super) const SYSTEM: &str = "dapr-system";

pub(super) struct Stage {
    world: World,
    client: Client,
    webhooks: Api<MutatingWebhookConfiguration>,
    services: Api<Service>,
    /// As the chart installed it.
    webhook: Value,
    /// Pods so far.
    seeded: AtomicUsize,
}

/// A pod that was just created.
pub(super) struct Seeded {
    pod: Pod,
    at: Instant,
}

impl Stage {
    pub(super) async fn new(world: World) -> anyhow::Result<Self> {
        let client = world.seen.client.clone();
        let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
        let installed = serde_json::to_value(webhooks.get(INJECTOR).await?)?;
        world.seen.until_injected(true).await?;
        Ok(Self {
            services: Api::namespaced(client.clone(), SYSTEM),
            webhook: installed["webhooks"][0].clone(),
            seeded: AtomicUsize::new(0),
            world,
            client,
            webhooks,
        })
    }

    /// A pod that asks for a sidecar, after a change. It never runs, for nothing needs it to.
    pub(super) async fn pod(&self, change: impl FnOnce(&mut Value)) -> anyhow::Result<Seeded> {
        self.pod_in(&self.world.seen.namespace, change).await
    }

    fn manifest(&self) -> Value {
        // Names of their own: of pods that share a prefix and have no owner nobody can tell which one was refused.
        let number = self.seeded.fetch_add(1, Ordering::Relaxed);
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("seeded-{number}"), "labels": {"app": "seeded"},
                "annotations": {"dapr.io/enabled": "true", "dapr.io/app-id": "seeded"},
            },
            "spec": {
                "schedulingGates": [{"name": "example.com/seeded"}],
                "containers": [container("app", &[])],
            },
        })
    }

    pub(super) async fn pod_in(&self, namespace: &str, change: impl FnOnce(&mut Value)) -> anyhow::Result<Seeded> {
        let mut manifest = self.manifest();
        change(&mut manifest);
        let at = Instant::now();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = pods
            .create(&PostParams::default(), &serde_json::from_value(manifest)?)
            .await?;
        Ok(Seeded { pod, at })
    }

    /// A pod that got no sidecar after something was changed.
    pub(super) async fn unseen(&self) -> anyhow::Result<Seeded> {
        self.world.seen.until_injected(false).await?;
        self.pod(|_| {}).await
    }

    /// Lets a service account create pods, which may have none with a sidecar.
    pub(super) async fn let_stranger_create_pods(&self) -> anyhow::Result<()> {
        let namespace = &self.world.seen.namespace;
        let right = json!({
            "metadata": {"name": "stranger"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
        });
        let bindings: Api<RoleBinding> = Api::namespaced(self.client.clone(), namespace);
        bindings
            .create(&PostParams::default(), &serde_json::from_value(right)?)
            .await?;
        Ok(())
    }

    /// A pod by that service account, as soon as the API server knows of its right.
    pub(super) async fn pod_by_stranger(&self, change: impl FnOnce(&mut Value)) -> anyhow::Result<Seeded> {
        let namespace = &self.world.seen.namespace;
        let mut manifest = self.manifest();
        change(&mut manifest);
        within("the right to create pods", async || {
            let at = Instant::now();
            let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods"))
                .header("Content-Type", "application/json")
                .header("Impersonate-User", format!("system:serviceaccount:{namespace}:default"))
                .body(manifest.to_string().into_bytes())?;
            match self.client.request::<Pod>(request).await {
                Ok(pod) => Ok(Some(Seeded { pod, at })),
                Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// Waits for the pod's Event, and looks whether it is the right one.
    pub(super) async fn told(&self, seeded: Seeded, reason: &'static str, sentence: &str) -> anyhow::Result<Told> {
        let Seeded { pod, at } = seeded;
        let namespace = pod.namespace().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let name = format!("missing-sidecar.{}", pod.uid().unwrap_or_default());
        let event = within(&format!("the Event {reason}"), async || {
            Ok(events.get_opt(&name).await?)
        })
        .await?;
        let after = at.elapsed();
        let (found, note) = (event.reason.unwrap_or_default(), event.note.unwrap_or_default());
        ensure!(
            found == reason && note.contains(sentence),
            "{reason} expected, {found}: {note}"
        );
        Ok(Told { reason, after })
    }

    /// The same for a pod that is created while the webhook is otherwise than installed.
    pub(super) async fn told_with(
        &self,
        change: impl FnOnce(&mut Value),
        reason: &'static str,
        sentence: &str,
    ) -> anyhow::Result<Told> {
        self.set_webhook(change).await?;
        let pod = self.unseen().await?;
        self.told(pod, reason, sentence).await
    }

    /// There is no pod: the Event is on the owner.
    pub(super) async fn denied(&self) -> anyhow::Result<Told> {
        let reason = "PodDenied";
        let app = sample_app("denied", "").replace("app-id: denied", "app-id: Not_An_Id");
        let at = Instant::now();
        self.world.apply(&app).await?;
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.world.seen.namespace);
        let denied = ListParams::default().fields(&format!("reason={reason}"));
        let event = within(&format!("the Event {reason}"), async || {
            Ok(events.list(&denied).await?.items.into_iter().next())
        })
        .await?;
        let after = at.elapsed();
        let regarding = event.regarding.context("an Event is about something")?;
        ensure!(regarding.kind.as_deref() == Some("ReplicaSet"), "{regarding:?}");
        ensure!(event.note.is_some_and(|note| note.contains("Not_An_Id")));
        Ok(Told { reason, after })
    }

    pub(super) async fn set_webhook(&self, change: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
        let mut webhook = self.webhook.clone();
        change(&mut webhook);
        let patch = Patch::Merge(json!({"webhooks": [webhook]}));
        self.webhooks.patch(INJECTOR, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    pub(super) async fn delete_webhook(&self) -> anyhow::Result<()> {
        self.webhooks.delete(INJECTOR, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Where the injector's Service leads.
    pub(super) async fn set_injector_port(&self, port: Value) -> anyhow::Result<()> {
        let mut service = self.services.get(INJECTOR).await?;
        let spec = service.spec.as_mut().context("a Service has a spec")?;
        for to in spec.ports.iter_mut().flatten() {
            to.target_port = Some(serde_json::from_value(port.clone())?);
        }
        self.services
            .replace(INJECTOR, &PostParams::default(), &service)
            .await?;
        Ok(())
    }

    /// Removes the injector's Service; answers what makes it again.
    pub(super) async fn take_service(&self) -> anyhow::Result<Service> {
        let mut service = self.services.get(INJECTOR).await?;
        self.services.delete(INJECTOR, &DeleteParams::default()).await?;
        service.metadata.resource_version = None;
        service.metadata.uid = None;
        if let Some(spec) = &mut service.spec {
            (spec.cluster_ip, spec.cluster_ips) = (None, None);
        }
        Ok(service)
    }

    pub(super) async fn put_service(&self, service: Service) -> anyhow::Result<()> {
        self.services.create(&PostParams::default(), &service).await?;
        Ok(())
    }

    pub(super) async fn scale(&self, replicas: i32) -> anyhow::Result<()> {
        injector::scale(&self.client, replicas).await
    }

    /// Everything as it was installed: later tests, and whoever keeps the cluster, share it.
    pub(super) async fn restore(&self) -> anyhow::Result<()> {
        let mut webhook = self.webhook.clone();
        if let Some(client) = webhook["clientConfig"].as_object_mut() {
            client.remove("caBundle");
        }
        let configuration = json!({"metadata": {"name": INJECTOR}, "webhooks": [webhook]});
        match self.delete_webhook().await {
            Err(error) if !is_absent(&error) => return Err(error),
            _ => {}
        }
        self.webhooks
            .create(&PostParams::default(), &serde_json::from_value(configuration)?)
            .await?;
        self.set_injector_port(json!("https")).await?;
        for namespace in ["kube-system", SYSTEM] {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let seeded = ListParams::default().labels("app=seeded");
            pods.delete_collection(&DeleteParams::default(), &seeded).await?;
        }
        self.scale(1).await?;
        self.world.seen.until_injected(true).await
    }
}

fn is_absent(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.is_not_found())
}
