//! Reviews for a while, each about another pod than the one before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use futures::future::try_join_all;
use tokio::time::{Instant, sleep_until};

use super::{
    client::{Connection, Protocol},
    reviews::Reviews,
    stage::{Injector, Stage},
};

/// When the next review is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Loop {
    /// As soon as the one before on the same connection is answered.
    Closed { connections: usize },
    /// So many a second, all on one HTTP/2 connection, whatever becomes of those before.
    Open { rate: u32 },
}

pub(super) struct Measured {
    /// In an open loop since the moment at which the review was due.
    pub(super) latencies: Vec<Duration>,
    pub(super) took: Duration,
}

pub(super) async fn run(
    stage: &Stage,
    injector: &Injector,
    reviews: &Arc<Reviews>,
    how: Loop,
    span: Duration,
) -> anyhow::Result<Measured> {
    match how {
        Loop::Closed { connections } => {
            let client = stage.client(injector, Protocol::Http1)?;
            let mut lanes = Vec::with_capacity(connections);
            for _ in 0..connections {
                lanes.push(client.connect().await?);
            }
            closed(lanes, reviews, span).await
        }
        Loop::Open { rate } => {
            let connection = stage.client(injector, Protocol::Http2)?.connect().await?;
            open(&connection, reviews, rate, span).await
        }
    }
}

async fn closed(lanes: Vec<Connection>, reviews: &Arc<Reviews>, span: Duration) -> anyhow::Result<Measured> {
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let lanes = lanes.into_iter().map(|mut connection| {
        let (next, reviews) = (next.clone(), reviews.clone());
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while began.elapsed() < span {
                let body = reviews.body(next.fetch_add(1, Ordering::Relaxed));
                let sent = Instant::now();
                connection.review(body).await?;
                latencies.push(sent.elapsed());
            }
            anyhow::Ok(latencies)
        })
    });
    let lanes = try_join_all(lanes).await?;
    let took = began.elapsed();
    let latencies: anyhow::Result<Vec<_>> = lanes.into_iter().collect();
    Ok(Measured {
        latencies: latencies?.concat(),
        took,
    })
}

async fn open(connection: &Connection, reviews: &Arc<Reviews>, rate: u32, span: Duration) -> anyhow::Result<Measured> {
    let pause = Duration::from_secs(1).checked_div(rate).context("a rate of 0")?;
    let began = Instant::now();
    let mut sent = Vec::new();
    let mut due = began;
    while due < began + span {
        sleep_until(due).await;
        let (mut connection, body) = (connection.share()?, reviews.body(sent.len()));
        sent.push(tokio::spawn(async move {
            connection.review(body).await?;
            anyhow::Ok(due.elapsed())
        }));
        due += pause;
    }
    let answered = try_join_all(sent).await?;
    let took = began.elapsed();
    let latencies: anyhow::Result<Vec<_>> = answered.into_iter().collect();
    Ok(Measured {
        latencies: latencies?,
        took,
    })
}
