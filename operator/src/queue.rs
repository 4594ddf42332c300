//! Keys of work to be done, each at most once, each not before its time.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// A set of keys with due times. Its size is bounded by the number of different keys.
#[derive(Debug)]
pub struct Queue<T> {
    inner: Mutex<Inner<T>>,
    wake: Notify,
}

#[derive(Debug)]
struct Inner<T> {
    order: BTreeSet<(Instant, T)>,
    due: HashMap<T, Instant>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                order: BTreeSet::new(),
                due: HashMap::new(),
            }),
            wake: Notify::new(),
        }
    }
}

impl<T: Clone + Ord + Hash> Queue<T> {
    /// Adds a key, or moves it forward if `at` is earlier than its time.
    pub fn add(&self, key: T, at: Instant) {
        let mut inner = self.inner.lock();
        match inner.due.get(&key).copied() {
            Some(due) if due <= at => return,
            Some(due) => {
                inner.order.remove(&(due, key.clone()));
            }
            None => {}
        }
        inner.due.insert(key.clone(), at);
        inner.order.insert((at, key));
        drop(inner);
        self.wake.notify_one();
    }

    pub fn remove(&self, key: &T) {
        let mut inner = self.inner.lock();
        if let Some(due) = inner.due.remove(key) {
            inner.order.remove(&(due, key.clone()));
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.inner.lock().order.is_empty()
    }

    /// The first key that is due, once there is one. Cancelling loses nothing.
    pub async fn next(&self) -> T {
        loop {
            let due = {
                let mut inner = self.inner.lock();
                match inner.order.first().map(|(due, _)| *due) {
                    Some(due) if due <= Instant::now() => {
                        if let Some((_, key)) = inner.order.pop_first() {
                            inner.due.remove(&key);
                            return key;
                        }
                        None
                    }
                    other => other,
                }
            };
            let sleep = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn hands_out_each_key_once_and_in_time() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add("late", start + Duration::from_secs(10));
        queue.add("soon", start + Duration::from_secs(2));
        queue.add("late", start + Duration::from_secs(20));
        queue.add("moved", start + Duration::from_secs(30));
        queue.add("moved", start + Duration::from_secs(1));
        queue.add("gone", start);
        queue.remove(&"gone");
        let mut order = Vec::new();
        for _ in 0..3 {
            let key = queue.next().await;
            order.push((key, start.elapsed().as_secs()));
        }
        assert_eq!(order, [("moved", 1), ("soon", 2), ("late", 10)]);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_key_wakes_the_waiting() {
        let queue = Queue::default();
        queue.add(1, Instant::now() + Duration::from_secs(3600));
        let (key, ()) = tokio::join!(queue.next(), async { queue.add(2, Instant::now()) });
        assert_eq!(key, 2);
    }
}
