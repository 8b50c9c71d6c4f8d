//! Our key for one group.

use std::collections::BTreeSet;
use std::time::Instant;

use rand_core::Rng as _;
use zeroize::Zeroizing;

use crate::key::PublicKey;
use crate::rt::Rng;
use crate::transport::group::message::SenderKey;
use crate::transport::group::{MAX_HOLDERS, MIN_ROTATION, ROTATION};

/// The key, the number of frames that it sealed, and who has it.
pub(super) struct OwnKey {
    pub(super) id: u64,
    pub(super) key: Zeroizing<[u8; 32]>,
    pub(super) counter: u64,
    made: Instant,
    /// The peers to which it was sent.
    pub(super) holders: BTreeSet<PublicKey>,
    /// A peer has it that must read nothing any more.
    pub(super) disclosed: bool,
}

impl OwnKey {
    pub(super) fn new(now: Instant, rng: &mut Rng) -> OwnKey {
        OwnKey {
            id: 1,
            key: random_key(rng),
            counter: 0,
            made: now,
            holders: BTreeSet::new(),
            disclosed: false,
        }
    }

    /// Whether the key must be replaced now. A `stale` key is replaced as soon as it is old enough.
    pub(super) fn is_due(&self, now: Instant, stale: bool) -> bool {
        let age = now.saturating_duration_since(self.made);
        self.disclosed || age >= MIN_ROTATION && (stale || age >= ROTATION)
    }

    /// Replaces the key. Its holders are those of the old one that `may` have it.
    pub(super) fn rotate(&mut self, now: Instant, rng: &mut Rng, may: impl Fn(&PublicKey) -> bool) {
        self.id += 1;
        self.key = random_key(rng);
        self.counter = 0;
        self.made = now;
        self.disclosed = false;
        self.holders.retain(may);
    }

    /// Adds a holder. Beyond the bound a peer gets the key, and asks again after the next rotation.
    pub(super) fn add_holder(&mut self, peer: PublicKey) {
        if self.holders.len() < MAX_HOLDERS {
            self.holders.insert(peer);
        }
    }

    /// The key as a peer gets it.
    pub(super) fn to_send(&self, boot: u64) -> SenderKey {
        SenderKey { boot, key_id: self.id, counter: self.counter, key: self.key.clone() }
    }
}

fn random_key(rng: &mut Rng) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *key);
    key
}
