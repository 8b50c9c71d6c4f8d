//! When a write is confirmed: by whom it has to be held before its caller is told that it is made.
//!
//! A node *keeps* a key if it is an owner, or stands in for one that is away: the next live entry of the key's preference
//! list does. What a keeper acknowledged counts as long as it can still have it: without a store, only from the process
//! that acknowledged, and only while it is alive. A mesh with fewer live keepers than are wanted gives all that it has.

use std::collections::BTreeMap;

use super::error::UpdateError;
use super::shared::{Keeper, Shared};
use crate::key::PublicKey;

/// How many keepers have to hold a write before its caller is told that it is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Confirm {
    /// One with a store, or two without.
    #[default]
    Safe,
    /// So many.
    Nodes(u8),
    /// All live ones.
    All,
}

impl Confirm {
    /// The number on the wire; none for the default.
    pub(super) fn to_wire(self) -> Option<u8> {
        match self {
            Confirm::Safe => None,
            Confirm::Nodes(nodes) => Some(nodes.min(u8::MAX - 1)),
            Confirm::All => Some(u8::MAX),
        }
    }

    /// The inverse of [`to_wire`](Confirm::to_wire).
    pub(super) fn from_wire(number: Option<u8>) -> Confirm {
        match number {
            None => Confirm::Safe,
            Some(u8::MAX) => Confirm::All,
            Some(nodes) => Confirm::Nodes(nodes),
        }
    }
}

/// Why a keeper took no write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Decline {
    /// It has no room for the key, or for more bytes.
    #[error("they have no room for it")]
    NoRoom,
    /// The value has reached a limit, such as the number of its writers.
    #[error("the value has reached a limit")]
    Limit,
    /// The write changes what isn't its writer's, as far as the keeper knows.
    #[error("it changes what others wrote")]
    Foreign,
    /// The write's stamp is too far ahead of the keeper's clock.
    #[error("this node's clock is more than 10 s ahead of theirs")]
    Clock,
    /// The value has no place for another writer. An owner may still write in its stead.
    #[error("the value has no place for another writer")]
    Writers,
    /// Its disk is full, or fails.
    #[error("their disks are full or fail")]
    Disk,
}

impl Decline {
    const ALL: [Decline; 6] =
        [Decline::NoRoom, Decline::Limit, Decline::Foreign, Decline::Writers, Decline::Clock, Decline::Disk];

    /// Why a keeper that couldn't merge a write declines it.
    pub(super) fn of(error: &UpdateError) -> Decline {
        match error {
            UpdateError::Full(_) => Decline::NoRoom,
            UpdateError::Disk(_) => Decline::Disk,
            UpdateError::Value(error) if error.wants_a_place() => Decline::Writers,
            _ => Decline::Limit,
        }
    }

    /// The number on the wire.
    pub(super) fn to_wire(self) -> u8 {
        Decline::ALL.iter().position(|why| *why == self).expect("all are listed") as u8
    }

    /// The inverse of [`to_wire`](Decline::to_wire); none for a number without a meaning.
    pub(super) fn from_wire(number: u8) -> Option<Decline> {
        Decline::ALL.get(usize::from(number)).copied()
    }
}

/// What a keeper has acknowledged of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holding {
    /// The id of the newest write that it has; it has those with lower ids, too.
    pub(super) upto: u64,
    /// The boot id of its process.
    pub(super) boot: u64,
    /// Whether it is on the keeper's disk.
    pub(super) durable: bool,
}

/// Who has acknowledged a key's unconfirmed writes.
#[derive(Debug, Default)]
pub(super) struct Holders(BTreeMap<PublicKey, Holding>);

impl Holders {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes an acknowledgement. An older one than is known changes nothing.
    pub(super) fn note(&mut self, keeper: PublicKey, held: Holding) {
        let known = self.0.get(&keeper).filter(|known| known.boot == held.boot && known.upto > held.upto);
        if known.is_none() {
            self.0.insert(keeper, held);
        }
    }

    /// Forgets those that can't have it any more.
    pub(super) fn follow(&mut self, sh: &Shared) {
        self.0.retain(|keeper, held| {
            let present =
                sh.ring.member(keeper).is_some_and(|member| member.live && member.boot == held.boot);
            held.durable || present || *keeper == sh.local.key
        });
    }

    /// The keepers that have the writes up to `id`.
    pub(super) fn having(&self, id: u64) -> impl Iterator<Item = (&PublicKey, &Holding)> {
        self.0.iter().filter(move |(_, held)| held.upto >= id)
    }

    /// Whether a keeper has the writes up to `id`.
    pub(super) fn has(&self, keeper: &PublicKey, id: u64) -> bool {
        self.0.get(keeper).is_some_and(|held| held.upto >= id)
    }

    /// Whether the write `id` is held by as many of the key's `keepers` as are wanted.
    pub(super) fn confirm(&self, keepers: &[Keeper], replicas: usize, id: u64, wanted: Confirm) -> bool {
        let live = keepers.iter().filter(|keeper| keeper.live);
        let most = live.clone().count().min(replicas);
        let have = self.having(id).count();
        match wanted {
            Confirm::Safe => {
                self.having(id).any(|(_, held)| held.durable) || (most > 0 && have >= most.min(2))
            }
            Confirm::Nodes(nodes) => most > 0 && have >= most.min(usize::from(nodes.max(1))),
            Confirm::All => most > 0 && live.clone().all(|keeper| self.has(&keeper.key, id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    #[test]
    fn what_goes_over_the_wire_comes_back() {
        for confirm in [Confirm::Safe, Confirm::Nodes(0), Confirm::Nodes(3), Confirm::All] {
            assert_eq!(Confirm::from_wire(confirm.to_wire()), confirm);
        }
        for why in Decline::ALL {
            assert_eq!(Decline::from_wire(why.to_wire()), Some(why));
        }
        assert_eq!(Decline::from_wire(6), None);
    }

    #[test]
    fn a_write_is_confirmed_by_one_store_or_two_nodes_or_all_that_there_are() {
        let keeper = |n, live| Keeper { key: peer(n), live, owner: true };
        let three = [keeper(1, true), keeper(2, true), keeper(3, true)];
        let one_away = [keeper(1, true), keeper(2, false), keeper(3, true)];
        let alone = [keeper(1, true), keeper(2, false), keeper(3, false)];
        let nobody = [keeper(1, false)];
        use Confirm::{All, Nodes, Safe};
        // The keepers; which of them have the write, and whether on a disk; what is wanted; whether that is enough.
        type Row<'a> = (&'a [Keeper], &'a [(u8, bool)], Confirm, bool);
        let table: &[Row] = &[
            (&three, &[], Safe, false),
            (&three, &[(1, false)], Safe, false),
            (&three, &[(1, true)], Safe, true),
            (&three, &[(1, false), (2, false)], Safe, true),
            (&alone, &[(1, false)], Safe, true),
            (&alone, &[], Safe, false),
            (&nobody, &[], Safe, false),
            (&nobody, &[], Nodes(1), false),
            (&nobody, &[], All, false),
            (&three, &[(1, true)], Nodes(2), false),
            (&three, &[(1, true), (2, false)], Nodes(2), true),
            (&three, &[(1, true), (2, false)], Nodes(3), false),
            (&one_away, &[(1, true), (3, false)], Nodes(3), true),
            (&one_away, &[(1, true), (3, false)], All, true),
            (&three, &[(1, true), (3, false)], All, false),
            (&three, &[], Nodes(0), false),
        ];
        for (keepers, have, wanted, enough) in table {
            let mut holders = Holders::default();
            for (n, durable) in *have {
                holders.note(peer(*n), Holding { upto: 7, boot: 1, durable: *durable });
            }
            assert_eq!(holders.confirm(keepers, 3, 7, *wanted), *enough, "{keepers:?} {have:?} {wanted:?}");
            assert!(!holders.confirm(keepers, 3, 8, *wanted), "a later write is another one");
        }
    }

    #[test]
    fn the_newest_acknowledgement_of_a_process_counts_and_another_process_begins_anew() {
        let mut holders = Holders::default();
        let held = |upto, boot| Holding { upto, boot, durable: false };
        for (told, has) in [(held(5, 1), 5), (held(4, 1), 5), (held(6, 1), 6), (held(2, 9), 2)] {
            holders.note(peer(1), told);
            assert!(holders.has(&peer(1), has) && !holders.has(&peer(1), has + 1));
        }
    }
}
