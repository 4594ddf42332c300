//! The node itself: the first process in namespaces of its own, which starts Kubernetes and ends when a part of it does.
//!
//! Killing this process kills everything in the namespaces, and their mounts and interfaces go with them.

mod config;
mod forward;
mod layout;
mod network;
mod orphans;
mod pki;
mod processes;
mod programs;
mod ready;
mod storage;

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::PathBuf;

use tokio::runtime;

use crate::cluster::cgroup;
use crate::cluster::folder::{self, Folder};
use crate::cluster::journal::Journal;
use crate::command;
use layout::Layout;
use processes::Processes;
pub(crate) use ready::is_ready;

/// What a start gives to the node's process.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// The cluster's folder
    #[arg(long)]
    pub(crate) folder: PathBuf,
    /// The folder of the Kubernetes programs
    #[arg(long)]
    pub(crate) bin: PathBuf,
    /// Have the API server write an audit log
    #[arg(long)]
    pub(crate) audit: bool,
}

/// Why a node ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Folder(#[from] folder::Error),
    #[error("could not {what}")]
    Prepare { what: String, source: io::Error },
    #[error(transparent)]
    Command(#[from] command::Error),
    #[error("could not make certificates")]
    Certificate(#[from] outrigger_testkit::certs::Error),
    #[error("{program} ended ({status}); its log is {log}")]
    Ended {
        program: String,
        status: String,
        log: PathBuf,
    },
    #[error("could not {what}")]
    Request {
        what: &'static str,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    fn prepare(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Prepare { what, source }
    }

    fn log(&self) -> Option<PathBuf> {
        match self {
            Self::Ended { log, .. } => Some(log.clone()),
            _ => None,
        }
    }
}

/// Runs until a part ends. Standard input is the listening socket of the machine's loopback, standard output the lock.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let folder = Folder::at(args.folder)?;
    let mut journal = Journal::create(&folder.journal())?;
    let layout = Layout {
        folder,
        bin: args.bin,
        audit: args.audit,
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let Err(error) = runtime.block_on(live(&layout, &mut journal));
    let log = error.log();
    let error = anyhow::Error::from(error);
    journal.failed(format!("{error:#}"), log);
    Err(error)
}

async fn live(layout: &Layout, journal: &mut Journal) -> Result<std::convert::Infallible, Error> {
    let listener = take_listener().map_err(Error::prepare("take over the listening socket"))?;
    network::set_up().await?;
    let snapshotter = storage::set_up(layout).await?;
    cgroup::create(layout.folder.name()).map_err(Error::prepare("create control groups"))?;
    let port = listener
        .local_addr()
        .map_err(Error::prepare("read the listening socket"))?
        .port();
    let pki = pki::prepare(layout, port)?;
    config::write(layout, snapshotter)?;
    let forwarder = forward::to_api_server(listener).map_err(Error::prepare("listen on the machine's loopback"))?;
    let mut processes = Processes::new(layout);
    processes.keep("forwarder", forwarder);
    processes.keep("orphans", orphans::reap());
    journal.step("namespaces, network and certificates");

    processes.start(programs::etcd())?;
    processes.start(programs::api_server(layout))?;
    processes.start(programs::containerd(layout))?;
    let client = ready::client(&pki.inside).await?;
    processes.during(ready::api_server(&client)).await?;
    journal.step("etcd and API server");

    processes.start(programs::controller_manager(layout))?;
    processes.start(programs::scheduler(layout))?;
    processes.during(storage::import_pause(layout, snapshotter)).await?;
    processes.start(programs::kubelet(layout))?;
    processes.start(programs::proxy(layout))?;
    processes.during(ready::grant_dns(&client)).await?;
    processes.start(programs::dns(layout))?;
    processes.during(ready::node(&client, layout.folder.name())).await?;
    journal.step("node: containerd, kubelet, kube-proxy");
    processes.during(ready::dns()).await?;
    processes.during(ready::service_account(&client)).await?;
    journal.ready();
    Err(processes.ended().await)
}

/// The socket belongs to the network that it was created in, so this process, in another one, accepts what comes to the
/// machine's loopback.
fn take_listener() -> io::Result<TcpListener> {
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    Ok(listener)
}
