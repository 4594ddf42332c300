//! Connections that come to an end: at a certain age, so that replicas balance and rotated identities are checked again, and
//! when the sidecar has fallen silent.

use std::{
    io, mem,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use outrigger_core::backoff::random_fraction;
use outrigger_identity::Peer;
use prometheus::{Histogram, IntCounter, IntGauge};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::authorise::{Caller, authorise};
use crate::{
    metrics::Metrics,
    reports::{Attended, Ledger},
};

/// From this age on a connection takes no new calls.
pub const MAX_AGE: Duration = Duration::from_secs(30 * 60);
/// Its streams end within this time after that, at a moment of its own: sidecars that connected together come back apart.
pub const SPREAD: Duration = Duration::from_secs(5 * 60);
/// A connection from which nothing comes for this long is cut. Whoever is well answers pings, which are sent far more often.
pub const SILENCE: Duration = Duration::from_secs(28);
/// Bytes that are not yet a call: a ping and the windows that change with it.
const NO_CALL: usize = 64;

/// What handlers learn about the connection of a call.
#[derive(Clone)]
pub struct Client {
    pub peer: Peer,
    /// Ends its streams.
    pub(crate) end: CancellationToken,
    pub(super) unsent: Arc<Unsent>,
    /// Set by its first stream.
    attended: Arc<OnceLock<Option<Attended>>>,
}

impl Client {
    /// The workload that its certificate names.
    pub(crate) fn caller(&self) -> Option<Caller> {
        let id = self.peer.id.as_ref();
        authorise(id, id?.workload()?.namespace).ok()
    }

    /// Counts it as a connected sidecar for as long as it is connected. A connection without a stream is none: while an old
    /// connection drains, its sidecar lists over another one.
    pub(crate) fn attend(&self, ledger: &Arc<Ledger>) {
        self.attended.get_or_init(|| {
            let caller = self.caller()?;
            Some(ledger.attend(&caller.namespace, &caller.app))
        });
    }
}

/// When the oldest change was seen that waits to be written to the connection.
#[derive(Debug)]
pub(super) struct Unsent {
    base: Instant,
    /// Microseconds after `base`.
    oldest: AtomicU64,
}

impl Unsent {
    const NOTHING: u64 = u64::MAX;

    fn new(base: Instant) -> Self {
        Self {
            base,
            oldest: AtomicU64::new(Self::NOTHING),
        }
    }

    pub(super) fn add(&self, since: Instant) {
        let micros = since.saturating_duration_since(self.base).as_micros();
        let micros = u64::try_from(micros).unwrap_or(Self::NOTHING);
        self.oldest.fetch_min(micros, Ordering::Relaxed);
    }

    fn take(&self) -> Option<Instant> {
        // Most writes carry no event.
        if self.oldest.load(Ordering::Relaxed) == Self::NOTHING {
            return None;
        }
        let micros = self.oldest.swap(Self::NOTHING, Ordering::Relaxed);
        (micros != Self::NOTHING).then(|| self.base + Duration::from_micros(micros))
    }
}

/// Lets answers gather. Each stream has a task of its own, and the first one with an answer wakes the connection, which would
/// write that alone: seven writes for the seven streams that a sidecar opens at once.
#[derive(Default)]
struct Answers {
    due: bool,
}

impl Answers {
    /// Takes note of bytes that came.
    fn asked(&mut self, bytes: usize) {
        self.due |= bytes > NO_CALL;
    }

    /// Whether the next write is not made yet: only once the tasks have run that are ready.
    fn hold(&mut self, cx: &Context<'_>) -> bool {
        let hold = mem::take(&mut self.due);
        if hold {
            // Who wakes itself is queued behind them.
            cx.waker().wake_by_ref();
        }
        hold
    }
}

/// What connections count.
#[derive(Clone)]
struct Counts {
    subscribers: IntGauge,
    stalled: IntCounter,
    propagation: Histogram,
}

/// A connection that knows its end.
pub(super) struct Connection<IO> {
    io: IO,
    client: Client,
    counts: Counts,
    heard: Instant,
    answers: Answers,
    ends_at: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<IO: Connected<ConnectInfo = Peer>> Connection<IO> {
    pub(super) fn new(io: IO, metrics: &Metrics, stop: &CancellationToken, now: Instant) -> Self {
        let client = Client {
            peer: io.connect_info(),
            end: stop.child_token(),
            unsent: Arc::new(Unsent::new(now)),
            attended: Arc::default(),
        };
        let counts = Counts {
            subscribers: metrics.subscribers.clone(),
            stalled: metrics.stalled.clone(),
            propagation: metrics.propagation.clone(),
        };
        counts.subscribers.inc();
        Self {
            io,
            client,
            counts,
            heard: now,
            answers: Answers::default(),
            ends_at: now + MAX_AGE + SPREAD.mul_f64(random_fraction()),
            timer: Box::pin(sleep_until(now + SILENCE)),
        }
    }
}

impl<IO> Connection<IO> {
    /// Acts on what time has brought. To be called whenever reading or writing has to wait: a peer that takes nothing can keep
    /// the connection from being read.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= self.heard + SILENCE {
                if !self.client.end.is_cancelled() {
                    let peer = &self.client.peer;
                    let id = peer.id.as_ref().map(ToString::to_string);
                    tracing::warn!(peer = %peer.addr, id, seconds = SILENCE.as_secs(), "nothing comes from a sidecar: cut off");
                    self.counts.stalled.inc();
                    self.client.end.cancel();
                }
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut next = self.heard + SILENCE;
            if now >= self.ends_at {
                self.client.end.cancel();
            } else {
                next = next.min(self.ends_at);
            }
            self.timer.as_mut().reset(next);
        }
        Ok(())
    }

    fn checked<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_pending() {
            self.check(cx)?;
        }
        result
    }

    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(1..)) = result
            && let Some(since) = self.client.unsent.take()
        {
            self.counts.propagation.observe(since.elapsed().as_secs_f64());
        }
    }
}

impl<IO> Drop for Connection<IO> {
    fn drop(&mut self) {
        self.counts.subscribers.dec();
    }
}

impl<IO> Connected for Connection<IO> {
    type ConnectInfo = Client;

    fn connect_info(&self) -> Client {
        self.client.clone()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Connection<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if result.is_ready() {
            self.heard = Instant::now();
            self.answers.asked(buf.filled().len() - before);
        }
        self.checked(cx, result)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Connection<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.answers.hold(cx) {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(&result);
        self.checked(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.checked(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_shutdown(cx);
        self.checked(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.answers.hold(cx) {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(&result);
        self.checked(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, task::Wake};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn answers_to_calls_gather_once_and_pings_are_answered_at_once() {
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.clone().into();
        let cx = Context::from_waker(&waker);
        let mut answers = Answers::default();
        assert!(!answers.hold(&cx), "nothing was asked");
        answers.asked(600);
        answers.asked(17);
        assert!(answers.hold(&cx));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "or nobody would write");
        assert!(!answers.hold(&cx), "they have gathered");
        answers.asked(17);
        assert!(!answers.hold(&cx));
    }
}
