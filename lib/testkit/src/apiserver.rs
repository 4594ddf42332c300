//! A real kube-apiserver and etcd on loopback, for tests that need the API and no node.
//!
//! One server a test binary, started by the first test that asks, about four seconds later ready. It ends with the test
//! process, however that ends, and its folder with it. No controller manager runs: namespaces are never emptied, owners
//! never garbage collected, and Pods are stored without being run.

pub mod audit;
mod faults;
mod objects;
mod processes;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::{OnceCell, oneshot};

use crate::certs::{self, Authority};
use crate::kubeconfig;
use crate::toolchain::{self, Toolchain};
pub use faults::FaultyApiServer;
use processes::Processes;

/// Generous: four seconds on an idle machine, more while others compile.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// Why no API server could be started, or a request of the test's own set-up failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Toolchain(#[from] toolchain::Error),
    #[error("could not prepare the API server's certificates")]
    Certificate(#[from] certs::Error),
    #[error("could not prepare the API server's folder")]
    Folder(#[source] io::Error),
    #[error("could not start {program}")]
    Spawn { program: String, source: io::Error },
    #[error("found no free port on 127.0.0.1 for the API server")]
    Ports,
    #[error("could not use the API server's kubeconfig")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    #[error("{program} ended while starting ({status}); the end of its log:\n{log}")]
    Ended {
        program: &'static str,
        status: String,
        log: String,
    },
    #[error("the API server was not ready within {}s; the end of its log:\n{log}", START_DEADLINE.as_secs())]
    NotReady { log: String },
    #[error("etcd refused: {0}")]
    Etcd(String),
    #[error("the thread that starts the API server ended early")]
    Lost,
    #[error("could not {what}")]
    Request { what: String, source: Box<kube::Error> },
    #[error("could not read {path}: {reason}")]
    Manifest { path: PathBuf, reason: String },
    #[error("CustomResourceDefinition {0} was not established in time")]
    NotEstablished(String),
}

/// A running API server with a client certificate of the group `system:masters`.
pub struct ApiServer {
    folder: PathBuf,
    authority: String,
    server_url: String,
    etcd_url: String,
    config: Config,
}

static SHARED: OnceCell<Result<ApiServer, Error>> = OnceCell::const_new();

impl ApiServer {
    /// The test binary's server, started on first use. Panics when it cannot start, with the reason: a test that needs
    /// it must not pass without it.
    pub async fn shared() -> &'static Self {
        match SHARED.get_or_init(Self::start).await {
            Ok(server) => server,
            #[allow(clippy::panic, reason = "only tests call this, and they cannot go on")]
            Err(error) => panic!("{}", with_causes(error)),
        }
    }

    /// Starts on a thread with a runtime of its own: the caller's runtime belongs to one test and ends with
    /// it.
    async fn start() -> Result<Self, Error> {
        let (ready, started) = oneshot::channel();
        thread::Builder::new()
            .name("kube-apiserver".into())
            .spawn(move || serve(ready))
            .map_err(|source| Error::Spawn {
                program: "a thread".into(),
                source,
            })?;
        started.await.map_err(|_| Error::Lost)?
    }

    /// A client with all rights. It belongs to the calling test's runtime, so every test asks for its own.
    pub fn client(&self) -> Client {
        build(self.config.clone())
    }

    /// A client that acts as this user and these groups (and `system:authenticated`), with their rights only. Service
    /// accounts are `system:serviceaccount:NAMESPACE:NAME` in the groups `system:serviceaccounts` and
    /// `system:serviceaccounts:NAMESPACE`.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> Client {
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(user.to_owned());
        // Kubernetes adds this group to impersonated users only when no groups are given.
        let groups = groups.iter().copied().chain(["system:authenticated"]);
        config.auth_info.impersonate_groups = Some(groups.map(String::from).collect());
        build(config)
    }

    /// A kubeconfig file with all rights, for programs that a test starts.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// For example `https://127.0.0.1:20001`.
    pub fn server_url(&self) -> &str {
        &self.server_url
    }

    /// The certificate, PEM, that the server's certificate is verified with.
    pub fn authority_pem(&self) -> &str {
        &self.authority
    }
}

fn with_causes(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn build(config: Config) -> Client {
    ClientBuilder::try_from(config)
        .expect("the configuration made a client when the server started")
        .build()
}

/// Starts the server and then keeps this thread, because the processes are told to end when their parent thread does.
fn serve(ready: oneshot::Sender<Result<ApiServer, Error>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let started = match runtime {
        Ok(runtime) => runtime.block_on(start_processes()),
        Err(source) => Err(Error::Spawn {
            program: "a runtime".into(),
            source,
        }),
    };
    match started {
        Ok((server, _processes)) => {
            // Nobody waits any more: the processes end with this thread.
            if ready.send(Ok(server)).is_ok() {
                loop {
                    thread::park();
                }
            }
        }
        Err(error) => drop(ready.send(Err(error))),
    }
}

async fn start_processes() -> Result<(ApiServer, Processes), Error> {
    let toolchain = Toolchain::find()?;
    let folder = tempfile::Builder::new()
        .prefix("outrigger-apiserver-")
        .tempdir()
        .map_err(Error::Folder)?
        .keep();
    let files = Files::write(&folder)?;
    let mut processes = Processes::start(&toolchain, &folder)?;
    let server_url = format!("https://127.0.0.1:{}", processes.port());
    let text = kubeconfig::render("test", &server_url, &files.authority, &files.admin);
    certs::write_private(&folder.join("kubeconfig"), &text).map_err(Error::Folder)?;
    let config = Config::from_custom_kubeconfig(Kubeconfig::from_yaml(&text)?, &KubeConfigOptions::default()).await?;
    wait_until_ready(&config, &mut processes).await?;
    Ok((
        ApiServer {
            folder,
            authority: files.authority,
            server_url,
            etcd_url: format!("127.0.0.1:{}", processes.etcd_port()),
            config,
        },
        processes,
    ))
}

async fn wait_until_ready(config: &Config, processes: &mut Processes) -> Result<(), Error> {
    let client = Client::try_from(config.clone()).map_err(|source| Error::Request {
        what: "make a client".into(),
        source: Box::new(source),
    })?;
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        processes.check()?;
        let request = http::Request::get("/readyz")
            .body(Vec::new())
            .expect("a constant path is a valid request");
        let answer = tokio::time::timeout(Duration::from_secs(5), client.request_text(request)).await;
        if matches!(answer, Ok(Ok(_))) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::NotReady {
                log: processes.api_server_log(),
            });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the programs and the client need on disk.
struct Files {
    authority: String,
    admin: certs::Pair,
}

impl Files {
    fn write(folder: &Path) -> Result<Self, Error> {
        let authority = Authority::new("outrigger-test")?;
        let admin = authority.client("admin", Some("system:masters"))?;
        let hosts = ["127.0.0.1", "localhost", "kubernetes.default.svc"];
        authority
            .server("kube-apiserver", None, &hosts)?
            .write(folder, "apiserver")
            .map_err(Error::Folder)?;
        certs::write_private(&folder.join("service-accounts.key"), &certs::service_account_key()?)
            .map_err(Error::Folder)?;
        fs::write(folder.join("ca.crt"), authority.pem()).map_err(Error::Folder)?;
        audit::write_policy(folder)?;
        Ok(Self {
            authority: authority.pem(),
            admin,
        })
    }
}
