//! The peers that the seam knows: members, and strangers who have a reason to be here.
//!
//! A **member** is known for as long as membership knows it. Everybody else is a **stranger**: a client that asks
//! for something and goes. A stranger is forgotten, everywhere, when its session has ended and nothing waits for
//! it, or when it hasn't answered a whole attempt at a session. So a node serves any number of clients in its life,
//! and the table bounds only how many there are at one time. When it is full, the peer that is missed least makes
//! room; a peer that is in the middle of something never does.

use std::time::{Duration, Instant};

use super::{Event, SendError, Transport};
use crate::key::PublicKey;

/// A peer that was met or heard less long ago than this is not taken for idle: an exchange over a slow path, with
/// a lost packet in it, is over by then. Shorter, and clients that come at the same moment throw each other out.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// A peer that something waits for and that wasn't heard for this long is taken for lost. What waits is sent again
/// every second, so a peer that is there is heard several times in it.
const LOST: Duration = Duration::from_secs(5);

/// Strangers that make room at once are this part of the table. Each look for them passes over the whole table;
/// this many newcomers share one.
const EVICTED_SHARE: usize = 64;

/// What is known of a peer here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    member: bool,
    met: Instant,
}

/// Peers that may make room, those that are missed least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Missed {
    /// A stranger that nothing waits for.
    Idle,
    /// A stranger that something waits for and that doesn't answer: it may never come back.
    Lost,
    /// A member without a session that nothing waits for: it is met again when there is something to say.
    Member,
}

/// What decides whether a peer may make room.
#[derive(Debug, Clone, Copy)]
struct Case {
    member: bool,
    /// It has a session.
    open: bool,
    /// Something waits for it.
    awaited: bool,
    /// It was met or heard within [`QUIET`].
    fresh: bool,
    /// It wasn't met or heard within [`LOST`].
    lost: bool,
}

impl Case {
    /// How much the peer would be missed; `None` if it stays.
    fn judge(self) -> Option<Missed> {
        match self {
            Case { fresh: true, .. } => None,
            Case { member: false, awaited: false, .. } => Some(Missed::Idle),
            Case { member: false, lost: true, .. } => Some(Missed::Lost),
            Case { member: true, open: false, awaited: false, .. } => Some(Missed::Member),
            Case { .. } => None,
        }
    }
}

impl Transport {
    /// Begins a session with `peer`, if there is none.
    ///
    /// # Errors
    /// [`SendError::Oneself`] and [`SendError::Refused`].
    pub fn connect(&mut self, now: Instant, peer: PublicKey) -> Result<(), SendError> {
        if peer == self.local {
            return Err(SendError::Oneself);
        }
        if !self.meet(now, peer) {
            return Err(SendError::Refused);
        }
        self.endpoint.connect(now, &peer).map_err(|_| {
            // A peer that isn't allowed gets no place, so that such keys can't fill the table.
            self.peers.remove(&peer);
            SendError::Refused
        })
    }

    /// A member: what it seals to our groups may be asked about, and it is reachable through the hubs.
    pub fn know(&mut self, now: Instant, peer: PublicKey) {
        if peer == self.local {
            return;
        }
        if !self.peers.contains_key(&peer) && self.is_crowded() {
            self.make_room(now, Duration::ZERO);
        }
        if self.meet(now, peer)
            && let Some(known) = self.peers.get_mut(&peer)
        {
            known.member = true;
        }
    }

    /// The peer has left the mesh: from now on it is a stranger.
    pub fn dismiss(&mut self, now: Instant, peer: &PublicKey) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.member = false;
            self.forget_if_done(now, peer);
        }
    }

    /// Forgets a peer: its session, its paths, and what waits for it. [`Event::Forgotten`] follows if it was known.
    pub fn forget(&mut self, now: Instant, peer: &PublicKey) {
        self.waiting.forget(peer);
        self.reliable.forget(now, *peer);
        self.groups.forget(peer);
        self.endpoint.forget(now, peer);
        if self.peers.remove(peer).is_some() {
            self.events.push_back(Event::Forgotten { peer: *peer });
        }
    }

    /// Takes a peer in, if there is room, and tells its session through which hubs it can be reached.
    pub(super) fn meet(&mut self, now: Instant, peer: PublicKey) -> bool {
        let new = !self.peers.contains_key(&peer);
        if new && self.is_crowded() && !self.make_room(now, QUIET) {
            self.stats.refused_peers += 1;
            return false;
        }
        self.peers.entry(peer).or_insert(Known { member: false, met: now });
        // The endpoint forgets a peer that is idle and that nobody wants; then the hubs have to be told it again.
        if new || self.endpoint.path_state(&peer).is_none() {
            let up = self.hubs_up();
            // A peer that isn't allowed is refused a session, which its caller is told.
            let _ = self.endpoint.set_relays(now, &peer, &up);
        }
        true
    }

    /// What QUIC repeats found no session. A member's is kept. For a stranger the attempt that the endpoint began goes
    /// on to its end.
    pub(super) fn seek(&mut self, now: Instant, peer: PublicKey) {
        if self.is_member(&peer) {
            // It is tried again with the next packet.
            let _ = self.connect(now, peer);
        } else {
            self.meet(now, peer);
        }
    }

    /// A session came up. `false` if there is no room for its peer, which is told so by the session's end.
    pub(super) fn welcome(&mut self, now: Instant, peer: PublicKey) -> bool {
        let welcome = self.meet(now, peer);
        if !welcome {
            let up = self.hubs_up();
            // The end is told through the hubs; without one the peer finds out by silence.
            let _ = self.endpoint.set_relays(now, &peer, &up);
            self.endpoint.forget(now, &peer);
        }
        welcome
    }

    /// A session has ended.
    pub(super) fn on_session_closed(&mut self, now: Instant, peer: &PublicKey) {
        self.forget_if_done(now, peer);
    }

    /// An attempt at a session has failed. What waits for a stranger that can't be reached fails with it; members
    /// are tried again, because membership says when one of them is gone.
    pub(super) fn on_handshake_failed(&mut self, now: Instant, peer: &PublicKey) {
        self.waiting.forget(peer);
        if !self.is_member(peer) && !self.endpoint.is_established(peer) {
            self.forget(now, peer);
        }
    }

    fn forget_if_done(&mut self, now: Instant, peer: &PublicKey) {
        if !self.is_member(peer) && !self.endpoint.is_established(peer) && !self.is_awaited(peer) {
            self.forget(now, peer);
        }
    }

    fn is_member(&self, peer: &PublicKey) -> bool {
        self.peers.get(peer).is_some_and(|known| known.member)
    }

    fn is_awaited(&self, peer: &PublicKey) -> bool {
        self.waiting.holds(peer) || self.reliable.is_sending(peer)
    }

    fn is_crowded(&self) -> bool {
        self.peers.len() >= self.limits.peers
    }

    /// Forgets peers that are missed least, if there are any that were silent for `quiet`. Says whether there were.
    fn make_room(&mut self, now: Instant, quiet: Duration) -> bool {
        let mut found: Vec<(Missed, Instant, PublicKey)> = Vec::new();
        for (peer, known) in &self.peers {
            let seen = self.endpoint.last_heard(peer).map_or(known.met, |heard| heard.max(known.met));
            let silent = now.saturating_duration_since(seen);
            let case = Case {
                member: known.member,
                open: self.endpoint.is_established(peer),
                awaited: self.is_awaited(peer),
                fresh: silent < quiet,
                lost: silent >= LOST,
            };
            found.extend(case.judge().map(|missed| (missed, seen, *peer)));
        }
        found.sort_unstable();
        let idle = found.iter().take_while(|(missed, ..)| *missed == Missed::Idle).count();
        let share = (self.limits.peers / EVICTED_SHARE).max(1);
        found.truncate(idle.min(share).max(1));
        for (.., peer) in &found {
            self.stats.evicted_peers += 1;
            self.forget(now, peer);
        }
        !found.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_make_room_before_members_and_a_busy_peer_stays() {
        // (member, open, awaited, lost) → how much it is missed.
        let table = [
            ((false, false, false, false), Some(Missed::Idle)),
            ((false, true, false, false), Some(Missed::Idle)),
            ((false, false, true, false), None),
            ((false, true, true, false), None),
            ((false, true, true, true), Some(Missed::Lost)),
            ((true, false, false, false), Some(Missed::Member)),
            ((true, false, true, true), None),
            ((true, true, false, true), None),
            ((true, true, true, true), None),
        ];
        for ((member, open, awaited, lost), missed) in table {
            let case = Case { member, open, awaited, fresh: false, lost };
            assert_eq!(case.judge(), missed, "{case:?}");
            assert_eq!(Case { fresh: true, ..case }.judge(), None);
        }
        assert!(Missed::Idle < Missed::Lost && Missed::Lost < Missed::Member);
    }
}
