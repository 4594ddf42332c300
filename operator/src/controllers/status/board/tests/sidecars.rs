//! What the board makes of reports.

use outrigger_proto::outrigger::operator::v1::{Attendance, Followers, TalliedRejection, Tally};

use super::*;

/// What a replica with this many sidecars of the app cart shares about the component `db`.
fn share(sidecars: u32, generation: i64, loaded: u32, rejected: u32) -> ShareRequest {
    let judged_at = Timestamp::now().as_second();
    let rejections = (0..rejected).map(|n| TalliedRejection {
        pod: format!("cart-{n}"),
        reason: "InitFailed".into(),
        message: "no route".into(),
        judged_at,
    });
    let followers = Followers {
        kind: "Component".into(),
        sidecars,
    };
    ShareRequest {
        tallies: vec![Tally {
            kind: "Component".into(),
            namespace: "shop".into(),
            name: "db".into(),
            app: "cart".into(),
            generation,
            loaded,
            rejected,
            rejections: rejections.collect(),
        }],
        attendances: vec![Attendance {
            namespace: "shop".into(),
            app: "cart".into(),
            sidecars,
            followers: vec![followers],
        }],
    }
}

fn db(board: &Board, generation: i64) -> Id {
    let object = json!({
        "metadata": {"name": "db", "namespace": "shop", "uid": "db", "generation": generation},
        "spec": {"type": "state.redis", "version": "v1", "metadata": []},
    });
    let object: Guarded<Component> = serde_json::from_str(&object.to_string()).unwrap();
    // The status that it has is kept, as the API server does.
    let id = Id {
        kind: "Component",
        key: ObjectKey::new("shop", "db"),
    };
    let current = board
        .inner
        .lock()
        .entries
        .get(&id)
        .and_then(|entry| entry.current.clone());
    board.observe(&object, &Arc::new(ApiResource::erase::<Component>(&())), Instant::now());
    if let Some(entry) = board.inner.lock().entries.get_mut(&id) {
        entry.current = current;
    }
    id
}

/// What the writer would do: status, reason and counts of what it writes, or `None` if it writes nothing.
async fn write(board: &Board, id: &Id) -> Option<(String, String, (i32, i32, i32))> {
    // What is looked at is no longer due.
    due(board).await;
    let found = look(board, id)?;
    let verdict = Verdict {
        outcome: ACCEPTED,
        message: String::new(),
    };
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH);
    let status = next_status(
        &verdict,
        &found.reported,
        found.view.generation,
        found.current.as_ref(),
        &now,
    )?;
    board.written(id, &found.view, status.clone(), Instant::now());
    let counts = status.sidecars.unwrap_or_default();
    let ready = status.condition(outrigger_crds::status::ConditionType::Ready).unwrap();
    let counts = (counts.matching, counts.loaded, counts.rejected);
    Some((ready.status.clone(), ready.reason.clone(), counts))
}

fn wrote(status: &str, reason: &str, counts: (i32, i32, i32)) -> Option<(String, String, (i32, i32, i32))> {
    Some((status.to_owned(), reason.to_owned(), counts))
}

#[tokio::test(start_paused = true)]
async fn a_new_generation_awaits_its_sidecars_but_not_for_ever() {
    let board = board();
    let (first, second) = (board.replica(), board.replica());
    board.gather(first, share(2, 0, 0, 0), Instant::now());
    board.gather(second, share(1, 0, 0, 0), Instant::now());
    let id = db(&board, 1);
    assert_eq!(write(&board, &id).await, wrote("Unknown", "AwaitingReports", (3, 0, 0)));
    board.gather(first, share(2, 1, 2, 0), Instant::now());
    assert_eq!(write(&board, &id).await, wrote("Unknown", "AwaitingReports", (3, 2, 0)));
    board.gather(second, share(1, 1, 1, 0), Instant::now());
    assert_eq!(write(&board, &id).await, wrote("True", "Loaded", (3, 3, 0)));

    // Verdicts on the generation before say nothing of this one.
    db(&board, 2);
    assert_eq!(write(&board, &id).await, wrote("Unknown", "AwaitingReports", (3, 0, 0)));
    board.gather(first, share(2, 2, 1, 1), Instant::now());
    assert_eq!(write(&board, &id).await, wrote("False", "Rejected", (3, 1, 1)));
    board.gather(first, share(2, 2, 2, 0), Instant::now());
    assert_eq!(write(&board, &id).await, wrote("Unknown", "AwaitingReports", (3, 2, 0)));
    tokio::time::advance(JUDGING).await;
    assert_eq!(board.queue.next().await, id, "time alone makes it due");
    assert_eq!(write(&board, &id).await, wrote("True", "Loaded", (3, 2, 0)));
}

#[tokio::test(start_paused = true)]
async fn who_is_gone_counts_until_it_had_time_to_come_back() {
    let board = board();
    let replica = board.replica();
    let id = db(&board, 1);
    board.gather(replica, share(3, 1, 2, 1), Instant::now());
    assert_eq!(write(&board, &id).await, wrote("False", "Rejected", (3, 2, 1)));
    board.gather(replica, share(2, 1, 2, 0), Instant::now());
    assert_eq!(write(&board, &id).await, None);
    tokio::time::advance(GRACE / 2).await;
    // It came back, and has another opinion.
    board.gather(replica, share(3, 1, 3, 0), Instant::now());
    assert_eq!(write(&board, &id).await, wrote("True", "Loaded", (3, 3, 0)));

    board.gather(replica, share(1, 1, 1, 0), Instant::now());
    assert_eq!(write(&board, &id).await, None);
    tokio::time::advance(GRACE).await;
    assert_eq!(board.queue.next().await, id, "time alone makes it due");
    assert_eq!(write(&board, &id).await, wrote("True", "Loaded", (1, 1, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_takes_nothing_back_before_it_has_heard_of_everyone() {
    let old = board();
    let id = db(&old, 1);
    old.gather(old.replica(), share(4, 1, 3, 1), Instant::now());
    write(&old, &id).await.unwrap();
    let status = look(&old, &id).unwrap().current;

    let board = board();
    db(&board, 1);
    board.inner.lock().entries.get_mut(&id).unwrap().current = status;
    board.begin_gathering(Instant::now());
    assert_eq!(write(&board, &id).await, None);
    let (first, second) = (board.replica(), board.replica());
    board.gather(first, share(2, 1, 2, 0), Instant::now());
    assert_eq!(write(&board, &id).await, None);
    // As many as before, but perhaps not the same ones.
    board.gather(first, share(4, 1, 4, 0), Instant::now());
    assert_eq!(write(&board, &id).await, None);
    // A new one more is no reason to wait.
    board.gather(second, share(1, 1, 0, 1), Instant::now());
    assert_eq!(write(&board, &id).await, wrote("False", "Rejected", (5, 4, 1)));
    // An edit is not ready before as many have judged it as there were.
    board.gather(first, share(3, 2, 3, 0), Instant::now());
    board.gather(second, share(1, 2, 1, 0), Instant::now());
    db(&board, 2);
    assert_eq!(write(&board, &id).await, wrote("Unknown", "AwaitingReports", (5, 4, 0)));
    tokio::time::advance(GRACE).await;
    assert_eq!(board.queue.next().await, id, "time alone makes it due");
    assert_eq!(write(&board, &id).await, wrote("True", "Loaded", (5, 4, 0)));
    tokio::time::advance(GRACE).await;
    assert_eq!(write(&board, &id).await, wrote("True", "Loaded", (4, 4, 0)));

    // A replica that is gone begins the wait anew.
    board.forget_replica(first, Instant::now());
    assert_eq!(write(&board, &id).await, None);
    tokio::time::advance(GRACE).await;
    assert_eq!(write(&board, &id).await, wrote("True", "Loaded", (1, 1, 0)));
}

/// A board that knows of the pod `cart-0`.
fn board_with_a_pod() -> (Board, Arc<Pods>) {
    let pods = Arc::<Pods>::default();
    let annotations = json!({"dapr.io/enabled": "true", "dapr.io/app-id": "cart"});
    let pod = json!({"metadata": {"name": "cart-0", "namespace": "shop", "uid": "p", "annotations": annotations}});
    pods.apply(&serde_json::from_value(pod).unwrap());
    let board = Board::new(ObjectKey::new("shop", "daprsystem"), pods.clone());
    for source in [Source::Components, Source::Subscriptions, Source::Pods] {
        board.known(source, Knowledge::Complete, Instant::now());
    }
    (board, pods)
}

/// Lets the time pass that those who are gone have to come back.
async fn grace(board: &Board, id: &Id) {
    tokio::time::advance(GRACE).await;
    assert_eq!(board.queue.next().await, *id, "time alone makes it due");
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_sidecar_ends_again_and_again_keeps_its_rejection() {
    let (board, pods) = board_with_a_pod();
    let replica = board.replica();
    let id = db(&board, 1);
    board.gather(replica, share(1, 1, 0, 1), Instant::now());
    assert_eq!(write(&board, &id).await, wrote("False", "Rejected", (1, 0, 1)));
    board.gather(replica, share(0, 1, 0, 0), Instant::now());
    for _ in 0..5 {
        assert_eq!(write(&board, &id).await, None);
        grace(&board, &id).await;
    }
    pods.delete(&ObjectKey::new("shop", "cart-0"), Selection::NotInjected);
    assert_eq!(write(&board, &id).await, wrote("True", "NoSidecars", (0, 0, 0)));
}

/// What another app with this many sidecars shares, all of which loaded the component `db`.
fn share_of_other(sidecars: u32) -> ShareRequest {
    let mut request = share(sidecars, 1, sidecars, 0);
    request.tallies[0].app = "till".into();
    request.attendances[0].app = "till".into();
    request
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_rejects_holds_up_nothing_that_others_say_nor_what_it_says_itself() {
    let (board, _pods) = board_with_a_pod();
    let replica = board.replica();
    let id = db(&board, 1);
    board.gather(replica, share(1, 1, 0, 1), Instant::now());
    board.gather(replica, share_of_other(10), Instant::now());
    assert_eq!(write(&board, &id).await, wrote("False", "Rejected", (11, 10, 1)));
    board.gather(replica, share_of_other(9), Instant::now());
    assert_eq!(write(&board, &id).await, None);
    grace(&board, &id).await;
    assert_eq!(write(&board, &id).await, wrote("False", "Rejected", (10, 9, 1)));
    board.gather(replica, share(1, 1, 1, 0), Instant::now());
    assert_eq!(write(&board, &id).await, wrote("True", "Loaded", (10, 10, 0)));
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_again_and_again_keeps_nobody_else() {
    let (board, _pods) = board_with_a_pod();
    let replica = board.replica();
    let id = db(&board, 1);
    // The pod of the second one is gone.
    board.gather(replica, share(2, 1, 0, 2), Instant::now());
    board.gather(replica, share_of_other(3), Instant::now());
    assert_eq!(write(&board, &id).await, wrote("False", "Rejected", (5, 3, 2)));
    board.gather(replica, share(0, 1, 0, 0), Instant::now());
    assert_eq!(write(&board, &id).await, None);
    grace(&board, &id).await;
    assert_eq!(write(&board, &id).await, wrote("False", "Rejected", (4, 3, 1)));
    grace(&board, &id).await;
    assert_eq!(write(&board, &id).await, None);
}

#[tokio::test(start_paused = true)]
async fn who_rejected_it_long_ago_does_not_come_back() {
    let (board, _pods) = board_with_a_pod();
    let replica = board.replica();
    let id = db(&board, 1);
    let mut rejected = share(1, 1, 0, 1);
    rejected.tallies[0].rejections[0].judged_at -= RETURNS.as_secs();
    board.gather(replica, rejected, Instant::now());
    assert_eq!(write(&board, &id).await, wrote("False", "Rejected", (1, 0, 1)));
    board.gather(replica, share(0, 1, 0, 0), Instant::now());
    assert_eq!(write(&board, &id).await, None);
    grace(&board, &id).await;
    assert_eq!(write(&board, &id).await, wrote("True", "NoSidecars", (0, 0, 0)));
}
