//! Who has how many connections, so that nobody has all of them. Nobody is turned away: whoever has the most makes room.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// All places; clones share them.
#[derive(Clone)]
pub(super) struct Places(Arc<Mutex<Taken>>);

struct Taken {
    most: usize,
    most_of_a_peer: usize,
    next: u64,
    total: usize,
    /// The oldest first.
    by_peer: HashMap<IpAddr, BTreeMap<u64, CancellationToken>>,
}

/// The place of one connection, until it is dropped.
pub(super) struct Place {
    places: Places,
    peer: IpAddr,
    number: u64,
    lost: CancellationToken,
}

impl Places {
    pub(super) fn new(most: usize, most_of_a_peer: usize) -> Self {
        Self(Arc::new(Mutex::new(Taken {
            most,
            most_of_a_peer,
            next: 0,
            total: 0,
            by_peer: HashMap::new(),
        })))
    }

    /// There always is one: where none is left, the peer with the most connections loses its oldest, and so does one that has as
    /// many as a peer may have.
    pub(super) fn take(&self, peer: IpAddr) -> Place {
        let mut taken = self.0.lock();
        let own = taken.by_peer.get(&peer).map_or(0, BTreeMap::len);
        if own >= taken.most_of_a_peer {
            taken.drop_oldest_of(peer);
        } else if taken.total >= taken.most {
            let greediest = taken.by_peer.iter().max_by_key(|(_, connections)| connections.len());
            if let Some(peer) = greediest.map(|(peer, _)| *peer) {
                taken.drop_oldest_of(peer);
            }
        }
        let (number, lost) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.total += 1;
        taken.by_peer.entry(peer).or_default().insert(number, lost.clone());
        Place {
            places: self.clone(),
            peer,
            number,
            lost,
        }
    }
}

impl Taken {
    fn drop_oldest_of(&mut self, peer: IpAddr) {
        let oldest = self
            .by_peer
            .get(&peer)
            .and_then(|connections| connections.keys().next().copied());
        if let Some(lost) = oldest.and_then(|number| self.remove(peer, number)) {
            lost.cancel();
        }
    }

    fn remove(&mut self, peer: IpAddr, number: u64) -> Option<CancellationToken> {
        let connections = self.by_peer.get_mut(&peer)?;
        let removed = connections.remove(&number)?;
        self.total -= 1;
        if connections.is_empty() {
            self.by_peer.remove(&peer);
        }
        Some(removed)
    }
}

impl Place {
    /// Waits until somebody else has it.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.0.lock().remove(self.peer, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    fn lost(place: &Place) -> bool {
        place.lost.is_cancelled()
    }

    #[test]
    fn whoever_has_most_makes_room() {
        let places = Places::new(4, 3);
        let few = places.take(peer(1));
        let many: Vec<_> = (0..3).map(|_| places.take(peer(2))).collect();
        let newcomer = places.take(peer(3));
        assert!(lost(&many[0]) && !lost(&many[1]) && !lost(&few) && !lost(&newcomer));
        assert_eq!(places.0.lock().total, 4);
    }

    #[test]
    fn a_peer_has_its_share_and_no_more() {
        let places = Places::new(10, 2);
        let mut held: Vec<_> = (0..3).map(|_| places.take(peer(1))).collect();
        assert!(lost(&held[0]) && !lost(&held[1]) && !lost(&held[2]));
        held.clear();
        let again: Vec<_> = (0..2).map(|_| places.take(peer(1))).collect();
        assert!(again.iter().all(|place| !lost(place)), "places are given back");
        drop(again);
        let taken = places.0.lock();
        assert!(taken.by_peer.is_empty() && taken.total == 0);
    }
}
