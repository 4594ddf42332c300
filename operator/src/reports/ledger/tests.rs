use std::hint::black_box;

use outrigger_proto::outrigger::operator::v1::{Attendance, ShareRequest, Tally};
use tokio::time::timeout;

use super::{
    feed::{BATCH, COALESCE, PENDING},
    *,
};
use crate::reports::NEWEST;

const CART: (&str, &str) = ("shop", "cart");

fn loaded(name: &str, generation: i64) -> Verdict<'_> {
    Verdict {
        kind: "Component",
        name,
        generation,
        resource_version: "1",
        state: State::Loaded,
        judged_at: 1,
    }
}

fn rejected<'a>(name: &'a str, generation: i64, message: &'a str, judged_at: i64) -> Verdict<'a> {
    Verdict {
        state: State::Rejected {
            reason: "InitFailed",
            message,
        },
        judged_at,
        ..loaded(name, generation)
    }
}

fn removed(name: &str) -> Verdict<'_> {
    Verdict {
        state: State::Removed,
        ..loaded(name, 0)
    }
}

/// What a leader knows after everything so far.
struct Leader {
    feed: Feed,
    tallies: BTreeMap<(String, i64), Tally>,
    attendances: BTreeMap<String, Attendance>,
}

impl Leader {
    fn new(ledger: &Arc<Ledger>) -> Self {
        Self {
            feed: ledger.feed(),
            tallies: BTreeMap::new(),
            attendances: BTreeMap::new(),
        }
    }

    /// Returns how many tallies changed.
    fn follow(&mut self) -> usize {
        let mut changed = 0;
        while let Some(batch) = self.feed.ledger.inner.lock().batch() {
            changed += batch.tallies.len();
            for tally in batch.tallies {
                self.tallies.insert((tally.name.clone(), tally.generation), tally);
            }
            for attendance in batch.attendances {
                self.attendances.insert(attendance.app.clone(), attendance);
            }
        }
        self.tallies.retain(|_, tally| tally.loaded + tally.rejected > 0);
        changed
    }

    fn counts(&mut self, name: &str, generation: i64) -> (u32, u32) {
        self.follow();
        let tally = self.tallies.get(&(name.to_owned(), generation));
        tally.map_or((0, 0), |tally| (tally.loaded, tally.rejected))
    }
}

#[test]
fn sums_follow_every_verdict_and_every_end() {
    let ledger = Arc::<Ledger>::default();
    let mut leader = Leader::new(&ledger);
    let one = ledger.enter(
        CART,
        "cart-1",
        &["Component"],
        &[loaded("db", 1), rejected("bus", 1, "no route", 5)],
    );
    let two = ledger.enter(CART, "cart-2", &[], &[loaded("db", 1)]);
    assert_eq!((leader.counts("db", 1), leader.counts("bus", 1)), ((2, 0), (0, 1)));

    // A new generation, judged by one of them so far.
    assert_eq!(one.judge(&[rejected("db", 2, "no route", 6)]), 2);
    assert_eq!((leader.counts("db", 1), leader.counts("db", 2)), ((1, 0), (0, 1)));
    two.judge(&[loaded("db", 2)]);
    assert_eq!((leader.counts("db", 1), leader.counts("db", 2)), ((0, 0), (1, 1)));
    let rejection = leader.tallies[&("db".to_owned(), 2)].rejections[0].clone();
    assert_eq!(
        (&*rejection.pod, &*rejection.message, rejection.judged_at),
        ("cart-1", "no route", 6)
    );

    // The same again is no other one.
    one.judge(&[rejected("db", 2, "no route", 6), rejected("db", 2, "no host", 7)]);
    assert_eq!(leader.counts("db", 2), (1, 1));
    assert_eq!(leader.tallies[&("db".to_owned(), 2)].rejections[0].message, "no host");

    assert_eq!(one.judge(&[removed("db"), removed("never"), loaded("bus", 1)]), 1);
    assert_eq!((leader.counts("db", 2), leader.counts("bus", 1)), ((1, 0), (1, 0)));
    drop((one, two));
    leader.follow();
    assert!(leader.tallies.is_empty());
    let inner = ledger.inner.lock();
    assert!(inner.sums.is_empty() && inner.reporters.is_empty() && inner.apps.is_empty());
}

#[test]
fn who_is_connected_and_who_follows_is_counted() {
    let ledger = Arc::<Ledger>::default();
    let mut leader = Leader::new(&ledger);
    let stock = ledger.attend("shop", "cart");
    let ours = (
        ledger.attend("shop", "cart"),
        ledger.enter(CART, "cart-1", &["Component"], &[]),
    );
    leader.follow();
    let cart = &leader.attendances["cart"];
    assert_eq!(
        (cart.sidecars, &*cart.followers[0].kind, cart.followers[0].sidecars),
        (2, "Component", 1)
    );
    drop(ours);
    leader.follow();
    assert_eq!(leader.attendances["cart"].sidecars, 1);
    assert!(leader.attendances["cart"].followers.is_empty());
    drop(stock);
    leader.follow();
    assert_eq!(leader.attendances["cart"].sidecars, 0);
}

#[test]
fn a_leader_that_comes_later_gets_everything_and_the_one_before_nothing_more() {
    let ledger = Arc::<Ledger>::default();
    let entry = ledger.enter(CART, "cart-1", &[], &[loaded("db", 1)]);
    let mut first = Leader::new(&ledger);
    assert_eq!(first.counts("db", 1), (1, 0));
    let mut second = Leader::new(&ledger);
    entry.judge(&[loaded("bus", 1)]);
    assert_eq!(second.counts("db", 1), (1, 0));
    assert_eq!(second.counts("bus", 1), (1, 0));
    assert!(!first.feed.is_current(&ledger.inner.lock()));
    drop(first);
    assert!(second.feed.is_current(&ledger.inner.lock()), "only its own feed ends");
    drop(second);
    entry.judge(&[loaded("bus", 2)]);
    assert!(ledger.inner.lock().feed.is_none(), "what nobody takes is not kept");
}

#[tokio::test(start_paused = true)]
async fn what_changes_together_is_sent_together() {
    let ledger = Arc::<Ledger>::default();
    let mut feed = ledger.feed();
    let entries: Vec<_> = (0..1000)
        .map(|n| ledger.enter(CART, &format!("cart-{n}"), &[], &[loaded("db", 1)]))
        .collect();
    let batch = feed.next().await.unwrap();
    assert_eq!(
        batch.tallies.iter().map(|tally| tally.loaded).collect::<Vec<_>>(),
        [1000]
    );
    for entry in &entries {
        entry.judge(&[loaded("db", 2)]);
    }
    let batch = feed.next().await.unwrap();
    assert_eq!(batch.tallies.len(), 2, "one for each generation");
    let newer = ledger.feed();
    assert!(feed.next().await.is_none());
    drop((entries, newer));
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_a_batch_is_sent_is_sent_together_too() {
    let ledger = Arc::<Ledger>::default();
    let entry = ledger.enter(CART, "cart-1", &[], &[loaded("db", 1)]);
    let mut feed = ledger.feed();
    for generation in 1..=3 {
        assert!(feed.next().await.is_some());
        entry.judge(&[loaded("bus", generation)]);
        let mut next = std::pin::pin!(feed.next());
        assert!(timeout(COALESCE / 2, &mut next).await.is_err());
        entry.judge(&[loaded("till", generation)]);
        let batch = next.await.unwrap();
        let told = |name: &str| {
            batch
                .tallies
                .iter()
                .any(|tally| tally.name == name && tally.loaded == 1)
        };
        assert!(told("bus") && told("till"));
        entry.judge(&[loaded("db", generation + 1)]);
    }
}

#[test]
fn batches_are_bounded_and_rejections_too() {
    let ledger = Arc::<Ledger>::default();
    let message = "x".repeat(1024);
    let names: Vec<_> = (0..100).map(|n| format!("component-{n}")).collect();
    let entries: Vec<_> = (0..50)
        .map(|n| {
            let verdicts: Vec<_> = names.iter().map(|name| rejected(name, 1, &message, n)).collect();
            ledger.enter(CART, &format!("cart-{n}"), &[], &verdicts)
        })
        .collect();
    let _feed = ledger.feed();
    let mut batches = Vec::new();
    while let Some(batch) = ledger.inner.lock().batch() {
        assert!(
            batch
                .tallies
                .iter()
                .all(|tally| tally.rejected == 50 && tally.rejections.len() == NEWEST)
        );
        assert_eq!(batch.tallies[0].rejections[0].pod, "cart-49", "the newest");
        batches.push(prost_size(&batch));
    }
    // Each sidecar has room for 64 of the messages.
    assert!(batches.iter().all(|size| *size < 2 * BATCH), "{batches:?}");
    drop(entries);
    assert!(ledger.inner.lock().sums.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_falls_too_far_behind_ends_and_the_next_begins_with_what_is_left() {
    let ledger = Arc::<Ledger>::default();
    let entry = ledger.enter(CART, "cart-1", &[], &[]);
    let mut feed = ledger.feed();
    let last = i64::try_from(PENDING).unwrap() + 10;
    for generation in 1..=last {
        entry.judge(&[loaded("db", generation)]);
    }
    assert!(ledger.inner.lock().feed.is_none());
    assert!(feed.next().await.is_none());
    let mut leader = Leader::new(&ledger);
    assert_eq!(leader.follow(), 1);
    assert_eq!(leader.counts("db", last), (1, 0));
}

fn prost_size(batch: &ShareRequest) -> usize {
    let rejections = batch.tallies.iter().flat_map(|tally| &tally.rejections);
    rejections.map(|rejection| rejection.message.len() + 64).sum::<usize>() + batch.tallies.len() * 128
}

#[test]
fn messages_of_one_sidecar_are_bounded_and_room_comes_back() {
    let ledger = Arc::<Ledger>::default();
    let message = "x".repeat(1024);
    let names: Vec<_> = (0..65).map(|n| format!("component-{n}")).collect();
    let verdicts: Vec<_> = names.iter().map(|name| rejected(name, 1, &message, 1)).collect();
    let entry = ledger.enter(CART, "cart-1", &[], &verdicts);
    let mut leader = Leader::new(&ledger);
    assert_eq!(leader.counts("component-64", 1), (0, 1));
    let told = |leader: &Leader| {
        leader.tallies[&("component-64".to_owned(), 1)].rejections[0]
            .message
            .len()
    };
    assert_eq!(told(&leader), 0);
    entry.judge(&[loaded("component-0", 1)]);
    entry.judge(&[rejected("component-64", 1, &message, 1)]);
    leader.follow();
    assert_eq!(told(&leader), 1024);
}

/// Prints what a thousand sidecars cost.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_thousand_sidecars() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    };
    let names: Vec<_> = (0..20).map(|n| format!("component-{n}")).collect();
    let ledger = Arc::<Ledger>::default();
    let before = resident();
    let entries: Vec<_> = (0..1000)
        .map(|n| {
            let app = format!("app-{}", n % 100);
            let mut verdicts: Vec<_> = names.iter().map(|name| loaded(name, 1)).collect();
            verdicts[0] = rejected(&names[0], 1, "dial tcp redis:6379: connection refused", n);
            ledger.enter(
                ("shop", &app),
                &format!("{app}-6d4f7c9b5-{n:05}"),
                &["Component"],
                &verdicts,
            )
        })
        .collect();
    println!("1,000 sidecars with 20 resources each: {} KiB", resident() - before);
    black_box(entries);
}
