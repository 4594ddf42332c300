//! Access to a cluster through its kubeconfig: kubectl, helm and a client.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use outrigger_testkit::toolchain::Toolchain;
use tokio::process::Command;

use crate::command;

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the kubeconfig {0} cannot be used")]
    Kubeconfig(PathBuf, #[source] kube::config::KubeconfigError),
    #[error("the kubeconfig {0} makes no client")]
    Client(PathBuf, #[source] kube::Error),
}

/// A kubeconfig, the context in it, and the programs that use it.
#[derive(Clone, Debug)]
pub struct Access {
    toolchain: Toolchain,
    kubeconfig: PathBuf,
    context: Option<String>,
}

impl Access {
    /// `context` is the kubeconfig's current one when it is not named.
    pub fn new(toolchain: Toolchain, kubeconfig: PathBuf, context: Option<String>) -> Self {
        Self {
            toolchain,
            kubeconfig,
            context,
        }
    }

    /// The kubeconfig file.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client with the rights of the kubeconfig.
    pub async fn client(&self) -> Result<Client, Error> {
        let unusable = |error| Error::Kubeconfig(self.kubeconfig.clone(), error);
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).map_err(unusable)?;
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(unusable)?;
        Client::try_from(config).map_err(|error| Error::Client(self.kubeconfig.clone(), error))
    }

    /// Runs kubectl and returns its output.
    pub async fn kubectl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<String, command::Error> {
        command::run(self.kubectl_command(args)).await
    }

    /// Runs `kubectl apply` on a file, in a namespace.
    pub async fn apply_in(&self, namespace: &str, file: &Path) -> Result<String, command::Error> {
        let mut command = self.kubectl_command(["apply", "-n", namespace, "-f"]);
        command.arg(file);
        command::run(command).await
    }

    /// The same with manifests in YAML or JSON.
    pub async fn apply_text(&self, namespace: &str, manifests: &str) -> Result<String, command::Error> {
        let command = self.kubectl_command(["apply", "-n", namespace, "-f", "-"]);
        command::run_with_input(command, Some(manifests)).await
    }

    /// Runs helm and returns its output.
    pub async fn helm<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<String, command::Error> {
        command::run(self.helm_command(args)).await
    }

    /// kubectl, not started yet.
    pub fn kubectl_command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        self.program("kubectl", "--context", args)
    }

    /// helm, not started yet.
    pub fn helm_command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        self.program("helm", "--kube-context", args)
    }

    fn program<A: AsRef<OsStr>>(&self, name: &str, flag: &str, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(self.toolchain.program(name));
        command.env("KUBECONFIG", &self.kubeconfig);
        if let Some(context) = &self.context {
            command.args([flag, context]);
        }
        command.args(args);
        command
    }
}
