//! What sidecars and replicas may report, and who may.

use std::sync::Arc;

use kube::api::ApiResource;
use outrigger_crds::{Component, Guarded};
use outrigger_operator::{
    api::Api,
    controllers::status::Board,
    kinds::Indexes,
    metrics::Metrics,
    pods::Pods,
    reports::{Gatherer, Ledger},
    scope::Scope,
    secrets::Secrets,
};
use outrigger_process::kubernetes::watch::ObjectKey;
use outrigger_proto::outrigger::operator::v1::{
    Attendance, Hello, ReportRequest, ShareRequest, Verdict, VerdictState, Verdicts, gathering_client::GatheringClient,
    report_request::Message, reports_client::ReportsClient,
};
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::{
    fixture::{CART, Down},
    support::{Server, eventually, soon},
};

const OPERATOR: &str = "spiffe://example.org/ns/dapr-system/dapr-operator";

struct Fixture {
    ledger: Arc<Ledger>,
    gatherer: Gatherer,
    stop: CancellationToken,
    server: Server,
}

fn fixture() -> Fixture {
    let metrics = Metrics::new(&Registry::new()).unwrap();
    let (ledger, stop) = (Arc::<Ledger>::default(), CancellationToken::new());
    let board = Arc::new(Board::new(ObjectKey::new("dapr-system", "daprsystem"), Arc::default()));
    let object: Guarded<Component> =
        serde_json::from_str(r#"{"metadata": {"name": "db", "namespace": "shop", "uid": "u"}}"#).unwrap();
    let resource = Arc::new(ApiResource::erase::<Component>(&()));
    board.observe(&object, &resource, tokio::time::Instant::now());
    let gatherer = Gatherer::new(board, ledger.clone());
    let api = Api {
        indexes: Indexes::new(&metrics),
        pods: Arc::<Pods>::default(),
        secrets: Arc::new(Secrets::new(Box::new(Down), metrics.clone())),
        reports: ledger.clone(),
        gathering: Some(gatherer.service(OPERATOR.parse().unwrap(), metrics.clone())),
        metrics,
        scope: Scope::new("shop"),
        injections: None,
        stop: stop.clone(),
    };
    Fixture {
        ledger,
        gatherer,
        stop,
        server: Server::start(api),
    }
}

fn hello() -> Hello {
    Hello {
        protocol: 1,
        pod: "cart-1".into(),
        app: "cart".into(),
        version: "1.16.0".into(),
        follows: vec!["Component".into()],
    }
}

fn loaded(name: &str) -> Verdict {
    Verdict {
        kind: "Component".into(),
        name: name.into(),
        generation: 1,
        state: VerdictState::Loaded.into(),
        ..Verdict::default()
    }
}

fn request(message: Message) -> ReportRequest {
    ReportRequest { message: Some(message) }
}

fn snapshot(verdicts: Vec<Verdict>) -> ReportRequest {
    request(Message::Snapshot(Verdicts { verdicts }))
}

fn changes(verdicts: Vec<Verdict>) -> ReportRequest {
    request(Message::Changes(Verdicts { verdicts }))
}

impl Fixture {
    /// What becomes of these messages.
    async fn report(&self, id: &str, messages: Vec<ReportRequest>) -> Result<(), Status> {
        let channel = self.server.channel(id).await.unwrap();
        let mut client = ReportsClient::new(channel);
        soon("an answer", client.report(tokio_stream::iter(messages)))
            .await
            .map(drop)
    }

    async fn refused(&self, id: &str, messages: Vec<ReportRequest>) -> (Code, String) {
        let status = self.report(id, messages).await.unwrap_err();
        (status.code(), status.message().to_owned())
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_report_is_named_and_harms_no_other() {
    let fixture = fixture();
    let mut leader = fixture.ledger.feed();
    // Somebody who reports well, all the time.
    let (sender, receiver) = mpsc::channel(4);
    let channel = fixture.server.channel(CART).await.unwrap();
    let well = tokio::spawn(async move { ReportsClient::new(channel).report(ReceiverStream::new(receiver)).await });
    sender.send(request(Message::Hello(hello()))).await.unwrap();
    sender.send(snapshot(vec![loaded("db")])).await.unwrap();
    let first = soon("a tally", leader.next()).await.unwrap();
    assert_eq!(first.attendances[0].app, "cart");

    let opened = |more: Vec<ReportRequest>| {
        let opening = [request(Message::Hello(hello())), snapshot(vec![])];
        opening.into_iter().chain(more).collect::<Vec<_>>()
    };
    let many = |count: usize| (0..count).map(|n| loaded(&n.to_string())).collect::<Vec<_>>();
    let other_app = Hello {
        app: "till".into(),
        ..hello()
    };
    let newer = Hello { protocol: 2, ..hello() };
    let pod = Verdict {
        kind: "Pod".into(),
        ..loaded("db")
    };
    let wordy = Verdict {
        state: VerdictState::Rejected.into(),
        reason: "InitFailed".into(),
        message: "x".repeat(1025),
        ..loaded("db")
    };
    for (messages, code, text) in [
        (
            vec![snapshot(vec![])],
            Code::InvalidArgument,
            "the first message has to be a hello",
        ),
        (
            vec![request(Message::Hello(hello())), changes(vec![])],
            Code::InvalidArgument,
            "the second message has to be a snapshot",
        ),
        (
            opened(vec![request(Message::Hello(hello()))]),
            Code::InvalidArgument,
            "after hello and snapshot only changes are expected",
        ),
        (
            vec![request(Message::Hello(other_app))],
            Code::PermissionDenied,
            r#"the report is of app "till", and the certificate of app "cart""#,
        ),
        (
            vec![request(Message::Hello(newer))],
            Code::Unimplemented,
            "protocol 2 is not known here, expected 1",
        ),
        (
            opened(vec![changes(vec![pod])]),
            Code::InvalidArgument,
            r#"kind "Pod" is not of a kind that sidecars are sent"#,
        ),
        (
            opened(vec![changes(vec![wordy])]),
            Code::InvalidArgument,
            "message has 1025 bytes, expected 1 to 1024",
        ),
        (
            opened(vec![changes(many(1001))]),
            Code::InvalidArgument,
            "1001 verdicts in a message, expected 1000 at most",
        ),
        (
            opened(vec![changes(many(1000)), changes(vec![loaded("one-more")])]),
            Code::InvalidArgument,
            "1001 objects that one sidecar reports on, expected 1000 at most",
        ),
    ] {
        assert_eq!(fixture.refused(CART, messages).await, (code, text.to_owned()));
    }
    let large = Verdict {
        message: "x".repeat(3 << 20),
        ..loaded("db")
    };
    let (code, text) = fixture.refused(CART, opened(vec![changes(vec![large])])).await;
    assert_eq!(code, Code::OutOfRange, "{text}");

    // Nobody, and a namespace that is not watched.
    let denied = (Code::PermissionDenied, "failed to determine identity".to_owned());
    assert_eq!(fixture.refused("", opened(vec![])).await, denied);
    let elsewhere = fixture.refused("spiffe://public/ns/bank/cart", opened(vec![])).await;
    assert_eq!(
        elsewhere,
        (
            Code::FailedPrecondition,
            "this operator does not watch the namespace bank".to_owned()
        )
    );

    // The one that reports well still does, and what was refused has left nothing.
    sender.send(changes(vec![loaded("bus")])).await.unwrap();
    drop(leader);
    let seen = eventually("the sums", || async {
        let all = fixture.ledger.feed().next().await.unwrap();
        let names: Vec<_> = all
            .tallies
            .iter()
            .map(|tally| (tally.name.clone(), tally.loaded))
            .collect();
        let sidecars = all
            .attendances
            .iter()
            .map(|attendance| attendance.sidecars)
            .sum::<u32>();
        (names.len() == 2 && sidecars == 1).then_some(names)
    })
    .await;
    assert_eq!(seen, [("bus".to_owned(), 1), ("db".to_owned(), 1)]);
    drop(sender);
    soon("the end", well).await.unwrap().unwrap();
    fixture.stop.cancel();
}

#[tokio::test]
async fn only_the_operator_shares_and_only_with_the_leader() {
    let fixture = fixture();
    let share = async |id: &str| {
        let channel = fixture.server.channel(id).await.unwrap();
        let batches = tokio_stream::iter([ShareRequest {
            tallies: vec![],
            attendances: vec![Attendance {
                namespace: "shop".into(),
                app: "cart".into(),
                sidecars: 1,
                ..Attendance::default()
            }],
        }]);
        let answer = soon("an answer", GatheringClient::new(channel).share(batches)).await;
        answer.map(drop).map_err(|status| status.code())
    };
    assert_eq!(share(OPERATOR).await, Err(Code::FailedPrecondition), "it does not lead");
    let lead = CancellationToken::new();
    let leading = tokio::spawn({
        let (gatherer, lead) = (fixture.gatherer.clone(), lead.clone());
        async move { gatherer.run(lead).await }
    });
    eventually("leading", || async { share(OPERATOR).await.ok() }).await;
    for other in [
        CART,
        "",
        "spiffe://example.org/ns/dapr-system/dapr-sentry",
        "spiffe://example.org/ns/shop/dapr-operator",
        "spiffe://public/ns/dapr-system/dapr-operator",
    ] {
        assert_eq!(share(other).await, Err(Code::PermissionDenied), "{other}");
    }
    lead.cancel();
    soon("the end of leading", leading).await.unwrap();
    assert_eq!(share(OPERATOR).await, Err(Code::FailedPrecondition));
    fixture.stop.cancel();
}
