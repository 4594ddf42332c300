//! How the operator's update streams scale: many fake sidecars, a real API server, the operator's release binary. Load tool
//! and server share the machine, so the figures compare runs on one machine, not machines. What thousands of sidecars would do on
//! machines of their own gives way to the server.

mod crowd;
mod operator;
mod sidecar;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::time::sleep;

use self::{
    operator::{LISTED, NAMESPACE, Operator, Stage},
    sidecar::{Arrivals, Sidecar},
};
use super::process::{Memory, Usage};

/// Connections that are opened at the same time.
const CONNECTING: usize = 64;
/// Until an operator that has nothing to do has given back what it needed to start.
const SETTLE: Duration = Duration::from_secs(2);
const DELIVERY_DEADLINE: Duration = Duration::from_secs(30);
/// Share of the sidecars that stop reading.
const STALLED: f64 = 0.01;
const LISTING: Duration = Duration::from_secs(3);
const LISTERS: usize = 8;
/// Components of a list.
const LIST: usize = 100;
const COMPONENT: &str = "db";

/// What is measured.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The operator's binary; without it the release build is made and measured
    #[arg(long)]
    operator: Option<PathBuf>,
    /// Numbers of sidecars, one measurement each
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 2000, 5000])]
    sidecars: Vec<usize>,
    /// Edits of one component; a fifth of it from 2000 sidecars on
    #[arg(long, default_value_t = 100)]
    edits: usize,
    /// Bytes that are added to the component
    #[arg(long, default_value_t = 0)]
    pad: usize,
    /// Measure the memory among many foreign pods and Secrets instead; creating them takes minutes
    #[arg(long)]
    crowd: bool,
}

/// Lets everybody else run before this thread.
pub fn give_way() {
    // Everybody may do that to their own threads.
    let _ = rustix::process::nice(19);
}

/// Measures and prints.
///
/// # Errors
/// The step that failed, also when an edit does not reach every sidecar.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let binary = match args.operator {
        Some(binary) => binary,
        None => crate::release::binary("operator").await?,
    };
    let stage = Stage::prepare().await?;
    if args.crowd {
        return crowd::run(&stage, &binary).await;
    }
    for number in 0..LIST {
        apply_component(&stage, LISTED, &format!("{COMPONENT}-{number:03}"), "none", "").await?;
    }
    println!("the operator's streams, {} bytes added to the component", args.pad);
    for sidecars in args.sidecars {
        let edits = if sidecars < 2000 { args.edits } else { args.edits / 5 };
        let operator = stage.start(&binary).await?;
        let measurement = Measurement {
            stage: &stage,
            operator: &operator,
            pad: "x".repeat(args.pad),
            sidecars,
            edits: edits.max(1),
        };
        measurement
            .run()
            .await
            .with_context(|| format!("with {sidecars} sidecars"))?;
        operator.process.stop().await?;
    }
    Ok(())
}

struct Measurement<'a> {
    stage: &'a Stage,
    operator: &'a Operator,
    pad: String,
    sidecars: usize,
    edits: usize,
}

/// What a round of edits took.
struct Round {
    patch: Duration,
    /// Of each edit, from the PATCH's answer: first, median, p99 and last sidecar.
    arrivals: Vec<[Duration; 4]>,
    cpu: Duration,
    memory: Memory,
}

impl Measurement<'_> {
    async fn run(&self) -> anyhow::Result<()> {
        let count = self.sidecars;
        self.edit("start").await?;
        sleep(SETTLE).await;
        let idle = Memory::of(self.operator.process.pid)?;

        // Edits of two rounds and a first one that warms up.
        let arrivals = Arc::new(Arrivals::new(2 * self.edits + 2, count));
        let before = Usage::of(self.operator.process.pid)?;
        let sidecars = self.connect(&arrivals).await?;
        let accepted = Usage::of(self.operator.process.pid)? - before;
        sleep(SETTLE).await;
        let connected = Memory::of(self.operator.process.pid)?;
        println!("\n{count} sidecars");
        println!("  idle                 {idle}");
        println!("  connected            {connected}");
        println!("  above idle           {}", connected - idle);
        let share = |total: Duration, parts: usize| total.as_secs_f64() / parts as f64;
        println!("  CPU to accept one    {:.2} ms", share(accepted, count) * 1e3);

        self.round(&arrivals, 0, 1, count).await?;
        let warm = Memory::of(self.operator.process.pid)?;
        let round = self.round(&arrivals, 1, self.edits, count).await?;
        self.print("edits", &round, count);
        println!("  growth by the edits  {}", round.memory - warm);
        if let Some(p99) = self.server_p99().await? {
            println!(
                "  in the server, p99   at most {:.1} ms from the watch event to the write",
                p99 * 1e3
            );
        }

        let stalled = (count as f64 * STALLED) as usize;
        if stalled > 0 && count <= 1000 {
            for sidecar in &sidecars[count - stalled..] {
                sidecar.freeze();
            }
            let others = self
                .round(&arrivals, 1 + self.edits, self.edits, count - stalled)
                .await?;
            self.print(&format!("{stalled} stalled"), &others, count - stalled);
            println!(
                "  ratio to all well    p99 {:.2}, resident {:.2}",
                median(&others.arrivals, 2).as_secs_f64() / median(&round.arrivals, 2).as_secs_f64(),
                others.memory.resident / round.memory.resident
            );
        }
        let twice = arrivals.duplicates.load(Ordering::Relaxed);
        ensure!(twice == 0, "{twice} events came twice");
        drop(sidecars);
        self.lists().await
    }

    async fn connect(&self, arrivals: &Arc<Arrivals>) -> anyhow::Result<Vec<Sidecar>> {
        stream::iter(0..self.sidecars)
            .map(|number| async move {
                let app = format!("app-{number}");
                let mut sidecar =
                    Sidecar::connect(self.operator.address, &self.stage.workloads, NAMESPACE, &app).await?;
                sidecar.subscribe(arrivals.clone(), number).await?;
                anyhow::Ok(sidecar)
            })
            .buffered(CONNECTING)
            .try_collect()
            .await
    }

    async fn edit(&self, marker: &str) -> anyhow::Result<()> {
        apply_component(self.stage, NAMESPACE, COMPONENT, marker, &self.pad).await
    }

    /// Makes edits one after the other, each once the one before has reached the first `reached` sidecars.
    async fn round(&self, arrivals: &Arrivals, from: usize, edits: usize, reached: usize) -> anyhow::Result<Round> {
        let before = Usage::of(self.operator.process.pid)?;
        let (mut patches, mut times) = (Vec::with_capacity(edits), Vec::with_capacity(edits));
        for number in from..from + edits {
            let began = Instant::now();
            self.edit(&number.to_string()).await?;
            let answered = Instant::now();
            patches.push(answered - began);
            let cells = &arrivals.of(number)[..reached];
            while cells.iter().any(|cell| cell.load(Ordering::Relaxed) == 0) {
                ensure!(
                    answered.elapsed() < DELIVERY_DEADLINE,
                    "edit {number} reached {} of {reached} sidecars only",
                    cells.iter().filter(|cell| cell.load(Ordering::Relaxed) != 0).count()
                );
                sleep(Duration::from_millis(2)).await;
            }
            let answered = arrivals.nanos(answered);
            let after = cells
                .iter()
                .map(|cell| cell.load(Ordering::Relaxed).saturating_sub(answered));
            let mut after: Vec<_> = after.map(Duration::from_nanos).collect();
            after.sort_unstable();
            let at = |share: f64| after[((reached - 1) as f64 * share).round() as usize];
            times.push([at(0.0), at(0.5), at(0.99), at(1.0)]);
        }
        patches.sort_unstable();
        Ok(Round {
            patch: patches[patches.len() / 2],
            arrivals: times,
            cpu: Usage::of(self.operator.process.pid)? - before,
            memory: Memory::of(self.operator.process.pid)?,
        })
    }

    fn print(&self, what: &str, round: &Round, reached: usize) {
        let edits = round.arrivals.len();
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
        let [first, half, p99, last] = [0, 1, 2, 3].map(|at| milliseconds(median(&round.arrivals, at)));
        println!(
            "  {what:<20} {edits}, PATCH {:.1} ms; then, medians of the edits:",
            milliseconds(round.patch)
        );
        println!(
            "    first {first:.1}, half {half:.1}, p99 {p99:.1}, last {last:.1} ms; worst last {:.1} ms",
            { milliseconds(round.arrivals.iter().map(|times| times[3]).max().unwrap_or_default()) }
        );
        let cpu = round.cpu.as_secs_f64();
        println!(
            "    CPU {cpu:.2} s, {:.1} µs for each event; {}",
            cpu * 1e6 / (edits * reached) as f64,
            round.memory
        );
    }

    /// The upper bound of the histogram's bucket that the 99th percentile is in, in seconds.
    async fn server_p99(&self) -> anyhow::Result<Option<f64>> {
        let buckets = self.operator.series("dapr_operator_propagation_seconds_bucket").await?;
        let total = buckets.iter().map(|(_, count)| *count).fold(0.0, f64::max);
        let bound = |labels: &str| labels.split('"').nth(1)?.parse::<f64>().ok();
        let reached = buckets.iter().filter(|(_, count)| *count >= total * 0.99);
        Ok(reached.filter_map(|(labels, _)| bound(labels)).reduce(f64::min))
    }

    /// Lists in a closed loop on a few connections.
    async fn lists(&self) -> anyhow::Result<()> {
        let mut listers = Vec::new();
        for number in 0..LISTERS {
            let app = format!("app-{number}");
            listers.push(Sidecar::connect(self.operator.address, &self.stage.workloads, LISTED, &app).await?);
        }
        let before = Usage::of(self.operator.process.pid)?;
        let began = Instant::now();
        let listing = listers.iter_mut().map(|sidecar| async move {
            let mut lists = 0_usize;
            while began.elapsed() < LISTING {
                ensure!(sidecar.list().await? == LIST, "a list without all components");
                lists += 1;
            }
            Ok(lists)
        });
        let lists: usize = futures::future::try_join_all(listing).await?.into_iter().sum();
        let cpu = Usage::of(self.operator.process.pid)? - before;
        println!(
            "  lists                {:.0} a second of {LIST} components on {LISTERS} connections, {:.1} µs CPU each",
            lists as f64 / began.elapsed().as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / lists as f64
        );
        Ok(())
    }
}

async fn apply_component(stage: &Stage, namespace: &str, name: &str, marker: &str, pad: &str) -> anyhow::Result<()> {
    let properties = json!([
        {"name": "marker", "value": format!("edit-{marker}")},
        {"name": "redisHost", "value": "redis.default.svc.cluster.local:6379"},
        {"name": "pad", "value": pad},
    ]);
    let spec = json!({"spec": {"type": "state.redis", "version": "v1", "metadata": properties}});
    let (version, kind) = ("dapr.io/v1alpha1", "Component");
    stage
        .apply(version, kind, "components", Some(namespace), name, spec)
        .await
}

fn median(times: &[[Duration; 4]], at: usize) -> Duration {
    let mut column: Vec<_> = times.iter().map(|row| row[at]).collect();
    column.sort_unstable();
    column[column.len() / 2]
}
