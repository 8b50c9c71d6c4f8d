//! The table of known peers: members and strangers.
//!
//! A **member** is known for as long as membership knows it. Every other peer is a **stranger**, such as a client
//! that makes a request and leaves. A stranger is dropped from all tables when its session has ended and nothing
//! waits for it, or when it hasn't answered a whole handshake attempt. So a node serves any number of clients over
//! its life, and the table only bounds their number at one time. In a full table, the peer with the lowest eviction
//! rank is evicted; a peer with recent or pending traffic never is.

use std::time::{Duration, Instant};

use super::{SendError, Transport, TransportEvent};
use crate::key::PublicKey;

/// A peer that was added or heard more recently than this isn't idle: an exchange over a slow path, with a lost
/// packet in it, ends within this time. With a shorter time, clients that arrive at the same moment evict each other.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// A peer with waiting data that wasn't heard for this long counts as lost. Waiting data is sent again every second,
/// so a reachable peer is heard several times in this period.
const LOST: Duration = Duration::from_secs(5);

/// The share of the table that is evicted at once. Each search for idle strangers scans the whole table; this many
/// new peers share one scan.
const EVICTED_SHARE: usize = 64;

/// A known peer's entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    member: bool,
    met: Instant,
}

/// The rank of an evictable peer; the lowest is evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Missed {
    /// A stranger without waiting data.
    Idle,
    /// A stranger with waiting data that doesn't answer: it may never come back.
    Lost,
    /// A member without a session and without waiting data: it is added again when there is data for it.
    Member,
}

/// The properties that decide whether a peer may be evicted.
#[derive(Debug, Clone, Copy)]
struct Case {
    member: bool,
    /// It has a session.
    open: bool,
    /// Data waits for it.
    awaited: bool,
    /// It was added or heard within [`QUIET`].
    fresh: bool,
    /// It wasn't added or heard within [`LOST`].
    lost: bool,
}

impl Case {
    /// The peer's eviction rank; `None` if it stays.
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
            // A peer that isn't allowed gets no entry, so such keys can't fill the table.
            self.peers.remove(&peer);
            SendError::Refused
        })
    }

    /// Adds a member: its group keys may be requested, and it is reachable through the hubs.
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

    /// The peer has left the mesh and becomes a stranger.
    pub fn dismiss(&mut self, now: Instant, peer: &PublicKey) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.member = false;
            self.forget_if_done(now, peer);
        }
    }

    /// Drops a peer: its session, its paths, and its waiting data. [`TransportEvent::Forgotten`] follows if it was known.
    pub fn forget(&mut self, now: Instant, peer: &PublicKey) {
        self.waiting.forget(peer);
        self.reliable.forget(now, *peer);
        self.groups.forget(peer);
        self.endpoint.forget(now, peer);
        if self.peers.remove(peer).is_some() {
            self.events.push_back(TransportEvent::Forgotten { peer: *peer });
        }
    }

    /// Adds a peer, if there is room, and sets the hubs through which its session can reach it.
    pub(super) fn meet(&mut self, now: Instant, peer: PublicKey) -> bool {
        let new = !self.peers.contains_key(&peer);
        if new && self.is_crowded() && !self.make_room(now, QUIET) {
            self.stats.refused_peers += 1;
            tracing::debug!(target: "nurl::transport", peer = %peer.short(), reason = "full", "a peer is refused");
            return false;
        }
        self.peers.entry(peer).or_insert(Known { member: false, met: now });
        // The endpoint drops idle peers without pending work; its list of hubs must then be set again.
        if new || self.endpoint.path_state(&peer).is_none() {
            let up = self.hubs_up();
            // Fails for a peer that isn't allowed; the caller gets that error when it begins a session.
            let _ = self.endpoint.set_relays(now, &peer, &up);
        }
        true
    }

    /// A reliable packet found no session. For a member a new session is begun. For a stranger only the handshake
    /// that the endpoint already began runs to its end.
    pub(super) fn seek(&mut self, now: Instant, peer: PublicKey) {
        if self.is_member(&peer) {
            // The next packet tries again.
            let _ = self.connect(now, peer);
        } else {
            self.meet(now, peer);
        }
    }

    /// A session came up. Returns `false` if there is no room for its peer; the session is then closed.
    pub(super) fn welcome(&mut self, now: Instant, peer: PublicKey) -> bool {
        let welcome = self.meet(now, peer);
        if !welcome {
            let up = self.hubs_up();
            // The close is sent through the hubs; without a hub the peer's session times out.
            let _ = self.endpoint.set_relays(now, &peer, &up);
            self.endpoint.forget(now, &peer);
        }
        welcome
    }

    /// A session has ended.
    pub(super) fn on_session_closed(&mut self, now: Instant, peer: &PublicKey) {
        self.forget_if_done(now, peer);
    }

    /// A handshake attempt failed. Data waiting for an unreachable stranger fails with it. Members are tried again,
    /// because membership decides when one of them is gone.
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

    /// Evicts peers of the lowest rank among those silent for `quiet`. Returns whether there were any.
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
        // (member, open, awaited, lost) → the expected rank.
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
