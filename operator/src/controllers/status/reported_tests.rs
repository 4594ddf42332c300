use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

fn counts(matching: i32, loaded: i32, rejected: i32) -> SidecarCounts {
    SidecarCounts {
        matching,
        loaded,
        rejected,
    }
}

fn rejection(pod: &str, at: i64) -> Rejection {
    Rejection {
        app: "cart".into(),
        pod: pod.into(),
        reason: "InitFailed".into(),
        message: "no route".into(),
        at: Time(jiff::Timestamp::from_second(at).unwrap()),
    }
}

fn reported(counts: SidecarCounts, rejections: &[Rejection]) -> Reported {
    Reported {
        counts,
        awaited: 0,
        rejections: rejections.to_vec(),
    }
}

fn published(counts: SidecarCounts, rejections: &[Rejection]) -> Published<'_> {
    Published {
        counts,
        rejections,
        is_current: true,
        is_ready: true,
    }
}

#[test]
fn one_rejection_is_enough_and_everything_else_is_ready() {
    let awaited = |reported: Reported| Reported { awaited: 2, ..reported };
    for (reported, status, reason, message) in [
        (
            reported(counts(0, 0, 0), &[]),
            Some(true),
            Reason::NoSidecars,
            "accepted; it is meant for no connected sidecar",
        ),
        (
            reported(counts(3, 0, 0), &[]),
            Some(true),
            Reason::NotReported,
            "accepted; of 3 sidecars none reports on it",
        ),
        (
            reported(counts(3, 2, 0), &[]),
            Some(true),
            Reason::Loaded,
            "loaded by 2 of 3 sidecars",
        ),
        (
            awaited(reported(counts(3, 1, 0), &[])),
            None,
            Reason::AwaitingReports,
            "2 of 3 sidecars have yet to judge this generation",
        ),
        (
            awaited(reported(counts(1, 0, 1), &[rejection("cart-1", 1)])),
            Some(false),
            Reason::Rejected,
            "rejected by 1 of 1 sidecar; cart-1: InitFailed: no route",
        ),
    ] {
        assert_eq!(ready(&reported), (status, reason, message.to_owned()));
    }
}

#[test]
fn fewer_sidecars_than_before_are_a_lack_and_other_verdicts_are_none() {
    let before = published(counts(3, 2, 1), &[]);
    for (now, lacks, strictly) in [
        (counts(3, 2, 1), false, false),
        (counts(4, 3, 1), false, false),
        (counts(3, 1, 2), false, false),
        // Repaired, or another one in its place: only who has heard of all can tell.
        (counts(3, 3, 0), false, true),
        (counts(2, 2, 0), true, true),
        (counts(3, 2, 0), true, true),
        (counts(3, 1, 1), true, true),
        (counts(0, 0, 0), true, true),
    ] {
        let now = reported(now, &[]);
        assert_eq!(
            (now.lacks(&before, false), now.lacks(&before, true)),
            (lacks, strictly),
            "{now:?}"
        );
    }
    let of_another_generation = Published {
        is_current: false,
        ..before
    };
    assert!(!reported(counts(0, 0, 0), &[]).lacks(&of_another_generation, true));
}

#[test]
fn what_is_kept_is_what_the_status_says_and_what_is_new() {
    let before = [rejection("cart-1", 9), rejection("cart-2", 3)];
    let before = published(counts(4, 2, 2), &before);
    let mut nothing = reported(counts(0, 0, 0), &[]);
    nothing.keep(&before);
    assert_eq!(
        nothing,
        reported(before.counts, before.rejections),
        "nothing is to be written"
    );

    let mut other = reported(counts(3, 1, 2), &[rejection("cart-3", 5), rejection("cart-1", 9)]);
    other.keep(&before);
    let listed: Vec<_> = other.rejections.iter().map(|rejection| &*rejection.pod).collect();
    assert_eq!(
        (other.counts, listed),
        (counts(4, 2, 2), vec!["cart-1", "cart-3", "cart-2"])
    );

    let many: Vec<_> = (0..10).map(|n| rejection(&format!("till-{n}"), 20)).collect();
    let mut many = reported(counts(10, 0, 10), &many);
    many.keep(&before);
    assert_eq!(many.rejections.len(), NEWEST);
}

#[test]
fn nobody_counts_twice_while_it_is_kept() {
    for (before, now, kept) in [
        (counts(10, 10, 0), counts(9, 0, 9), counts(10, 1, 9)),
        (counts(11, 10, 1), counts(10, 10, 0), counts(11, 10, 1)),
        (counts(4, 3, 1), counts(4, 4, 0), counts(4, 3, 1)),
        (counts(2, 2, 0), counts(0, 0, 0), counts(2, 2, 0)),
    ] {
        let mut now = reported(now, &[]);
        now.keep(&published(before, &[]));
        assert_eq!(now.counts, kept);
    }
}

#[test]
fn no_more_return_than_are_missing_and_none_who_may_be_counted_already() {
    let before = [rejection("cart-1", 9), rejection("cart-2", 3)];
    let before = published(counts(4, 2, 2), &before);
    for (now, listed, returning) in [
        (counts(4, 4, 0), vec![], 0),
        (counts(3, 3, 0), vec![], 1),
        (counts(2, 2, 0), vec![], 2),
        (counts(0, 0, 0), vec![], 2),
        (counts(2, 1, 1), vec![rejection("cart-1", 9)], 1),
        (counts(2, 1, 1), vec![], 1),
        (counts(5, 4, 1), vec![], 0),
    ] {
        let more = i32::try_from(returning).unwrap();
        let expected = counts(now.matching + more, now.loaded, now.rejected + more);
        let mut now = reported(now, &listed);
        assert_eq!(now.keep_returning(&before, |_| true), returning);
        assert_eq!((now.counts, now.rejections.len()), (expected, listed.len() + returning));
    }
    let mut gone = reported(counts(0, 0, 0), &[]);
    assert_eq!(gone.keep_returning(&before, |_| false), 0);
    assert_eq!(gone, reported(counts(0, 0, 0), &[]));
}
