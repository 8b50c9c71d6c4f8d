//! The helper's side of indirect probes (SWIM §4.1): pings on behalf of members that can't reach a target themselves.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::outbox::Via;
use super::view::MeshView;
use crate::key::PublicKey;
use crate::membership::event::MembershipEvent;
use crate::membership::message::MessageBody;

/// The most pings on behalf of others at a time. Beyond the limit the request gets a NACK at once: this node is
/// alive, but can't probe the target.
pub const MAX_SERVED: usize = 128;

/// The longest time that a helper pings for another member, whatever the request says: the longest probe is nine
/// seconds.
const MAX_SERVE_TIME: Duration = Duration::from_secs(9);

/// Ended pings that a late ack may still answer; the oldest are forgotten.
const MAX_PAST: usize = MAX_SERVED;

/// A request to ping `target`, as it came from `origin`.
#[derive(Debug, Clone, Copy)]
pub(super) struct PingRequest {
    pub(super) origin: PublicKey,
    pub(super) via: Via,
    pub(super) seq: u64,
    pub(super) target: PublicKey,
    pub(super) timeout_ms: u32,
}

/// A ping on behalf of another member.
#[derive(Debug)]
struct ServedPing {
    origin: PublicKey,
    origin_seq: u64,
    target: PublicKey,
    again_at: Option<Instant>,
    nack_at: Option<Instant>,
    until: Instant,
}

impl ServedPing {
    fn new(now: Instant, request: &PingRequest) -> ServedPing {
        let timeout = Duration::from_millis(request.timeout_ms.into()).min(MAX_SERVE_TIME);
        ServedPing {
            origin: request.origin,
            origin_seq: request.seq,
            target: request.target,
            again_at: Some(now + timeout * 2 / 5),
            // Lifeguard §4.1: at 80 % of the timeout, so that the NACK arrives before the verdict.
            nack_at: Some(now + timeout * 4 / 5),
            // An ack that comes after the NACK is still passed on; it may clear a suspicion there.
            until: now + timeout * 2,
        }
    }

    fn is_for(&self, origin: &PublicKey, seq: u64) -> bool {
        self.origin == *origin && self.origin_seq == seq
    }

    fn next_deadline(&self) -> Instant {
        [self.again_at, self.nack_at].into_iter().flatten().fold(self.until, Instant::min)
    }
}

/// The pings on behalf of others, by this node's own sequence number.
#[derive(Debug, Default)]
pub(super) struct IndirectPings {
    served: BTreeMap<u64, ServedPing>,
    /// Those that have ended, with their targets: whoever answers one later than anybody waits for is alive all the same.
    past: VecDeque<(u64, PublicKey)>,
}

impl IndirectPings {
    /// When a ping is repeated, a NACK is due, or a request ends.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.served.values().map(ServedPing::next_deadline).min()
    }

    /// Pings the target of a request, or refuses it by a NACK.
    pub(super) fn serve(&mut self, now: Instant, view: &mut MeshView, request: PingRequest) {
        let PingRequest { origin, via, seq, target, .. } = request;
        if target == view.local.key() {
            view.send(origin, via, MessageBody::Ack { seq }, &[]);
            return;
        }
        let repeated = self.served.values().any(|other| other.is_for(&origin, seq));
        if repeated {
            return;
        }
        // A forged request must not make this node seek a session with a key that no member has.
        if view.table.get(&target).is_none() {
            view.stats.served_unknown += 1;
            view.send(origin, via, MessageBody::Nack { seq }, &[]);
            return;
        }
        if self.served.len() >= MAX_SERVED || view.local.is_observer() {
            view.stats.served_full += 1;
            view.send(origin, via, MessageBody::Nack { seq }, &[]);
            return;
        }
        view.stats.served += 1;
        let own = view.outbox.next_seq();
        self.served.insert(own, ServedPing::new(now, &request));
        view.emit(MembershipEvent::WantSession { peer: target });
        view.send_ping(now, target, Via::Datagram, own);
    }

    /// An ack from `from`; it is passed on to the member that asked, if that still waits. True if it answers one of these
    /// pings, however late: `from` is alive.
    pub(super) fn handle_ack(&mut self, view: &mut MeshView, from: &PublicKey, seq: u64) -> bool {
        let Some(served) = self.served.get(&seq).filter(|served| served.target == *from) else {
            return self.past.contains(&(seq, *from));
        };
        let (origin, seq) = (served.origin, served.origin_seq);
        self.end(|served| served.is_for(&origin, seq));
        view.send(origin, Via::Datagram, MessageBody::Ack { seq }, &[]);
        true
    }

    /// Ends the requests of which `is_over` is true.
    fn end(&mut self, is_over: impl Fn(&ServedPing) -> bool) {
        let past = self.served.extract_if(.., |_, served| is_over(served));
        self.past.extend(past.map(|(seq, served)| (seq, served.target)));
        self.past.drain(..self.past.len().saturating_sub(MAX_PAST));
    }

    /// Repeats pings, sends NACKs and ends requests.
    pub(super) fn handle_timeout(&mut self, now: Instant, view: &mut MeshView) {
        for (seq, served) in &mut self.served {
            if served.again_at.take_if(|at| *at <= now).is_some() {
                view.send_ping(now, served.target, Via::Datagram, *seq);
            }
            if served.nack_at.take_if(|at| *at <= now).is_some() {
                view.send(served.origin, Via::Datagram, MessageBody::Nack { seq: served.origin_seq }, &[]);
            }
        }
        self.end(|served| served.until <= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_pinged_twice_nacked_at_80_percent_and_kept_for_late_acks() {
        let now = crate::rt::test_now();
        let [origin, target] = [1, 2].map(|at| PublicKey::from_bytes([at; 32]));
        // The timeout in the request; when the ping is repeated, when the NACK is due, when the request ends.
        for (timeout_ms, again, nack, end) in
            [(700, 280, 560, 1400), (0, 0, 0, 0), (u32::MAX, 3600, 7200, 18_000)]
        {
            let request = PingRequest { origin, via: Via::Datagram, seq: 7, target, timeout_ms };
            let mut served = ServedPing::new(now, &request);
            let mut deadlines = Vec::new();
            for _ in 0..3 {
                let due = served.next_deadline();
                deadlines.push(due);
                let _ = served.again_at.take_if(|at| *at <= due).or_else(|| served.nack_at.take());
            }
            assert_eq!(deadlines, [again, nack, end].map(|ms| now + Duration::from_millis(ms)));
            assert!(served.is_for(&origin, 7) && !served.is_for(&target, 7) && !served.is_for(&origin, 8));
        }
    }
}
