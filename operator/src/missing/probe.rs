//! Looks at the cluster for one pod: shared by what tells why a pod has no sidecar and by the watchdog, which asks before it
//! evicts.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Namespace as KubernetesNamespace, Pod};
use kube::{Api, Client};
use outrigger_identity::Anchors;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use super::{
    admission::Admission,
    creator::creator,
    decide,
    matching::Namespace,
    reason::Finding,
    review::{self, Verdict},
    silence::Silence,
};
use crate::deadline::in_time;

/// How long a review for an Event may take: the Event is to come within seconds.
const REVIEW: Duration = Duration::from_secs(2);
/// How long one before an eviction may take: the API server's own default.
const PROSPECTS: Duration = Duration::from_secs(10);
/// Reviews for Events at one time.
const MAX_REVIEWS: usize = 8;

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
    reviews: Arc<Semaphore>,
    silence: Arc<Silence>,
}

impl Probe {
    /// `admission` is kept by [`super::follow`].
    pub fn new(client: Client, settings: Settings, admission: watch::Receiver<Admission>) -> Self {
        Self {
            client,
            settings,
            admission,
            reviews: Arc::new(Semaphore::new(MAX_REVIEWS)),
            silence: Arc::default(),
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

    /// What the injector says in a dry run to a pod that it should be asked for. However many pods there are, one that does not
    /// answer is waited for no longer than for one of them.
    pub(super) async fn review(&self, pod: &Pod) -> Finding {
        let _permit = self.reviews.acquire().await;
        let version = self.admission.borrow().version();
        let verdict = match self.silence.verdict(version, Instant::now()) {
            Some(verdict) => Ok(verdict),
            None => self.ask(pod, REVIEW).await,
        };
        match verdict {
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
        match self.ask(&new, PROSPECTS).await? {
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

    async fn ask(&self, pod: &Pod, deadline: Duration) -> Result<Verdict, Finding> {
        let (webhook, version) = {
            let admission = self.admission.borrow();
            (admission.webhook()?.clone(), admission.version())
        };
        let verdict = review::ask(&webhook, pod, deadline).await;
        self.silence.note(&verdict, version, Instant::now());
        Ok(verdict)
    }

    fn anchors(&self) -> Vec<Vec<u8>> {
        let anchors = self.settings.anchors.borrow();
        anchors.certificates().map(|der| der.to_vec()).collect()
    }
}
