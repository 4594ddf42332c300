//! The operator's service for reports.

use std::sync::Arc;

use outrigger_proto::outrigger::operator::v1::{
    Hello, ReportRequest, ReportResponse, Verdict,
    report_request::Message,
    reports_server::{Reports as Service, ReportsServer},
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// What sidecars told; clones share it.
#[derive(Clone, Default)]
pub struct Reports {
    told: Arc<watch::Sender<Vec<Message>>>,
    streams: Arc<Mutex<CancellationToken>>,
}

impl Reports {
    pub fn server(&self) -> ReportsServer<Self> {
        ReportsServer::new(self.clone())
    }

    /// Ends all streams, as an operator does with old connections.
    pub fn end_streams(&self) {
        std::mem::take(&mut *self.streams.lock()).cancel();
    }

    /// How many messages there are.
    pub fn count(&self) -> usize {
        self.told.borrow().len()
    }

    /// The first hello after that many messages.
    pub async fn hello(&self, skip: usize) -> Hello {
        self.first(skip, |message| match message {
            Message::Hello(hello) => Some(hello.clone()),
            _ => None,
        })
        .await
    }

    /// The first snapshot after that many messages, by name.
    pub async fn snapshot(&self, skip: usize) -> Vec<Verdict> {
        self.first(skip, |message| match message {
            Message::Snapshot(snapshot) => Some(snapshot.verdicts.clone()),
            _ => None,
        })
        .await
    }

    /// The first verdict on an object in this generation.
    pub async fn verdict(&self, name: &str, generation: i64) -> Verdict {
        self.first(0, |message| match message {
            Message::Hello(_) => None,
            Message::Snapshot(verdicts) | Message::Changes(verdicts) => {
                let mut verdicts = verdicts.verdicts.iter();
                verdicts
                    .find(|verdict| verdict.name == name && verdict.generation == generation)
                    .cloned()
            }
        })
        .await
    }

    async fn first<T>(&self, skip: usize, find: impl Fn(&Message) -> Option<T>) -> T {
        let find = |told: &Vec<Message>| told.iter().skip(skip).find_map(&find);
        let mut told = self.told.subscribe();
        let wait = told.wait_for(|told| find(told).is_some());
        let told = tokio::time::timeout(super::PATIENCE, wait)
            .await
            .expect("the sidecar reports")
            .unwrap();
        find(&told).unwrap()
    }
}

#[tonic::async_trait]
impl Service for Reports {
    async fn report(&self, request: Request<Streaming<ReportRequest>>) -> Result<Response<ReportResponse>, Status> {
        let ended = self.streams.lock().clone();
        let mut reports = request.into_inner();
        loop {
            let message = tokio::select! {
                message = reports.message() => message?,
                () = ended.cancelled() => None,
            };
            let Some(message) = message else {
                return Ok(Response::new(ReportResponse {}));
            };
            self.told.send_modify(|told| told.extend(message.message));
        }
    }
}
