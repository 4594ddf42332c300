//! How fast sentry's release binary signs for pods of a real API server, and what a storm of sidecars gets from it. Load program,
//! sentry and API server share the machine, so the API server's own rate is measured in the same run.

mod requester;
mod stage;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use tokio::time::sleep;

use self::{
    requester::{Outcome, Requester},
    stage::{Credential, Sentry, Stage},
};
use super::{
    milliseconds,
    process::{Memory, Usage},
};

/// Until a sentry that has nothing to do has given back what it can.
const SETTLE: Duration = Duration::from_secs(3);
/// Requests in flight where the API server alone is measured: as many as sentry has.
const REVIEWS: usize = 32;

/// What is measured.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Sentry's binary; without it the release build is made and measured
    #[arg(long)]
    sentry: Option<PathBuf>,
    /// Certificates of each closed loop
    #[arg(long, default_value_t = 2000)]
    certificates: usize,
    /// Sizes of the storms
    #[arg(long, value_delimiter = ',', default_values_t = [500, 1000, 2000])]
    storm: Vec<usize>,
}

/// Measures and prints.
///
/// # Errors
/// The step that failed, also when a request is refused or a storm is not served whole.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let binary = match args.sentry {
        Some(binary) => binary,
        None => crate::release::binary("sentry").await?,
    };
    let largest = args.storm.iter().copied().chain([args.certificates]).max().unwrap_or(0);
    let mut stage = Stage::prepare(largest).await?;

    let tokens = stage.tokens(args.certificates).await?;
    let alone = reviews_alone(&stage, tokens).await?;
    println!("the API server alone, {REVIEWS} TokenReviews in flight: {alone:.0}/s");

    let sentry = stage.start(&binary).await?;
    println!(
        "\nsigning, {} certificates each, one token and one TokenReview each",
        args.certificates
    );
    println!(
        "                           per second   p50 ms   p99 ms   sentry's CPU ms   share of the API server's rate"
    );
    for (connections, fresh) in [(8, false), (32, false), (8, true), (32, true)] {
        let tokens = stage.tokens(args.certificates).await?;
        closed_loop(&stage, &sentry, tokens, connections, fresh, alone).await?;
    }
    sentry.process.stop().await?;

    // On the stored authority: where the API's rate counts, not the making of keys.
    let sentry = stage.start(&binary).await?;
    sleep(SETTLE).await;
    println!("\nstorms: all at once, a connection each, deadline and retries of a sidecar");
    println!("  before: sentry holds {}", Memory::of(sentry.process.pid)?);
    let mut first: Option<f64> = None;
    for size in args.storm {
        let tokens = stage.tokens(size).await?;
        let each = storm(&stage, &sentry, tokens).await? / size as f64;
        let ratio = each / *first.get_or_insert(each);
        println!("    time for each sidecar, by that of the first storm: {ratio:.2}");
    }
    sentry.process.stop().await
}

/// TokenReviews a second without a sentry.
async fn reviews_alone(stage: &Stage, tokens: Vec<Credential>) -> anyhow::Result<f64> {
    let count = tokens.len();
    let (tokens, next) = (Arc::new(tokens), AtomicUsize::new(0));
    let started = Instant::now();
    let lanes = (0..REVIEWS).map(|_| async {
        while let Some(credential) = tokens.get(next.fetch_add(1, Ordering::Relaxed)) {
            stage.review(&credential.token).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(lanes).await?;
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

async fn closed_loop(
    stage: &Stage,
    sentry: &Sentry,
    credentials: Vec<Credential>,
    connections: usize,
    fresh: bool,
    alone: f64,
) -> anyhow::Result<()> {
    let requester = Arc::new(stage.requester(sentry).await?);
    let (count, credentials) = (credentials.len(), Arc::new(credentials));
    let next = Arc::new(AtomicUsize::new(0));
    let (reviews, usage) = (stage.reviews().await?, Usage::of(sentry.process.pid)?);
    let started = Instant::now();
    let lanes = (0..connections).map(|_| {
        let (requester, credentials, next) = (requester.clone(), credentials.clone(), next.clone());
        tokio::spawn(lane(requester, credentials, next, fresh))
    });
    let mut latencies = Vec::with_capacity(count);
    for lane in try_join_all(lanes).await? {
        latencies.extend(lane?);
    }
    let took = started.elapsed().as_secs_f64();
    let cpu = (Usage::of(sentry.process.pid)? - usage).as_secs_f64();
    let reviews = stage.reviews().await? - reviews;
    ensure!(
        reviews == count as u64,
        "{count} certificates took {reviews} TokenReviews"
    );
    latencies.sort();
    let rate = count as f64 / took;
    println!(
        "  {connections:>2} connections, {:<9}{rate:>12.0}{:>9.1}{:>9.1}{:>18.3}{:>33.2}",
        if fresh { "new" } else { "kept" },
        milliseconds(&latencies, 0.5),
        milliseconds(&latencies, 0.99),
        cpu * 1e3 / count as f64,
        rate / alone,
    );
    Ok(())
}

/// Asks until no credential is left; the latency of each request, with the connection where it is new.
async fn lane(
    requester: Arc<Requester>,
    credentials: Arc<Vec<Credential>>,
    next: Arc<AtomicUsize>,
    fresh: bool,
) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut kept = None;
    while let Some(credential) = credentials.get(next.fetch_add(1, Ordering::Relaxed)) {
        let began = Instant::now();
        let channel = match kept.take() {
            Some(channel) => channel,
            None => requester.connect().await?,
        };
        requester
            .sign(&channel, credential)
            .await
            .with_context(|| format!("sign for {}", credential.app))?;
        latencies.push(began.elapsed());
        kept = (!fresh).then_some(channel);
    }
    Ok(latencies)
}

/// Seconds until the last one has its certificate.
async fn storm(stage: &Stage, sentry: &Sentry, credentials: Vec<Credential>) -> anyhow::Result<f64> {
    let requester = Arc::new(stage.requester(sentry).await?);
    let count = credentials.len();
    let (reviews, usage) = (stage.reviews().await?, Usage::of(sentry.process.pid)?);
    let started = Instant::now();
    let sidecars = credentials.into_iter().map(|credential| {
        let requester = requester.clone();
        tokio::spawn(async move { requester.as_a_sidecar(&credential, started).await })
    });
    let outcomes = try_join_all(sidecars).await?;
    let took = started.elapsed().as_secs_f64();
    let cpu = (Usage::of(sentry.process.pid)? - usage).as_secs_f64();
    let reviews = stage.reviews().await? - reviews;
    let mut served: Vec<Duration> = outcomes.iter().filter_map(Outcome::served_after).collect();
    served.sort();
    let retries: u32 = outcomes.iter().map(|outcome| outcome.retries).sum();
    println!(
        "  {count} sidecars: {} served in {took:.2} s (p50 {:.0} ms, p99 {:.0} ms, {retries} retries), {reviews} TokenReviews, sentry's CPU {:.3} ms each",
        served.len(),
        milliseconds(&served, 0.5),
        milliseconds(&served, 0.99),
        cpu * 1e3 / count as f64,
    );
    println!("    sentry holds {}", Memory::of(sentry.process.pid)?);
    sleep(SETTLE).await;
    println!("    {} s later {}", SETTLE.as_secs(), Memory::of(sentry.process.pid)?);
    if let Some(failure) = outcomes.iter().find_map(|outcome| outcome.failure.as_ref()) {
        anyhow::bail!(
            "{} of {count} got no certificate; one of them: {failure}",
            count - served.len()
        );
    }
    Ok(took)
}
