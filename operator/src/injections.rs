//! What injectors tell of pods that get no sidecar becomes Events, on the pod's owner or on the pod: an injector only answers,
//! and the answer reaches whoever created the pod, which for most pods is a controller that shows it to nobody.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{Api, Client, Resource};
use outrigger_core::SpiffeId;
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
    events::{Events, Notice},
    metrics::Metrics,
    missing::{Reason, Refusals},
    scope::Scope,
};

/// Refusals that wait to become Events; further ones are counted and dropped.
const QUEUE: usize = 1024;
/// Events that are written at one time.
const WRITERS: usize = 8;
/// A bare pod is stored after its review: how often it is looked for, and the pause before each look.
const LOOKS: (u32, Duration) = (5, Duration::from_millis(400));

/// The gRPC service. Every replica serves it: an Event does not depend on who leads.
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
    events: Arc<Events>,
    scope: Scope,
}

impl Injections {
    /// The service, for injectors with this identity, and what works off its queue. What is told goes into `refusals` too, for
    /// whoever finds the pod.
    pub fn new(
        injector: SpiffeId,
        client: Client,
        events: Arc<Events>,
        scope: Scope,
        refusals: Arc<Refusals>,
        metrics: Metrics,
    ) -> (Self, Writer) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let service = Self {
            injector,
            queue: sender,
            refusals,
            metrics,
        };
        let writer = Writer {
            queue: receiver,
            client,
            events,
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
            events,
            scope,
        } = self;
        let (client, events) = (&client, &events);
        let refusals = ReceiverStream::new(queue).filter(|refusal| {
            let ours = scope.contains(&refusal.namespace);
            async move { ours }
        });
        let write = |refusal: Refusal| async move {
            match regarding(client, &refusal).await {
                // Whoever finds the pod without a sidecar writes the same one.
                Some(object) if refusal.owner.is_none() => events.publish_once(&object, notice(refusal)).await,
                Some(object) => events.publish(&object, notice(refusal)).await,
                None => tracing::debug!(
                    namespace = refusal.namespace,
                    pod = refusal.pod,
                    "a pod without a sidecar has nothing that an Event could be about"
                ),
            }
        };
        refusals.for_each_concurrent(WRITERS, write).await;
    }
}

/// The owner, whose template has to change, else the pod itself.
async fn regarding(client: &Client, refusal: &Refusal) -> Option<ObjectReference> {
    if let Some(owner) = &refusal.owner {
        // The kubelet's: the Event about its pod says why no static pod gets a sidecar.
        if owner.kind == "Node" {
            return None;
        }
        return Some(ObjectReference {
            api_version: Some(owner.api_version.clone()),
            kind: Some(owner.kind.clone()),
            name: Some(owner.name.clone()),
            namespace: Some(refusal.namespace.clone()),
            uid: Some(owner.uid.clone()),
            ..ObjectReference::default()
        });
    }
    // Whoever created a bare pod that was denied has the answer, and there is no pod.
    if refusal.denied || refusal.pod.is_empty() {
        return None;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), &refusal.namespace);
    let (looks, pause) = LOOKS;
    for _ in 0..looks {
        sleep(pause).await;
        if let Ok(Some(pod)) = in_time(pods.get_metadata_opt(&refusal.pod)).await {
            return Some(ObjectReference {
                uid: pod.metadata.uid,
                name: pod.metadata.name,
                namespace: pod.metadata.namespace,
                api_version: Some(Pod::api_version(&()).into()),
                kind: Some(Pod::kind(&()).into()),
                ..ObjectReference::default()
            });
        }
    }
    None
}

fn notice(refusal: Refusal) -> Notice {
    Notice {
        warning: true,
        // An injector of another version may have more reasons.
        reason: Reason::told(&refusal.reason).map_or("SidecarMissing", Reason::as_str),
        action: "Inject",
        note: refusal.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_are_not_known_have_a_name_too() {
        let refusal = |reason: &str| Refusal {
            reason: reason.into(),
            message: "why".into(),
            ..Refusal::default()
        };
        assert_eq!(notice(refusal("CreatorNotAllowed")).reason, "CreatorNotAllowed");
        let other = notice(refusal("Something"));
        assert_eq!((other.reason, &*other.note), ("SidecarMissing", "why"));
    }
}
