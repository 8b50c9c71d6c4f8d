//! Tenures: which fencing token this node uses for a key.
//!
//! A node takes `1 + the highest counter seen` at its first attempt for a key that it acts for; all its
//! attempts on that key share the tenure, and a running attempt never changes token. The tenure is dropped
//! when the node's view says that it no longer acts. A counter more than [`MAX_EPOCH_LEAD`] above the highest
//! known is refused and counted, so that nobody can fence out the world.

use std::collections::BTreeMap;

use super::options::{MAX_EPOCH_LEAD, MAX_TENURES};
use super::task::Token;
use crate::key::PublicKey;

#[derive(Debug)]
struct Tenure {
    counter: u64,
    kind: String,
    /// Attempts that hold the token now.
    attempts: u32,
}

/// The tenures of one node.
#[derive(Debug)]
pub(super) struct Tenures {
    local: PublicKey,
    highest: u64,
    by_key: BTreeMap<Vec<u8>, Tenure>,
}

impl Tenures {
    pub(super) fn new(local: PublicKey, highest: u64) -> Tenures {
        Tenures { local, highest, by_key: BTreeMap::new() }
    }

    /// The highest counter seen or taken.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Learns a counter. False if it is too far ahead to be believed.
    pub(super) fn note(&mut self, counter: u64) -> bool {
        if counter > self.highest.saturating_add(MAX_EPOCH_LEAD) {
            return false;
        }
        self.highest = self.highest.max(counter);
        true
    }

    /// The token for an attempt on `key` that begins now; [`release`](Self::release) ends it.
    pub(super) fn take(&mut self, kind: &str, key: &[u8]) -> Token {
        if !self.by_key.contains_key(key) && self.by_key.len() >= MAX_TENURES {
            // There are fewer executions than tenures, so an idle one exists.
            let idle = self.by_key.iter().find(|(_, tenure)| tenure.attempts == 0);
            if let Some(idle) = idle.map(|(key, _)| key.clone()) {
                self.by_key.remove(&idle);
            }
        }
        if !self.by_key.contains_key(key) {
            self.highest += 1;
            let tenure = Tenure { counter: self.highest, kind: kind.to_owned(), attempts: 0 };
            self.by_key.insert(key.to_vec(), tenure);
        }
        let tenure = self.by_key.get_mut(key).expect("inserted above");
        tenure.attempts += 1;
        Token { counter: tenure.counter, owner: self.local }
    }

    /// An attempt that held `token` has ended.
    pub(super) fn release(&mut self, key: &[u8], token: Token) {
        if let Some(tenure) = self.by_key.get_mut(key)
            && tenure.counter == token.counter
        {
            tenure.attempts = tenure.attempts.saturating_sub(1);
        }
    }

    /// A resource has admitted a higher token: the next attempt takes a higher one still.
    pub(super) fn fenced(&mut self, key: &[u8], token: Token) {
        if self.by_key.get(key).is_some_and(|tenure| tenure.counter == token.counter) {
            self.by_key.remove(key);
        }
    }

    /// Drops the tenures of idle keys for which the node no longer acts.
    pub(super) fn retain(&mut self, acts: impl Fn(&str, &[u8]) -> bool) {
        self.by_key.retain(|key, tenure| tenure.attempts > 0 || acts(&tenure.kind, key));
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenures() -> Tenures {
        Tenures::new(PublicKey::from_bytes([1; 32]), 10)
    }

    #[test]
    fn attempts_on_one_key_share_a_tenure() {
        let mut tenures = tenures();
        let first = tenures.take("k", b"a");
        assert_eq!(first.counter, 11);
        assert_eq!(tenures.take("k", b"a"), first);
        assert_eq!(tenures.take("k", b"b").counter, 12);
    }

    #[test]
    fn a_tenure_outlives_a_lost_view_only_while_an_attempt_runs() {
        let mut tenures = tenures();
        let token = tenures.take("k", b"a");
        tenures.retain(|_, _| false);
        assert_eq!(tenures.take("k", b"a"), token);
        tenures.release(b"a", token);
        tenures.release(b"a", token);
        tenures.retain(|_, _| false);
        assert_eq!(tenures.len(), 0);
        assert!(tenures.take("k", b"a") > token);
    }

    #[test]
    fn a_fenced_tenure_is_replaced_by_a_higher_one() {
        let mut tenures = tenures();
        let token = tenures.take("k", b"a");
        assert!(tenures.note(500));
        tenures.release(b"a", token);
        tenures.fenced(b"a", token);
        assert_eq!(tenures.take("k", b"a").counter, 501);
    }

    #[test]
    fn one_message_cannot_fence_out_the_world() {
        let mut tenures = tenures();
        assert!(!tenures.note(u64::MAX));
        assert_eq!(tenures.highest(), 10);
        assert!(tenures.note(10 + MAX_EPOCH_LEAD));
    }

    #[test]
    fn tenures_are_bounded() {
        let mut tenures = tenures();
        for n in 0..MAX_TENURES as u32 + 10 {
            let key = n.to_le_bytes();
            let token = tenures.take("k", &key);
            tenures.release(&key, token);
        }
        assert_eq!(tenures.len(), MAX_TENURES);
    }
}
