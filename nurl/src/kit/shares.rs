//! How much each of several holders has of one bounded thing.
//!
//! A table that strangers fill needs more than a limit: one of them would fill it, and all others would be refused. Here
//! a full table finds its largest holder, which pays for a newcomer that has less. So a holder that is alone may use
//! everything, and of n holders that want more each keeps at least its n-th part.

use std::collections::{BTreeMap, BTreeSet};

/// The amounts of all holders; a holder of nothing takes no place.
#[derive(Debug, Clone)]
pub struct Shares<H> {
    of: BTreeMap<H, u64>,
    ranked: BTreeSet<(u64, H)>,
    total: u64,
}

impl<H: Ord + Copy> Default for Shares<H> {
    fn default() -> Shares<H> {
        Shares { of: BTreeMap::new(), ranked: BTreeSet::new(), total: 0 }
    }
}

impl<H: Ord + Copy> Shares<H> {
    /// The sum of all amounts.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// A holder's amount.
    pub fn of(&self, holder: &H) -> u64 {
        self.of.get(holder).copied().unwrap_or(0)
    }

    /// Adds to a holder's amount.
    pub fn add(&mut self, holder: H, amount: u64) {
        self.set(holder, self.of(&holder) + amount);
    }

    /// Takes from a holder's amount.
    pub fn sub(&mut self, holder: H, amount: u64) {
        debug_assert!(self.of(&holder) >= amount, "more is given back than was taken");
        self.set(holder, self.of(&holder).saturating_sub(amount));
    }

    /// The holders, the largest first.
    pub fn ranking(&self) -> impl Iterator<Item = (H, u64)> + '_ {
        self.ranked.iter().rev().map(|(amount, holder)| (*holder, *amount))
    }

    /// The holder that pays when `newcomer` wants `more` of a thing that is used up: the largest, if it keeps at least as
    /// much as the newcomer gets. None: the newcomer pays itself.
    pub fn payer(&self, newcomer: &H, more: u64) -> Option<H> {
        let (largest, amount) = self.ranking().next()?;
        (largest != *newcomer && amount > self.of(newcomer) + more).then_some(largest)
    }

    fn set(&mut self, holder: H, amount: u64) {
        let before = self.of(&holder);
        self.ranked.remove(&(before, holder));
        self.total = self.total - before + amount;
        if amount == 0 {
            self.of.remove(&holder);
        } else {
            self.of.insert(holder, amount);
            self.ranked.insert((amount, holder));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_pays_for_one_that_has_less_and_nobody_pays_for_the_largest() {
        let mut shares = Shares::default();
        assert_eq!(shares.payer(&'a', 1), None, "nobody has anything");
        shares.add('a', 10);
        shares.add('b', 3);
        assert_eq!(
            (shares.payer(&'c', 1), shares.payer(&'b', 1), shares.payer(&'a', 1)),
            (Some('a'), Some('a'), None)
        );
        assert_eq!(shares.payer(&'b', 7), None, "it would have as much");
        shares.sub('a', 10);
        assert_eq!((shares.total(), shares.of(&'a')), (3, 0));
        assert_eq!(shares.ranking().collect::<Vec<_>>(), [('b', 3)]);
    }

    #[test]
    fn of_two_that_want_everything_each_gets_half() {
        let mut shares = Shares::default();
        for _ in 0..100 {
            shares.add(0, 1);
        }
        while let Some(payer) = shares.payer(&1, 1) {
            shares.sub(payer, 1);
            shares.add(1, 1);
        }
        assert_eq!((shares.of(&0), shares.of(&1)), (50, 50));
    }
}
