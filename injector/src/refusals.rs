//! Tells the operator which pods get no sidecar and why, so that their owners find an Event. The injector itself only answers:
//! a review has no side effects, and waits for nothing of this.

use std::time::Duration;

use outrigger_core::backoff::Backoff;
use outrigger_proto::outrigger::operator::v1::{Refusal, TellRequest, injections_client::InjectionsClient};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, transport::Channel};

use crate::metrics::Metrics;

/// Refusals that wait; further ones are dropped, and the operator finds those pods itself.
const QUEUE: usize = 1024;
/// Refusals in one call.
const BATCH: usize = 64;
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The operator looks into a pod by itself after a few seconds; what comes much later is of no use.
const TOO_LATE: Duration = Duration::from_secs(30);

/// Takes refusals without waiting; clones share the queue.
#[derive(Clone)]
pub struct Refusals {
    queue: mpsc::Sender<Refusal>,
    metrics: Metrics,
}

/// The other end: the task that tells the operator.
pub struct Teller {
    queue: mpsc::Receiver<Refusal>,
    client: InjectionsClient<Channel>,
    metrics: Metrics,
}

impl Refusals {
    /// The queue, and the end that [`Teller`] empties.
    pub fn new(metrics: Metrics) -> (Self, mpsc::Receiver<Refusal>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        (Self { queue, metrics }, receiver)
    }

    pub fn tell(&self, refusal: Refusal) {
        if self.queue.try_send(refusal).is_err() {
            self.metrics.refusals("dropped", 1);
        }
    }
}

impl Teller {
    /// Over this channel to the operator.
    pub fn new(queue: mpsc::Receiver<Refusal>, operator: Channel, metrics: Metrics) -> Self {
        Self {
            queue,
            client: InjectionsClient::new(operator),
            metrics,
        }
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        let mut unsupported = false;
        loop {
            let mut refusals = Vec::with_capacity(BATCH);
            // Never empty: the webhook holds the other end.
            if self.queue.recv_many(&mut refusals, BATCH).await == 0 {
                return;
            }
            let count = refusals.len();
            let result = match self.tell(refusals).await {
                Ok(()) => "told",
                Err(Code::Unimplemented) => {
                    if !std::mem::replace(&mut unsupported, true) {
                        tracing::info!("the operator takes no refusals; pods without a sidecar get no Events");
                    }
                    "unsupported"
                }
                Err(code) => {
                    tracing::warn!(count, ?code, "the operator could not be told of pods without a sidecar");
                    "failed"
                }
            };
            self.metrics.refusals(result, count);
        }
    }

    /// Tries again until it is too late, unless the operator does not know the call.
    async fn tell(&mut self, refusals: Vec<Refusal>) -> Result<(), Code> {
        let deadline = Instant::now() + TOO_LATE;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let request = TellRequest { refusals };
        loop {
            let code = match timeout(CALL_TIMEOUT, self.client.tell(request.clone())).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(status)) => status.code(),
                Err(_) => Code::DeadlineExceeded,
            };
            let pause = backoff.next_pause();
            if matches!(code, Code::Unimplemented | Code::PermissionDenied) || Instant::now() + pause > deadline {
                return Err(code);
            }
            sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use outrigger_identity::plain_channel;
    use outrigger_proto::outrigger::operator::v1::{
        TellResponse,
        injections_server::{Injections, InjectionsServer},
    };
    use parking_lot::Mutex;
    use prometheus::Registry;
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request, Response, Status, transport::Server};

    use super::*;

    /// Fails as told first, then takes everything.
    struct Operator {
        failures: Mutex<Vec<Status>>,
        told: mpsc::UnboundedSender<Refusal>,
    }

    #[tonic::async_trait]
    impl Injections for Operator {
        async fn tell(&self, request: Request<TellRequest>) -> Result<Response<TellResponse>, Status> {
            if let Some(failure) = self.failures.lock().pop() {
                return Err(failure);
            }
            for refusal in request.into_inner().refusals {
                let _ = self.told.send(refusal);
            }
            Ok(Response::new(TellResponse {}))
        }
    }

    struct Told {
        refusals: Refusals,
        told: mpsc::UnboundedReceiver<Refusal>,
        registry: Registry,
    }

    async fn operator(failures: Vec<Status>) -> Told {
        let (sender, told) = mpsc::unbounded_channel();
        let operator = Operator {
            failures: Mutex::new(failures),
            told: sender,
        };
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap().to_string();
        let server = Server::builder().add_service(InjectionsServer::new(operator));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(tcp)));
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let (refusals, queue) = Refusals::new(metrics.clone());
        let channel = plain_channel(&address, Duration::from_secs(60)).unwrap();
        tokio::spawn(Teller::new(queue, channel, metrics).run());
        Told {
            refusals,
            told,
            registry,
        }
    }

    fn refusal(pod: &str) -> Refusal {
        Refusal {
            pod: pod.to_owned(),
            ..Refusal::default()
        }
    }

    #[tokio::test]
    async fn the_operator_hears_of_each_refusal_also_after_a_failure() {
        let mut operator = operator(vec![Status::unavailable("starting")]).await;
        for pod in ["a", "b"] {
            operator.refusals.tell(refusal(pod));
        }
        assert_eq!(operator.told.recv().await.unwrap().pod, "a");
        assert_eq!(operator.told.recv().await.unwrap().pod, "b");
    }

    #[tokio::test]
    async fn an_operator_that_does_not_know_the_call_is_not_asked_again_for_the_same() {
        let mut operator = operator(vec![Status::unimplemented("what?")]).await;
        operator.refusals.tell(refusal("lost"));
        loop {
            let families = operator.registry.gather();
            let counted = families
                .iter()
                .find(|family| family.name() == "dapr_injector_refusals_total");
            if counted.is_some_and(|family| family.get_metric()[0].get_label()[0].value() == "unsupported") {
                break;
            }
            tokio::task::yield_now().await;
        }
        operator.refusals.tell(refusal("later"));
        assert_eq!(operator.told.recv().await.unwrap().pod, "later");
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_never_waits() {
        let registry = Registry::new();
        let (refusals, _queue) = Refusals::new(Metrics::new(&registry).unwrap());
        for _ in 0..=QUEUE {
            refusals.tell(refusal("p"));
        }
        let families = registry.gather();
        let dropped = families
            .iter()
            .find(|family| family.name() == "dapr_injector_refusals_total")
            .unwrap();
        assert_eq!(dropped.get_metric()[0].get_counter().get_value(), 1.0);
    }
}
