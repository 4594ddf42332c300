//! Tells of pods that an injector refused, on the replica that it told: the one that leads looks into these pods too, a little
//! later, and finds the Event there.

use std::{collections::HashSet, sync::Arc};

use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use super::{QUIET, Refusals, Teller, is_new};
use crate::pods::Pods;

/// Events that are written at one time.
const WRITERS: usize = 8;

/// Finds the pods of refusals: when they were refused, most of them had no name.
pub struct Refused {
    pub pods: Arc<Pods>,
    pub refusals: Arc<Refusals>,
    pub teller: Teller,
}

impl Refused {
    /// Works for ever.
    pub async fn run(self) {
        let (mut pods, mut refusals) = (self.pods.changes(), self.refusals.changes());
        let mut told = HashSet::new();
        loop {
            tokio::select! {
                Ok(()) = refusals.changed() => {}
                Ok(()) = pods.changed(), if self.refusals.any(Instant::now()) => {}
            }
            sleep(QUIET).await;
            let before = std::mem::take(&mut told);
            let lacking = self.pods.lacking().into_iter().filter(|pod| is_new(pod.created));
            let refused = lacking.filter_map(|pod| Some((self.refusals.about(&pod, Instant::now())?, pod)));
            let due = refused.filter_map(|(refusal, pod)| {
                told.insert(pod.uid.clone());
                (!before.contains(&pod.uid)).then_some((refusal, pod))
            });
            let due: Vec<_> = due.collect();
            let writing = stream::iter(due).for_each_concurrent(WRITERS, async |(refusal, pod)| {
                self.teller.tell(&pod.key, &pod.uid, refusal.into()).await;
            });
            writing.await;
        }
    }
}
