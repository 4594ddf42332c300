use super::*;

const FIRST: Permission = Permission::First;
const NEXT: Permission = Permission::More { alone: false };

fn owner() -> Owner {
    Owner {
        namespace: "shop".into(),
        reference: OwnerReference {
            uid: "rs".into(),
            ..Default::default()
        },
    }
}

fn pods(pods: &[(&str, bool)]) -> Vec<PodInfo> {
    let info = |(uid, injected): &(&str, bool)| PodInfo {
        selection: crate::pods::Selection::NotInjected,
        uid: (*uid).to_owned(),
        app: "cart".into(),
        configuration: None,
        owner: Some("rs".into()),
        injected: *injected,
        patched: false,
        created: None,
    };
    pods.iter().map(info).collect()
}

fn before() -> HashSet<String> {
    HashSet::from(["a".to_owned(), "b".to_owned()])
}

#[test]
fn the_others_wait_for_the_first_ones_replacement() {
    let now = Instant::now();
    let mut owners = Owners::default();
    assert_eq!(owners.permission(&owner(), 1, now), FIRST);
    owners.evicted_first(&owner(), before(), now);
    assert_eq!(
        owners.permission(&owner(), 1, now),
        Permission::Awaiting(now + REPLACEMENT_DEADLINE)
    );
    assert_eq!(
        owners.observe(&owner(), &pods(&[("a", false), ("b", false)]), 1, now),
        None
    );

    let replaced = pods(&[("b", false), ("c", true)]);
    assert_eq!(owners.observe(&owner(), &replaced, 1, now), Some(Replacement::Injected));
    assert_eq!(owners.observe(&owner(), &replaced, 1, now), None, "seen already");
    assert_eq!(owners.permission(&owner(), 1, now), NEXT);
    owners.evicted(&owner(), now);
    assert_eq!(owners.permission(&owner(), 1, now), NEXT, "no more waiting");
    let lacking = owners.observe(&owner(), &pods(&[("c", true), ("d", false)]), 1, now);
    assert_eq!(lacking, Some(Replacement::Lacking), "but still watched");
    assert_eq!(owners.permission(&owner(), 1, now), Permission::Stopped);
}

#[test]
fn what_was_proved_long_ago_is_proved_again() {
    let now = Instant::now();
    let mut owners = Owners::default();
    owners.evicted_first(&owner(), before(), now);
    owners.observe(&owner(), &pods(&[("c", true)]), 1, now);
    assert_eq!(owners.permission(&owner(), 1, now), NEXT);
    assert_eq!(owners.permission(&owner(), 1, now + REPLACEMENT_DEADLINE), FIRST);
}

#[test]
fn a_replacement_without_a_sidecar_ends_it() {
    let mut now = Instant::now();
    let mut owners = Owners::default();
    for (version, pause) in [(1, 10), (2, 20), (3, 40)] {
        owners.evicted_first(&owner(), before(), now);
        let replacement = format!("c{version}");
        let lacking = owners.observe(&owner(), &pods(&[(&replacement, false)]), version, now);
        assert_eq!(lacking, Some(Replacement::Lacking));
        assert_eq!(owners.held(&owner()), Some(STOPPED));
        assert_eq!(owners.permission(&owner(), version, now + KEEP), Permission::Stopped);
        // Another injector, another try, and each after a longer pause.
        let then = now + Duration::from_secs(pause);
        assert_eq!(
            owners.permission(&owner(), version + 1, now),
            Permission::NotBefore(then)
        );
        now = then;
        assert_eq!(owners.permission(&owner(), version + 1, now), FIRST);
    }
}

#[test]
fn a_later_pod_with_a_sidecar_takes_it_up_again() {
    let now = Instant::now();
    let mut owners = Owners::default();
    owners.evicted_first(&owner(), before(), now);
    owners.observe(&owner(), &pods(&[("c", false)]), 1, now);
    assert_eq!(
        owners.observe(&owner(), &pods(&[("c", false), ("d", false)]), 1, now),
        None
    );
    let with = pods(&[("c", false), ("e", true)]);
    assert_eq!(owners.observe(&owner(), &with, 1, now), Some(Replacement::Injected));
    assert_eq!(owners.permission(&owner(), 1, now), NEXT);
}

#[test]
fn an_outage_says_nothing_of_owners() {
    let now = Instant::now();
    let mut owners = Owners::default();
    owners.evicted_first(&owner(), before(), now);
    owners.interrupted();
    assert_eq!(owners.observe(&owner(), &pods(&[("c", false)]), 1, now), None);
    assert_eq!(owners.permission(&owner(), 1, now), FIRST);
}

#[test]
fn refusals_back_off_until_something_changes() {
    let mut now = Instant::now();
    let mut owners = Owners::default();
    for (pause, news) in [
        (10, true),
        (20, false),
        (40, false),
        (80, false),
        (160, false),
        (320, false),
        (600, false),
    ] {
        assert_eq!(owners.refused(&owner(), "NamespaceNotSelected", 1, now), news);
        let then = now + Duration::from_secs(pause);
        assert_eq!(owners.permission(&owner(), 1, now), Permission::NotBefore(then));
        now = then;
    }
    assert_eq!(owners.held(&owner()), Some("NamespaceNotSelected"));
    assert_eq!(owners.permission(&owner(), 2, now), FIRST);
    assert_eq!(owners.held(&owner()), None);
    assert!(owners.refused(&owner(), "CaBundleMissing", 2, now));
    owners.expire(now, |_| false);
    assert_ne!(owners.permission(&owner(), 2, now), FIRST, "its pods may still come");
    owners.expire(now + KEEP, |_| true);
    assert_ne!(owners.permission(&owner(), 2, now), FIRST);
    owners.expire(now + KEEP, |_| false);
    assert_eq!(owners.permission(&owner(), 2, now), FIRST);
}

#[test]
fn a_budget_is_told_of_once_after_a_minute_without_progress() {
    let start = Instant::now();
    let mut owners = Owners::default();
    let mut now = start;
    let mut told = Vec::new();
    while now < start + Duration::from_secs(180) {
        if owners.blocked(&owner(), BUDGET, 1, now) {
            told.push(now - start);
        }
        // A change of the webhook gives no budget any room.
        let Permission::NotBefore(then) = owners.permission(&owner(), 2, now) else {
            panic!("a pause");
        };
        assert!(then - now <= BUDGET_BACKOFF.1);
        now = then;
    }
    assert_eq!(told, [PATIENCE]);
    owners.evicted_first(&owner(), before(), now);
    assert!(!owners.blocked(&owner(), BUDGET, 1, now));
    assert!(
        owners.blocked(&owner(), BUDGET, 1, now + PATIENCE),
        "that was progress, and this is another stall"
    );
}

#[test]
fn after_a_budget_pods_go_one_by_one() {
    let now = Instant::now();
    let mut owners = Owners::default();
    owners.evicted_first(&owner(), before(), now);
    owners.observe(&owner(), &pods(&[("c", true)]), 1, now);
    owners.evicted(&owner(), now);
    for _ in 0..15 {
        owners.blocked(&owner(), BUDGET, 1, now);
    }
    let then = now + BUDGET_BACKOFF.0;
    assert_eq!(
        owners.permission(&owner(), 1, now),
        Permission::NotBefore(then),
        "what was refused at one time counts once"
    );
    assert_eq!(owners.permission(&owner(), 1, then), Permission::More { alone: true });
    owners.evicted(&owner(), then);
    assert_eq!(owners.permission(&owner(), 1, then), Permission::More { alone: true });
}

#[test]
fn whatever_refuses_for_a_minute_is_told_of() {
    let start = Instant::now();
    for reason in ["error", "forbidden"] {
        let (mut owners, mut now, mut told) = (Owners::default(), start, Vec::new());
        while now < start + Duration::from_secs(1800) {
            if owners.blocked(&owner(), reason, 1, now) {
                told.push(now - start);
            }
            let Permission::NotBefore(then) = owners.permission(&owner(), 1, now) else {
                panic!("a pause");
            };
            now = then;
        }
        assert_eq!(told, [PATIENCE], "{reason}");
        assert_eq!(owners.held(&owner()), Some(reason));
    }
}

#[test]
fn a_pod_that_goes_another_way_ends_the_stall() {
    let now = Instant::now();
    let ways: [fn(&mut Owners); 3] = [
        |owners| owners.unblocked(&owner()),
        |owners| owners.unblock_others(&HashSet::new()),
        |owners| {
            owners.refused(&owner(), "NamespaceNotSelected", 1, Instant::now());
        },
    ];
    for end in ways {
        let mut owners = Owners::default();
        assert!(!owners.blocked(&owner(), BUDGET, 1, now));
        owners.unblock_others(&HashSet::from(["rs"]));
        end(&mut owners);
        assert!(!owners.blocked(&owner(), BUDGET, 1, now + PATIENCE));
    }
    let mut owners = Owners::default();
    assert!(!owners.blocked(&owner(), BUDGET, 1, now));
    owners.unblock_others(&HashSet::from(["rs"]));
    assert!(owners.blocked(&owner(), BUDGET, 1, now + PATIENCE));
}

#[test]
fn a_replacement_that_never_comes_does_not_hold_up_for_ever() {
    let now = Instant::now();
    let mut owners = Owners::default();
    owners.evicted_first(&owner(), before(), now);
    assert_eq!(owners.awaiting(now), [owner()]);
    let later = now + REPLACEMENT_DEADLINE;
    assert!(owners.awaiting(later).is_empty());
    assert_eq!(owners.permission(&owner(), 1, later), FIRST);
}
