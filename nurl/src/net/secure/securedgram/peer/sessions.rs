//! The sessions with one peer.
//!
//! Slots as in WireGuard §6.1, with one more: `current` seals; `previous` only opens late frames; `next` holds sessions
//! that we answered and whose initiator hasn't proved yet that it has the keys. Message 1 may be a replay, so it has no
//! effect before that. `next` has two entries, because an initiator keeps its last two tries.

use std::time::{Duration, Instant};

use super::super::attempt::MAX_PENDING;
use crate::authority::checker::Standing;
use crate::net::secure::route::Route;
use crate::net::secure::session::{Leg, OpenError, Opened, REJECT_AFTER, REKEY_AFTER, Session};
use crate::net::secure::version::Version;
use crate::rt::{Point, buggify};

/// Sessions answered and not yet confirmed: as many as the tries that an initiator keeps.
pub const MAX_UNCONFIRMED: usize = MAX_PENDING;

/// Two sessions that the two sides began within this time count as simultaneous, and the tie-break chooses.
/// The time is longer than the quick retries; a rekeying comes minutes later.
pub const CONCURRENT: Duration = Duration::from_secs(5);

/// The age at which the responder of a session begins the next one if the initiator failed to (WireGuard
/// §6.2: the reject time less the attempts that fit).
pub const REKEY_AFTER_AS_RESPONDER: Duration = Duration::from_secs(165);

/// After application data went unanswered for so long, a handshake begins, because the peer may have
/// restarted. A peer without data of its own answers with a keepalive long before that
/// ([`PathConfig::answer_delay`](super::super::paths::PathConfig::answer_delay)).
pub const UNANSWERED: Duration = Duration::from_secs(3);

/// How long the session that the peer closed still opens frames: the last ones that it sent may arrive after its close,
/// which is no longer on the way than they are. Longer than the spread of a path's delays, shorter than a restart.
const LINGER: Duration = Duration::from_secs(1);

/// The first wait before a confirm is repeated; it doubles.
pub const CONFIRM_WAIT: Duration = Duration::from_millis(200);

/// The longest wait between confirms.
pub const MAX_CONFIRM_WAIT: Duration = Duration::from_secs(5);

/// A session and the data from its handshake.
pub(in super::super) struct LiveSession {
    pub(in super::super) session: Session,
    pub(in super::super) boot: u64,
    /// What both speak in this session.
    pub(in super::super) version: Version,
    pub(in super::super) features: u16,
    /// What the peer may do.
    pub(in super::super) standing: Standing,
}

/// The confirm, repeated until a frame of the responder arrives.
pub(super) struct PendingConfirm {
    pub(super) at: Instant,
    pub(super) wait: Duration,
    /// The route of the response; the confirm goes there beside the routes in use.
    pub(super) extra: Option<Route>,
    pub(super) until: Instant,
}

/// The result of adopting a session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Adopted {
    /// Indices of the sessions that were dropped.
    pub(super) released: Vec<u32>,
    /// Whether the new session is the current one.
    pub(super) is_current: bool,
    /// Whether there was no session with this process of the peer before.
    pub(super) is_first: bool,
    /// Whether the peer's process has changed.
    pub(super) restarted: bool,
    /// Whether the tie-break decided.
    pub(super) tie: bool,
}

/// The result of opening a frame.
pub(super) struct OpenedFrame {
    pub(super) opened: Result<Opened, OpenError>,
    /// Whether it made the previous session the current one.
    pub(super) settled_tie: bool,
    /// The session that it confirmed; it is to be adopted.
    pub(super) confirmed: Option<LiveSession>,
    /// Indices of the unconfirmed sessions that were dropped for it.
    pub(super) released: Vec<u32>,
}

/// The sessions with one peer, and their deadlines.
#[derive(Default)]
pub(in super::super) struct PeerSessions {
    /// The boot id of the process with which the last session was.
    boot: Option<u64>,
    pub(super) current: Option<LiveSession>,
    previous: Option<LiveSession>,
    /// When `previous` is dropped, if the peer has closed it.
    previous_until: Option<Instant>,
    next: Vec<LiveSession>,
    pub(super) confirm: Option<PendingConfirm>,
    /// When the next session is begun.
    rekey_at: Option<Instant>,
    /// The first application data that was sent since the last frame came on the current session.
    unanswered_since: Option<Instant>,
}

impl PeerSessions {
    /// The session that seals.
    pub(in super::super) fn current(&self) -> Option<&LiveSession> {
        self.current.as_ref()
    }

    pub(in super::super) fn is_open(&self) -> bool {
        self.current.is_some()
    }

    /// Whether nothing would be lost if the sessions were dropped: the unconfirmed ones are older than `confirm_life`.
    pub(super) fn is_idle(&self, now: Instant, confirm_life: Duration) -> bool {
        let is_old =
            |live: &LiveSession| now.saturating_duration_since(live.session.created()) > confirm_life;
        self.current.is_none() && self.previous.is_none() && self.next.iter().all(is_old)
    }

    /// When the last session began that still awaits its confirm.
    pub(in super::super) fn answered_at(&self) -> Option<Instant> {
        self.next.iter().map(|live| live.session.created()).max()
    }

    /// Whether the session with this index is the current one.
    pub(super) fn is_current(&self, index: u32) -> bool {
        self.current.as_ref().is_some_and(|live| live.session.local_index() == index)
    }

    /// Whether we are the responder of the current session.
    pub(super) fn answered_current(&self) -> bool {
        self.current.as_ref().is_some_and(|live| !live.session.is_initiator())
    }

    /// Keeps a session that we answered until its initiator confirms it. Returns the index of the one that is dropped
    /// for it.
    pub(super) fn keep_unconfirmed(&mut self, live: LiveSession) -> Option<u32> {
        let dropped = (self.next.len() >= MAX_UNCONFIRMED).then(|| self.next.remove(0));
        self.next.push(live);
        dropped.map(|live| live.session.local_index())
    }

    /// Opens a frame with the session that has this index, if there is one. `local_is_smaller` decides ties.
    pub(super) fn open(
        &mut self,
        now: Instant,
        leg: Leg,
        index: u32,
        datagram: &mut [u8],
        local_is_smaller: bool,
    ) -> Option<OpenedFrame> {
        let has_index = |live: &LiveSession| live.session.local_index() == index;
        let frame =
            |opened| OpenedFrame { opened, settled_tie: false, confirmed: None, released: Vec::new() };
        if let Some(live) = self.current.as_mut().filter(|live| has_index(live)) {
            let opened = live.session.open(now, leg, datagram);
            if opened.is_ok() && live.session.is_initiator() {
                self.confirm = None;
            }
            return Some(frame(opened));
        }
        if let Some(live) = self.previous.as_mut().filter(|live| has_index(live)) {
            let mut frame = frame(live.session.open(now, leg, datagram));
            if let Ok(Opened { freshness, .. }) = &mut frame.opened {
                // A frame of the previous session isn't the newest once the current one was heard on
                // that leg.
                let current = self.current.as_ref().map(|live| &live.session);
                freshness.newest_on_leg &= !current.is_some_and(|current| current.heard_on(leg));
                freshness.late |= current.is_some_and(|current| current.is_past_start(now));
                frame.settled_tie = self.settle_tie(local_is_smaller);
            }
            return Some(frame);
        }
        let at = self.next.iter().position(has_index)?;
        let mut frame = frame(self.next[at].session.open(now, leg, datagram));
        if frame.opened.is_ok() {
            frame.confirmed = Some(self.next.remove(at));
            frame.released = self.next.drain(..).map(|live| live.session.local_index()).collect();
        }
        Some(frame)
    }

    /// Adopts a session whose keys the peer is known to hold. It becomes the current one or, if both sides
    /// began at once and the tie-break says so, the previous one. The session wins that the smaller key began.
    pub(super) fn adopt(&mut self, local_is_smaller: bool, live: LiveSession) -> Adopted {
        let mut adopted = Adopted::default();
        let created = live.session.created();
        let Some(current) = &self.current else {
            adopted.restarted = self.boot.is_some_and(|boot| boot != live.boot);
            adopted.is_first = true;
            if self.previous_until.take().is_some() {
                adopted.released.extend(self.previous.take().map(|old| old.session.local_index()));
            }
            self.install(live, &mut adopted);
            return adopted;
        };
        if current.boot != live.boot {
            if created < current.session.created() {
                // A late confirm by an earlier process of the peer.
                adopted.released.push(live.session.local_index());
                return adopted;
            }
            adopted.restarted = true;
            adopted.is_first = true;
            adopted.released.extend(self.current.take().map(|old| old.session.local_index()));
            adopted.released.extend(self.previous.take().map(|old| old.session.local_index()));
            self.install(live, &mut adopted);
            return adopted;
        }
        // A session that we began completes only during its attempt, and any adoption ends the attempt. So it
        // is always newer than the current one, and only a session that the peer began can be concurrent.
        let concurrent = !live.session.is_initiator()
            && current.session.is_initiator()
            && apart(&live, current) < CONCURRENT;
        adopted.tie = concurrent && current.session.is_heard();
        let old = if adopted.tie && local_is_smaller {
            self.previous.replace(live)
        } else {
            // A current session without a frame from the peer must not displace the previous one, because the
            // peer still seals with the previous one.
            let unheard = !current.session.is_heard() && !concurrent && self.previous.is_some();
            let old = if unheard {
                self.current.take()
            } else {
                std::mem::replace(&mut self.previous, self.current.take())
            };
            self.install(live, &mut adopted);
            old
        };
        adopted.released.extend(old.map(|old| old.session.local_index()));
        adopted
    }

    /// A frame came on the previous session, so both are confirmed. If the two sides began them at once, and
    /// the smaller key began the previous one, the previous one becomes the current one. The other side
    /// decides the same, so both end on one session whatever was lost. Says whether the current session
    /// changed.
    fn settle_tie(&mut self, local_is_smaller: bool) -> bool {
        let (Some(current), Some(previous)) = (&self.current, &self.previous) else { return false };
        let ours = previous.session.is_initiator();
        let wins = ours != current.session.is_initiator()
            && previous.boot == current.boot
            && apart(previous, current) < CONCURRENT
            && ours == local_is_smaller;
        if wins {
            std::mem::swap(&mut self.current, &mut self.previous);
            self.rekey_at = self.current.as_ref().map(rekey_at);
            self.confirm = None;
        }
        wins
    }

    fn install(&mut self, live: LiveSession, adopted: &mut Adopted) {
        self.rekey_at = Some(rekey_at(&live));
        self.boot = Some(live.boot);
        self.current = Some(live);
        self.unanswered_since = None;
        adopted.is_current = true;
    }

    /// The peer closed the current session, which seals nothing any more: it opens late frames for [`LINGER`]. Returns the
    /// indices of the other sessions, which are dropped.
    pub(super) fn linger(&mut self, now: Instant) -> Vec<u32> {
        let closed = self.current.take();
        let dropped = self.drop_all();
        self.previous_until = closed.is_some().then(|| now + LINGER);
        self.previous = closed;
        dropped
    }

    /// The standing that each session was admitted with.
    pub(in super::super) fn standings(&self) -> impl Iterator<Item = &Standing> {
        self.current.iter().chain(&self.previous).chain(&self.next).map(|live| &live.standing)
    }

    /// Removes every session and returns their indices.
    pub(super) fn drop_all(&mut self) -> Vec<u32> {
        self.previous_until = None;
        self.confirm = None;
        self.rekey_at = None;
        self.unanswered_since = None;
        let all = self.current.take().into_iter().chain(self.previous.take()).chain(self.next.drain(..));
        all.map(|live| live.session.local_index()).collect()
    }

    /// Application data is sealed. Returns whether the next session is due.
    pub(super) fn on_sealed(&mut self, now: Instant) -> bool {
        self.unanswered_since.get_or_insert(now);
        let spent = self.current.as_ref().is_some_and(|live| live.session.is_spent());
        spent || self.rekey_at.is_some_and(|at| now >= at)
    }

    /// A frame came on the current session.
    pub(super) fn on_answered(&mut self) {
        self.unanswered_since = None;
    }

    /// A rekeying has begun.
    pub(super) fn on_rekeying(&mut self) {
        self.rekey_at = None;
    }

    /// Takes the rekeying, if it is due.
    pub(super) fn take_rekey(&mut self, now: Instant) -> bool {
        self.rekey_at.take_if(|at| *at <= now).is_some()
    }

    /// Whether application data went unanswered for too long; reported once.
    pub(super) fn take_unanswered(&mut self, now: Instant) -> bool {
        self.unanswered_since.take_if(|since| *since + UNANSWERED <= now).is_some()
    }

    /// Drops the expired sessions beside the current one and returns their indices.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<u32> {
        let over = self.previous_until.take_if(|until| *until <= now).is_some();
        let previous = self.previous.take_if(|live| over || live.session.is_expired(now));
        let next = self.next.extract_if(.., |live| live.session.is_expired(now));
        previous.into_iter().chain(next).map(|live| live.session.local_index()).collect()
    }

    /// Whether the keys of the current session have expired.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.current.as_ref().is_some_and(|live| live.session.is_expired(now))
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let expiry = |live: &LiveSession| live.session.created() + REJECT_AFTER;
        [
            self.confirm.as_ref().map(|confirm| confirm.at),
            self.rekey_at,
            self.unanswered_since.map(|since| since + UNANSWERED),
            self.current.as_ref().map(expiry),
            self.previous.as_ref().map(expiry),
            self.previous_until,
            self.next.iter().map(expiry).min(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

fn rekey_at(live: &LiveSession) -> Instant {
    let after = if live.session.is_initiator() { REKEY_AFTER } else { REKEY_AFTER_AS_RESPONDER };
    let after = if buggify(Point::RekeySoon) { after / 50 } else { after };
    live.session.created() + after
}

/// The time between the beginnings of two sessions.
fn apart(a: &LiveSession, b: &LiveSession) -> Duration {
    let (a, b) = (a.session.created(), b.session.created());
    a.saturating_duration_since(b).max(b.saturating_duration_since(a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::secure::noise::{Backend, TransportKeys};

    fn live(index: u32, initiator: bool, boot: u64, now: Instant) -> LiveSession {
        let keys = TransportKeys::from_bytes(Backend::DEFAULT, [1; 32], [2; 32]);
        let session = Session::new(&keys, index, 0, initiator, now);
        LiveSession { session, boot, version: Version::FIRST, features: 0, standing: Standing::for_tests() }
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the beginning of a test's time")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Makes a session open one frame.
    fn hear(live: &mut LiveSession, now: Instant) {
        let keys = TransportKeys::from_bytes(Backend::DEFAULT, [2; 32], [1; 32]);
        let mut frame = Vec::new();
        Session::new(&keys, 0, 0, false, now).seal(now, &[], &[], &mut frame).unwrap();
        live.session.open(now, crate::net::secure::session::Leg::Direct, &mut frame).unwrap();
    }

    /// Whether our key is smaller than the peer's.
    const SMALLER: bool = true;
    const LARGER: bool = false;

    /// Two sessions in each order of confirmation; the tie-break must not depend on the order.
    #[test]
    fn the_tie_break_ends_on_the_session_that_the_smaller_key_began() {
        let now = start();
        for (local, ours_wins) in [(SMALLER, true), (LARGER, false)] {
            for heard_first in [true, false] {
                let mut sessions = PeerSessions::default();
                let mut ours = live(1, true, 7, now);
                if heard_first {
                    hear(&mut ours, now);
                }
                assert!(sessions.adopt(local, ours).is_first);
                let adopted = sessions.adopt(local, live(2, false, 7, now));
                assert!(!adopted.is_first && adopted.released.is_empty());
                assert_eq!(adopted.tie, heard_first, "an unconfirmed session isn't kept against a confirmed");
                let kept = if heard_first && ours_wins { 1 } else { 2 };
                assert_eq!(sessions.current.as_ref().unwrap().session.local_index(), kept);
                // Frames arrive on the session that isn't current here but may be current on the other side.
                sessions.settle_tie(local);
                assert!(!sessions.settle_tie(local), "and there it stays");
                let (winner, loser) = if ours_wins { (1, 2) } else { (2, 1) };
                assert_eq!(sessions.current.unwrap().session.local_index(), winner);
                assert_eq!(sessions.previous.unwrap().session.local_index(), loser);
            }
        }
    }

    #[test]
    fn sessions_begun_apart_are_no_tie() {
        let now = start();
        let mut sessions = PeerSessions::default();
        let mut first = live(1, true, 7, now);
        hear(&mut first, now);
        sessions.adopt(SMALLER, first);
        assert!(!sessions.adopt(SMALLER, live(2, false, 7, now + CONCURRENT)).tie);
        assert!(!sessions.settle_tie(SMALLER));
        assert_eq!(sessions.current.unwrap().session.local_index(), 2);
    }

    #[test]
    fn a_later_session_replaces_the_current_one_whoever_began_it() {
        let now = start();
        let mut sessions = PeerSessions::default();
        for index in 1..5 {
            let at = now + CONCURRENT * index;
            let mut next = live(index, index % 2 == 0, 7, at);
            hear(&mut next, at);
            let adopted = sessions.adopt(SMALLER, next);
            assert!(adopted.is_current && !adopted.tie);
            assert_eq!(adopted.released, if index < 3 { vec![] } else { vec![index - 2] });
        }
    }

    #[test]
    fn a_session_on_which_nothing_was_heard_does_not_push_out_the_one_before_it() {
        let now = start();
        let mut sessions = PeerSessions::default();
        let mut heard = live(1, true, 7, now);
        hear(&mut heard, now);
        sessions.adopt(SMALLER, heard);
        for index in 2..5 {
            let adopted = sessions.adopt(SMALLER, live(index, true, 7, now + CONCURRENT * index));
            assert_eq!(adopted.released, if index == 2 { vec![] } else { vec![index - 1] });
            assert_eq!(sessions.previous.as_ref().unwrap().session.local_index(), 1);
        }
    }

    #[test]
    fn a_session_with_another_boot_ends_the_older_process_and_never_the_newer() {
        let now = start();
        let mut sessions = PeerSessions::default();
        sessions.adopt(SMALLER, live(1, true, 7, now));
        let adopted = sessions.adopt(SMALLER, live(2, false, 8, now + Duration::from_secs(1)));
        assert!(adopted.restarted && adopted.is_first && adopted.is_current);
        assert_eq!(adopted.released, [1]);
        let late = sessions.adopt(SMALLER, live(3, false, 7, now));
        assert_eq!(late, Adopted { released: vec![3], ..Adopted::default() });
        assert_eq!(sessions.boot, Some(8));
    }
}
