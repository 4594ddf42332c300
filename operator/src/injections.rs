//! What injectors tell of pods that get no sidecar becomes Events, on the pod's owner or on the pod: an injector only answers,
//! and the answer reaches whoever created the pod, which for most pods is a controller that shows it to nobody.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};
use outrigger_core::SpiffeId;
use outrigger_process::kubernetes::watch::ObjectKey;
use outrigger_proto::outrigger::operator::v1::{
    Refusal, TellRequest, TellResponse, injections_server::Injections as Service,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    api,
    deadline::in_time,
    events::reference,
    metrics::Metrics,
    missing::{Refusals, Refused, Teller},
    scope::Scope,
};

/// Refusals that wait to become Events; further ones are counted and dropped.
const QUEUE: usize = 1024;
/// Events that are written at one time.
const WRITERS: usize = 8;
/// A bare pod is stored after its review: how often it is looked for, and the pause before each look.
const LOOKS: (u32, Duration) = (5, Duration::from_millis(400));

/// The gRPC service. Every replica serves it, and writes the Events about what it is told: that does not depend on who leads.
pub struct Injections {
    /// Who may call.
    injector: SpiffeId,
    queue: mpsc::Sender<Refusal>,
    refusals: Arc<Refusals>,
    metrics: Metrics,
}

/// Writes the Events.
pub struct Writer {
    queue: mpsc::Receiver<Refusal>,
    client: Client,
    refused: Refused,
    scope: Scope,
}

impl Injections {
    /// The service, for injectors with this identity, and what works off its queue. What is told goes into `refused` too, which
    /// finds the pods that had no name yet.
    pub fn new(injector: SpiffeId, client: Client, refused: Refused, scope: Scope, metrics: Metrics) -> (Self, Writer) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let service = Self {
            injector,
            queue: sender,
            refusals: refused.refusals.clone(),
            metrics,
        };
        let writer = Writer {
            queue: receiver,
            client,
            refused,
            scope,
        };
        (service, writer)
    }

    /// Takes a refusal without waiting.
    pub fn take(&self, refusal: Refusal) {
        self.refusals.add(refusal.clone(), Instant::now());
        let result = match self.queue.try_send(refusal) {
            Ok(()) => "taken",
            Err(_) => "dropped",
        };
        self.metrics.refusals.with_label_values(&[result]).inc();
    }
}

#[tonic::async_trait]
impl Service for Injections {
    async fn tell(&self, request: Request<TellRequest>) -> Result<Response<TellResponse>, Status> {
        let id = api::peer_id(&request);
        if id != Some(&self.injector) {
            let id = id.map(ToString::to_string);
            tracing::warn!(id, "denied a call of somebody who is no injector");
            self.metrics.denied.with_label_values(&["no_injector"]).inc();
            return Err(Status::permission_denied(
                "only the sidecar injector may tell of injections",
            ));
        }
        for refusal in request.into_inner().refusals {
            self.take(refusal);
        }
        Ok(Response::new(TellResponse {}))
    }
}

impl Writer {
    /// Runs until the service is gone.
    pub async fn run(self) {
        let Self {
            queue,
            client,
            refused,
            scope,
        } = self;
        let (client, teller) = (&client, refused.teller.clone());
        let refusals = ReceiverStream::new(queue).filter(|refusal| {
            let ours = scope.contains(&refusal.namespace);
            async move { ours }
        });
        let writing = refusals.for_each_concurrent(WRITERS, |refusal| tell(client, &teller, refusal));
        tokio::select! {
            () = writing => {}
            () = refused.run() => {}
        }
    }
}

/// Tells the owner, whose template has to change, else the pod if it has a name.
async fn tell(client: &Client, teller: &Teller, refusal: Refusal) {
    if let Some(owner) = &refusal.owner {
        let key = ObjectKey::new(&*refusal.namespace, &*owner.name);
        let owner = reference(&owner.api_version, &owner.kind, &key, &owner.uid);
        teller.events.publish(&owner, refusal.into()).await;
        return;
    }
    // Whoever created a bare pod that was denied has the answer, and there is no pod.
    if refusal.denied || refusal.pod.is_empty() {
        return;
    }
    // It may ask in a way that only the injector takes for one, and then is not among the pods that are followed.
    let key = ObjectKey::new(&*refusal.namespace, &*refusal.pod);
    match stored(client, &key).await {
        Some(uid) => drop(teller.tell(&key, &uid, refusal.into()).await),
        None => tracing::debug!(pod = %key, "a pod without a sidecar has nothing that an Event could be about"),
    }
}

/// The uid of a pod that is about to be stored.
async fn stored(client: &Client, pod: &ObjectKey) -> Option<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let (looks, pause) = LOOKS;
    for _ in 0..looks {
        sleep(pause).await;
        if let Ok(Some(pod)) = in_time(pods.get_metadata_opt(&pod.name)).await {
            return pod.uid();
        }
    }
    None
}
