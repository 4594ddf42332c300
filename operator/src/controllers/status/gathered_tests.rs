use outrigger_proto::outrigger::operator::v1::{Followers, TalliedRejection};

use super::*;

fn id(name: &str) -> Id {
    Id {
        kind: "Component",
        key: ObjectKey::new("shop", name),
    }
}

fn tally(app: &str, generation: i64, loaded: u32, rejected: u32) -> Tally {
    let rejections = (0..rejected).map(|n| TalliedRejection {
        pod: format!("{app}-{n}"),
        reason: "InitFailed".into(),
        message: "no route".into(),
        judged_at: i64::from(n),
    });
    Tally {
        kind: "Component".into(),
        namespace: "shop".into(),
        name: "db".into(),
        app: app.into(),
        generation,
        loaded,
        rejected,
        rejections: rejections.collect(),
    }
}

fn attendance(app: &str, sidecars: u32, followers: u32) -> Attendance {
    let followers = (followers > 0).then(|| Followers {
        kind: "Component".into(),
        sidecars: followers,
    });
    Attendance {
        namespace: "shop".into(),
        app: app.into(),
        sidecars,
        followers: followers.into_iter().collect(),
    }
}

fn share(tallies: Vec<Tally>, attendances: Vec<Attendance>) -> ShareRequest {
    ShareRequest { tallies, attendances }
}

fn counts(gathered: &Gathered, generation: i64, audience: Audience<'_>) -> (i32, i32, i32, i32) {
    let Reported { counts, awaited, .. } = gathered.sum(&id("db"), generation, audience);
    (counts.matching, counts.loaded, counts.rejected, awaited)
}

const ALL: Audience<'_> = Audience::Scopes(&[]);

#[test]
fn replicas_add_up_and_each_replaces_what_it_said() {
    let mut gathered = Gathered::default();
    let affected = gathered.take(1, share(vec![tally("cart", 1, 3, 0)], vec![attendance("cart", 4, 4)]));
    assert_eq!(
        (affected.objects, affected.namespaces),
        ([id("db")].into(), ["shop".to_owned()].into())
    );
    gathered.take(2, share(vec![tally("cart", 1, 1, 1)], vec![attendance("cart", 2, 2)]));
    assert_eq!(counts(&gathered, 1, ALL), (6, 4, 1, 1));
    gathered.take(1, share(vec![tally("cart", 1, 4, 0)], vec![]));
    assert_eq!(counts(&gathered, 1, ALL), (6, 5, 1, 0));
    assert_eq!(
        counts(&gathered, 2, ALL),
        (6, 0, 0, 6),
        "nobody has judged the next one"
    );

    assert_eq!(gathered.forget(2).objects, [id("db")].into());
    assert_eq!(counts(&gathered, 1, ALL), (4, 4, 0, 0));
    gathered.take(1, share(vec![tally("cart", 1, 0, 0)], vec![attendance("cart", 0, 0)]));
    assert!(gathered.tallies.is_empty() && gathered.attendances.is_empty());
}

#[test]
fn only_apps_that_the_object_is_meant_for_count() {
    let mut gathered = Gathered::default();
    let tallies = vec![tally("cart", 1, 1, 0), tally("till", 1, 0, 1)];
    let attendances = vec![
        attendance("cart", 1, 1),
        attendance("till", 1, 1),
        attendance("stock", 1, 0),
    ];
    gathered.take(1, share(tallies, attendances));
    assert_eq!(counts(&gathered, 1, ALL), (3, 1, 1, 0));
    let scopes = ["cart".to_owned(), "stock".to_owned()];
    assert_eq!(counts(&gathered, 1, Audience::Scopes(&scopes)), (2, 1, 0, 0));
    let users = HashMap::from([("till".to_owned(), 2)]);
    assert_eq!(counts(&gathered, 1, Audience::Users(Some(&users))), (1, 0, 1, 0));
    assert_eq!(counts(&gathered, 1, Audience::Users(None)), (0, 0, 0, 0));
}

#[test]
fn the_newest_rejections_of_all_are_listed() {
    let mut gathered = Gathered::default();
    gathered.take(1, share(vec![tally("cart", 1, 0, 8)], vec![]));
    gathered.take(2, share(vec![tally("till", 1, 0, 8)], vec![]));
    let reported = gathered.sum(&id("db"), 1, ALL);
    assert_eq!(reported.counts.rejected, 16);
    let pods: Vec<_> = reported.rejections.iter().map(|rejection| &*rejection.pod).collect();
    assert_eq!(
        pods,
        [
            "cart-7", "till-7", "cart-6", "till-6", "cart-5", "till-5", "cart-4", "till-4", "cart-3", "till-3"
        ]
    );
}

#[test]
fn kinds_of_a_newer_replica_are_left_out() {
    let mut gathered = Gathered::default();
    let newer = Tally {
        kind: "Novelty".into(),
        ..tally("cart", 1, 1, 0)
    };
    assert!(gathered.take(1, share(vec![newer], vec![])).objects.is_empty());
    assert!(gathered.tallies.is_empty());
}
