//! How fast the injector's release binary answers admission reviews. Load program, injector and API server share the machine, so
//! the load program's own CPU time, measured in the same run, stands beside the injector's.

mod client;
mod load;
mod reviews;
mod stage;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::time::sleep;

use self::{
    client::Protocol,
    load::{Loop, Measured},
    reviews::Reviews,
    stage::{Injector, Stage},
};
use super::{
    milliseconds,
    process::{Memory, Usage},
};

/// Until an injector that has nothing to do has given back what it needed to start.
const SETTLE: Duration = Duration::from_secs(3);
/// Different pods; no two reviews in a row are about the same one.
const PODS: usize = 500;
const WARM_UP: Duration = Duration::from_millis(500);

/// What is measured.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The injector's binary; without it the release build is made and measured
    #[arg(long)]
    injector: Option<PathBuf>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Connections of the closed loops, one review in flight on each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32])]
    connections: Vec<usize>,
    /// Reviews a second of the open loops, on one HTTP/2 connection as from an API server
    #[arg(long, value_delimiter = ',', default_values_t = [200, 500])]
    rates: Vec<u32>,
}

/// Measures and prints.
///
/// # Errors
/// The step that failed, also when a review is not answered with a patch that gives the pod a sidecar.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let binary = match args.injector {
        Some(binary) => binary,
        None => crate::release::binary("injector").await?,
    };
    let stage = Stage::prepare().await?;
    let injector = stage.start(&binary).await?;
    let reviews = Arc::new(Reviews::new(PODS));
    let mut connection = stage.client(&injector, Protocol::Http1)?.connect().await?;
    reviews.check_all(&mut connection).await?;
    drop(connection);

    sleep(SETTLE).await;
    println!("the injector, reviews of {} bytes", reviews.size());
    println!("  idle                 {}", Memory::of(injector.pid)?);
    println!("                          per second   p50 ms   p99 ms   max ms   CPU µs each   by the load program's");
    let span = Duration::from_secs(args.seconds.max(1));
    for connections in args.connections {
        let what = format!("{connections} connections");
        measure(&stage, &injector, &reviews, &what, Loop::Closed { connections }, span).await?;
    }
    for rate in args.rates {
        let what = format!("{rate} a second");
        measure(&stage, &injector, &reviews, &what, Loop::Open { rate }, span).await?;
    }
    println!("  at most resident     {:.1} MiB", Memory::peak(injector.pid)?);
    sleep(SETTLE).await;
    println!(
        "  {} s later            {}",
        SETTLE.as_secs(),
        Memory::of(injector.pid)?
    );
    injector.stop().await
}

async fn measure(
    stage: &Stage,
    injector: &Injector,
    reviews: &Arc<Reviews>,
    what: &str,
    how: Loop,
    span: Duration,
) -> anyhow::Result<()> {
    load::run(stage, injector, reviews, how, WARM_UP).await?;
    let pid = injector.pid;
    let (server, own) = (Usage::of(pid)?, Usage::of(std::process::id())?);
    let Measured { mut latencies, took } = load::run(stage, injector, reviews, how, span).await?;
    let (server, own) = (Usage::of(pid)? - server, Usage::of(std::process::id())? - own);
    latencies.sort();
    let count = latencies.len() as f64;
    println!(
        "  {what:<22}{:>12.0}{:>9.2}{:>9.2}{:>9.2}{:>14.1}{:>24.2}",
        count / took.as_secs_f64(),
        milliseconds(&latencies, 0.5),
        milliseconds(&latencies, 0.99),
        milliseconds(&latencies, 1.0),
        server.as_secs_f64() * 1e6 / count,
        server.as_secs_f64() / own.as_secs_f64(),
    );
    Ok(())
}
