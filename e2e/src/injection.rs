//! What injection promises, many times and under trouble: Jobs with native sidecars, pods that are created while no injector
//! runs, and a cluster that starts anew while the webhook's failure policy is `Fail`.

mod first_calls;
mod outage;
mod restart;

use std::time::{Duration, Instant};

use clap::ValueEnum;
use kube::{Api, Resource, core::NamespaceResourceScope};
use serde_json::{Value, json};

use crate::{Access, Cluster, install, observe::Observer, sample::container};

const CLUSTER: &str = "injection";
const SYSTEM: &str = "dapr-system";
/// The watchdog acts on what it watches: its interval never passes here.
const VALUES: [&str; 3] = [
    r#"dapr_operator.watchInterval="1h""#,
    "dapr_operator.maxPodRestartsPerMinute=0",
    "dapr_sidecar_injector.replicaCount=2",
];
/// Between two looks at a cluster that is busy.
const PACE: Duration = Duration::from_millis(50);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Proof {
    /// Jobs complete, and apps' first calls succeed
    FirstCalls,
    /// Pods that were created without an injector get their sidecars
    Outage,
    /// Everything comes back after a restart of all
    Restart,
}

/// Where one happens: a namespace of its own.
struct World {
    access: Access,
    seen: Observer,
}

/// Runs on a cluster of its own, which is removed afterwards; all when none is named.
///
/// # Errors
/// What does not hold.
pub async fn run(proofs: &[Proof]) -> anyhow::Result<()> {
    println!("setting up a cluster");
    let result = match install::fresh_with(CLUSTER, &VALUES).await {
        Ok(access) => prove(proofs, access).await,
        Err(error) => Err(error),
    };
    Cluster::down(CLUSTER, false).await?;
    result
}

async fn prove(proofs: &[Proof], access: Access) -> anyhow::Result<()> {
    let chosen = |proof: &Proof| proofs.is_empty() || proofs.contains(proof);
    for proof in Proof::value_variants().iter().copied().filter(chosen) {
        let namespace = format!("{proof:?}").to_lowercase();
        access.kubectl(["create", "namespace", &namespace]).await?;
        let world = World {
            seen: Observer::new(access.client().await?, &namespace),
            access: access.clone(),
        };
        world.seen.until_injected(true).await?;
        println!("{namespace}");
        let began = Instant::now();
        let result = match proof {
            Proof::FirstCalls => first_calls::prove(&world).await,
            Proof::Outage => outage::prove(&world).await,
            Proof::Restart => restart::prove(&world).await,
        };
        if result.is_err() {
            for namespace in [&namespace, SYSTEM] {
                println!("{}", install::describe(&access, namespace).await);
            }
        }
        result?;
        println!("  held, after {:.1} s", began.elapsed().as_secs_f64());
        access.kubectl(["delete", "namespace", &namespace, "--wait"]).await?;
    }
    Ok(())
}

impl World {
    async fn apply(&self, object: &Value) -> anyhow::Result<()> {
        self.access
            .apply_text(&self.seen.namespace, &object.to_string())
            .await?;
        Ok(())
    }

    /// Objects of a kind in the namespace.
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.seen.client.clone(), &self.seen.namespace)
    }
}

/// A Deployment of the sample app, which gets these arguments and its pods these annotations.
fn deployment(app: &str, replicas: usize, annotations: &Value, args: &[&str]) -> Value {
    let mut container = container("app", args);
    container["env"] = json!([{"name": "APP_ID", "value": app}]);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": app}},
            "template": {
                "metadata": {"labels": {"app": app}, "annotations": sidecar(app, annotations)},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
            },
        },
    })
}

/// Annotations that ask for a sidecar, and further ones.
fn sidecar(app: &str, more: &Value) -> Value {
    let mut annotations = json!({"dapr.io/enabled": "true", "dapr.io/app-id": app});
    for (name, value) in more.as_object().into_iter().flatten() {
        annotations[name] = value.clone();
    }
    annotations
}
