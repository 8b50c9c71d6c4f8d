//! A client's memory of records: the highest number for each key, so that no hub can serve it an older one.
//!
//! A number is forgotten [`MAX_RECORD_LIFE`] after it was first seen. By then every older record has expired by
//! its own lifetime, and a member whose clock went back isn't excluded for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::record::MAX_RECORD_LIFE;
use crate::key::PublicKey;

/// The most keys remembered: as many peers as an endpoint has sessions. Beyond it the key that was seen first
/// is forgotten.
pub const MAX_REMEMBERED: usize = 4096;

/// The highest sequence number of each key.
#[derive(Debug, Default)]
pub struct SeqMemory {
    highest: BTreeMap<PublicKey, (u64, Instant)>,
    order: BTreeSet<(Instant, PublicKey)>,
    forgotten: u64,
}

impl SeqMemory {
    /// Whether a record with this number is at least as new as any seen; if so, remembers the number.
    pub fn accept(&mut self, now: Instant, key: PublicKey, seq: u64) -> bool {
        if let Some(&(highest, at)) = self.highest.get(&key) {
            let remembered = now.saturating_duration_since(at) < MAX_RECORD_LIFE;
            if remembered && seq < highest {
                return false;
            }
            if remembered && seq == highest {
                return true;
            }
            self.order.remove(&(at, key));
        } else if self.highest.len() >= MAX_REMEMBERED
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.highest.remove(&oldest);
            self.forgotten += 1;
        }
        self.highest.insert(key, (seq, now));
        self.order.insert((now, key));
        true
    }

    /// The highest number seen of a key.
    #[cfg(test)]
    pub fn highest(&self, key: &PublicKey) -> Option<u64> {
        self.highest.get(key).map(|(seq, _)| *seq)
    }

    /// Keys forgotten because there were too many.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn key(n: usize) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        PublicKey::from_bytes(bytes)
    }

    #[test]
    fn an_older_number_is_refused_until_it_would_have_expired_anyway() {
        let now = crate::rt::time::now();
        let mut memory = SeqMemory::default();
        assert!(memory.accept(now, key(1), 5));
        assert!(memory.accept(now, key(1), 5));
        assert!(!memory.accept(now, key(1), 4));
        assert!(memory.accept(now, key(2), 4));
        assert!(memory.accept(now, key(1), 6));
        assert!(!memory.accept(now + MAX_RECORD_LIFE - Duration::from_secs(1), key(1), 5));
        assert!(memory.accept(now + MAX_RECORD_LIFE, key(1), 5));
        assert_eq!(memory.highest(&key(1)), Some(5));
    }

    #[test]
    fn keys_remembered_are_bounded() {
        let now = crate::rt::time::now();
        let mut memory = SeqMemory::default();
        for n in 0..MAX_REMEMBERED + 10 {
            assert!(memory.accept(now + Duration::from_millis(n as u64), key(n), 1));
        }
        assert_eq!(memory.highest.len(), MAX_REMEMBERED);
        assert_eq!(memory.order.len(), MAX_REMEMBERED);
        assert_eq!(memory.forgotten(), 10);
        assert_eq!(memory.highest(&key(0)), None);
    }
}
