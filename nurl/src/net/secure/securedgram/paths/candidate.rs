//! One address of the peer: how it became known, whether it is proven, and how much may be sent to it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::challenge::ConnectivityCheck;
use super::config::{AMPLIFICATION_LIMIT, DATA_LOST_HOLD, LOST_HOLD};
use super::status::PathReason;

/// How an address became known; declared in the order in which the addresses are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CandidateOrigin {
    /// An authenticated datagram came from it (peer-reflexive, RFC 8445 §7.3.1.3).
    Seen,
    /// Named by our side: a program, a test.
    Configured,
    /// Named by the peer's record at a rendezvous. Without a relay the first handshake goes there.
    Published,
    /// Named by the peer.
    Told,
}

/// What the echoes of a candidate have shown. An address that is proven never becomes unproven again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CandidateState {
    /// No echo has ever returned, so the address may be a victim's: the peer's [`Allowance`](super::allowance) applies,
    /// and to an address that was only seen a limit of its own.
    Unproven {
        /// Bytes of authenticated datagrams from it.
        received_bytes: u64,
        /// Bytes sent to it.
        sent_bytes: u64,
    },
    /// An echo returned once, so the peer owns the address. Since the last doubt, none has returned.
    Doubted,
    /// An echo returned, and no doubt has come since: the address is in use or in reserve.
    Validated,
    /// The path was lost while it was in use. The address may not be selected before the hold is over.
    Held {
        /// The end of the hold; then the address has to echo again.
        until: Instant,
        /// An echo has returned since the loss.
        validated: bool,
    },
}

/// One address of the peer.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) addr: SocketAddr,
    pub(super) origin: CandidateOrigin,
    /// The position in the list that named it.
    pub(super) order: usize,
    pub(super) check: ConnectivityCheck,
    pub(super) state: CandidateState,
    /// When the last authenticated datagram came from it.
    pub(super) heard: Option<Instant>,
    /// When application data from it must be answered to this address.
    pub(super) answer_due: Option<Instant>,
    /// Losses while in use that are not forgiven yet.
    losses: u32,
    /// No migration to it before this time, and the length of the next pause.
    pub(super) migration_pause: Option<(Instant, Duration)>,
    /// Until when datagrams from it count as answers for the address in use. An echo of a challenge to the address in
    /// use came back from here, so datagrams to the address in use do arrive.
    pub(super) shadows_until: Option<Instant>,
}

impl Candidate {
    pub(super) fn new(addr: SocketAddr, origin: CandidateOrigin, order: usize) -> Candidate {
        Candidate {
            addr,
            origin,
            order,
            check: ConnectivityCheck::default(),
            state: CandidateState::Unproven { received_bytes: 0, sent_bytes: 0 },
            heard: None,
            answer_due: None,
            losses: 0,
            migration_pause: None,
            shadows_until: None,
        }
    }

    /// Whether an echo returned from it since the last doubt.
    pub(super) fn is_validated(&self) -> bool {
        matches!(self.state, CandidateState::Validated | CandidateState::Held { validated: true, .. })
    }

    /// Whether an echo returned from it once.
    pub(super) fn is_proven(&self) -> bool {
        !matches!(self.state, CandidateState::Unproven { .. })
    }

    /// Whether it may carry the data: validated, and not held.
    pub(super) fn is_selectable(&self) -> bool {
        self.state == CandidateState::Validated
    }

    /// The end of the hold after a loss, if it is held.
    pub(super) fn held_until(&self) -> Option<Instant> {
        match self.state {
            CandidateState::Held { until, .. } => Some(until),
            _ => None,
        }
    }

    /// An echo returned from it.
    pub(super) fn validate(&mut self) {
        match &mut self.state {
            CandidateState::Held { validated, .. } => *validated = true,
            state => *state = CandidateState::Validated,
        }
    }

    /// It has to echo again. A hold goes on.
    pub(super) fn doubt(&mut self) {
        match &mut self.state {
            CandidateState::Held { validated, .. } => *validated = false,
            state @ CandidateState::Validated => *state = CandidateState::Doubted,
            CandidateState::Unproven { .. } | CandidateState::Doubted => {}
        }
    }

    /// It has to echo again, and a hold ends.
    pub(super) fn doubt_unheld(&mut self) {
        if self.is_proven() {
            self.state = CandidateState::Doubted;
        }
    }

    /// The path to it was lost while in use. `forgiven` says that it had been in use without trouble for long; a hold
    /// applies only if another route can be waited on.
    pub(super) fn lose(&mut self, now: Instant, reason: PathReason, forgiven: bool, may_hold: bool) {
        self.losses = if forgiven { 1 } else { self.losses.saturating_add(1) };
        self.doubt_unheld();
        if let Some(hold) = hold(reason, self.losses).filter(|_| may_hold && self.is_proven()) {
            self.state = CandidateState::Held { until: now + hold, validated: false };
        }
        self.check.restart(now);
    }

    /// The session is over.
    pub(super) fn close(&mut self) {
        self.check.reset();
        self.doubt_unheld();
        self.answer_due = None;
    }

    /// An authenticated datagram of `len` bytes came from it.
    pub(super) fn hear(&mut self, now: Instant, len: usize) {
        if let CandidateState::Unproven { received_bytes, .. } = &mut self.state {
            *received_bytes = received_bytes.saturating_add(len as u64);
        }
        self.heard = Some(now);
    }

    /// Counts bytes sent to it.
    pub(super) fn count_sent(&mut self, len: usize) {
        if let CandidateState::Unproven { sent_bytes, .. } = &mut self.state {
            *sent_bytes = sent_bytes.saturating_add(len as u64);
        }
    }

    /// Whether what goes there is limited: it is neither proven nor named by our side.
    pub(super) fn is_limited(&self) -> bool {
        !self.is_proven() && self.origin != CandidateOrigin::Configured
    }

    /// Whether `len` more bytes are within its own limit: an address that was only seen gets a multiple of the bytes that
    /// came from it.
    pub(super) fn is_within(&self, len: usize) -> bool {
        match self.state {
            CandidateState::Unproven { received_bytes, sent_bytes } => {
                self.origin != CandidateOrigin::Seen
                    || sent_bytes + len as u64 <= AMPLIFICATION_LIMIT * received_bytes
            }
            _ => true,
        }
    }

    /// Whether its quick checks wait for their turn.
    pub(super) fn waits(&self) -> bool {
        !self.is_validated() && self.check.next().is_none()
    }

    /// Whether it is being checked for the first time, or again after silence.
    pub(super) fn is_checked(&self) -> bool {
        !self.is_validated() && self.check.is_quick()
    }

    pub(super) fn shadows(&self, now: Instant) -> bool {
        self.shadows_until.is_some_and(|until| now < until)
    }

    pub(super) fn rank(&self) -> (CandidateOrigin, usize) {
        (self.origin, self.order)
    }

    /// Its next deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.check.next(), self.held_until(), self.answer_due].into_iter().flatten().min()
    }
}

/// How long a path stays in reserve after it was lost for this reason, the `losses`-th time in a row.
fn hold(reason: PathReason, losses: u32) -> Option<Duration> {
    let (base, limit, doublings) = match reason {
        PathReason::DataLost => (DATA_LOST_HOLD.0, DATA_LOST_HOLD.1, losses.checked_sub(1)?),
        _ => (LOST_HOLD.0, LOST_HOLD.1, losses.checked_sub(2)?),
    };
    Some((base * 2u32.pow(doublings.min(10))).min(limit))
}

/// Converts a v4-mapped address to v4, and refuses addresses that no unicast datagram reaches. A subnet's own broadcast
/// address can't be told apart without its mask; the kernel refuses it to sockets that don't ask for broadcasts.
pub(super) fn usable(addr: SocketAddr, loopback: bool) -> Option<SocketAddr> {
    let ip = addr.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    // A link-local address without a scope is meaningless on another host (RFC 4007 §6).
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let refused = addr.port() == 0 || ip.is_unspecified() || ip.is_multicast() || broadcast || link_local;
    if refused || (ip.is_loopback() && !loopback) {
        return None;
    }
    Some(SocketAddr::new(ip, addr.port()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::origin;
    use super::*;

    #[test]
    fn a_candidate_passes_through_its_states() {
        use CandidateState::{Doubted, Held, Unproven, Validated};
        let now = origin();
        let until = now + LOST_HOLD.0;
        let unproven = Unproven { received_bytes: 100, sent_bytes: 7 };
        let lost = |candidate: &mut Candidate| {
            candidate.losses = 1;
            candidate.lose(now, PathReason::PathLost, false, true);
        };
        type Change = fn(&mut Candidate);
        for (state, change, expected) in [
            (unproven, Candidate::validate as Change, Validated),
            (unproven, Candidate::doubt, unproven),
            (unproven, Candidate::doubt_unheld, unproven),
            (unproven, Candidate::close, unproven),
            (Validated, Candidate::doubt, Doubted),
            (Validated, Candidate::close, Doubted),
            (Doubted, Candidate::doubt, Doubted),
            (Doubted, Candidate::validate, Validated),
            (Held { until, validated: false }, Candidate::validate, Held { until, validated: true }),
            (Held { until, validated: true }, Candidate::doubt, Held { until, validated: false }),
            (Held { until, validated: true }, Candidate::doubt_unheld, Doubted),
            (Held { until, validated: true }, Candidate::close, Doubted),
        ] {
            let mut candidate = Candidate::new(([192, 0, 2, 1], 1).into(), CandidateOrigin::Seen, 0);
            candidate.state = state;
            change(&mut candidate);
            assert_eq!(candidate.state, expected, "from {state:?}");
            let limited = candidate.is_limited();
            assert_eq!(limited, !candidate.is_proven(), "only an unproven address is limited");
            assert_eq!(candidate.is_within(1_000), !limited, "to three times its bytes");
        }
        let mut candidate = Candidate::new(([192, 0, 2, 1], 1).into(), CandidateOrigin::Told, 0);
        candidate.validate();
        lost(&mut candidate);
        assert_eq!(candidate.state, Held { until, validated: false });
        assert!(!candidate.is_validated() && candidate.is_checked());
    }

    #[test]
    fn a_path_that_is_lost_again_stays_in_reserve_for_longer() {
        for (reason, losses, expected_s) in [
            (PathReason::PathLost, 1, None),
            (PathReason::PathLost, 2, Some(2)),
            (PathReason::PathLost, 3, Some(4)),
            (PathReason::PathLost, 7, Some(60)),
            (PathReason::PathLost, u32::MAX, Some(60)),
            (PathReason::DataLost, 1, Some(15)),
            (PathReason::DataLost, 2, Some(30)),
            (PathReason::DataLost, 9, Some(300)),
        ] {
            assert_eq!(hold(reason, losses), expected_s.map(Duration::from_secs), "{reason} {losses}");
        }
    }

    #[test]
    fn unusable_addresses_are_refused() {
        for (text, loopback, expected) in [
            ("192.0.2.1:1", false, Some("192.0.2.1:1")),
            ("[::ffff:192.0.2.1]:1", false, Some("192.0.2.1:1")),
            ("[2001:db8::1]:1", false, Some("[2001:db8::1]:1")),
            ("192.0.2.1:0", true, None),
            ("0.0.0.0:1", true, None),
            ("255.255.255.255:1", true, None),
            ("224.0.0.1:1", true, None),
            ("[ff02::1]:1", true, None),
            ("[fe80::1]:1", true, None),
            ("127.0.0.1:1", false, None),
            ("127.0.0.1:1", true, Some("127.0.0.1:1")),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(usable(text.parse().unwrap(), loopback), expected, "{text}");
        }
    }
}
