//! Clients of the API server. None of them retries or waits by itself: deadlines and backoff are the caller's.

use std::{path::Path, time::Duration};

use kube::config::{KubeConfigOptions, Kubeconfig};

/// No single call may take longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest silence within a list or a watch. API servers end a quiet watch after 290 seconds, so this cuts only connections
/// that are dead.
const WATCH_TIMEOUT: Duration = Duration::from_secs(330);

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot read the kubeconfig {path}")]
    Kubeconfig {
        path: String,
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    #[error("no Kubernetes configuration: neither in-cluster nor a kubeconfig")]
    Infer(#[source] Box<kube::config::InferConfigError>),
    #[error("cannot use the Kubernetes configuration")]
    Build(#[source] Box<kube::Error>),
}

/// One client for calls, which time out, and one for watches, which may idle.
#[derive(Clone)]
pub struct Clients {
    pub calls: kube::Client,
    pub watches: kube::Client,
}

/// Uses the in-cluster configuration, else `kubeconfig`, else what `KUBECONFIG` and `~/.kube/config` say.
/// With `prefer_file` a file that `kubeconfig` or `KUBECONFIG` names wins over the in-cluster configuration.
///
/// # Errors
/// Says which configuration was tried.
pub async fn clients(kubeconfig: Option<&Path>, prefer_file: bool) -> Result<Clients, ClientError> {
    let kubeconfig = kubeconfig.filter(|path| !path.as_os_str().is_empty());
    let named = kubeconfig.is_some() || std::env::var_os("KUBECONFIG").is_some_and(|files| !files.is_empty());
    let incluster = match prefer_file && named {
        true => None,
        false => kube::Config::incluster().ok(),
    };
    let config = match (incluster, kubeconfig) {
        (Some(config), _) => config,
        (None, Some(path)) => from_file(path).await?,
        (None, None) => kube::Config::infer()
            .await
            .map_err(|error| ClientError::Infer(Box::new(error)))?,
    };
    build(config)
}

async fn from_file(path: &Path) -> Result<kube::Config, ClientError> {
    let failed = |source| ClientError::Kubeconfig {
        path: path.display().to_string(),
        source: Box::new(source),
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(failed)
}

/// Both clients for a known configuration.
///
/// # Errors
/// When the configuration's certificates or addresses cannot be used.
pub fn build(mut config: kube::Config) -> Result<Clients, ClientError> {
    config.default_retry = false;
    config.reset_reader_on_write = true;
    config.read_timeout = Some(WATCH_TIMEOUT);
    let failed = |error| ClientError::Build(Box::new(error));
    let watches = kube::Client::try_from(config.clone()).map_err(failed)?;
    config.read_timeout = Some(CALL_TIMEOUT);
    let calls = kube::Client::try_from(config).map_err(failed)?;
    Ok(Clients { calls, watches })
}
