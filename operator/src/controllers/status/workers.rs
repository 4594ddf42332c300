//! Works on several objects at a time.

use std::{collections::HashMap, future::Future, hash::Hash};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::queue::Queue;

/// Objects that are worked on at a time: one whose Secrets cannot be read in time holds up nobody else.
const WORKERS: usize = 8;

/// Works on the keys of a queue until `stop`, on several at a time, and on each by one worker only: what is due again while it
/// is worked on comes next.
pub(super) async fn one_at_a_time<T: Clone + Ord + Hash, F: Future<Output = ()>>(
    queue: &Queue<T>,
    stop: &CancellationToken,
    work: impl Fn(T) -> F,
) {
    let mut again: HashMap<T, bool> = HashMap::new();
    let mut workers = FuturesUnordered::new();
    loop {
        let is_free = workers.len() < WORKERS;
        tokio::select! {
            () = stop.cancelled() => break,
            Some(done) = workers.next() => {
                if again.remove(&done) == Some(true) {
                    queue.add(done, Instant::now());
                }
            }
            key = queue.next(), if is_free => match again.get_mut(&key) {
                Some(again) => *again = true,
                None => {
                    again.insert(key.clone(), false);
                    let work = work(key.clone());
                    workers.push(async move {
                        work.await;
                        key
                    });
                }
            },
        }
    }
    while workers.next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;
    use tokio::{sync::Notify, time::timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_holds_up_nobody_else_and_is_never_worked_on_twice() {
        let (queue, stop) = (Queue::default(), CancellationToken::new());
        let (release, done) = (Notify::new(), Mutex::new(Vec::new()));
        let started = Mutex::new(Vec::new());
        let work = async |key: u32| {
            started.lock().push(key);
            if key == 0 {
                release.notified().await;
            }
            done.lock().push(key);
        };
        let now = Instant::now();
        for key in 0..100 {
            queue.add(key, now);
        }
        let until = async |count: usize| {
            while done.lock().len() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let steps = async {
            until(99).await;
            // Due again, and again, while it is worked on.
            for _ in 0..2 {
                queue.add(0, now);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(started.lock().iter().filter(|key| **key == 0).count(), 1);
            release.notify_one();
            until(100).await;
            release.notify_one();
            until(101).await;
            queue.add(0, now);
            tokio::time::sleep(Duration::from_millis(10)).await;
            stop.cancel();
            release.notify_one();
        };
        let run = one_at_a_time(&queue, &stop, work);
        timeout(Duration::from_secs(60), async { tokio::join!(run, steps) })
            .await
            .expect("nobody waits for the one that hangs");
        assert_eq!(
            done.lock().iter().filter(|key| **key == 0).count(),
            3,
            "the last is finished"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_a_few_are_worked_on() {
        let (queue, stop) = (Queue::default(), CancellationToken::new());
        let (now_at_work, most) = (Mutex::new(0), Mutex::new(0));
        for key in 0..100 {
            queue.add(key, Instant::now());
        }
        let work = async |key: u32| {
            let count = {
                let mut count = now_at_work.lock();
                *count += 1;
                *count
            };
            let most = &most;
            let seen = (*most.lock()).max(count);
            *most.lock() = seen;
            tokio::time::sleep(Duration::from_secs(1)).await;
            *now_at_work.lock() -= 1;
            if key == 99 {
                stop.cancel();
            }
        };
        one_at_a_time(&queue, &stop, work).await;
        assert_eq!(most.into_inner(), WORKERS);
    }
}
