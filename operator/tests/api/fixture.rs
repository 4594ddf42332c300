//! The operator's library at work in one namespace.

use std::{path::Path, sync::Arc};

use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kube::{
    Api, Client, Resource,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use outrigger_core::SpiffeId;
use outrigger_crds::status::ConditionType;
use outrigger_operator::{
    core::{Core, Features, Services},
    injections::{self, Injections},
    kinds::Indexes,
    metrics::Metrics,
    scope::Scope,
};
use outrigger_process::{
    health::Health,
    kubernetes::{
        client::{self, Clients},
        watch::ObjectKey,
    },
    tasks::Tasks,
};
use outrigger_proto::operator::operator_client::OperatorClient;
use outrigger_testkit::ApiServer;
use prometheus::Registry;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

use crate::support::{self, Server, eventually, soon};

/// An operator that watches one fresh namespace.
pub(crate) struct Operator {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) server: Server,
    core: Arc<Core>,
    clients: Clients,
    registry: Registry,
    writing: JoinHandle<()>,
    stop: DropGuard,
}

impl Operator {
    pub(crate) async fn start(prefix: &str, features: impl FnOnce(&str) -> Features) -> Self {
        let namespace = ApiServer::shared().await.namespace(prefix).await.unwrap();
        Self::start_in_namespace(namespace, features).await
    }

    pub(crate) async fn start_in_namespace(namespace: String, features: impl FnOnce(&str) -> Features) -> Self {
        let api_server = ApiServer::shared().await;
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/dapr/crds");
        api_server.apply_crds(&crds).await.unwrap();
        let clients = client::clients(Some(&api_server.kubeconfig()), true).await.unwrap();
        Self::start_in(namespace, clients, features).await
    }

    /// With clients of its own, which may have fewer rights than the test.
    pub(crate) async fn start_in(namespace: String, clients: Clients, features: impl FnOnce(&str) -> Features) -> Self {
        let api_server = ApiServer::shared().await;
        let registry = Registry::new();
        let stop = CancellationToken::new();
        let health = Health::default();
        let core = Core::new(
            clients.clone(),
            Scope::new(&namespace),
            Metrics::new(&registry).unwrap(),
            ObjectKey::new(&*namespace, "daprsystem"),
            "test".into(),
        );
        let core = Arc::new(core);
        let mut tasks = Tasks::new(stop.clone());
        core.spawn_watches(&mut tasks, health.target("caches"));
        tokio::spawn(tasks.run(support::DEADLINE));
        eventually("readiness", || async { health.is_ready().then_some(()) }).await;
        let writing = {
            let (core, features, stop) = (core.clone(), features(&namespace), stop.clone());
            tokio::spawn(async move { core.write(features, stop).await })
        };
        Self {
            client: api_server.client(),
            server: Server::start(core.api(stop.clone())),
            namespace,
            core,
            clients,
            registry,
            writing,
            stop: stop.drop_guard(),
        }
    }

    pub(crate) async fn plain(prefix: &str) -> Self {
        Self::start(prefix, |_| Features::default()).await
    }

    /// The service that injectors with this identity call. Nobody writes the Events.
    pub(crate) fn injections(&self, injector: SpiffeId) -> (Injections, injections::Writer) {
        self.core.injections(injector)
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates a pod of the app `cart` that asks for a sidecar, after a change.
    pub(crate) async fn create_pod(&self, name: &str, change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {
                "name": name, "labels": {"app": "cart"},
                "annotations": {"dapr.io/enabled": "true", "dapr.io/app-id": "cart"},
            },
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        change(&mut pod);
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap()
    }

    /// Applies a manifest the way kubectl does.
    pub(crate) async fn apply<K>(&self, name: &str, mut manifest: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        manifest["apiVersion"] = K::api_version(&()).into();
        manifest["kind"] = K::kind(&()).into();
        manifest["metadata"]["name"] = name.into();
        let params = PatchParams::apply("kubectl").force();
        self.api::<K>()
            .patch(name, &params, &Patch::Apply(&manifest))
            .await
            .unwrap()
    }

    /// Status and reason of a condition, once the current generation has it with that reason.
    pub(crate) async fn condition<K: outrigger_crds::DaprResource>(
        &self,
        name: &str,
        type_: ConditionType,
        reason: &str,
    ) -> String {
        let condition = eventually(&format!("{name} is {reason}"), || async {
            let object = self.api::<K>().get(name).await.unwrap();
            let status = object.status()?;
            let condition = status.condition(type_)?;
            let current = status.observed_generation == object.meta().generation;
            (current && condition.reason == reason).then(|| condition.clone())
        })
        .await;
        assert_eq!(condition.type_, type_.as_str());
        format!("{}: {}", condition.status, condition.message)
    }

    /// The value of a counter or gauge with these labels.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let metrics = families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(prometheus::proto::MetricFamily::get_metric);
        let matching = metrics.filter(|metric| {
            labels.iter().all(|(key, value)| {
                let pairs = metric.get_label();
                pairs.iter().any(|pair| pair.name() == *key && pair.value() == *value)
            })
        });
        matching
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }

    /// How many observations a histogram has.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let families = self.registry.gather();
        let metrics = families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(prometheus::proto::MetricFamily::get_metric);
        metrics.map(|metric| metric.get_histogram().get_sample_count()).sum()
    }

    /// The client of a sidecar of this app.
    pub(crate) async fn sidecar(&self, app: &str) -> OperatorClient<Channel> {
        let id = format!("spiffe://public/ns/{}/{app}", self.namespace);
        self.server.client(&id).await
    }

    /// What lists and streams are served from.
    pub(crate) fn indexes(&self) -> Indexes {
        self.core.api(CancellationToken::new()).indexes
    }

    /// Notes of the Events about an object.
    pub(crate) async fn notes(&self, name: &str) -> Vec<String> {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap();
        let about = |event: &Event| event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(name);
        events
            .items
            .into_iter()
            .filter(about)
            .filter_map(|event| event.note)
            .collect()
    }

    /// Lists everything once more, as after a watch that broke for long: every object is reported as if it were new.
    pub(crate) async fn relist(&self) {
        let (stop, health) = (CancellationToken::new(), Health::default());
        let mut tasks = Tasks::new(stop.clone());
        self.core.spawn_watches(&mut tasks, health.target("caches"));
        let running = tokio::spawn(tasks.run(support::DEADLINE));
        eventually("a relist", || async { health.is_ready().then_some(()) }).await;
        stop.cancel();
        soon("the end of the watches", running).await.unwrap().unwrap();
    }

    /// Ends it and starts another one, which knows nothing.
    pub(crate) async fn restart(self) -> Self {
        self.restart_as(Features::default()).await
    }

    /// As [`Operator::restart`], and keeps Services.
    pub(crate) async fn restart_with(self, services: Services) -> Self {
        let services = Some(services);
        self.restart_as(Features {
            services,
            ..Features::default()
        })
        .await
    }

    pub(crate) async fn restart_as(self, features: Features) -> Self {
        let (namespace, clients) = (self.namespace.clone(), self.clients.clone());
        self.stop().await;
        Self::start_in(namespace, clients, |_| features).await
    }

    pub(crate) async fn stop(self) {
        drop(self.stop);
        soon("the end of writing", self.writing).await.unwrap();
        self.server.ended().await;
    }
}
