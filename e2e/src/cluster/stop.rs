//! Stopping a node: one process is killed, the kernel does the rest, and its files are removed.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::folder::{Busy, Folder, Lock};
use super::{Error, Stopped, cgroup, require_root};

/// The kernel takes moments to end all processes of the namespaces.
const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

pub(super) async fn down(folder: &Folder, keep_logs: bool) -> Result<Stopped, Error> {
    require_root()?;
    let (lock, was_running) = match folder.try_lock()? {
        Ok(lock) => (lock, false),
        Err(busy) => (end(folder, &busy).await?, true),
    };
    let kept = keep_logs.then(|| keep(folder)).transpose()?;
    let left_over = remove(folder).await?;
    if let Some(kept) = kept.flatten() {
        let target = folder.logs();
        fs::create_dir_all(folder.root())
            .and_then(|()| fs::rename(&kept, &target))
            .map_err(system("keep the logs"))?;
    }
    lock.remove().map_err(system("remove the lock"))?;
    Ok(match (was_running, left_over) {
        (true, _) => Stopped::Running,
        (false, true) => Stopped::LeftOver,
        (false, false) => Stopped::Nothing,
    })
}

/// Ends the node that holds the lock and takes the lock over.
async fn end(folder: &Folder, busy: &Busy) -> Result<Lock, Error> {
    let name = folder.name().to_owned();
    let Some(record) = folder.record() else {
        return Err(Error::Starting {
            name,
            pid: busy.pid.clone(),
        });
    };
    kill(folder, record.pid).await?;
    let deadline = Instant::now() + DEADLINE;
    loop {
        match folder.try_lock()? {
            Ok(lock) => return Ok(lock),
            Err(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            Err(busy) => {
                return Err(Error::Stop {
                    name,
                    reason: format!("process {} holds its lock", busy.pid),
                });
            }
        }
    }
}

/// Kills the node and waits until nothing of it runs.
pub(super) async fn kill(folder: &Folder, pid: u32) -> Result<(), Error> {
    let own = |pid: &u32| is_node(*pid, folder);
    // The first process of the namespaces: it is gone when all others are.
    let first = children(pid).into_iter().find(own);
    if let Some(process) = Some(pid).filter(own).and_then(as_pid) {
        // An error means that it has just ended.
        let _ = kill_process(process, Signal::KILL);
    }
    let deadline = Instant::now() + DEADLINE;
    for process in [Some(pid), first].into_iter().flatten() {
        while own(&process) {
            // When this process started the node, it has to collect it.
            if let Some(process) = as_pid(process) {
                let _ = waitpid(Some(process), WaitOptions::NOHANG);
            }
            if Instant::now() > deadline {
                let reason = format!("process {process} still runs");
                return Err(Error::Stop {
                    name: folder.name().to_owned(),
                    reason,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// Ends the node, and leaves what it wrote besides its journal.
pub(super) async fn switch_off(folder: &Folder) -> Result<Lock, Error> {
    require_root()?;
    let lock = match folder.try_lock()? {
        Ok(lock) => lock,
        Err(busy) => end(folder, &busy).await?,
    };
    remove_groups(folder).await?;
    match fs::remove_file(folder.journal()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(system("remove the journal")(error)),
        _ => Ok(lock),
    }
}

/// Removes files and control groups; says whether there were files.
pub(super) async fn remove(folder: &Folder) -> Result<bool, Error> {
    remove_groups(folder).await?;
    Ok(folder.remove()?)
}

async fn remove_groups(folder: &Folder) -> Result<(), Error> {
    let deadline = Instant::now() + DEADLINE;
    // The kernel counts a process in its group for moments after it ended.
    while let Err(error) = cgroup::remove(folder.name()) {
        if error.kind() != io::ErrorKind::ResourceBusy || Instant::now() > deadline {
            return Err(system("remove control groups")(error));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Takes the logs out of the folder, to a place beside it.
fn keep(folder: &Folder) -> Result<Option<PathBuf>, Error> {
    let target = folder.root().with_extension("logs");
    if !folder.logs().exists() {
        return Ok(None);
    }
    fs::rename(folder.logs(), &target).map_err(system("keep the logs"))?;
    Ok(Some(target))
}

fn system(what: &str) -> impl FnOnce(io::Error) -> Error {
    let what = what.to_owned();
    move |source| Error::System { what, source }
}

fn as_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Whether a process is one of this node's two first: numbers are used again, command lines tell. An ended process has
/// no command line.
fn is_node(pid: u32, folder: &Folder) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == 0).collect();
    let root = folder.root().as_os_str().as_encoded_bytes();
    words.contains(&&b"node"[..]) && words.windows(2).any(|pair| pair == [b"--folder", root])
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
