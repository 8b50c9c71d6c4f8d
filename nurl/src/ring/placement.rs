//! Bounded-load placement, for jobs that have no affinity to their key.
//!
//! Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018): a member runs at most
//! [`LOAD_BOUND_PERCENT`] of its weighted fair share of the running jobs. A job goes to the first entry of
//! its key's list that is below its bound. Few keys move when loads change, and no member is overloaded.

use super::snapshot::Ring;
use crate::key::PublicKey;

/// A member's bound in per cent of its fair share. A lower bound spreads better but moves more jobs off their
/// first entry. At 125 a lookup passes at most about 1/ε² = 16 full members on average.
pub const LOAD_BOUND_PERCENT: u64 = 125;

impl Ring {
    /// The first live entry that advertises `kind` and runs less than its bound; `load` returns how many jobs
    /// a member is known to run. An entry exists whenever any member is eligible.
    #[cfg_attr(not(any(test, feature = "internals")), expect(dead_code, reason = "door: bounded load"))]
    pub fn place(&self, kind: &str, key: &[u8], load: impl Fn(&PublicKey) -> u64) -> Option<PublicKey> {
        let eligible: Vec<(PublicKey, u128, u128)> = self
            .acting(kind, key)
            .map(|member| (member.key, u128::from(member.weight), u128::from(load(&member.key))))
            .collect();
        let weights: u128 = eligible.iter().map(|(_, weight, _)| weight).sum();
        let running: u128 = eligible.iter().map(|(_, _, load)| load).sum();
        eligible
            .into_iter()
            .find(|(_, weight, load)| {
                // load < ⌈percent · (running + 1) · weight / weights⌉, without the division.
                load * 100 * weights < u128::from(LOAD_BOUND_PERCENT) * (running + 1) * weight
            })
            .map(|(key, _, _)| key)
    }
}
