//! What goes wrong with names: for the host that asks, its resolver's answers; for the host that is asked for, what its
//! name stands for. Each trouble has the number of a plan's fault, under which it ends again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// How long a resolver waits for an answer before it asks again: `timeout` of resolv.conf(5) in glibc.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it asks before it gives up: `attempts` of resolv.conf(5) in glibc.
pub(crate) const ASK_ATTEMPTS: u32 = 2;

/// How lookups fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DnsFailure {
    /// The name server answers that no such name exists (NXDOMAIN, RFC 8020).
    NoName,
    /// No answer comes, so a lookup fails after the resolver's timeouts: 10 s.
    NoAnswer,
}

impl DnsFailure {
    /// All of them.
    pub const ALL: &'static [DnsFailure] = &[DnsFailure::NoName, DnsFailure::NoAnswer];

    /// Its name in a plan's text.
    pub fn as_str(self) -> &'static str {
        match self {
            DnsFailure::NoName => "nxdomain",
            DnsFailure::NoAnswer => "timeout",
        }
    }
}

/// The troubles of one host with names, and the earlier addresses of its own name.
#[derive(Default)]
pub(crate) struct Names {
    delays: BTreeMap<usize, Duration>,
    failures: BTreeMap<usize, DnsFailure>,
    stale: BTreeSet<usize>,
    /// The addresses that it had before they were last replaced.
    former: Vec<IpAddr>,
}

impl Names {
    /// Its lookups take longer by `add`.
    pub(crate) fn slow(&mut self, number: usize, add: Duration) {
        self.delays.insert(number, add);
    }

    /// Its lookups fail.
    pub(crate) fn fail(&mut self, number: usize, how: DnsFailure) {
        self.failures.insert(number, how);
    }

    /// Its name stands for its former addresses.
    pub(crate) fn age(&mut self, number: usize) {
        self.stale.insert(number);
    }

    /// Ends a trouble.
    pub(crate) fn end(&mut self, number: usize) {
        self.delays.remove(&number);
        self.failures.remove(&number);
        self.stale.remove(&number);
    }

    /// Its addresses, of which `before` is the list until now, have been replaced.
    pub(crate) fn moved(&mut self, before: Vec<IpAddr>) {
        self.former = before;
    }

    /// By how much its lookups are late.
    pub(crate) fn delay(&self) -> Duration {
        self.delays.values().fold(Duration::ZERO, |sum, add| sum.saturating_add(*add))
    }

    /// How its lookups fail, if they do. Without an answer there is no NXDOMAIN either.
    pub(crate) fn failure(&self) -> Option<DnsFailure> {
        self.failures.values().max().copied()
    }

    /// The outdated addresses for which its name stands; `None` if the name is up to date.
    pub(crate) fn stale(&self) -> Option<&[IpAddr]> {
        (!self.stale.is_empty()).then_some(&*self.former)
    }

    /// All troubles, for a person.
    pub(crate) fn describe(&self) -> Option<String> {
        let slow = (!self.delays.is_empty()).then(|| format!("lookups {:?} late", self.delay()));
        let fails = self.failure().map(|how| format!("lookups fail by {}", how.as_str()));
        let stale = self.stale().map(|_| "a stale name".to_owned());
        let all: Vec<String> = [slow, fails, stale].into_iter().flatten().collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_that_overlap_add_up_and_each_ends_by_its_number() {
        let mut names = Names::default();
        names.slow(0, Duration::from_secs(1));
        names.slow(1, Duration::from_secs(2));
        names.fail(2, DnsFailure::NoAnswer);
        names.fail(3, DnsFailure::NoName);
        names.age(4);
        names.moved(vec![IpAddr::from([10, 0, 0, 1])]);
        assert_eq!((names.delay(), names.failure()), (Duration::from_secs(3), Some(DnsFailure::NoAnswer)));
        assert_eq!(names.stale(), Some(&[IpAddr::from([10, 0, 0, 1])][..]));
        names.end(0);
        names.end(2);
        names.end(4);
        assert_eq!((names.delay(), names.failure()), (Duration::from_secs(2), Some(DnsFailure::NoName)));
        assert_eq!(names.stale(), None);
        names.end(1);
        names.end(3);
        assert_eq!(names.describe(), None);
    }
}
