//! What bodies may take together, shared by the peers that they come from.
//!
//! A peer may hold [`SHARE`] times as many bytes as are free at that moment: three quarters when it is alone, and whoever comes
//! from another address finds some free, however many bodies the first one begins and never ends.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

/// How many times the free bytes a peer may hold.
const SHARE: usize = 3;

/// All of it; clones share it.
#[derive(Clone)]
pub(super) struct Budget(Arc<Mutex<Taken>>);

struct Taken {
    free: usize,
    /// Peers that hold some, and how much.
    by: HashMap<IpAddr, usize>,
}

/// What the bytes of one body take, until it is dropped.
pub(super) struct Part {
    budget: Budget,
    by: IpAddr,
    bytes: usize,
}

/// There is not enough left for this peer.
#[derive(Debug)]
pub(super) struct Exhausted;

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Taken {
            free: bytes,
            by: HashMap::new(),
        })))
    }

    /// Nothing yet.
    pub(super) fn part_of(&self, peer: IpAddr) -> Part {
        Part {
            budget: self.clone(),
            by: peer,
            bytes: 0,
        }
    }
}

impl Part {
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let mut taken = self.budget.0.lock();
        let free = taken.free.checked_sub(bytes).ok_or(Exhausted)?;
        let held = taken.by.get(&self.by).copied().unwrap_or_default() + bytes;
        if held > SHARE * free {
            return Err(Exhausted);
        }
        taken.free = free;
        taken.by.insert(self.by, held);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut taken = self.budget.0.lock();
        taken.free += self.bytes;
        if let Some(held) = taken.by.get_mut(&self.by) {
            *held -= self.bytes;
            if *held == 0 {
                taken.by.remove(&self.by);
            }
        }
    }
}

#[cfg(test)]
impl Budget {
    pub(super) fn free(&self) -> usize {
        self.0.lock().free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    #[test]
    fn a_peer_that_keeps_all_it_gets_leaves_some_to_others() {
        let budget = Budget::new(1000);
        let mut greedy: Vec<_> = (0..10).map(|_| budget.part_of(peer(1))).collect();
        let taken = greedy.iter_mut().filter_map(|part| part.grow(100).ok()).count();
        assert_eq!(taken, 7);
        for newcomer in 2..5 {
            assert!(budget.part_of(peer(newcomer)).grow(200).is_ok(), "{newcomer}");
        }
        greedy.clear();
        assert_eq!(budget.free(), 1000);
        assert!(budget.0.lock().by.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_not_taken() {
        let budget = Budget::new(1000);
        let mut part = budget.part_of(peer(1));
        assert!(part.grow(750).is_ok() && part.grow(1).is_err() && part.grow(usize::MAX).is_err());
        assert_eq!(budget.free(), 250);
    }
}
