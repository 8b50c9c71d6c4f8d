//! What a disk suffers from: no room, errors and slowness. Each trouble has a number, under which it ends again.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// The kinds of call that fail or take time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskCall {
    /// The content of a file is read.
    Read,
    /// A file or a directory is changed.
    Write,
    /// A file or a directory is made durable.
    Sync,
}

impl DiskCall {
    /// All of them.
    pub const ALL: &'static [DiskCall] = &[DiskCall::Read, DiskCall::Write, DiskCall::Sync];

    /// Its name in a plan's text.
    pub fn as_str(self) -> &'static str {
        match self {
            DiskCall::Read => "read",
            DiskCall::Write => "write",
            DiskCall::Sync => "sync",
        }
    }
}

/// What a disk refuses, until it is told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskOutage {
    /// No write finds room, not even one over bytes that are there, as on a full file system that copies on write.
    NoRoom,
    /// The device fails each of these calls, once so many more of them have succeeded.
    Fails {
        /// The calls.
        call: DiskCall,
        /// How many succeed before.
        after: u64,
    },
}

/// The time that each kind of call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskPace {
    /// A read.
    pub read: Duration,
    /// A write.
    pub write: Duration,
    /// A sync.
    pub sync: Duration,
}

impl DiskPace {
    fn of(&self, call: DiskCall) -> Duration {
        match call {
            DiskCall::Read => self.read,
            DiskCall::Write => self.write,
            DiskCall::Sync => self.sync,
        }
    }
}

/// The troubles of one disk, each under the number of the plan's fault.
#[derive(Default)]
pub(crate) struct Troubles {
    /// The most bytes that all files may have together.
    quotas: BTreeMap<usize, u64>,
    /// The kind of call that fails, and how many of them are left, including the failing one.
    errors: BTreeMap<usize, (DiskCall, u64)>,
    paces: BTreeMap<usize, DiskPace>,
    /// Without a number: a scenario's own.
    outage: Option<DiskOutage>,
}

/// The error of a call that the device failed: EIO.
pub(super) fn failed() -> io::Error {
    const EIO: i32 = 5;
    io::Error::from_raw_os_error(EIO)
}

impl Troubles {
    pub(super) fn limit(&mut self, number: usize, bytes: u64) {
        self.quotas.insert(number, bytes);
    }

    pub(crate) fn fail(&mut self, number: usize, call: DiskCall, op: u64) {
        self.errors.insert(number, (call, op));
    }

    pub(crate) fn slow(&mut self, number: usize, pace: DiskPace) {
        self.paces.insert(number, pace);
    }

    pub(crate) fn set_outage(&mut self, outage: Option<DiskOutage>) {
        self.outage = outage;
    }

    /// What an outage does to a call.
    pub(super) fn check_outage(&mut self, now: DiskCall) -> io::Result<()> {
        match &mut self.outage {
            Some(DiskOutage::NoRoom) if now == DiskCall::Write => Err(super::full()),
            Some(DiskOutage::Fails { call, after }) if *call == now => match after.checked_sub(1) {
                Some(left) => {
                    *after = left;
                    Ok(())
                }
                None => Err(failed()),
            },
            _ => Ok(()),
        }
    }

    /// Ends a trouble, if it hasn't ended by itself.
    pub(crate) fn end(&mut self, number: usize) {
        self.quotas.remove(&number);
        self.errors.remove(&number);
        self.paces.remove(&number);
    }

    /// The smallest quota.
    pub(super) fn quota_bytes(&self) -> Option<u64> {
        self.quotas.values().min().copied()
    }

    /// Counts a call; returns whether the device fails it. Each error happens once.
    pub(super) fn is_failed(&mut self, call: DiskCall) -> bool {
        let mut failed = false;
        self.errors.retain(|_, (which, left)| {
            if *which != call {
                return true;
            }
            *left = left.saturating_sub(1);
            failed |= *left == 0;
            *left > 0
        });
        failed
    }

    /// What a reader of the map wants to know of them, if there are any.
    pub(crate) fn describe(&self) -> Option<String> {
        let quota = self.quota_bytes().map(|bytes| format!("disk full at {bytes} bytes"));
        let errors = self.errors.values().map(|(call, left)| format!("disk fails {} {left}", call.as_str()));
        let slow = (!self.paces.is_empty())
            .then(|| format!("disk slow: a sync takes {:?}", self.takes(DiskCall::Sync)));
        let all: Vec<String> = quota.into_iter().chain(errors).chain(slow).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// The time that a call takes: that of the slowest trouble.
    pub(crate) fn takes(&self, call: DiskCall) -> Duration {
        self.paces.values().map(|pace| pace.of(call)).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_comes_at_its_call_and_once() {
        let mut troubles = Troubles::default();
        troubles.fail(1, DiskCall::Sync, 2);
        assert!(!troubles.is_failed(DiskCall::Write) && !troubles.is_failed(DiskCall::Sync));
        assert!(!troubles.is_failed(DiskCall::Write) && troubles.is_failed(DiskCall::Sync));
        assert!(!troubles.is_failed(DiskCall::Sync));
        troubles.fail(1, DiskCall::Read, 1);
        troubles.end(1);
        assert!(!troubles.is_failed(DiskCall::Read));
    }

    #[test]
    fn an_outage_lasts_until_it_is_ended() {
        let mut troubles = Troubles::default();
        for (outage, kind) in [
            (DiskOutage::NoRoom, io::ErrorKind::StorageFull),
            (DiskOutage::Fails { call: DiskCall::Write, after: 2 }, failed().kind()),
        ] {
            troubles.set_outage(Some(outage));
            if let DiskOutage::Fails { after, .. } = outage {
                assert!((0..after).all(|_| troubles.check_outage(DiskCall::Write).is_ok()));
            }
            for _ in 0..2 {
                assert_eq!(troubles.check_outage(DiskCall::Write).unwrap_err().kind(), kind);
                assert!(troubles.check_outage(DiskCall::Read).is_ok());
            }
            troubles.set_outage(None);
            assert!(troubles.check_outage(DiskCall::Write).is_ok());
        }
    }

    #[test]
    fn the_tightest_quota_and_the_slowest_pace_count() {
        let mut troubles = Troubles::default();
        assert_eq!((troubles.quota_bytes(), troubles.takes(DiskCall::Sync)), (None, Duration::ZERO));
        let pace = |ms| DiskPace { sync: Duration::from_millis(ms), ..DiskPace::default() };
        for (number, ms) in [(1, 30), (2, 20)] {
            troubles.limit(number, ms);
            troubles.slow(number, pace(ms));
        }
        assert_eq!(troubles.quota_bytes(), Some(20));
        assert_eq!(troubles.takes(DiskCall::Sync), Duration::from_millis(30));
        assert_eq!(troubles.takes(DiskCall::Read), Duration::ZERO);
        troubles.end(2);
        assert_eq!(troubles.quota_bytes(), Some(30));
    }
}
