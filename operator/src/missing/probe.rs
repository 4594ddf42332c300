//! Looks at the cluster for one pod: shared by what tells why a pod has no sidecar and by the watchdog, which asks before it
//! evicts.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace as KubernetesNamespace, Pod};
use kube::{Api, Client};
use outrigger_identity::Anchors;
use tokio::sync::watch;

use super::{
    admission::Admission,
    creator::creator,
    decide,
    matching::Namespace,
    reason::Finding,
    review::{self, Verdict},
};
use crate::deadline::in_time;

/// What is looked for and where.
#[derive(Debug, Clone)]
pub struct Settings {
    pub control_plane_namespace: String,
    pub anchors: watch::Receiver<Arc<Anchors>>,
}

/// Clones share what is known.
#[derive(Clone)]
pub struct Probe {
    client: Client,
    settings: Settings,
    admission: watch::Receiver<Admission>,
}

impl Probe {
    /// `admission` is kept by [`super::follow`].
    pub fn new(client: Client, settings: Settings, admission: watch::Receiver<Admission>) -> Self {
        Self {
            client,
            settings,
            admission,
        }
    }

    pub fn admission(&self) -> watch::Receiver<Admission> {
        self.admission.clone()
    }

    /// Why no pod at all would get a sidecar now.
    pub fn outage(&self) -> Option<Finding> {
        let (namespace, anchors) = (&self.settings.control_plane_namespace, self.anchors());
        self.admission.borrow().outage(namespace, &anchors)
    }

    /// Why the injector is not asked for a pod.
    pub(super) fn by_cluster(&self, pod: &Pod, namespace: &Namespace) -> Option<Finding> {
        let (control_plane, anchors) = (&self.settings.control_plane_namespace, self.anchors());
        decide::by_cluster(pod, namespace, &self.admission.borrow(), control_plane, &anchors)
    }

    /// What the injector says in a dry run to a pod that it should be asked for.
    pub(super) async fn review(&self, pod: &Pod) -> Finding {
        match self.ask(pod).await {
            Ok(verdict) => decide::by_review(&verdict, pod),
            Err(finding) => finding,
        }
    }

    /// Whether the same pod would get a sidecar if its owner's controller created it now.
    ///
    /// # Errors
    /// Why not, or that nobody knows.
    pub async fn prospects(&self, pod: &Pod) -> Result<(), Finding> {
        let mut new = pod.clone();
        new.metadata.creation_timestamp = None;
        let namespace = self
            .namespace(new.metadata.namespace.as_deref().unwrap_or_default())
            .await;
        if let Some(finding) = self.by_cluster(&new, &namespace) {
            return Err(finding);
        }
        match self.ask(&new).await? {
            Verdict::Injects if creator(&new).is_some() => Ok(()),
            verdict => Err(decide::by_review(&verdict, &new)),
        }
    }

    /// With its labels, when they can be read.
    pub(super) async fn namespace(&self, name: &str) -> Namespace {
        let api: Api<KubernetesNamespace> = Api::all(self.client.clone());
        let labels = match in_time(api.get_metadata_opt(name)).await {
            Ok(found) => found.map(|namespace| namespace.metadata.labels.unwrap_or_default()),
            Err(error) => {
                tracing::warn!(namespace = name, %error, "cannot read the labels of a namespace; judging without them");
                None
            }
        };
        Namespace {
            name: name.to_owned(),
            labels,
        }
    }

    async fn ask(&self, pod: &Pod) -> Result<Verdict, Finding> {
        let webhook = self.admission.borrow().webhook()?.clone();
        Ok(review::ask(&webhook, pod).await)
    }

    fn anchors(&self) -> Vec<Vec<u8>> {
        let anchors = self.settings.anchors.borrow();
        anchors.certificates().map(|der| der.to_vec()).collect()
    }
}
