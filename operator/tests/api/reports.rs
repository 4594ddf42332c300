//! What sidecars report reaches statuses, whichever replicas they are connected to and whichever of them leads.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use futures::StreamExt;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api,
    api::{Patch, PatchParams, WatchEvent, WatchParams},
};
use outrigger_core::{SpiffeId, TrustDomain};
use outrigger_crds::{Component, Status, status::ConditionType};
use outrigger_identity::Expect;
use outrigger_operator::{
    core::Features,
    reports::{Ledger, Relay, pod_of},
};
use outrigger_proto::{
    operator::{ComponentUpdateRequest, operator_client::OperatorClient},
    outrigger::operator::v1::{
        Hello, ReportRequest, Verdict, VerdictState, Verdicts, report_request::Message, reports_client::ReportsClient,
    },
};
use outrigger_testkit::ApiServer;
use parking_lot::Mutex;
use prometheus::{IntGaugeVec, Opts};
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

use crate::{
    fixture,
    setup::{Operator, Setup, free_port},
    support::{eventually, soon},
};

/// A sidecar that reports.
struct Sidecar {
    pod: String,
    messages: mpsc::Sender<ReportRequest>,
    _open: JoinHandle<()>,
}

fn verdict(state: VerdictState, generation: i64) -> Verdict {
    let (reason, message) = match state {
        VerdictState::Rejected => ("InitFailed".to_owned(), "redisHost: connection refused".to_owned()),
        _ => Default::default(),
    };
    Verdict {
        kind: "Component".into(),
        name: "db".into(),
        generation,
        state: state.into(),
        reason,
        message,
        judged_at: 1_700_000_000,
        ..Verdict::default()
    }
}

impl Sidecar {
    async fn connect(channel: Channel, pod: &str, state: VerdictState) -> Self {
        let (messages, receiver) = mpsc::channel(4);
        let hello = Message::Hello(Hello {
            protocol: 1,
            pod: pod.to_owned(),
            app: "cart".into(),
            version: "1.16.0".into(),
            follows: vec!["Component".into()],
        });
        let snapshot = Message::Snapshot(Verdicts {
            verdicts: vec![verdict(state, 1)],
        });
        for message in [hello, snapshot] {
            messages.send(ReportRequest { message: Some(message) }).await.unwrap();
        }
        let open = tokio::spawn(async move {
            let _ = ReportsClient::new(channel).report(ReceiverStream::new(receiver)).await;
        });
        Self {
            pod: pod.to_owned(),
            messages,
            _open: open,
        }
    }

    async fn judge(&self, state: VerdictState, generation: i64) {
        let message = Some(Message::Changes(Verdicts {
            verdicts: vec![verdict(state, generation)],
        }));
        self.messages.send(ReportRequest { message }).await.unwrap();
    }
}

fn counts(status: &Status) -> (i32, i32, i32) {
    let counts = status.sidecars.unwrap_or_default();
    (counts.matching, counts.loaded, counts.rejected)
}

fn ready(status: &Status) -> (&str, &str) {
    let ready = status.condition(ConditionType::Ready);
    ready.map_or(("", ""), |ready| (&ready.status, &ready.reason))
}

async fn until(components: &Api<Component>, expected: (i32, i32, i32), reason: &str) -> Status {
    eventually(&format!("{reason} with {expected:?}"), || async {
        let status = components.get("db").await.unwrap().status?;
        (counts(&status) == expected && ready(&status).1 == reason).then_some(status)
    })
    .await
}

/// Three replicas, each an own pod with an own address.
struct Replicas {
    setup: Setup,
    port: u16,
    running: BTreeMap<String, Operator>,
    stop: CancellationToken,
    _stop: DropGuard,
}

impl Replicas {
    async fn start() -> Self {
        let setup = Setup::new("replicas").await;
        let pods: Api<Pod> = Api::namespaced(ApiServer::shared().await.client(), &setup.namespace);
        let (port, stop) = (free_port(), CancellationToken::new());
        let mut running = BTreeMap::new();
        for number in 1..=3 {
            let name = format!("dapr-operator-{number}");
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                "spec": {"containers": [{"name": "operator", "image": "operator"}]},
            });
            let params = PatchParams::apply("test").force();
            pods.patch(&name, &params, &Patch::Apply(&pod)).await.unwrap();
            let address = address(&name);
            let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
            let params = PatchParams::default();
            pods.patch_status(&name, &params, &Patch::Merge(&status)).await.unwrap();
            running.insert(name.clone(), setup.start_as(&name, &address, port).await);
        }
        Self {
            setup,
            port,
            running,
            _stop: stop.clone().drop_guard(),
            stop,
        }
    }

    /// The pod that holds the Lease.
    async fn leader(&self) -> String {
        let leases: Api<Lease> = Api::namespaced(ApiServer::shared().await.client(), &self.setup.namespace);
        eventually("a leader", || async {
            let holder = leases
                .get_opt("operator.dapr.io")
                .await
                .unwrap()?
                .spec?
                .holder_identity?;
            let pod = pod_of(&holder)?;
            self.running.contains_key(pod).then(|| pod.to_owned())
        })
        .await
    }

    /// A connection to a replica.
    async fn channel(&self, replica: &str) -> Channel {
        let app = SpiffeId::new(TrustDomain::new("public").unwrap(), &self.setup.namespace, "cart").unwrap();
        let identity = self.setup.workloads.identity(app, &self.stop).await.unwrap();
        let address = format!("{}:{}", address(replica), self.port);
        identity
            .channel(&address, Expect::Id(self.setup.operator_id()))
            .unwrap()
    }
}

fn address(replica: &str) -> String {
    let number = replica.rsplit('-').next().unwrap().parse().unwrap();
    Ipv4Addr::new(127, 0, 7, number).to_string()
}

/// All statuses that the object gets.
async fn history(components: &Api<Component>) -> Arc<Mutex<Vec<Status>>> {
    let version = components.get("db").await.unwrap().metadata.resource_version.unwrap();
    let params = WatchParams::default().fields("metadata.name=db").timeout(290);
    let watch = components.watch(&params, &version).await.unwrap();
    let seen = Arc::<Mutex<Vec<Status>>>::default();
    let all = seen.clone();
    tokio::spawn(async move {
        let mut watch = watch.boxed();
        while let Some(Ok(event)) = watch.next().await {
            if let WatchEvent::Modified(Component {
                status: Some(status), ..
            }) = event
            {
                all.lock().push(status);
            }
        }
    });
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecars_of_all_replicas_count_and_a_killed_leader_takes_nothing_back() {
    let mut replicas = Replicas::start().await;
    let components: Api<Component> = Api::namespaced(ApiServer::shared().await.client(), &replicas.setup.namespace);
    let db = json!({
        "apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": "db"},
        "spec": {"type": "state.in-memory", "version": "v1", "metadata": []},
    });
    let params = PatchParams::apply("test").force();
    components.patch("db", &params, &Patch::Apply(&db)).await.unwrap();
    until(&components, (0, 0, 0), "NoSidecars").await;

    // Two sidecars at each replica. One of them, not at the leader, cannot use the component.
    let leader = replicas.leader().await;
    let mut sidecars = BTreeMap::<String, Vec<Sidecar>>::new();
    let mut number = 0;
    for name in replicas.running.keys() {
        for _ in 0..2 {
            number += 1;
            let at_leader = *name == leader;
            let rejects =
                !at_leader && sidecars.iter().all(|(replica, _)| *replica == leader) && !sidecars.contains_key(name);
            let state = if rejects {
                VerdictState::Rejected
            } else {
                VerdictState::Loaded
            };
            let channel = replicas.channel(name).await;
            let sidecar = Sidecar::connect(channel, &format!("cart-{number}"), state).await;
            sidecars.entry(name.clone()).or_default().push(sidecar);
        }
    }
    // And one of upstream's, which does not report.
    let other = replicas.running.keys().find(|name| **name != leader).unwrap().clone();
    let request = ComponentUpdateRequest {
        namespace: replicas.setup.namespace.clone(),
    };
    let mut stock = OperatorClient::new(replicas.channel(&other).await);
    let _stream = stock.component_update(request).await.unwrap();
    let status = until(&components, (7, 5, 1), "Rejected").await;
    assert_eq!(ready(&status).0, "False");
    let rejections = status.rejections.unwrap();
    let told: Vec<_> = rejections
        .iter()
        .map(|rejection| (&*rejection.app, &*rejection.reason, &*rejection.message))
        .collect();
    assert_eq!(told, [("cart", "InitFailed", "redisHost: connection refused")]);
    let rejecting = rejections[0].pod.clone();

    // The leader dies, and its sidecars go elsewhere.
    let history = history(&components).await;
    let killed = replicas.running.remove(&leader).unwrap();
    let homeless = sidecars.remove(&leader).unwrap();
    killed.kill().await;
    for sidecar in homeless {
        let channel = replicas.channel(&other).await;
        let sidecar = Sidecar::connect(channel, &sidecar.pod, VerdictState::Loaded).await;
        sidecars.entry(other.clone()).or_default().push(sidecar);
    }
    let next = replicas.leader().await;
    assert_ne!(next, leader);
    // The new one hears of all, and of who is new.
    let channel = replicas.channel(&other).await;
    let new = Sidecar::connect(channel, "cart-9", VerdictState::Loaded).await;
    until(&components, (8, 6, 1), "Rejected").await;
    let seen = history.lock().clone();
    for status in &seen {
        let (matching, loaded, rejected) = counts(status);
        assert!(matching >= 7 && loaded >= 5 && rejected == 1, "{status:?}");
        assert_eq!(ready(status).0, "False", "{status:?}");
    }

    // What is repaired is ready again, once the new leader can know that it is.
    let all: Vec<_> = sidecars.into_values().flatten().chain([new]).collect();
    let rejecting = all.iter().find(|sidecar| sidecar.pod == rejecting).unwrap();
    rejecting.judge(VerdictState::Loaded, 1).await;
    let status = until(&components, (8, 7, 0), "Loaded").await;
    assert_eq!((ready(&status).0, &status.rejections), ("True", &None));

    // An edit is ready when all that follow it have judged it.
    let before = history.lock().len();
    let mut edited = db;
    edited["spec"]["initTimeout"] = json!("7s");
    components.patch("db", &params, &Patch::Apply(&edited)).await.unwrap();
    until(&components, (8, 0, 0), "AwaitingReports").await;
    for sidecar in &all {
        sidecar.judge(VerdictState::Loaded, 2).await;
    }
    let status = until(&components, (8, 7, 0), "Loaded").await;
    assert_eq!(status.observed_generation, Some(2));
    let seen = history.lock()[before..].to_vec();
    let early =
        |status: &&Status| status.observed_generation == Some(2) && ready(status).0 == "True" && counts(status).1 < 7;
    assert_eq!(seen.iter().find(early), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_of_rejections_and_of_their_end() {
    let operator = fixture::Operator::start("rejected", |_| Features::default()).await;
    operator
        .apply::<Component>(
            "db",
            json!({"spec": {"type": "state.in-memory", "version": "v1", "metadata": []}}),
        )
        .await;
    let id = format!("spiffe://public/ns/{}/cart", operator.namespace);
    let channel = operator.server.channel(&id).await.unwrap();
    let sidecar = Sidecar::connect(channel, "cart-1", VerdictState::Rejected).await;
    let ready = operator
        .condition::<Component>("db", ConditionType::Ready, "Rejected")
        .await;
    let text = "rejected by 1 of 1 sidecar; cart-1: InitFailed: redisHost: connection refused";
    assert_eq!(ready, format!("False: {text}"));
    let note = eventually("an Event", || async { operator.notes("db").await.pop() }).await;
    assert_eq!(note, text);
    sidecar.judge(VerdictState::Loaded, 1).await;
    eventually("an Event of its end", || async {
        let notes = operator.notes("db").await;
        notes.contains(&"loaded by 1 of 1 sidecar".to_owned()).then_some(())
    })
    .await;
    drop(sidecar);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_may_not_look_for_the_leader_says_so_once_and_is_well() {
    let setup = Setup::new("lookup").await;
    let api_server = ApiServer::shared().await;
    let stop = CancellationToken::new();
    let (holder, seen) = watch::channel("dapr-operator-1_id".to_owned());
    let refused = IntGaugeVec::new(Opts::new("refused", "-"), &["reason"]).unwrap();
    let relay = Relay {
        ledger: Arc::<Ledger>::default(),
        identity: setup.workloads.identity(setup.operator_id(), &stop).await.unwrap(),
        operator: setup.operator_id(),
        pods: Api::namespaced(api_server.client_as("nobody", &[]), &setup.namespace),
        port: 6500,
        me: "dapr-operator-2_id".into(),
        holder: seen,
        refused: refused.clone(),
    };
    let running = tokio::spawn(relay.run(stop.clone()));
    let is = |reason: &str, value: i64| refused.with_label_values(&[reason]).get() == value;
    eventually("that it is off", || async { is("forbidden", 1).then_some(()) }).await;
    // This replica leads itself now.
    holder.send_replace("dapr-operator-2_id".into());
    eventually("that nothing is refused", || async { is("forbidden", 0).then_some(()) }).await;
    stop.cancel();
    soon("its end", running).await.unwrap();
}
