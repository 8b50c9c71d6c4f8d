//! The tenures that this node holds.
//!
//! At its first attempt for a key that it acts for, a node takes counter = 1 + the highest counter that it has seen.
//! All its attempts on that key share the tenure. The tenure ends when no attempt runs and the ring changes, since the
//! node may act for the key no more; when it was idle for long; or when a resource returned a higher token. A running
//! attempt never changes its token.
//!
//! A counter must be durable before it is used; otherwise a restarted node would use its old token again. A whole
//! range is reserved at a time, so an attempt seldom waits for the disk. The driver stores the counter from
//! [`TenureBook::poll_persist`] and reports [`TenureBook::on_persisted`]. After a restart, counters begin at the end
//! of the reserved range. A node without a store reports at once: it relies on the highest counter that its first
//! push-pull returns, and therefore completes that push-pull before it acts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::epoch::Epoch;
use crate::key::PublicKey;
use crate::membership::limit::{answer_limit, told_limit};
use crate::rt::{Table, bound};

/// Keys that a node acts for at once. An idle tenure costs its key and about 100 bytes, and the least recently used
/// idle one is evicted for a new one. A new tenure is refused only if all of them have running attempts.
pub const MAX_TENURES: usize = 65_536;

/// The longest key of a tenure: the same limit as for a job or a replicated value.
pub const MAX_TENURE_KEY_BYTES: usize = 1024;

/// Counters reserved durably at a time. A restart skips at most this many; a smaller range waits for the disk more
/// often.
pub const TENURE_RESERVE: u64 = 1024;

/// Why there is no tenure, or why a counter was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TenureError {
    /// The counter is too far ahead of the wall clock: it is false, or a clock is wrong by more than a day.
    #[error("epoch counter {counter} is above {limit}, too far ahead of the clock")]
    TooFarAhead {
        /// The counter that was claimed.
        counter: u64,
        /// The highest that is believed now.
        limit: u64,
    },
    /// All tenures have attempts running: try again later or elsewhere.
    #[error("acting for {MAX_TENURES} keys already")]
    Full,
    /// The next counter is not durable yet: drain `poll_persist`, store it, and try again.
    #[error("the next epoch counter is not durable yet")]
    NotDurable,
    /// The key is longer than [`MAX_TENURE_KEY_BYTES`].
    #[error("a key of {0} bytes")]
    KeyTooLong(usize),
    /// All 2⁶⁴ counters are used up.
    #[error("no epoch counter is left")]
    Exhausted,
}

/// Counters of a book's refusals and evictions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TenureCounters {
    /// Counters too far ahead.
    pub too_far_ahead: u64,
    /// Attempts refused because the table was full.
    pub full: u64,
    /// Idle tenures evicted for another key.
    pub evicted: u64,
    /// Tenures ended because a resource returned a higher token.
    pub superseded: u64,
}

#[derive(Debug, Clone)]
struct Tenure {
    /// The counter of the epoch, whose owner is this node.
    counter: u64,
    attempts: u32,
    /// The sequence number of its last use.
    used: u64,
}

/// The tenures of one node, and the highest counter that it has seen.
#[derive(Debug, Clone)]
pub struct TenureBook {
    local: PublicKey,
    /// The wall clock, as the driver told it last: it limits the counters that are believed.
    unix_now: Duration,
    highest: u64,
    /// Counters up to this one are durable and may be used.
    durable: u64,
    asked: u64,
    held: BTreeMap<Arc<[u8]>, Tenure>,
    /// Idle tenures by last use.
    idle: BTreeMap<u64, Arc<[u8]>>,
    sequence: u64,
    /// Idle tenures last used at or before this sequence number are dropped at the next [`age`](TenureBook::age).
    aged: u64,
    capacity: usize,
    /// Counters of refusals and evictions.
    pub counters: TenureCounters,
}

impl TenureBook {
    /// A book that begins after `stored`, the last persisted counter, or 0.
    pub fn new(local: PublicKey, stored: u64) -> TenureBook {
        TenureBook {
            local,
            unix_now: Duration::ZERO,
            highest: stored,
            durable: stored,
            asked: stored,
            held: BTreeMap::new(),
            idle: BTreeMap::new(),
            sequence: 0,
            aged: 0,
            capacity: MAX_TENURES,
            counters: TenureCounters::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn with_capacity(local: PublicKey, capacity: usize) -> TenureBook {
        TenureBook { capacity, ..TenureBook::new(local, 0) }
    }

    /// The highest counter seen. Every membership message and every admit reply carries it.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Sets the wall clock, the time since 1970. The driver does so at the start, and before each input.
    pub fn set_unix_now(&mut self, unix_now: Duration) {
        self.unix_now = unix_now;
    }

    /// Records a counter that membership knows.
    ///
    /// # Errors
    /// [`TenureError::TooFarAhead`]; the counter is then ignored.
    pub fn note(&mut self, counter: u64) -> Result<(), TenureError> {
        if counter <= self.highest {
            return Ok(());
        }
        self.check(counter, told_limit(self.unix_now))?;
        self.highest = self.highest.max(counter);
        Ok(())
    }

    /// Records the counter of a token that another node acts under. However high it is, it raises this node's next
    /// counters only as far as membership would: otherwise one false token, believed here by a clock that is ahead, would
    /// make this node's own tokens too high for the others.
    ///
    /// # Errors
    /// [`TenureError::TooFarAhead`]; the token is then ignored.
    pub fn believe(&mut self, token: Epoch) -> Result<(), TenureError> {
        self.check(token.counter, answer_limit(self.unix_now))?;
        self.highest = self.highest.max(token.counter.min(told_limit(self.unix_now)));
        Ok(())
    }

    fn check(&mut self, counter: u64, limit: u64) -> Result<(), TenureError> {
        if counter <= limit {
            return Ok(());
        }
        self.counters.too_far_ahead += 1;
        Err(TenureError::TooFarAhead { counter, limit })
    }

    /// The counter to store next, if the reserve runs low. It counts as durable only after
    /// [`on_persisted`](TenureBook::on_persisted).
    pub fn poll_persist(&mut self) -> Option<u64> {
        if self.asked.saturating_sub(self.highest) > TENURE_RESERVE / 2 {
            return None;
        }
        let wanted = self.highest.saturating_add(TENURE_RESERVE);
        (wanted > self.asked).then(|| {
            self.asked = wanted;
            wanted
        })
    }

    /// `counter` is durable.
    pub fn on_persisted(&mut self, counter: u64) {
        self.durable = self.durable.max(counter);
    }

    /// An attempt on `key` begins: returns the key's tenure, taken now if there is none. Each successful `begin` must
    /// be followed by one [`end`](TenureBook::end).
    ///
    /// # Errors
    /// [`TenureError::Full`], [`TenureError::NotDurable`], [`TenureError::KeyTooLong`] or
    /// [`TenureError::Exhausted`].
    pub fn begin(&mut self, key: &[u8]) -> Result<Epoch, TenureError> {
        if key.len() > MAX_TENURE_KEY_BYTES {
            return Err(TenureError::KeyTooLong(key.len()));
        }
        self.sequence += 1;
        if let Some(tenure) = self.held.get_mut(key) {
            if tenure.attempts == 0 {
                self.idle.remove(&tenure.used);
            }
            tenure.attempts += 1;
            tenure.used = self.sequence;
            return Ok(Epoch { counter: tenure.counter, owner: self.local });
        }
        let counter = self.highest.checked_add(1).ok_or(TenureError::Exhausted)?;
        if counter > self.durable {
            return Err(TenureError::NotDurable);
        }
        if self.held.len() >= bound(Table::Tenures, self.capacity) {
            let Some((_, key)) = self.idle.pop_first() else {
                self.counters.full += 1;
                return Err(TenureError::Full);
            };
            self.held.remove(&key);
            self.counters.evicted += 1;
        }
        self.highest = counter;
        self.held.insert(key.into(), Tenure { counter, attempts: 1, used: self.sequence });
        Ok(Epoch { counter, owner: self.local })
    }

    /// An attempt on `key` that held `epoch` is over. A later tenure of the key is left unchanged.
    pub fn end(&mut self, key: &[u8], epoch: Epoch) {
        let Some(tenure) = self.held.get_mut(key) else { return };
        let same = Epoch { counter: tenure.counter, owner: self.local } == epoch;
        if !same || tenure.attempts == 0 {
            return;
        }
        tenure.attempts -= 1;
        let (idle, used) = (tenure.attempts == 0, tenure.used);
        if idle && let Some((key, _)) = self.held.get_key_value(key) {
            self.idle.insert(used, key.clone());
        }
    }

    /// Drops the idle tenures whose last attempt began before the previous call. Call it at equal intervals: an idle
    /// tenure is dropped within two of them, so keys that are used once don't accumulate.
    pub fn age(&mut self) {
        while let Some(entry) = self.idle.first_entry()
            && *entry.key() <= self.aged
        {
            self.held.remove(&entry.remove());
        }
        self.aged = self.sequence;
    }

    /// The size of the table in bytes: its entries and their keys, without the overhead of the trees.
    pub fn bytes(&self) -> usize {
        /// Two reference counts precede the bytes of a shared slice.
        const COUNTS: usize = 2 * size_of::<usize>();
        let held = self.held.keys().map(|key| size_of::<(Arc<[u8]>, Tenure)>() + COUNTS + key.len());
        held.sum::<usize>() + self.idle.len() * size_of::<(u64, Arc<[u8]>)>()
    }

    /// The tenure held for `key`, if any.
    pub fn current(&self, key: &[u8]) -> Option<Epoch> {
        self.held.get(key).map(|tenure| Epoch { counter: tenure.counter, owner: self.local })
    }

    /// Drops the idle tenures: perhaps this node no longer acts for their keys. To look each of them up in the ring would
    /// take longer than the next attempts' new counters. Running attempts keep their token.
    pub fn drop_idle(&mut self) {
        for (_, key) in std::mem::take(&mut self.idle) {
            self.held.remove(&key);
        }
    }

    /// A resource refused this node's token for `key` and returned its current one. The tenure ends, and the next one
    /// will be above that token. The caller decides whether to take a next one (after a push-pull, and if it still
    /// acts).
    ///
    /// # Errors
    /// [`TenureError::TooFarAhead`]: the resource's token is rejected and the tenure stays.
    pub fn supersede(&mut self, key: &[u8], current: Epoch) -> Result<(), TenureError> {
        // The next token has to be above this one, also where membership's counters end.
        self.check(current.counter, answer_limit(self.unix_now))?;
        self.highest = self.highest.max(current.counter);
        if self.current(key).is_some_and(|epoch| epoch < current) {
            self.counters.superseded += 1;
            if let Some(tenure) = self.held.remove(key) {
                self.idle.remove(&tenure.used);
            }
        }
        Ok(())
    }

    /// The number of keys with a tenure.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether no key has a tenure.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
