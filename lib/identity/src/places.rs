//! A bounded number of connections, shared by the addresses that they come from.
//!
//! An address may hold [`SHARE`] times as many places as are free at that moment. Alone it gets three quarters of them, so that a
//! storm of clients behind one address (a node's, or that of a NAT) is served at full speed; and whoever comes from another
//! address finds a place free, however many connections the first one opens and keeps. Of several that do so each gets less, as
//! their connections end and new ones take their turns. Who has no place waits, and addresses have turns one after the other.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many times the free places an address may hold.
const SHARE: usize = 3;

/// The places that there are; clones share them.
#[derive(Clone)]
pub(crate) struct Places(Arc<Shared>);

struct Shared {
    taken: Mutex<Taken>,
    given_back: Notify,
}

struct Taken {
    free: usize,
    /// Addresses that hold places, and how many.
    by: HashMap<IpAddr, usize>,
}

/// A place that somebody holds; dropping it gives it back.
pub(crate) struct Place {
    shared: Arc<Shared>,
    by: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.shared.taken.lock();
        taken.free += 1;
        if let Some(held) = taken.by.get_mut(&self.by) {
            *held -= 1;
            if *held == 0 {
                taken.by.remove(&self.by);
            }
        }
        drop(taken);
        self.shared.given_back.notify_one();
    }
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        let taken = Taken {
            free: most,
            by: HashMap::new(),
        };
        Self(Arc::new(Shared {
            taken: Mutex::new(taken),
            given_back: Notify::new(),
        }))
    }

    /// A place for a connection from `address`, unless none is free or the address holds its share.
    fn take(&self, address: IpAddr) -> Option<Place> {
        let mut taken = self.0.taken.lock();
        let held = taken.by.get(&address).copied().unwrap_or_default();
        if held >= SHARE * taken.free {
            return None;
        }
        taken.free -= 1;
        taken.by.insert(address, held + 1);
        Some(Place {
            shared: self.0.clone(),
            by: address,
        })
    }

    /// Waits until a place is given back; for one waiter, which misses nothing between two calls.
    pub(crate) async fn given_back(&self) {
        self.0.given_back.notified().await;
    }
}

/// Who waits for a place, by address.
pub(crate) struct Queue<T> {
    places: Places,
    /// At most this many wait.
    most: usize,
    count: usize,
    waiting: HashMap<IpAddr, VecDeque<T>>,
    /// Each address that waits, once.
    turns: VecDeque<IpAddr>,
}

impl<T> Queue<T> {
    pub(crate) fn new(places: Places, most: usize) -> Self {
        Self {
            places,
            most,
            count: 0,
            waiting: HashMap::new(),
            turns: VecDeque::new(),
        }
    }

    pub(crate) fn push(&mut self, address: IpAddr, item: T) {
        let waiting = self.waiting.entry(address).or_default();
        if waiting.is_empty() {
            self.turns.push_back(address);
        }
        waiting.push_back(item);
        self.count += 1;
        if self.count > self.most {
            self.drop_one();
        }
    }

    /// The next that gets a place.
    pub(crate) fn next(&mut self) -> Option<(T, Place)> {
        // Those that have to be passed over hold some places each, so there are never many of them.
        for _ in 0..self.turns.len() {
            let address = self.turns.pop_front()?;
            let Some(place) = self.places.take(address) else {
                self.turns.push_back(address);
                continue;
            };
            let item = self.remove(address, VecDeque::pop_front)?;
            if self.waiting.contains_key(&address) {
                self.turns.push_back(address);
            }
            return Some((item, place));
        }
        None
    }

    /// The last one of the address that most wait at has lost the least.
    fn drop_one(&mut self) {
        let longest = self.waiting.iter().max_by_key(|(_, waiting)| waiting.len());
        let Some(address) = longest.map(|(address, _)| *address) else {
            return;
        };
        self.remove(address, VecDeque::pop_back);
        if !self.waiting.contains_key(&address) {
            self.turns.retain(|turn| *turn != address);
        }
    }

    fn remove(&mut self, address: IpAddr, pop: impl FnOnce(&mut VecDeque<T>) -> Option<T>) -> Option<T> {
        let waiting = self.waiting.get_mut(&address)?;
        let item = pop(waiting)?;
        self.count -= 1;
        if waiting.is_empty() {
            self.waiting.remove(&address);
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn address(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    fn queue(places: usize) -> Queue<u32> {
        Queue::new(Places::new(places), 1000)
    }

    fn push(queue: &mut Queue<u32>, from: u8, count: u32) {
        for item in 0..count {
            queue.push(address(from), item);
        }
    }

    fn admit(queue: &mut Queue<u32>) -> Vec<(u32, Place)> {
        std::iter::from_fn(|| queue.next()).collect()
    }

    #[test]
    fn one_address_alone_gets_three_quarters_and_is_served_whole() {
        let mut queue = queue(128);
        push(&mut queue, 1, 900);
        let mut served = Vec::new();
        let mut holding = admit(&mut queue);
        assert_eq!(holding.len(), 96);
        while !holding.is_empty() {
            let (item, place) = holding.remove(0);
            served.push(item);
            drop(place);
            assert!(queue.places.given_back().now_or_never().is_some());
            holding.extend(admit(&mut queue));
            assert!(holding.len() <= 96);
        }
        assert_eq!(served, (0..900).collect::<Vec<_>>(), "in the order of their arrival");
        assert!(queue.waiting.is_empty() && queue.turns.is_empty() && queue.count == 0);
        let taken = queue.places.0.taken.lock();
        assert!(taken.by.is_empty() && taken.free == 128);
    }

    #[test]
    fn another_address_does_not_wait_for_one_that_keeps_its_places() {
        let mut queue = queue(128);
        push(&mut queue, 1, 900);
        let _kept = admit(&mut queue);
        for newcomer in 100..110 {
            push(&mut queue, newcomer, 1);
            assert_eq!(admit(&mut queue).len(), 1, "{newcomer}");
        }
    }

    #[test]
    fn many_who_always_want_more_leave_some_once_all_have_had_their_turn() {
        let mut queue = queue(128);
        let mut holding = VecDeque::new();
        for hoarder in 1..=10 {
            push(&mut queue, hoarder, 90);
            holding.extend(admit(&mut queue));
        }
        // Each connection ends after a while, and its owner opens the next one at once.
        for _ in 0..2 * holding.len() {
            if let Some((item, place)) = holding.pop_front() {
                queue.push(place.by, item);
            }
            holding.extend(admit(&mut queue));
        }
        let free = queue.places.0.taken.lock().free;
        assert!((3..=5).contains(&free), "{free}");
        push(&mut queue, 100, 1);
        assert_eq!(admit(&mut queue).len(), 1);
    }

    #[test]
    fn turns_go_from_address_to_address() {
        let mut queue = queue(8);
        push(&mut queue, 1, 100);
        let kept = admit(&mut queue);
        assert_eq!(kept.len(), 6);
        drop(kept);
        push(&mut queue, 2, 100);
        push(&mut queue, 3, 1);
        let admitted = admit(&mut queue);
        let order: Vec<_> = admitted.iter().map(|(_, place)| place.by).collect();
        assert_eq!(order[..4], [address(1), address(2), address(3), address(1)]);
    }

    #[test]
    fn what_waits_is_bounded_at_the_cost_of_those_who_are_many() {
        let mut queue = Queue::new(Places::new(4), 10);
        push(&mut queue, 1, 13);
        push(&mut queue, 2, 1);
        assert_eq!((queue.count, queue.waiting[&address(1)].len()), (10, 9));
        assert_eq!(queue.waiting[&address(2)].len(), 1);
        assert_eq!(queue.waiting[&address(1)].back(), Some(&8), "first come, first served");
        let mut single = Queue::new(Places::new(4), 0);
        single.push(address(1), 0);
        assert!(single.next().is_none() && single.turns.is_empty() && single.waiting.is_empty());
    }
}
