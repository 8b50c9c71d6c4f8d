//! The record of attempted and acknowledged writes, which determines the values that may be read in the end.
//!
//! **The guarantee for an increment.** An acknowledged increment is on the disk of the node that made it: while
//! that disk lives the increment is neither lost nor counted twice, whatever happens to the process. An increment
//! whose call failed or was cut off was made once or not at all. If the disk is lost, increments made before the
//! replicas last agreed stay; later ones may be lost with it, each independently. Writes after the node's return
//! count in full, since the node comes back under another replica id.
//!
//! All writers add to one counter. Each adds a power of its own, so the sum has a digit for each of them.

use std::collections::{BTreeMap, BTreeSet};

/// Increments that one writer can make: the base of the sum's digits.
const BASE: i64 = 1 << 10;

/// The possible fates of an element of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its insert was acknowledged.
    There,
    /// Its insert or its remove was cut off, or its disk was lost.
    Either,
    /// Its remove was acknowledged while all replicas had it.
    Gone,
}

/// The increments of one writer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Account {
    /// The least number that may be counted.
    least: u64,
    /// The highest number that may be counted.
    most: u64,
    /// The number on which the replicas last agreed.
    agreed: u64,
    /// Acknowledged since then, and on a disk that was lost.
    at_risk: u64,
}

/// The fate of acknowledged increments whose disk was lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Risked {
    pub(crate) lost: u64,
    pub(crate) outlived: u64,
}

/// The ledger of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    /// The writers' names, which are those of their hosts: a story tells what these did.
    names: Vec<String>,
    accounts: Vec<Account>,
    elements: BTreeMap<String, Fate>,
    texts: BTreeSet<String>,
}

impl Ledger {
    /// Writers for whom the amounts that a call adds have digits.
    pub(crate) const WRITERS: usize = 6;

    pub(crate) fn new(writers: impl Iterator<Item = String>) -> Ledger {
        let names: Vec<_> = writers.collect();
        Ledger { accounts: vec![Account::default(); names.len()], names, ..Ledger::default() }
    }

    /// The amount that `writer` adds.
    pub(crate) fn weight(writer: usize) -> i64 {
        BASE.pow(writer as u32)
    }

    /// Records the start of an increment.
    pub(crate) fn adds(&mut self, writer: usize) {
        self.accounts[writer].most += 1;
        assert!(self.accounts[writer].most < BASE as u64, "a digit holds a writer's increments");
    }

    /// Records the acknowledgement of an increment.
    pub(crate) fn added(&mut self, writer: usize) {
        self.accounts[writer].least += 1;
    }

    /// Records the start of an insert; the element must be a new one.
    pub(crate) fn inserts(&mut self, element: &str) {
        self.elements.insert(element.to_owned(), Fate::Either);
    }

    /// Records the acknowledgement of an insert.
    pub(crate) fn inserted(&mut self, element: &str) {
        self.elements.insert(element.to_owned(), Fate::There);
    }

    /// Records the start of a remove; without having observed the element it has no effect.
    pub(crate) fn removes(&mut self, element: &str) {
        self.elements.insert(element.to_owned(), Fate::Either);
    }

    /// Records the acknowledgement of a remove, made when all replicas had the element.
    pub(crate) fn removed(&mut self, element: &str) {
        self.elements.insert(element.to_owned(), Fate::Gone);
    }

    /// Records the start of a register write.
    pub(crate) fn sets(&mut self, text: &str) {
        self.texts.insert(text.to_owned());
    }

    /// The elements that must be in the set.
    pub(crate) fn there(&self) -> Vec<String> {
        let there = self.elements.iter().filter(|(_, fate)| **fate == Fate::There);
        there.map(|(element, _)| element.clone()).collect()
    }

    /// Records that `writer` lost its disk, and perhaps its writes since the replicas last agreed.
    pub(crate) fn lost_disk(&mut self, writer: usize, since: &[String]) {
        let account = &mut self.accounts[writer];
        account.at_risk = account.least - account.agreed;
        account.least = account.agreed;
        for element in since {
            self.elements.insert(element.clone(), Fate::Either);
        }
    }

    /// Checks the sum when the replicas agree and nothing is under way.
    ///
    /// # Errors
    /// Why the sum is impossible.
    pub(crate) fn agree(&mut self, sum: i128) -> Result<Risked, String> {
        let mut risked = Risked::default();
        let digits = digits(sum, self.accounts.len())?;
        for ((account, name), digit) in self.accounts.iter_mut().zip(&self.names).zip(digits) {
            let Account { least, most, at_risk, .. } = *account;
            if !(least..=most).contains(&digit) {
                return Err(format!("{digit} increments of {name} are counted, of {least} to {most}"));
            }
            let outlived = at_risk.min(digit - least);
            risked.outlived += outlived;
            risked.lost += at_risk - outlived;
            *account = Account { least: digit, most: digit, agreed: digit, at_risk: 0 };
        }
        Ok(risked)
    }

    /// Checks that the replicas may agree on this set.
    ///
    /// # Errors
    /// Describes the wrong element.
    pub(crate) fn check_set(&self, members: &BTreeSet<String>) -> Result<(), String> {
        for member in members {
            match self.elements.get(member) {
                None => return Err(format!("{member:?} was never inserted")),
                Some(Fate::Gone) => return Err(format!("{member:?} was removed")),
                Some(Fate::There | Fate::Either) => {}
            }
        }
        match self.there().into_iter().find(|element| !members.contains(element)) {
            Some(lost) => Err(format!("{lost:?} was inserted, and is lost")),
            None => Ok(()),
        }
    }

    /// Checks that the replicas may agree on this text.
    ///
    /// # Errors
    /// Describes the wrong text.
    pub(crate) fn check_text(&self, text: Option<&str>) -> Result<(), String> {
        match text {
            Some(text) if !self.texts.contains(text) => Err(format!("{text:?} was never written")),
            _ => Ok(()),
        }
    }

    /// How many increments of each writer are certainly counted.
    pub(crate) fn counted(&self) -> Vec<u64> {
        self.accounts.iter().map(|account| account.least).collect()
    }
}

fn digits(sum: i128, writers: usize) -> Result<Vec<u64>, String> {
    let (mut rest, base) = (sum, i128::from(BASE));
    let mut digits = Vec::new();
    for _ in 0..writers {
        let digit = rest.rem_euclid(base);
        digits.push(digit as u64);
        rest = (rest - digit) / base;
    }
    if rest == 0 { Ok(digits) } else { Err(format!("{sum} has more digits than there are writers")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(writers: usize) -> Ledger {
        Ledger::new((0..writers).map(|n| format!("node {n}")))
    }

    fn sum(counts: &[i128]) -> i128 {
        counts.iter().enumerate().map(|(at, count)| count * i128::from(Ledger::weight(at))).sum()
    }

    fn books() -> Ledger {
        let mut ledger = of(2);
        for _ in 0..3 {
            ledger.adds(0);
            ledger.added(0);
        }
        ledger.adds(1);
        ledger
    }

    #[test]
    fn acknowledged_increments_count_once_and_doubtful_ones_once_or_not() {
        for good in [[3, 0], [3, 1]] {
            books().agree(sum(&good)).unwrap();
        }
        for bad in [[2, 0], [4, 0], [3, 2]] {
            books().agree(sum(&bad)).unwrap_err();
        }
        books().agree(-1).unwrap_err();
    }

    #[test]
    fn what_was_agreed_stays_also_without_the_disk_and_what_comes_later_counts() {
        let mut ledger = books();
        ledger.agree(sum(&[3, 1])).unwrap();
        ledger.adds(0);
        ledger.added(0);
        ledger.lost_disk(0, &[]);
        ledger.adds(0);
        ledger.added(0);
        // One increment after the loss; the one before it may be counted or not.
        for (good, lost) in [([4, 1], 1), ([5, 1], 0)] {
            let risked = ledger.clone().agree(sum(&good)).unwrap();
            assert_eq!(risked, Risked { lost, outlived: 1 - lost });
        }
        for bad in [[3, 1], [6, 1], [4, 0]] {
            ledger.clone().agree(sum(&bad)).unwrap_err();
        }
    }

    #[test]
    fn a_set_has_what_was_inserted_and_not_what_was_removed() {
        let mut ledger = of(1);
        for element in ["a", "b", "c"] {
            ledger.inserts(element);
        }
        ledger.inserted("a");
        ledger.removed("c");
        let set = |members: &[&str]| members.iter().map(|member| (*member).to_owned()).collect();
        ledger.check_set(&set(&["a"])).unwrap();
        ledger.check_set(&set(&["a", "b"])).unwrap();
        ledger.check_set(&set(&["b"])).unwrap_err();
        ledger.check_set(&set(&["a", "c"])).unwrap_err();
        ledger.check_set(&set(&["a", "d"])).unwrap_err();
        ledger.lost_disk(0, &["a".to_owned()]);
        ledger.check_set(&set(&["b"])).unwrap();
    }

    #[test]
    fn a_text_that_nobody_wrote_is_seen() {
        let mut ledger = of(1);
        ledger.check_text(None).unwrap();
        ledger.sets("x");
        ledger.check_text(Some("x")).unwrap();
        ledger.check_text(Some("y")).unwrap_err();
    }
}
