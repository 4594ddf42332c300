//! An update stream that is opened again whenever it ends, for ever.

use std::time::Duration;

use outrigger_core::backoff::Backoff;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::SHORTEST_PAUSE;
use crate::text;

/// Longest pause before the stream is opened again. A stream that lasted longer than this worked, even if it had nothing to say:
/// operators end connections of a certain age. An operator that comes back counts its sidecars after 30 seconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What happens on a stream.
#[derive(Debug)]
pub enum Event<T> {
    /// The operator answered: what changed before this is only in a list.
    Connected,
    Message(T),
}

/// What to do when the operator does not know the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// An older operator: live without.
    Idle,
    /// A mistake that may pass.
    Retry,
}

/// Follows the stream that `open` opens until `stop`. Operators of upstream answer only with the first message, so a connected
/// stream may say nothing for hours.
///
/// # Errors
/// Never today; the type is that of a task.
pub async fn follow<T, F>(
    name: &'static str,
    unknown: Unknown,
    open: impl Fn() -> F,
    events: mpsc::Sender<Event<T>>,
    stop: CancellationToken,
) -> anyhow::Result<()>
where
    F: Future<Output = Result<Streaming<T>, Status>>,
{
    let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
    let mut connected_before = false;
    loop {
        let opened = Instant::now();
        let status = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ended = once(&open, &events, &mut backoff, &mut connected_before) => match ended {
                Some(status) => status,
                // Nobody listens any more: the process ends.
                None => return Ok(()),
            },
        };
        if unknown == Unknown::Idle && status.code() == Code::Unimplemented {
            tracing::warn!(
                stream = name,
                "the operator does not have this stream: changes need a restart"
            );
            stop.cancelled().await;
            return Ok(());
        }
        let error = text::status(&status);
        if opened.elapsed() > LONGEST_PAUSE {
            backoff.reset();
        }
        let pause = backoff.next_pause();
        if connected_before {
            tracing::warn!(
                stream = name,
                error,
                pause_ms = pause.as_millis(),
                "Error from operator stream; opening it again"
            );
        } else {
            tracing::debug!(
                stream = name,
                error,
                pause_ms = pause.as_millis(),
                "the operator's stream cannot be opened yet"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// `None` when the receiver is gone.
async fn once<T, F>(
    open: &impl Fn() -> F,
    events: &mpsc::Sender<Event<T>>,
    backoff: &mut Backoff,
    connected_before: &mut bool,
) -> Option<Status>
where
    F: Future<Output = Result<Streaming<T>, Status>>,
{
    let mut stream = match open().await {
        Ok(stream) => stream,
        Err(status) => return Some(status),
    };
    events.send(Event::Connected).await.ok()?;
    *connected_before = true;
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                backoff.reset();
                events.send(Event::Message(message)).await.ok()?;
            }
            // Upstream's operator ends streams with OK when it shuts down.
            Ok(None) => return Some(Status::unavailable("the operator ended the stream")),
            Err(status) => return Some(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;

    /// How much time passes without a stream while ten of them last `each`.
    async fn pauses(each: Duration) -> Duration {
        let (stop, begin) = (CancellationToken::new(), Instant::now());
        let count = Rc::new(Cell::new(0));
        let open = || {
            let (stop, count) = (stop.clone(), count.clone());
            async move {
                tokio::time::sleep(each).await;
                count.set(count.get() + 1);
                if count.get() == 10 {
                    stop.cancel();
                }
                Err::<Streaming<()>, _>(Status::unavailable("gone"))
            }
        };
        let (events, _receiver) = mpsc::channel(1);
        follow("test", Unknown::Retry, open, events, stop.clone())
            .await
            .unwrap();
        begin.elapsed() - each * 10
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_only_while_streams_do_not_last() {
        assert!(pauses(LONGEST_PAUSE * 2).await <= SHORTEST_PAUSE * 10);
        assert!(pauses(Duration::ZERO).await >= LONGEST_PAUSE);
    }
}
