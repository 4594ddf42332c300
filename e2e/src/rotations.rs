//! Three rotations of the root under a steady load of mTLS calls: two sidecars with their apps, a sidecar that never hears of a new
//! root, all parts of the control plane, and pods that the API server has reviewed, as processes against a real API server. Nothing
//! may fail, and nothing may restart.

pub mod pods;
mod probe;
mod stage;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, bail, ensure};
use outrigger_core::control_plane::Service;
use outrigger_identity::Expect;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::{
    probe::{Probe, Target},
    stage::{GRACE, SIDECARS, Stage, TTL},
};

/// Roots that are replaced before it ends, unless something else is asked for.
pub const ROTATIONS: usize = 3;
/// Pause between two rounds of calls.
const PACE: Duration = Duration::from_millis(100);
/// A call that begins this shortly before the first root's end may end after it.
const MARGIN: Duration = Duration::from_secs(2);
const CALL: Duration = Duration::from_secs(10);

/// Object identifiers of keys.
const RSA: &str = "1.2.840.113549.1.1.1";
const ED25519: &str = "1.3.101.112";

/// Calls that were made, by kind, and why some failed.
#[derive(Default)]
struct Tally {
    calls: BTreeMap<&'static str, usize>,
    failures: Vec<String>,
}

impl Tally {
    fn count(&mut self, kind: &'static str, result: anyhow::Result<()>) {
        *self.calls.entry(kind).or_default() += 1;
        if let Err(error) = result {
            self.failures.push(format!("{kind}: {error:#}"));
        }
    }
}

/// Runs programs until so many roots were replaced, prints what happened, and fails when a call or a process did.
///
/// Without a folder the programs beside this one run.
///
/// # Errors
/// What failed.
pub async fn run(programs: Option<PathBuf>, roots: usize) -> anyhow::Result<()> {
    let programs = match programs {
        Some(folder) => folder,
        None => std::env::current_exe()?
            .parent()
            .context("programs are in a folder")?
            .to_owned(),
    };
    println!("setting up (an authority lives for {TTL} s, a new root is announced for {GRACE} s)");
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let mut stage = Stage::set_up(programs, &stop).await?;
    let first_expires = probe::expiry(&stage.first)?;
    ensure!(
        SystemTime::now() + MARGIN < first_expires,
        "setting up took longer than the first root lives"
    );
    let probes = Probes::new(&stage, &stop).await?;
    println!("calls begin");

    let began = Instant::now();
    let limit = Duration::from_secs(TTL) * u32::try_from(roots + 2)?;
    let (mut tally, mut anchors, mut dropped) = (Tally::default(), stage.anchors().await?, 0);
    while dropped < roots {
        ensure!(
            began.elapsed() < limit,
            "only {dropped} roots were dropped in {limit:?}"
        );
        let first_holds = SystemTime::now() + MARGIN < first_expires;
        probes.round(&stage, first_holds, &mut tally).await;
        let now = stage.anchors().await?;
        if now != anchors {
            let count = |text: &str| text.matches("BEGIN CERTIFICATE").count();
            dropped += usize::from(count(&now) < count(&anchors));
            println!(
                "{:>6.1} s: {} trust anchors; {} calls so far, {} failed",
                began.elapsed().as_secs_f64(),
                count(&now),
                tally.calls.values().sum::<usize>(),
                tally.failures.len()
            );
            anchors = now;
        }
        stage.check_processes()?;
        sleep(PACE).await;
    }
    for (kind, calls) in &tally.calls {
        println!("  {calls:>6} {kind}");
    }
    for failure in tally.failures.iter().take(20) {
        println!("  failed: {failure}");
    }
    if !tally.failures.is_empty() {
        bail!(
            "{} calls failed; logs are in {}",
            tally.failures.len(),
            stage.keep_logs().display()
        );
    }
    stage.end().await?;
    println!("{roots} roots replaced: 0 calls failed, 0 processes restarted");
    Ok(())
}

/// Who calls whom over new connections.
struct Probes {
    up_to_date: Probe,
    /// Knows the first root only.
    frozen: Probe,
    targets: Vec<Target>,
}

impl Probes {
    async fn new(stage: &Stage, stop: &CancellationToken) -> anyhow::Result<Self> {
        let up_to_date = Probe::new(stage, Some(stage.sidecar_anchors()), &stage.first, stop).await?;
        let frozen = Probe::new(stage, None, &stage.first, stop).await?;
        let targets = stage.targets()?;
        for target in &targets {
            // Some managed API servers refuse webhooks that serve Ed25519 certificates; everybody else is spared the work of RSA.
            let expected = match &target.expect {
                Expect::Id(id) if Service::Injector.app_id() == id.workload().map_or("", |of| of.app_id) => RSA,
                _ => ED25519,
            };
            let found = probe::serving_key(&target.address).await?;
            ensure!(
                found == expected,
                "{} shows a key of {found}, expected {expected}",
                target.address
            );
            // What counts as a success has to be able to fail.
            let nobody = Target {
                kind: target.kind,
                address: target.address.clone(),
                expect: Expect::Workload {
                    namespace: "nowhere".to_owned(),
                    app_id: "nobody".to_owned(),
                },
            };
            let refused = in_time(up_to_date.shake_hands(&nobody)).await.is_err();
            ensure!(refused, "{} passed for somebody else", target.address);
        }
        Ok(Self {
            up_to_date,
            frozen,
            targets,
        })
    }

    async fn round(&self, stage: &Stage, first_holds: bool, tally: &mut Tally) {
        let [one, two, frozen] = SIDECARS;
        for (from, to) in [(one, two), (two, one)] {
            tally.count("calls between sidecars and their apps", stage.invoke(from, to).await);
        }
        if first_holds {
            tally.count(
                "calls of a sidecar that knows the first root only",
                stage.invoke(frozen, one).await,
            );
        }
        let kind = "pods that the API server had reviewed by the injector";
        tally.count(kind, in_time(stage.admit()).await);
        for target in &self.targets {
            let kind = target.kind;
            tally.count(kind, in_time(self.up_to_date.shake_hands(target)).await);
            // The sidecar with the first root only is no target for others once that root is gone.
            if first_holds {
                let kind = "new connections of a client that knows the first root only";
                tally.count(kind, in_time(self.frozen.shake_hands(target)).await);
            }
        }
    }
}

async fn in_time(call: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    timeout(CALL, call).await.context("no answer in time")?
}

/// Shared by those who wait for something in the set-up.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> anyhow::Result<T> {
    let wait = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    // Recordings run this under Valgrind, where everything takes its time.
    let found = timeout(Duration::from_secs(180), wait).await;
    found.with_context(|| format!("waiting for {what}"))
}
