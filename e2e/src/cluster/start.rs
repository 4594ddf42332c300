//! Starting a node, and following what it says until it is ready.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outrigger_testkit::toolchain::Toolchain;

use super::folder::{self, Folder, Lock, Record};
use super::{Cluster, Error, Event, Options, Status, answers, journal, status, stop};
use crate::{command, packages};

const DEFAULT_PORT: u16 = 6443;
const POLL: Duration = Duration::from_millis(50);
/// How much of a log is shown when a start fails.
const SHOWN: usize = 20;

pub(super) async fn up(options: &Options, say: &mut (dyn FnMut(&Event) + Send)) -> Result<Cluster, Error> {
    let folder = Folder::of(&options.name)?;
    let root = super::require_root();
    packages::ensure(root.is_ok(), &mut |line| {
        say(&Event::Step {
            after: Duration::ZERO,
            text: line.to_owned(),
        });
    })?;
    root?;
    let toolchain = Toolchain::find()?;
    for path in [folder.root(), toolchain.bin()] {
        folder::require_visible(path)?;
    }
    loop {
        if let Ok(lock) = folder.try_lock()? {
            return start(options, folder, toolchain, lock, say).await;
        }
        if let Some(cluster) = running(options, &folder, &toolchain).await? {
            return Ok(cluster);
        }
    }
}

/// The lock is taken: by a cluster that can be used, or by another start. None when it is free again.
async fn running(options: &Options, folder: &Folder, toolchain: &Toolchain) -> Result<Option<Cluster>, Error> {
    let name = options.name.clone();
    let (pid, port) = match status(folder)? {
        Status::Running { pid, port } => (pid, port),
        Status::Starting { pid } => return Err(Error::Starting { name, pid }),
        Status::Absent | Status::Ended { .. } => return Ok(None),
    };
    if let Some(requested) = options.port.filter(|requested| *requested != port) {
        let running = port;
        return Err(Error::OtherPort {
            name,
            running,
            requested,
        });
    }
    let (folder, toolchain) = (folder.clone(), toolchain.clone());
    let cluster = Cluster {
        folder,
        toolchain,
        pid,
        port,
        started: false,
    };
    if !answers(&cluster.access()).await {
        return Err(Error::Unhealthy { name, pid });
    }
    Ok(Some(cluster))
}

async fn start(
    options: &Options,
    folder: Folder,
    toolchain: Toolchain,
    lock: Lock,
    say: &mut (dyn FnMut(&Event) + Send),
) -> Result<Cluster, Error> {
    let listener = match listen(options.port) {
        Ok(listener) => listener,
        Err(error) => {
            // Nothing began, so nothing stays; a lock file that does is harmless.
            let _ = lock.remove();
            return Err(error);
        }
    };
    // What an earlier node left, which may have been killed.
    stop::remove(&folder).await?;
    folder.create()?;
    launch(options, folder, toolchain, lock, listener, say).await
}

/// Ends the node and starts it on what it wrote: to Kubernetes, a machine that lost its power.
pub(super) async fn restart(cluster: &Cluster, deadline: Duration) -> Result<Cluster, Error> {
    let options = Options {
        name: cluster.folder.name().to_owned(),
        port: Some(cluster.port),
        audit: false,
        deadline,
    };
    let (folder, toolchain) = (cluster.folder.clone(), cluster.toolchain.clone());
    let lock = stop::switch_off(&folder).await?;
    let listener = listen(options.port)?;
    launch(&options, folder, toolchain, lock, listener, &mut |_| {}).await
}

async fn launch(
    options: &Options,
    folder: Folder,
    toolchain: Toolchain,
    lock: Lock,
    listener: TcpListener,
    say: &mut (dyn FnMut(&Event) + Send),
) -> Result<Cluster, Error> {
    let port = listener
        .local_addr()
        .map_err(|source| Error::Port {
            port: DEFAULT_PORT,
            source,
        })?
        .port();
    let mut process = spawn(options, &folder, &toolchain, listener, &lock)?;
    let pid = process.id();
    folder.write_record(&Record { pid, port })?;
    let followed = tokio::select! {
        followed = follow(options, &folder, &mut process, say) => followed.map_err(Some),
        _ = tokio::signal::ctrl_c() => Err(None),
    };
    match followed {
        Ok(()) => Ok(Cluster {
            folder,
            toolchain,
            pid,
            port,
            started: true,
        }),
        Err(reason) => {
            let log = failed_log(&folder).map(|path| tail(&path)).unwrap_or_default();
            stop::kill(&folder, pid).await?;
            let _ = process.wait();
            let name = options.name.clone();
            Err(match reason {
                Some(reason) => Error::Start { name, reason, log },
                None => Error::Interrupted { name },
            })
        }
    }
}

fn listen(requested: Option<u16>) -> Result<TcpListener, Error> {
    let bind = |port| TcpListener::bind(("127.0.0.1", port)).map_err(|source| Error::Port { port, source });
    match requested {
        Some(port) => bind(port),
        None => bind(DEFAULT_PORT).or_else(|_| bind(0)),
    }
}

/// The node gets the listening socket as standard input and the lock as standard output: it holds both from its first
/// moment, and its death gives them back.
fn spawn(
    options: &Options,
    folder: &Folder,
    toolchain: &Toolchain,
    listener: TcpListener,
    lock: &Lock,
) -> Result<Child, Error> {
    let program = program()?;
    folder::require_visible(&program)?;
    let failed = |source| Error::System {
        what: "start a process in new namespaces (unshare)".into(),
        source,
    };
    let log = File::create(folder.log("node")).map_err(failed)?;
    // A session of its own: closing the terminal does not end the node.
    let mut command = Command::new("setsid");
    command.args([
        "unshare",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
    ]);
    command
        .arg(program)
        .arg("node")
        .arg("--folder")
        .arg(folder.root())
        .arg("--bin")
        .arg(toolchain.bin());
    if options.audit {
        command.arg("--audit");
    }
    let search_path = std::env::join_paths(command::search_path()).unwrap_or_default();
    command.env_clear().env("PATH", search_path).current_dir("/");
    command
        .stdin(OwnedFd::from(listener))
        .stdout(lock.share().map_err(failed)?)
        .stderr(Stdio::from(log));
    command.spawn().map_err(failed)
}

/// The program `cluster`, which is this one or, in the demo and in tests, lies beside it or a folder up.
fn program() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(|source| Error::System {
        what: "find the running program".into(),
        source,
    })?;
    let beside = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("cluster"))
        .find(|path| path.is_file());
    beside.ok_or(Error::NoProgram(own))
}

/// Passes on what the node says until it is ready; an error says why it will not be.
async fn follow(
    options: &Options,
    folder: &Folder,
    process: &mut Child,
    say: &mut (dyn FnMut(&Event) + Send),
) -> Result<(), String> {
    let deadline = Instant::now() + options.deadline;
    let mut said = 0;
    loop {
        // Looked at first: what a process said before it ended is read after.
        let ended = process.try_wait().ok().flatten();
        let events = journal::read(&folder.journal());
        // A failure is told by the error.
        for event in events
            .iter()
            .skip(said)
            .filter(|event| !matches!(event, Event::Failed { .. }))
        {
            say(event);
        }
        said = events.len();
        match events.last() {
            Some(Event::Ready { .. }) => return Ok(()),
            Some(Event::Failed { text, .. }) => return Err(text.clone()),
            _ => {}
        }
        if let Some(status) = ended {
            return Err(format!("its first process ended ({status})"));
        }
        if Instant::now() > deadline {
            return Err(format!("it was not ready within {}s", options.deadline.as_secs()));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The log of what failed; when the node does not say, its own or, if that is empty, the API server's.
fn failed_log(folder: &Folder) -> Option<PathBuf> {
    let named = journal::read(&folder.journal())
        .into_iter()
        .find_map(|event| match event {
            Event::Failed { log, .. } => log,
            _ => None,
        });
    let candidates = [folder.log("node"), folder.log("kubelet"), folder.log("kube-apiserver")];
    named.or_else(|| {
        candidates
            .into_iter()
            .find(|path| fs::metadata(path).is_ok_and(|file| file.len() > 0))
    })
}

fn tail(path: &Path) -> String {
    let log = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let log = log.unwrap_or_else(|error: io::Error| error.to_string());
    let lines: Vec<&str> = log.lines().collect();
    format!(
        "the end of {}:\n{}",
        path.display(),
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requested_port_that_is_taken_is_an_error() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = listen(Some(port)).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot listen on 127.0.0.1:{port}")),
            "{error}"
        );
    }

    #[test]
    fn some_port_is_found_when_none_is_requested() {
        let (first, second) = (listen(None).unwrap(), listen(None).unwrap());
        assert_ne!(first.local_addr().unwrap(), second.local_addr().unwrap());
    }

    #[test]
    fn the_end_of_a_log_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubelet.log");
        fs::write(&path, (0..100).map(|line| format!("line {line}\n")).collect::<String>()).unwrap();
        let text = tail(&path);
        assert!(
            text.ends_with("line 99") && text.contains("line 80") && !text.contains("line 79"),
            "{text}"
        );
    }
}
