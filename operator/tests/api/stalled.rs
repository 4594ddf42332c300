//! Sidecars that stop reading, as frozen processes do.

use std::{net::Ipv4Addr, sync::mpsc, thread};

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use outrigger_core::{SpiffeId, TrustDomain};
use outrigger_crds::Component;
use outrigger_identity::Expect;
use outrigger_proto::operator::{ComponentUpdateEvent, ComponentUpdateRequest, operator_client::OperatorClient};
use outrigger_testkit::ApiServer;
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::{
    setup::{Setup, get},
    support::{eventually, soon},
};

const SIDECARS: usize = 100;
const STALLED: usize = 20;
const EDITS: usize = 150;
const SIZE: usize = 64 * 1024;
/// What the operator may grow by, in KiB.
const GROWTH: u64 = 10 * 1024;

/// A sidecar's stream, and what keeps its identity.
async fn connect(setup: &Setup, port: u16, number: usize, stop: &CancellationToken) -> Streaming<ComponentUpdateEvent> {
    let id = SpiffeId::new(
        TrustDomain::new("public").unwrap(),
        &setup.namespace,
        &format!("app-{number}"),
    )
    .unwrap();
    let identity = setup.workloads.identity(id, stop).await.unwrap();
    let channel = identity
        .channel(
            &format!("{}:{port}", Ipv4Addr::LOCALHOST),
            Expect::Id(setup.operator_id()),
        )
        .unwrap();
    let request = ComponentUpdateRequest {
        namespace: setup.namespace.clone(),
    };
    let mut client = OperatorClient::new(channel);
    client.component_update(request).await.unwrap().into_inner()
}

/// Connects sidecars on a thread of their own, which then stands still until the answer is dropped.
async fn freeze(setup: &Setup, port: u16) -> mpsc::Sender<()> {
    let (frozen, told) = oneshot::channel();
    let (hold, held) = mpsc::channel::<()>();
    let setup = setup.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let _streams = runtime.block_on(async {
            let mut streams = Vec::new();
            for number in 0..STALLED {
                streams.push(connect(&setup, port, number, &stop).await);
            }
            streams
        });
        let _ = frozen.send(());
        // Nothing of this runtime moves any more: no read, no answer to a ping.
        let _ = held.recv();
    });
    soon("the stalled sidecars", told).await.unwrap();
    hold
}

fn anonymous(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_sidecars_cost_little_and_are_cut_off() {
    let setup = Setup::new("stalled").await;
    let stop = CancellationToken::new();
    let operator = setup.start().await;
    let client = ApiServer::shared().await.client();
    let components: Api<Component> = Api::namespaced(client, &setup.namespace);
    let edit = async |number: usize| {
        let pad = format!("{number}-").repeat(SIZE / format!("{number}-").len());
        let property = json!({"name": "pad", "value": pad});
        let component = json!({
            "apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": "db"},
            "spec": {"type": "state.redis", "version": "v1", "metadata": [property]},
        });
        let params = PatchParams::apply("test").force();
        components
            .patch("db", &params, &Patch::Apply(&component))
            .await
            .unwrap();
    };
    let hold = freeze(&setup, operator.port).await;
    let mut sidecars = Vec::new();
    for number in STALLED..SIDECARS {
        sidecars.push(connect(&setup, operator.port, number, &stop).await);
    }
    let mut round = async |number: usize| {
        edit(number).await;
        for stream in &mut sidecars {
            soon("an edit", stream.message()).await.unwrap().unwrap();
        }
    };
    // What everybody is sent costs its buffers once, whoever stalls.
    for number in 0..10 {
        round(number).await;
    }
    let before = anonymous(operator.pid());
    let mut most = before;
    for number in 10..10 + EDITS {
        round(number).await;
        most = most.max(anonymous(operator.pid()));
    }
    assert!(most - before < GROWTH, "from {before} to {most} KiB");

    let metrics = async |wanted: &str| get(operator.metrics, "/").await.filter(|text| text.contains(wanted));
    eventually("the stalled ones are cut off", || {
        metrics("dapr_operator_stalled_connections_total 20\n")
    })
    .await;
    eventually("the others stay", || metrics("dapr_operator_subscribers 80\n")).await;
    round(10 + EDITS).await;
    drop(hold);
    operator.kill().await;
    stop.cancel();
}
