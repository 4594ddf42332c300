//! What holds for every sequence of edits: nobody is sent what is not theirs, everybody ends with what the index lists, and a
//! type of event fits what its receiver knew.

use std::{collections::BTreeMap, sync::Arc};

use outrigger_crds::{Component, decode};
use outrigger_process::kubernetes::watch::ObjectKey;
use outrigger_proto::operator::ResourceEventType::{Created, Deleted};
use prometheus::Registry;
use serde_json::json;
use tokio::time::Instant;

use super::{Event, Index, State, Subscription, WINDOW};
use crate::metrics::Metrics;

const NAMESPACES: [&str; 2] = ["shop", "bank"];
const APPS: [&str; 3] = ["cart", "pay", "ship"];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// xorshift, from a seed that the failure names.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// A subscriber and what it knows, by name: the payload.
struct Sidecar {
    namespace: &'static str,
    app: &'static str,
    subscription: Subscription<Component>,
    known: BTreeMap<String, Vec<u8>>,
    /// Whether it listed long before the changes that it was told of.
    certain: bool,
}

impl Sidecar {
    fn take(&mut self, event: &Event<Component>, seed: u64) {
        let payload: serde_json::Value = serde_json::from_slice(event.version.payload()).unwrap();
        let name = event.version.name().to_string();
        let context = format!(
            "seed {seed}: {:?} of {payload} for {} in {}",
            event.type_, self.app, self.namespace
        );
        assert_eq!(payload["metadata"]["namespace"], self.namespace, "{context}");
        assert!(event.version.visible_to(self.app), "{context}");
        if self.certain {
            assert_eq!(self.known.contains_key(&name), event.type_ != Created, "{context}");
        }
        match event.type_ {
            Deleted => drop(self.known.remove(&name)),
            _ => drop(self.known.insert(name, event.version.payload().to_vec())),
        }
    }
}

fn listed(index: &Index<Component>, namespace: &str, app: &str) -> BTreeMap<String, Vec<u8>> {
    let list = index.list(namespace, app);
    let entry = |version: &Arc<super::Version<Component>>| (version.name().to_string(), version.payload().to_vec());
    list.versions().iter().map(entry).collect()
}

fn run(seed: u64) {
    let metrics = Metrics::new(&Registry::new()).unwrap();
    let index = Arc::new(Index::new(metrics.kind::<Component>()));
    index.set_state(State::Synced);
    let (mut random, mut now) = (Random(seed), Instant::now());
    let mut sidecars: Vec<Sidecar> = Vec::new();
    for step in 0..300 {
        let (namespace, name) = (random.of(&NAMESPACES), random.of(&NAMES));
        match random.below(10) {
            0 | 1 => index.delete(&ObjectKey::new(namespace, name), now),
            2 if sidecars.len() < 12 => {
                let app = random.of(&APPS);
                let known = listed(&index, namespace, app);
                // Between its list and its stream things may change; some time after its list nothing is replayed.
                let certain = random.below(2) == 0;
                if certain {
                    now += WINDOW * 2;
                } else {
                    apply(&index, namespace, name, step, &mut random, now);
                }
                let subscription = index.subscribe(namespace, app, now);
                sidecars.push(Sidecar {
                    namespace,
                    app,
                    subscription,
                    known,
                    certain,
                });
            }
            3 if !sidecars.is_empty() => drop(sidecars.swap_remove(random.below(sidecars.len()))),
            4 | 5 => {
                for sidecar in &mut sidecars {
                    if random.below(2) == 0
                        && let Some(event) = sidecar.subscription.try_next()
                    {
                        match random.below(4) {
                            // As when its Secret cannot be read.
                            0 => sidecar.subscription.put_back(event),
                            _ => sidecar.take(&event, seed),
                        }
                    }
                }
            }
            _ => apply(&index, namespace, name, step, &mut random, now),
        }
    }
    for sidecar in &mut sidecars {
        while let Some(event) = sidecar.subscription.try_next() {
            sidecar.take(&event, seed);
        }
        let expected = listed(&index, sidecar.namespace, sidecar.app);
        assert_eq!(
            sidecar.known, expected,
            "seed {seed}: {} in {}",
            sidecar.app, sidecar.namespace
        );
    }
    assert_eq!(index.metrics().pending.get(), 0, "seed {seed}");
    drop(sidecars);
    assert_eq!(index.metrics().streams.get(), 0, "seed {seed}");
}

fn apply(index: &Index<Component>, namespace: &str, name: &str, step: usize, random: &mut Random, now: Instant) {
    let scopes: Vec<_> = APPS.into_iter().filter(|_| random.below(3) == 0).collect();
    let component = json!({
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": step.to_string()},
        "spec": {"type": format!("state.{}", random.below(3)), "version": "v1", "metadata": []},
        "scopes": scopes,
    });
    let component = decode::<Component>(&component.to_string()).unwrap();
    index.apply(component, now).unwrap();
}

#[test]
fn every_sidecar_ends_with_its_own_and_is_never_sent_anothers() {
    for seed in 1..=100 {
        run(seed);
    }
}
