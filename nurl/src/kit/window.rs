//! The replay window: the set of received counters.
//!
//! A ring of 64-bit words in the manner of RFC 6479, but of growing size. A word may be dropped only if all
//! its counters were received (then every older counter is a replay anyway) or the window is as wide as its
//! user allows. So a lossless session needs 128 bytes, and one with a late relay leg grows before it gives up any
//! counter that may still come.

const WORD_BITS: u64 = 64;
const MIN_WORDS: usize = 16;

/// The narrowest window, in counters: what a new one has.
pub const MIN_BITS: u64 = MIN_WORDS as u64 * WORD_BITS;

/// The received counters among the newest ones.
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    words: Vec<u64>,
    /// The word that holds the highest counter received.
    top: u64,
    max_words: usize,
}

impl ReplayWindow {
    /// A window that has received nothing, and grows to `max_bits` counters: [`MIN_BITS`], doubled some times.
    pub fn new(max_bits: u64) -> ReplayWindow {
        debug_assert!(max_bits >= MIN_BITS && max_bits.is_power_of_two());
        ReplayWindow { words: vec![0; MIN_WORDS], top: 0, max_words: (max_bits / WORD_BITS) as usize }
    }

    /// A window for one who begins to listen in the middle: every counter up to `last` counts as received.
    pub fn after(last: u64, max_bits: u64) -> ReplayWindow {
        let mut window = ReplayWindow::new(max_bits);
        window.words.fill(u64::MAX);
        window.top = last / WORD_BITS;
        let slot = window.slot(window.top);
        window.words[slot] = u64::MAX >> (WORD_BITS - 1 - last % WORD_BITS);
        window
    }

    fn slot(&self, word: u64) -> usize {
        (word & (self.words.len() as u64 - 1)) as usize
    }

    /// The oldest word that is still remembered.
    fn bottom(&self) -> u64 {
        (self.top + 1).saturating_sub(self.words.len() as u64)
    }

    /// Whether `counter` is new and not too old.
    pub fn would_accept(&self, counter: u64) -> bool {
        let word = counter / WORD_BITS;
        if word > self.top {
            return true;
        }
        word >= self.bottom() && self.words[self.slot(word)] & (1 << (counter % WORD_BITS)) == 0
    }

    /// Marks `counter` as received. Call it only after the frame has authenticated.
    pub fn commit(&mut self, counter: u64) {
        let word = counter / WORD_BITS;
        if word > self.top {
            self.advance(word);
        } else if word < self.bottom() {
            return;
        }
        let slot = self.slot(word);
        self.words[slot] |= 1 << (counter % WORD_BITS);
    }

    /// The present size of the window in bits.
    #[cfg(test)]
    pub fn bits(&self) -> u64 {
        self.words.len() as u64 * WORD_BITS
    }

    fn advance(&mut self, to: u64) {
        while self.words.len() < self.max_words && self.would_forget_a_gap(to) {
            self.grow();
        }
        let len = self.words.len() as u64;
        let fresh = (to - self.top).min(len);
        for word in to + 1 - fresh..=to {
            let slot = self.slot(word);
            self.words[slot] = 0;
        }
        self.top = to;
    }

    /// Whether moving the top to word `to` would drop a word with a missing counter.
    fn would_forget_a_gap(&self, to: u64) -> bool {
        let new_bottom = (to + 1).saturating_sub(self.words.len() as u64);
        let (from, until) = (self.bottom(), new_bottom.min(self.top + 1));
        // Words between the old top and the new bottom were never stored: all of their counters are
        // missing.
        new_bottom > self.top + 1 || (from..until).any(|word| self.words[self.slot(word)] != u64::MAX)
    }

    fn grow(&mut self) {
        let mut words = vec![0; (self.words.len() * 2).min(self.max_words)];
        let mask = words.len() as u64 - 1;
        for word in self.bottom()..=self.top {
            words[(word & mask) as usize] = self.words[self.slot(word)];
        }
        self.words = words;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const MAX_BITS: u64 = 65_536;

    #[test]
    fn a_lossless_stream_keeps_the_smallest_window() {
        let mut window = ReplayWindow::new(MAX_BITS);
        (0..200_000).for_each(|counter| window.commit(counter));
        assert_eq!(window.bits(), MIN_BITS);
        assert!(!window.would_accept(0) && !window.would_accept(199_999) && window.would_accept(200_000));
    }

    #[test]
    fn the_window_grows_to_its_bound_and_no_further() {
        let mut window = ReplayWindow::new(MAX_BITS);
        (0..1_000_000).filter(|counter| counter % 7 != 0).for_each(|counter| window.commit(counter));
        assert_eq!(window.bits(), MAX_BITS);
        let late = (1_000_000 - MAX_BITS + 64).next_multiple_of(7);
        assert!(window.would_accept(late));
        assert!(!window.would_accept(7));
        window.commit(u64::MAX);
        assert_eq!(window.bits(), MAX_BITS);
        assert!(!window.would_accept(999_999));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_is_accepted_twice_and_nothing_near_is_lost(
            steps in proptest::collection::vec((0u64..3000, 0u64..60_000), 1..400)
        ) {
            let (mut window, mut seen, mut base) = (ReplayWindow::new(MAX_BITS), BTreeSet::new(), 0u64);
            for (ahead, behind) in steps {
                base += ahead;
                let counter = base.saturating_sub(behind);
                let highest = seen.last().copied().unwrap_or(0).max(counter);
                let accepted = window.would_accept(counter);
                prop_assert!(!(accepted && seen.contains(&counter)));
                if highest - counter < MAX_BITS - WORD_BITS {
                    prop_assert_eq!(accepted, !seen.contains(&counter));
                }
                if accepted {
                    window.commit(counter);
                    seen.insert(counter);
                }
            }
        }

        #[test]
        fn a_window_that_begins_later_takes_only_later_counters(
            last in 0u64..5_000,
            steps in proptest::collection::vec(0u64..8_000, 1..300)
        ) {
            let mut window = ReplayWindow::after(last, MIN_BITS);
            let (mut seen, mut top) = (BTreeSet::new(), last);
            for counter in steps {
                let accepted = window.would_accept(counter);
                prop_assert!(!accepted || counter > last && !seen.contains(&counter), "{}", counter);
                if counter > last && top.saturating_sub(counter) < MIN_BITS - WORD_BITS {
                    prop_assert_eq!(accepted, !seen.contains(&counter), "{}", counter);
                }
                if accepted {
                    window.commit(counter);
                    seen.insert(counter);
                    top = top.max(counter);
                }
                prop_assert_eq!(window.bits(), MIN_BITS);
            }
        }
    }
}
