//! Peers and hubs that told something which the authority didn't sign: they aren't listened to for a while.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::key::PublicKey;

/// How long a liar isn't listened to.
pub(super) const IGNORED_FOR: Duration = Duration::from_secs(60);

/// The most that are remembered. A further one isn't; each of its lies costs one more check of a signature.
const MAX_LIARS: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Liars(BTreeMap<PublicKey, Instant>);

impl Liars {
    /// Whether what this peer tells isn't worth a check now.
    pub(super) fn contains(&self, now: Instant, peer: &PublicKey) -> bool {
        self.0.get(peer).is_some_and(|until| now < *until)
    }

    /// A peer told something false.
    pub(super) fn insert(&mut self, now: Instant, peer: PublicKey) {
        self.0.retain(|_, until| now < *until);
        if self.0.len() < MAX_LIARS {
            self.0.insert(peer, now + IGNORED_FOR);
        }
    }
}
