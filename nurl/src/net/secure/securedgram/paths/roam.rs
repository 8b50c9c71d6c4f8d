//! Roaming (connection migration, RFC 9000 §9): the peer was heard from another address than the one in use. Does the
//! data follow it there?
//!
//! We follow when the newcomer echoed our challenge *and* either the peer asked for it (MOVED), or the old
//! address, challenged at the same time, stayed silent. While the old path works, neither condition holds
//! for a late packet of the old path, or for a copy that an on-path attacker sends from elsewhere.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::config::{MIGRATION_LIFE, OLD_PATH_SILENCE};

/// An undecided migration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migration {
    /// The address that the peer may have moved to.
    pub(super) newcomer: SocketAddr,
    pub(super) started: Instant,
    /// Until then the old address must stay silent, unless the peer asks to be followed.
    pub(super) deadline: Instant,
    /// The peer asked for it (MOVED).
    pub(super) asked: bool,
    /// The old address was heard since the migration began.
    pub(super) old_heard: bool,
}

/// Where the data goes after a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MigrationOutcome {
    /// It isn't decided yet.
    Wait,
    /// To the newcomer.
    Follow,
    /// To the old address.
    Stay,
}

impl Migration {
    pub(super) fn new(
        now: Instant,
        newcomer: SocketAddr,
        old_rtt: Option<Duration>,
        asked: bool,
    ) -> Migration {
        let silence = (old_rtt.unwrap_or_default() * 3).max(OLD_PATH_SILENCE).min(MIGRATION_LIFE);
        Migration { newcomer, started: now, deadline: now + silence, asked, old_heard: false }
    }

    /// The policy; `echoed` says whether the newcomer answered a challenge sent since the migration began.
    pub(super) fn outcome(&self, now: Instant, echoed: bool) -> MigrationOutcome {
        if echoed && self.asked {
            return MigrationOutcome::Follow;
        }
        if self.old_heard && !self.asked {
            return MigrationOutcome::Stay;
        }
        if echoed && now >= self.deadline {
            return MigrationOutcome::Follow;
        }
        if now >= self.ends() { MigrationOutcome::Stay } else { MigrationOutcome::Wait }
    }

    pub(super) fn ends(&self) -> Instant {
        self.started + MIGRATION_LIFE
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::origin;
    use super::*;

    #[test]
    fn whom_to_follow() {
        let (start, addr) = (origin(), SocketAddr::from(([192, 0, 2, 1], 1)));
        for (after_ms, echoed, asked, old_heard, expected) in [
            (50, false, false, false, MigrationOutcome::Wait),
            (50, true, false, false, MigrationOutcome::Wait),
            (50, true, true, false, MigrationOutcome::Follow),
            (50, true, true, true, MigrationOutcome::Follow),
            (50, false, true, true, MigrationOutcome::Wait),
            (50, true, false, true, MigrationOutcome::Stay),
            (299, true, false, false, MigrationOutcome::Wait),
            (300, true, false, false, MigrationOutcome::Follow),
            (300, false, false, false, MigrationOutcome::Wait),
            (3_000, false, false, false, MigrationOutcome::Stay),
            (3_000, false, true, false, MigrationOutcome::Stay),
        ] {
            let mut migration = Migration::new(start, addr, Some(Duration::from_millis(40)), asked);
            migration.old_heard = old_heard;
            let now = start + Duration::from_millis(after_ms);
            assert_eq!(migration.outcome(now, echoed), expected, "{after_ms} {echoed} {asked} {old_heard}");
        }
        let slow = Migration::new(start, addr, Some(Duration::from_millis(200)), false);
        assert_eq!(slow.deadline - start, Duration::from_millis(600), "three round trips of the old path");
    }
}
