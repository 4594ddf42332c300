//! The stream of reports, which is opened again whenever it ends.

use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use outrigger_core::backoff::Backoff;
use outrigger_proto::outrigger::operator::v1::{
    Hello, ReportRequest, Verdicts, report_request::Message, reports_client::ReportsClient,
};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};

use super::Reports;
use crate::text;

/// The version of the protocol.
const PROTOCOL: u32 = 1;
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// A stream that lasted longer than this worked. Well below the 30 seconds for which the operator keeps what it last heard.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long a sidecar that cannot start goes on telling why: the operator needs a moment to pass it on.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Who reports.
#[derive(Clone)]
pub struct Reporter {
    pub channel: Channel,
    pub reports: Reports,
    pub app: String,
    pub pod: String,
    /// Kinds whose changes this sidecar judges as they come.
    pub follows: Vec<&'static str>,
}

impl Reporter {
    /// Reports until `stop`.
    ///
    /// # Errors
    /// Never today; the type is that of a task.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        let mut warned = false;
        loop {
            let opened = Instant::now();
            let reconnected = self.reports.inner.reconnected.notified();
            let ended = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = self.once(self.requests()) => ended,
            };
            if opened.elapsed() > LONGEST_PAUSE {
                backoff.reset();
                warned = false;
            }
            // Without an end: an operator that takes no reports is asked again when it may be another one.
            let mut pause = None;
            match ended {
                Err(status) if status.code() == Code::Unimplemented => {
                    tracing::debug!("the operator takes no reports");
                }
                ended => {
                    pause = Some(backoff.next_pause());
                    if let Err(status) = ended {
                        let error = text::status(&status);
                        if std::mem::replace(&mut warned, true) {
                            tracing::debug!(error, "cannot report to the operator");
                        } else {
                            tracing::warn!(
                                error,
                                "cannot report to the operator what became of its resources; trying again"
                            );
                        }
                    }
                }
            }
            let wait = async {
                tokio::select! {
                    () = reconnected => {}
                    () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
                }
            };
            if stop.run_until_cancelled(wait).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Reports for the last time, from a sidecar that ends because of what it reports.
    pub async fn last_words(&self) {
        let no_more = stream::once(tokio::time::sleep(LAST_WORDS)).filter_map(async |()| None);
        let requests = self.requests().take(2).chain(no_more);
        match timeout(2 * LAST_WORDS, self.once(requests)).await {
            Ok(Ok(())) => {}
            Ok(Err(status)) => tracing::debug!(error = text::status(&status), "the operator was not told"),
            Err(_) => tracing::debug!("the operator was not told in time"),
        }
    }

    /// One stream of these messages.
    async fn once(&self, requests: impl Stream<Item = ReportRequest> + Send + 'static) -> Result<(), Status> {
        let ended = ReportsClient::new(self.channel.clone()).report(requests).await;
        self.reports.close();
        ended.map(drop)
    }

    /// Hello, snapshot, and what changes afterwards.
    fn requests(&self) -> impl Stream<Item = ReportRequest> + Send + 'static {
        let hello = Hello {
            protocol: PROTOCOL,
            pod: self.pod.clone(),
            app: self.app.clone(),
            version: outrigger_process::VERSION.to_owned(),
            follows: self.follows.iter().map(|kind| (*kind).to_owned()).collect(),
        };
        let verdicts = stream::unfold((self.reports.clone(), None), |(reports, last)| async move {
            let (last, message) = match last {
                None => {
                    let (number, verdicts) = reports.snapshot();
                    (number, Message::Snapshot(Verdicts { verdicts }))
                }
                Some(number) => {
                    let verdicts = reports.next(number).await?;
                    (number, Message::Changes(Verdicts { verdicts }))
                }
            };
            Some((request(message), (reports, Some(last))))
        });
        stream::iter([request(Message::Hello(hello))]).chain(verdicts)
    }
}

fn request(message: Message) -> ReportRequest {
    ReportRequest { message: Some(message) }
}
