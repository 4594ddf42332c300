//! The frame of every test: one install for all, a namespace of its own for each, and the state of that namespace when it
//! fails.

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use futures::FutureExt;
use libtest_mimic::{Failed, Trial};
use outrigger_e2e::{Access, Cluster, command, install, observe::Observer, release};
use tokio::runtime::Runtime;

/// Name of the cluster that tests use; people's own is another.
pub(crate) const NAME: &str = "test";

/// A test's body.
type Body = fn(World) -> Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// A test by name.
#[derive(Clone, Copy)]
pub(crate) struct Test {
    pub name: &'static str,
    pub body: Body,
}

/// What a test works with.
#[derive(Clone)]
pub(crate) struct World {
    pub access: Access,
    /// Sees the test's own namespace.
    pub seen: Observer,
}

/// The cluster with its install.
pub(crate) struct Frame {
    runtime: Arc<Runtime>,
    access: Access,
}

impl Frame {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let access = runtime.block_on(install::fresh_audited(NAME))?;
        Ok(Self {
            runtime: Arc::new(runtime),
            access,
        })
    }

    /// Wraps a test: its own namespace before, that namespace's state on failure, removal afterwards.
    pub(crate) fn trial(&self, test: Test) -> Trial {
        let (runtime, access) = (self.runtime.clone(), self.access.clone());
        Trial::test(test.name, move || {
            runtime
                .block_on(run(test, access))
                .map_err(|error| Failed::from(format!("{error:#}")))
        })
    }

    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        if std::env::var_os("KEEP_CLUSTER").is_some() {
            println!("export KUBECONFIG={}", self.access.kubeconfig().display());
            return Ok(());
        }
        self.runtime.block_on(Cluster::down(NAME, false))?;
        Ok(())
    }
}

async fn run(test: Test, access: Access) -> anyhow::Result<()> {
    let namespace = test.name.replace('_', "-");
    access.kubectl(["create", "namespace", &namespace]).await?;
    let world = World {
        access: access.clone(),
        seen: Observer::new(access.client().await?, &namespace),
    };
    // A panic must not keep the namespace, nor hide its state.
    let result = AssertUnwindSafe((test.body)(world)).catch_unwind().await;
    let result = result.unwrap_or_else(|_| Err(anyhow::anyhow!("the test panicked; see above")));
    if result.is_err() {
        for namespace in [namespace.as_str(), "dapr-system"] {
            println!("{}", install::describe(&access, namespace).await);
        }
    }
    access
        .kubectl(["delete", "namespace", &namespace, "--wait=false"])
        .await?;
    result
}

impl World {
    /// kubectl in the test's namespace.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["-n", &self.seen.namespace];
        all.extend(args);
        let mut command = self.access.kubectl_command(all);
        command.current_dir(release::workspace());
        Ok(command::run(command).await?)
    }

    /// Applies manifests to the test's namespace.
    pub(crate) async fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        Ok(self.access.apply_text(&self.seen.namespace, manifests).await?)
    }

    /// Deploys the sample app under an app id, and names its pod once the sidecar is ready.
    pub(crate) async fn deploy(&self, app: &str) -> anyhow::Result<String> {
        self.apply(&sample_app(app, "")).await?;
        self.seen.pod_with_sidecar(app).await
    }
}

pub(crate) use outrigger_e2e::sample::deployment as sample_app;

/// A Component of a type, with further lines of YAML.
pub(crate) fn component(name: &str, type_: &str, more: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: {name}\nspec:\n  type: {type_}\n  version: v1\n  metadata: []\n{more}\n"
    )
}

/// Names a function as a test.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn tests() -> Vec<crate::frame::Test> {
            vec![$(crate::frame::Test { name: stringify!($name), body: |context| Box::pin($name(context)) }),*]
        }
    };
}
pub(crate) use tests;
