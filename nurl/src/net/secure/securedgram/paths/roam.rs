//! A contest between the address in use and another one that the peer was heard from: whether to follow the
//! peer.
//!
//! We follow when the newcomer echoed our challenge *and* either the peer asked for it (MOVED), or the old
//! address, challenged at the same time, stayed silent. While the old path works, neither condition holds
//! for a late packet of the old path, or for a copy that an on-path attacker sends from elsewhere.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::config::{CONTEST_LIFE, OLD_PATH_SILENCE};

#[derive(Debug, Clone, Copy)]
pub(super) struct Contest {
    pub(super) newcomer: SocketAddr,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    pub(super) asked: bool,
    pub(super) old_heard: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Wait,
    Follow,
    Stay,
}

impl Contest {
    pub(super) fn new(now: Instant, newcomer: SocketAddr, old_rtt: Option<Duration>, asked: bool) -> Contest {
        let silence = (old_rtt.unwrap_or_default() * 3).max(OLD_PATH_SILENCE).min(CONTEST_LIFE);
        Contest { newcomer, started: now, deadline: now + silence, asked, old_heard: false }
    }

    /// The policy; `echoed` says whether the newcomer answered a challenge sent since the contest began.
    pub(super) fn outcome(&self, now: Instant, echoed: bool) -> Outcome {
        if echoed && self.asked {
            return Outcome::Follow;
        }
        if self.old_heard && !self.asked {
            return Outcome::Stay;
        }
        if echoed && now >= self.deadline {
            return Outcome::Follow;
        }
        if now >= self.ends() { Outcome::Stay } else { Outcome::Wait }
    }

    pub(super) fn ends(&self) -> Instant {
        self.started + CONTEST_LIFE
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
            (50, false, false, false, Outcome::Wait),
            (50, true, false, false, Outcome::Wait),
            (50, true, true, false, Outcome::Follow),
            (50, true, true, true, Outcome::Follow),
            (50, false, true, true, Outcome::Wait),
            (50, true, false, true, Outcome::Stay),
            (299, true, false, false, Outcome::Wait),
            (300, true, false, false, Outcome::Follow),
            (300, false, false, false, Outcome::Wait),
            (3_000, false, false, false, Outcome::Stay),
            (3_000, false, true, false, Outcome::Stay),
        ] {
            let mut contest = Contest::new(start, addr, Some(Duration::from_millis(40)), asked);
            contest.old_heard = old_heard;
            let now = start + Duration::from_millis(after_ms);
            assert_eq!(contest.outcome(now, echoed), expected, "{after_ms} {echoed} {asked} {old_heard}");
        }
        let slow = Contest::new(start, addr, Some(Duration::from_millis(200)), false);
        assert_eq!(slow.deadline - start, Duration::from_millis(600), "three round trips of the old path");
    }
}
