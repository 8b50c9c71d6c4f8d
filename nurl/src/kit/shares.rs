//! How much each of several holders has of one bounded thing, and who pays when it is used up.
//!
//! A table that strangers fill needs more than a limit: one of them would fill it, and all others would be refused. Here
//! a full table finds its largest holder, which pays for a newcomer that has less. So a holder that is alone may use
//! everything, and of n holders that want more each keeps at least its n-th part.
//!
//! One that can have many names would have many parts. So a holder is a path of parties, outermost first: the
//! invitation, the pass, the key. What it has counts for all of them. First the largest of the outermost parties pays,
//! out of its own largest part; only within the newcomer's own party is there a choice further down.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// One that has a part of something.
pub trait Holder: Ord + Copy + Debug {
    /// One of those for whom an amount counts.
    type Party: Ord + Copy + Debug;
    /// A fixed number of parties, outermost first.
    type Path: AsRef<[Self::Party]> + AsMut<[Self::Party]> + Ord + Copy + Debug + 'static;
    /// The least party, which is on no path: it fills up the path to a party within.
    const NOBODY: Self::Party;

    /// The parties for which its amount counts.
    fn path(&self) -> Self::Path;

    /// The holder with this path.
    fn of(path: &Self::Path) -> Self;
}

/// The amounts of all holders; a holder of nothing takes no place.
#[derive(Debug, Clone)]
pub struct Shares<H: Holder> {
    total: u64,
    /// The amount of each party, by the path to it. In one map, since most parties have one party within.
    amounts: BTreeMap<H::Path, u64>,
    /// Behind the path to each party those within it, by amount.
    ranked: BTreeSet<(H::Path, u64, H::Party)>,
}

impl<H: Holder> Default for Shares<H> {
    fn default() -> Shares<H> {
        Shares { total: 0, amounts: BTreeMap::new(), ranked: BTreeSet::new() }
    }
}

/// The path to a holder's party of the tier before `tier`.
fn cut<H: Holder>(path: &H::Path, tier: usize) -> H::Path {
    let mut cut = *path;
    cut.as_mut()[tier..].fill(H::NOBODY);
    cut
}

impl<H: Holder> Shares<H> {
    /// The sum of all amounts.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// A holder's amount.
    pub fn of(&self, holder: &H) -> u64 {
        self.at(&holder.path())
    }

    /// The amounts of the parties on a holder's path, outermost first.
    pub fn amounts(&self, holder: &H) -> impl Iterator<Item = u64> + '_ {
        let path = holder.path();
        (1..=path.as_ref().len()).map(move |tier| self.at(&cut::<H>(&path, tier)))
    }

    /// Adds to a holder's amount.
    pub fn add(&mut self, holder: H, amount: u64) {
        self.change(&holder, amount, 0);
    }

    /// Takes from a holder's amount.
    pub fn sub(&mut self, holder: H, amount: u64) {
        let has = self.of(&holder);
        debug_assert!(has >= amount, "more is given back than was taken");
        self.change(&holder, 0, amount.min(has));
    }

    /// All holders: those of the largest party first, and within it likewise.
    pub fn ranking(&self) -> impl Iterator<Item = (H, u64)> + '_ {
        let root = self.ranked.first().map(|(path, ..)| cut::<H>(path, 0));
        root.into_iter().flat_map(|root| self.holders(root, 0))
    }

    /// The holder that pays when `newcomer` wants `more` of a thing that is used up. None: the newcomer pays itself.
    pub fn payer(&self, newcomer: &H, more: u64) -> Option<H> {
        self.payers(newcomer, more).next()
    }

    /// The holders that can pay, in the order in which they have to: from the outermost tier inwards those within another
    /// party that keeps at least as much as the newcomer's gets.
    pub fn payers(&self, newcomer: &H, more: u64) -> impl Iterator<Item = H> + '_ {
        let path = newcomer.path();
        (0..path.as_ref().len()).flat_map(move |tier| {
            let (outer, own) = (cut::<H>(&path, tier), path.as_ref()[tier]);
            let would_have = self.at(&cut::<H>(&path, tier + 1)).saturating_add(more);
            let larger = self.within(outer).take_while(move |(amount, _)| *amount > would_have);
            let others = larger.filter(move |(_, party)| *party != own);
            others.flat_map(move |(_, party)| self.party(outer, tier, party)).map(|(holder, _)| holder)
        })
    }

    /// How much more a holder may have of `budget`, which is divided fairly: among the outermost parties, then what each may
    /// have among those within it. One that has less than the others doesn't lower theirs.
    pub fn room(&self, holder: &H, mut budget: u64) -> u64 {
        let path = holder.path();
        for tier in 0..path.as_ref().len() {
            budget = self.level(cut::<H>(&path, tier), budget);
            let has = self.at(&cut::<H>(&path, tier + 1));
            if has < budget {
                return budget - has;
            }
        }
        0
    }

    /// The same for all of a holder's outermost party together.
    pub fn outermost_room(&self, holder: &H, budget: u64) -> u64 {
        let path = holder.path();
        self.level(cut::<H>(&path, 0), budget).saturating_sub(self.at(&cut::<H>(&path, 1)))
    }

    /// Whether a holder may have one more of `limit` where nobody pays, since what was given can't be taken back: each party
    /// on its path may have at most as much as it leaves free of what the party around it may have. So one that takes all it
    /// can has half of it, and others always find room.
    pub fn leaves_room(&self, holder: &H, limit: u64) -> bool {
        let path = holder.path();
        let (mut may, mut has, mut outer) = (limit, self.total, H::NOBODY);
        for (party, amount) in path.as_ref().iter().zip(self.amounts(holder)) {
            // A party that is alone in the one around it, by name, is the same.
            if *party == outer {
                continue;
            }
            may = may.saturating_sub(has - amount) / 2;
            (has, outer) = (amount, *party);
            if amount >= may {
                return false;
            }
        }
        true
    }

    /// The amount of the party, or of the holder, at the end of a path.
    fn at(&self, path: &H::Path) -> u64 {
        self.amounts.get(path).copied().unwrap_or(0)
    }

    fn change(&mut self, holder: &H, more: u64, less: u64) {
        if (more, less) == (0, 0) {
            return;
        }
        self.total = self.total + more - less;
        let path = holder.path();
        for (tier, party) in path.as_ref().iter().enumerate() {
            let (outer, here) = (cut::<H>(&path, tier), cut::<H>(&path, tier + 1));
            let before = self.at(&here);
            let after = before + more - less;
            self.ranked.remove(&(outer, before, *party));
            if after == 0 {
                self.amounts.remove(&here);
            } else {
                self.amounts.insert(here, after);
                self.ranked.insert((outer, after, *party));
            }
        }
    }

    /// The parties within the one at the end of a path, the largest first.
    fn within(&self, outer: H::Path) -> impl Iterator<Item = (u64, H::Party)> + '_ {
        // No amount is the largest number.
        let all = (outer, 0, H::NOBODY)..(outer, u64::MAX, H::NOBODY);
        self.ranked.range(all).rev().map(|(_, amount, party)| (*amount, *party))
    }

    /// The holders within one of the parties of that at the end of a path.
    fn party(
        &self,
        mut path: H::Path,
        tier: usize,
        party: H::Party,
    ) -> Box<dyn Iterator<Item = (H, u64)> + '_> {
        path.as_mut()[tier] = party;
        self.holders(path, tier + 1)
    }

    fn holders(&self, path: H::Path, tier: usize) -> Box<dyn Iterator<Item = (H, u64)> + '_> {
        if tier == path.as_ref().len() {
            return Box::new(std::iter::once((H::of(&path), self.at(&path))));
        }
        Box::new(self.within(path).flat_map(move |(_, party)| self.party(path, tier, party)))
    }

    /// The greatest amount that every party within the one at the end of a path may have so that all fit into `budget`.
    fn level(&self, outer: H::Path, budget: u64) -> u64 {
        let outermost = outer.as_ref().first() == Some(&H::NOBODY);
        let mut rest = if outermost { self.total } else { self.at(&outer) };
        let (mut larger, mut level) = (0, budget);
        for (amount, _) in self.within(outer) {
            if larger > 0 && amount <= level {
                break;
            }
            larger += 1;
            rest -= amount;
            level = budget.saturating_sub(rest) / larger;
        }
        level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By its number's decimal digits: invitation, pass, key.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    struct Key(u32);

    impl Holder for Key {
        type Party = u32;
        type Path = [u32; 3];
        const NOBODY: u32 = 0;

        fn path(&self) -> [u32; 3] {
            [self.0 / 100, self.0 / 10, self.0]
        }

        fn of(path: &[u32; 3]) -> Key {
            Key(path[2])
        }
    }

    fn with(amounts: &[(u32, u64)]) -> Shares<Key> {
        let mut shares = Shares::default();
        amounts.iter().for_each(|(key, amount)| shares.add(Key(*key), *amount));
        shares
    }

    fn payer(shares: &Shares<Key>, newcomer: u32, more: u64) -> Option<u32> {
        shares.payer(&Key(newcomer), more).map(|key| key.0)
    }

    #[test]
    fn the_largest_pays_for_one_that_has_less_and_nobody_pays_for_the_largest() {
        let mut shares = with(&[]);
        assert_eq!(payer(&shares, 111, 1), None, "nobody has anything");
        shares = with(&[(111, 10), (211, 3)]);
        assert_eq!([311, 211, 111].map(|key| payer(&shares, key, 1)), [Some(111), Some(111), None]);
        assert_eq!(payer(&shares, 211, 7), None, "it would have as much");
        shares.sub(Key(111), 10);
        assert_eq!((shares.total(), shares.of(&Key(111))), (3, 0));
        assert_eq!(shares.ranking().collect::<Vec<_>>(), [(Key(211), 3)]);
    }

    #[test]
    fn of_two_that_want_everything_each_gets_half_however_many_keys_one_has() {
        let mut shares = Shares::default();
        for n in 0..100 {
            shares.add(Key(100 + n % 100), 1);
        }
        while let Some(payer) = shares.payer(&Key(211), 1) {
            shares.sub(payer, 1);
            shares.add(Key(211), 1);
        }
        assert_eq!((shares.of(&Key(211)), shares.total()), (50, 100));
    }

    #[test]
    fn first_the_largest_invitation_pays_then_its_largest_pass_then_that_ones_largest_key() {
        let shares = with(&[(111, 4), (112, 5), (121, 8), (211, 9), (311, 1)]);
        // Invitation 1 has 17, though no key of it has most.
        assert_eq!(payer(&shares, 411, 1), Some(112));
        let all: Vec<u32> = shares.payers(&Key(411), 1).map(|key| key.0).collect();
        assert_eq!(all, [112, 111, 121, 211], "but no one that has as little as it gets");
        // Nobody else pays for those of the largest: its larger pass does, then the larger key of the same.
        assert_eq!([131, 121, 111, 112].map(|key| payer(&shares, key, 1)), [Some(112), None, None, None]);
        assert_eq!(payer(&with(&[(111, 4), (112, 7)]), 111, 1), Some(112));
        for (key, amounts) in [(112, [17, 9, 5]), (119, [17, 9, 0]), (999, [0, 0, 0])] {
            assert_eq!(shares.amounts(&Key(key)).collect::<Vec<_>>(), amounts);
        }
    }

    #[test]
    fn a_budget_is_divided_among_invitations_and_small_holders_take_nothing_from_large_ones() {
        for (amounts, room) in [
            (&[(111, 500)][..], [(111, 300), (211, 800)]),
            (&[(111, 900)], [(111, 0), (211, 800)]),
            (&[(111, 700), (211, 100)], [(111, 0), (211, 600)]),
            // 600 and 500 of one invitation, 10 of another: a second key of the first has no room, one of the other has.
            (&[(111, 600), (121, 500), (211, 10)], [(131, 395), (211, 780)]),
            (&[(111, 600), (112, 500), (211, 300)], [(113, 250), (211, 200)]),
        ] {
            let shares = with(amounts);
            for (key, room) in room {
                assert_eq!(shares.room(&Key(key), 800), room, "{key} beside {amounts:?}");
            }
        }
    }

    #[test]
    fn where_nobody_pays_each_leaves_as_much_free_as_it_has_and_others_find_room() {
        let mut shares = Shares::default();
        let mut fill = |key: u32| {
            let before = shares.of(&Key(key));
            while shares.leaves_room(&Key(key), 80) {
                shares.add(Key(key), 1);
            }
            shares.of(&Key(key)) - before
        };
        // Of an invitation, a pass and a key each may have half of what is around it.
        assert_eq!([111, 112, 121, 211, 311].map(&mut fill), [10, 5, 6, 7, 6]);
        assert_eq!(fill(111), 0);
        assert!(shares.total() <= 80);
    }

    proptest::proptest! {
        #[test]
        fn the_sums_are_those_of_the_parts(
            steps in proptest::collection::vec((100u32..140, 0u64..9, proptest::prelude::any::<bool>()), 0..200),
        ) {
            let (mut shares, mut model) = (Shares::default(), BTreeMap::<u32, u64>::new());
            for (key, amount, add) in steps {
                let has = model.entry(key).or_default();
                if add {
                    *has += amount;
                    shares.add(Key(key), amount);
                } else {
                    let amount = amount.min(*has);
                    *has -= amount;
                    shares.sub(Key(key), amount);
                }
            }
            model.retain(|_, has| *has > 0);
            let ranked: BTreeMap<u32, u64> = shares.ranking().map(|(key, amount)| (key.0, amount)).collect();
            proptest::prop_assert_eq!(&ranked, &model);
            proptest::prop_assert_eq!(shares.ranked.len(), shares.amounts.len());
            proptest::prop_assert_eq!(shares.total(), model.values().sum::<u64>());
            let of_pass: u64 = model.iter().filter(|(key, _)| *key / 10 == 11).map(|(_, has)| has).sum();
            proptest::prop_assert_eq!(shares.amounts(&Key(110)).nth(1), Some(of_pass));
        }
    }
}
