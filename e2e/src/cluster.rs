//! The local cluster: one Kubernetes node in namespaces of its own, found by its name.

pub(crate) mod cgroup;
pub(crate) mod folder;
pub(crate) mod journal;
mod start;
mod stop;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use outrigger_testkit::toolchain::{self, Toolchain};
use tokio::process::Command;

use crate::access::{self, Access};
use crate::{command, node, packages};
pub use folder::Folder;
pub use journal::Event;

/// The cluster's name where none is given.
pub const DEFAULT_NAME: &str = "outrigger";

/// Why a cluster could not be started, found or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a local cluster makes namespaces and mounts, which needs root: run this as root")]
    NotRoot,
    #[error(transparent)]
    Folder(#[from] folder::Error),
    #[error(transparent)]
    Toolchain(#[from] toolchain::Error),
    #[error(transparent)]
    Packages(#[from] packages::Error),
    #[error("cannot listen on 127.0.0.1:{port}; choose another port, or none to get a free one")]
    Port { port: u16, source: io::Error },
    #[error("cluster {name} is already being started by process {pid}")]
    Starting { name: String, pid: String },
    #[error(
        "cluster {name} runs as process {pid}, but its API server does not answer; stop the cluster and start it again"
    )]
    Unhealthy { name: String, pid: u32 },
    #[error(
        "cluster {name} runs with its API server on port {running}, not on {requested}; stop it first, or leave the port out"
    )]
    OtherPort { name: String, running: u16, requested: u16 },
    #[error("the program `cluster` is not beside {0}: build it with `cargo build -p outrigger-e2e --bin cluster`")]
    NoProgram(PathBuf),
    #[error("could not {what}")]
    System { what: String, source: io::Error },
    #[error("starting cluster {name} was interrupted, so it is stopped again")]
    Interrupted { name: String },
    #[error("cluster {name} did not start: {reason}\n{log}")]
    Start { name: String, reason: String, log: String },
    #[error("cluster {name} does not run")]
    NotRunning { name: String },
    #[error("cluster {name} did not stop: {reason}")]
    Stop { name: String, reason: String },
    #[error(transparent)]
    Command(#[from] command::Error),
    #[error(transparent)]
    Access(#[from] access::Error),
}

/// How to start a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    pub name: String,
    /// The API server's port on 127.0.0.1. None means 6443 or, when that is taken, a free one.
    pub port: Option<u16>,
    /// Have the API server log every request to `logs/audit.log`. Only when this starts the cluster.
    pub audit: bool,
    /// For the whole start.
    pub deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: DEFAULT_NAME.into(),
            port: None,
            audit: false,
            deadline: Duration::from_secs(180),
        }
    }
}

/// What a cluster does right now.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// Nothing runs and nothing is left of an earlier one.
    Absent,
    Starting {
        pid: String,
    },
    Running {
        pid: u32,
        port: u16,
    },
    /// Its node ended; logs are still there.
    Ended {
        reason: String,
        log: Option<PathBuf>,
    },
}

/// What stopping found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stopped {
    Running,
    /// A node that had ended before; its files are removed now.
    LeftOver,
    Nothing,
}

/// A running cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    folder: Folder,
    toolchain: Toolchain,
    pid: u32,
    port: u16,
    started: bool,
}

impl Cluster {
    /// Starts the cluster, or returns the one that runs. `say` gets what the node says of its start.
    pub async fn up(options: &Options, say: &mut (dyn FnMut(&Event) + Send)) -> Result<Self, Error> {
        start::up(options, say).await
    }

    /// The running cluster with this name.
    pub fn connect(name: &str) -> Result<Self, Error> {
        let folder = Folder::of(name)?;
        match status(&folder)? {
            Status::Running { pid, port } => Ok(Self {
                folder,
                toolchain: Toolchain::find()?,
                pid,
                port,
                started: false,
            }),
            Status::Starting { pid } => Err(Error::Starting {
                name: name.to_owned(),
                pid,
            }),
            Status::Absent | Status::Ended { .. } => Err(Error::NotRunning { name: name.to_owned() }),
        }
    }

    /// Kills everything of the cluster at once, as when the power fails, and starts it again on what was written.
    ///
    /// # Errors
    /// As for a start; it does not run then.
    pub async fn restart(self, deadline: Duration) -> Result<Self, Error> {
        start::restart(&self, deadline).await
    }

    /// Stops the cluster with this name and removes everything of it, besides its logs if asked to keep them.
    pub async fn down(name: &str, keep_logs: bool) -> Result<Stopped, Error> {
        stop::down(&Folder::of(name)?, keep_logs).await
    }

    /// What the cluster with this name does.
    pub fn status(name: &str) -> Result<Status, Error> {
        status(&Folder::of(name)?)
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The API server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether this call started it.
    pub fn is_new(&self) -> bool {
        self.started
    }

    /// The folder with kubectl, helm and ctr.
    pub fn programs(&self) -> &Path {
        self.toolchain.bin()
    }

    /// kubectl, helm and clients for this cluster.
    pub fn access(&self) -> Access {
        Access::new(self.toolchain.clone(), self.folder.kubeconfig(), None)
    }

    /// A program inside the node: its network, its processes, its `/run` and `/var/lib`; all other files are the
    /// machine's.
    pub fn inside(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        // The process itself stays outside of the PID namespace that it made.
        let processes = format!("--pid=/proc/{}/ns/pid_for_children", self.pid);
        command
            .args(["--target", &self.pid.to_string(), "--mount", "--net", &processes, "--"])
            .arg(program);
        command
    }

    /// Loads an image archive into the node.
    pub async fn import_image(&self, archive: &Path) -> Result<(), Error> {
        let unreadable = |source| Error::System {
            what: format!("read {}", archive.display()),
            source,
        };
        let file = File::open(archive).map_err(unreadable)?;
        let mut ctr = self.inside(self.toolchain.program("ctr"));
        // Through standard input, because the node does not see all of the machine's folders.
        ctr.args(["--namespace", "k8s.io", "images", "import", "-"])
            .stdin(Stdio::from(file));
        command::run(ctr).await?;
        Ok(())
    }
}

fn status(folder: &Folder) -> Result<Status, Error> {
    let busy = folder.busy()?;
    let last = journal::read(&folder.journal()).pop();
    Ok(match (busy, last, folder.record()) {
        (Some(_), Some(Event::Ready { .. }), Some(record)) => Status::Running {
            pid: record.pid,
            port: record.port,
        },
        (Some(busy), ..) => Status::Starting { pid: busy.pid },
        (None, Some(Event::Failed { text, log }), _) => Status::Ended { reason: text, log },
        (None, None, None) if !folder.root().exists() => Status::Absent,
        (None, ..) => Status::Ended {
            reason: "it was killed".into(),
            log: None,
        },
    })
}

fn require_root() -> Result<(), Error> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(Error::NotRoot)
    }
}

async fn answers(access: &Access) -> bool {
    match access.client().await {
        Ok(client) => node::is_ready(&client).await,
        Err(_) => false,
    }
}
