//! The demo: the main job on a real cluster, told step by step, with the commands to repeat it.

mod narrator;
mod story;
mod target;

use std::{fs::File, time::Instant};

use anyhow::{Context, bail};
use outrigger_testkit::toolchain;

use narrator::Narrator;
pub use target::Target;

/// Runs the whole story on `target` and leaves the cluster up.
///
/// # Errors
/// The step that failed and why; what was installed stays, so that it can be looked at.
pub async fn run(target: Target) -> anyhow::Result<()> {
    let _only_one = lock()?;
    let started = Instant::now();
    let mut narrator = Narrator::default();
    let cluster = target.prepare(&mut narrator).await?;
    story::tell(&cluster, &mut narrator).await?;
    println!(
        "\nThe demo took {:.0} s. The cluster is still up; look around:\n",
        started.elapsed().as_secs_f64()
    );
    for line in cluster.farewell() {
        println!("  {line}");
    }
    Ok(())
}

/// Two demos at once would undo each other's steps.
fn lock() -> anyhow::Result<File> {
    let folder = toolchain::cache()?;
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join("demo.lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!(
                "another demo is running on this machine (it holds {}); wait until it has ended",
                path.display()
            )
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}
