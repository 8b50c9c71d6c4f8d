//! The connections that haven't registered yet, and the choice of the one to evict when the table is full.
//!
//! The newcomer is never evicted: otherwise idle connections of one neighbour could keep out everyone behind the
//! same NAT. The evicted connection is a random one of the address with the most. An honest client registers within
//! two round trips, and few newcomers arrive in that time, compared with the table's size. A flood evicts its own
//! address's connections first.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::limits::HubLimits;
use crate::kit::draw;
use crate::net::reach::relay::ClientId;
use crate::rt::Rng;

/// At most [`HubLimits::half_open`] connections, of one address at most [`HubLimits::half_open_per_address`].
pub(super) struct HalfOpen {
    /// Keyed by address prefix, as [`prefix`](super::limits::prefix) computes it; no list is empty.
    by_address: BTreeMap<IpAddr, Vec<ClientId>>,
    total: usize,
    rng: Rng,
}

impl HalfOpen {
    /// An empty table.
    pub(super) fn new(rng: Rng) -> HalfOpen {
        HalfOpen { by_address: BTreeMap::new(), total: 0, rng }
    }

    /// The number of half-open connections from one address.
    pub(super) fn from(&self, address: IpAddr) -> usize {
        self.by_address.get(&address).map_or(0, Vec::len)
    }

    pub(super) fn insert(&mut self, address: IpAddr, id: ClientId) {
        self.by_address.entry(address).or_default().push(id);
        self.total += 1;
    }

    /// Removes a connection that has registered or ended.
    pub(super) fn remove(&mut self, address: IpAddr, id: ClientId) {
        let Some(here) = self.by_address.get_mut(&address) else { return };
        let Some(at) = here.iter().position(|other| *other == id) else { return };
        here.swap_remove(at);
        if here.is_empty() {
            self.by_address.remove(&address);
        }
        self.total -= 1;
    }

    /// The connection to evict before `address` may have one more; `None` while the table isn't full.
    pub(super) fn evictee(&mut self, address: IpAddr, limits: &HubLimits) -> Option<ClientId> {
        let here = self.from(address);
        if here >= limits.half_open_per_address {
            return self.draw(|other, _| other == address);
        }
        if self.total >= limits.half_open {
            let most = self.by_address.values().map(Vec::len).max()?;
            return self.draw(|_, count| count == most);
        }
        None
    }

    /// A random connection of the addresses that match.
    fn draw(&mut self, fits: impl Fn(IpAddr, usize) -> bool) -> Option<ClientId> {
        let crowd: Vec<ClientId> = self
            .by_address
            .iter()
            .filter(|(address, ids)| fits(**address, ids.len()))
            .flat_map(|(_, ids)| ids.iter().copied())
            .collect();
        crowd.get(draw::below(&mut self.rng, crowd.len())).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand_core::SeedableRng;

    use super::*;

    const LIMITS: fn() -> HubLimits =
        || HubLimits { half_open_per_address: 4, half_open: 6, ..HubLimits::default() };

    fn address(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    /// A table with the given numbers of connections from address 1, 2, and so on, numbered consecutively.
    fn table(counts: &[u64]) -> HalfOpen {
        let mut table = HalfOpen::new(Rng::from_seed([1; 32]));
        let mut ids = (0..).map(ClientId);
        for (n, count) in counts.iter().enumerate() {
            ids.by_ref().take(*count as usize).for_each(|id| table.insert(address(n as u8 + 1), id));
        }
        table
    }

    /// Every connection that may be evicted.
    fn evictees(table: &mut HalfOpen, newcomer: u8) -> BTreeSet<u64> {
        (0..200).filter_map(|_| table.evictee(address(newcomer), &LIMITS()).map(|id| id.0)).collect()
    }

    #[test]
    fn while_there_is_room_nobody_goes() {
        assert_eq!(evictees(&mut table(&[3, 2]), 1), BTreeSet::new());
        assert_eq!(evictees(&mut table(&[3, 2]), 3), BTreeSet::new());
    }

    #[test]
    fn a_full_address_loses_one_of_its_own() {
        assert_eq!(evictees(&mut table(&[1, 4]), 2), BTreeSet::from([1, 2, 3, 4]));
    }

    #[test]
    fn a_full_table_loses_one_of_the_address_with_the_most() {
        assert_eq!(evictees(&mut table(&[2, 3, 1]), 4), BTreeSet::from([2, 3, 4]));
        assert_eq!(evictees(&mut table(&[3, 3]), 3), BTreeSet::from([0, 1, 2, 3, 4, 5]));
    }

    #[test]
    fn whoever_has_registered_is_safe_and_its_place_is_free() {
        let mut table = table(&[4]);
        table.remove(address(1), ClientId(2));
        assert_eq!(evictees(&mut table, 1), BTreeSet::new());
        table.insert(address(1), ClientId(9));
        assert_eq!(evictees(&mut table, 1), BTreeSet::from([0, 1, 3, 9]));
    }
}
