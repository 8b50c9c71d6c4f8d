//! The table of known peers: members and strangers.
//!
//! A **member** is known for as long as membership knows it. Every other peer is a **stranger**, such as a client
//! that makes a request and leaves. A stranger is dropped from all tables when its session has ended and nothing
//! waits for it, or when it hasn't answered a whole handshake attempt. So a node serves any number of clients over
//! its life, and the table only bounds their number at one time. In a full table, the peer with the lowest eviction
//! rank is evicted, and a peer with recent or pending traffic isn't. Only if all have such traffic, those pay whose pass or
//! invitation has most of the table, so that others always get in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::authority::account::{self, Account};
use crate::authority::checker::Standing;
use crate::authority::level::Level;
use crate::authority::revocation::Revocation;
use crate::key::PublicKey;
use crate::transport::Gauge;

/// A peer that was added or heard more recently than this isn't idle: an exchange over a slow path, with a lost
/// packet in it, ends within this time. With a shorter time, clients that arrive at the same moment evict each other.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// A stranger that we call, such as a client whose result is due, has this long to answer before it makes room for a
/// newcomer: time for the first tries of its handshake. A call that ends so is made again later. Without this, calls to
/// clients that are gone, repeated for their tasks' lives, keep newcomers out.
const CALLED: Duration = Duration::from_secs(1);

/// A peer with waiting data that wasn't heard for this long counts as lost. Waiting data is sent again every second,
/// so a reachable peer is heard several times in this period.
const LOST: Duration = Duration::from_secs(3);

/// The share of the table that is evicted at once. Each search for idle strangers scans the whole table; this many
/// new peers share one scan.
const EVICTED_SHARE: usize = 64;

/// A known peer's entry.
#[derive(Debug, Clone)]
struct Known {
    member: bool,
    met: Instant,
    /// What its latest session permits, and by which pass.
    standing: Option<Standing>,
    /// On whose account it is here, by that session.
    account: Option<Account>,
}

/// The rank of an evictable peer; the lowest is evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Missed {
    /// A stranger without waiting data.
    Idle,
    /// A stranger that was never heard, though we call it.
    Unanswered,
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
    /// It has a session, or had one.
    heard: bool,
    /// It was added or heard within [`QUIET`]; if it was never heard, it was added within [`CALLED`].
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
            Case { member: false, heard: false, .. } => Some(Missed::Unanswered),
            Case { member: false, lost: true, .. } => Some(Missed::Lost),
            Case { member: true, open: false, awaited: false, .. } => Some(Missed::Member),
            Case { .. } => None,
        }
    }
}

/// A peer's traffic, as far as eviction depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traffic {
    /// When it was last heard.
    pub(super) heard: Option<Instant>,
    /// It has a session.
    pub(super) open: bool,
    /// Data waits for it.
    pub(super) awaited: bool,
}

/// The known peers.
#[derive(Debug)]
pub(super) struct PeerTable {
    known: BTreeMap<PublicKey, Known>,
    /// The members that are held alive, also those without an entry at present. Membership bounds them.
    live: BTreeSet<PublicKey>,
    /// The most peers.
    limit: usize,
    /// Peers refused because the table was full.
    pub(super) refused: u64,
    /// Peers evicted because the table was full.
    pub(super) evicted: u64,
}

impl PeerTable {
    /// An empty table for `limit` peers.
    pub(super) fn new(limit: usize) -> PeerTable {
        PeerTable { known: BTreeMap::new(), live: BTreeSet::new(), limit, refused: 0, evicted: 0 }
    }

    /// The peers, in the order of their keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.known.keys()
    }

    /// Whether a peer is known.
    pub(super) fn contains(&self, peer: &PublicKey) -> bool {
        self.known.contains_key(peer)
    }

    /// Whether a peer is a member.
    pub(super) fn is_member(&self, peer: &PublicKey) -> bool {
        self.known.get(peer).is_some_and(|known| known.member)
    }

    /// Whether membership holds a peer alive.
    pub(super) fn is_live(&self, peer: &PublicKey) -> bool {
        self.live.contains(peer)
    }

    /// Notes whether membership holds a peer alive.
    pub(super) fn set_live(&mut self, peer: PublicKey, live: bool) {
        if live {
            self.live.insert(peer);
        } else {
            self.live.remove(&peer);
        }
    }

    /// Whether there is no room for another peer.
    pub(super) fn is_crowded(&self) -> bool {
        self.known.len() >= self.limit
    }

    /// The size and its bound.
    pub(super) fn gauge(&self) -> Gauge {
        Gauge { now: self.known.len(), bound: self.limit }
    }

    /// Adds a stranger, unless the peer is known.
    pub(super) fn insert(&mut self, now: Instant, peer: PublicKey) {
        self.known.entry(peer).or_insert(Known { member: false, met: now, standing: None, account: None });
    }

    /// A known peer has a session that permits this.
    pub(super) fn set_standing(&mut self, peer: &PublicKey, standing: &Standing) {
        if let Some(known) = self.known.get_mut(peer) {
            known.account = Some(standing.account(*peer));
            known.standing = Some(standing.clone());
        }
    }

    /// The peers whose latest session had a pass that is out by this entry.
    pub(super) fn revoked_by(&self, entry: &Revocation) -> Vec<PublicKey> {
        let revoked =
            |known: &Known| known.standing.as_ref().is_some_and(|standing| entry.revokes(&standing.grant));
        self.known.iter().filter(|(_, known)| revoked(known)).map(|(peer, _)| *peer).collect()
    }

    /// What a peer's latest session permits; the least for a peer that has had none.
    pub(super) fn level(&self, peer: &PublicKey) -> Level {
        let standing = self.known.get(peer).and_then(|known| known.standing.as_ref());
        standing.map_or(Level::Look, |standing| standing.level)
    }

    /// On whose account a peer is here; its own alone, for a peer that has had no session.
    pub(super) fn account(&self, peer: &PublicKey) -> Account {
        self.known.get(peer).and_then(|known| known.account).unwrap_or(Account::alone(*peer))
    }

    /// Makes a known peer a member or a stranger. Returns whether it is known.
    pub(super) fn set_member(&mut self, peer: &PublicKey, member: bool) -> bool {
        let known = self.known.get_mut(peer);
        known.map(|known| known.member = member).is_some()
    }

    /// Removes a peer. Returns whether it was known.
    pub(super) fn remove(&mut self, peer: &PublicKey) -> bool {
        self.known.remove(peer).is_some()
    }

    /// The peers to evict for `newcomer`, when all have recent or pending traffic: some of the pass that has most, if that is
    /// more than the newcomer's. Strangers go before members, and members only for a newcomer that has shown its pass.
    pub(super) fn payers(&self, newcomer: &Account, shown: bool) -> Vec<PublicKey> {
        let crowd = self.known.iter().filter(|(_, known)| shown || !known.member);
        let crowd = crowd.map(|(peer, known)| (self.account(peer), (known.member, known.met), *peer));
        account::make_room(crowd, newcomer, self.share())
    }

    /// How many are evicted at once.
    fn share(&self) -> usize {
        (self.limit / EVICTED_SHARE).max(1)
    }

    /// The peers to evict so that there is room: some of the lowest rank among those silent for `quiet`.
    pub(super) fn evictable(
        &self,
        now: Instant,
        quiet: Duration,
        traffic: impl Fn(&PublicKey) -> Traffic,
    ) -> Vec<PublicKey> {
        let mut found: Vec<(Missed, Instant, PublicKey)> = Vec::new();
        for (peer, known) in &self.known {
            let Traffic { heard, open, awaited } = traffic(peer);
            let seen = heard.map_or(known.met, |heard| heard.max(known.met));
            let silent = now.saturating_duration_since(seen);
            let heard = heard.is_some() || open;
            let fresh = silent < if heard { quiet } else { quiet.min(CALLED) };
            let case = Case { member: known.member, heard, open, awaited, fresh, lost: silent >= LOST };
            found.extend(case.judge().map(|missed| (missed, seen, *peer)));
        }
        found.sort_unstable();
        let idle = found.iter().take_while(|(missed, ..)| *missed == Missed::Idle).count();
        found.truncate(idle.min(self.share()).max(1));
        found.into_iter().map(|(.., peer)| peer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_make_room_before_members_and_a_busy_peer_stays() {
        // (member, heard, open, awaited, lost) → the expected rank.
        let table = [
            ((false, false, false, false, false), Some(Missed::Idle)),
            ((false, true, true, false, false), Some(Missed::Idle)),
            ((false, false, false, true, false), Some(Missed::Unanswered)),
            ((false, true, false, true, false), None),
            ((false, true, true, true, false), None),
            ((false, true, true, true, true), Some(Missed::Lost)),
            ((true, false, false, false, false), Some(Missed::Member)),
            ((true, false, false, true, true), None),
            ((true, true, true, false, true), None),
            ((true, true, true, true, true), None),
        ];
        for ((member, heard, open, awaited, lost), missed) in table {
            let case = Case { member, heard, open, awaited, fresh: false, lost };
            assert_eq!(case.judge(), missed, "{case:?}");
            assert_eq!(Case { fresh: true, ..case }.judge(), None);
        }
        assert!(Missed::Idle < Missed::Unanswered && Missed::Unanswered < Missed::Lost);
        assert!(Missed::Lost < Missed::Member);
    }

    #[test]
    fn a_call_that_nobody_answers_makes_room_before_one_that_was_answered() {
        let now = crate::rt::test_now();
        let [called, heard] = [1, 2].map(|n: u8| PublicKey::from_bytes([n; 32]));
        let mut table = PeerTable::new(2);
        table.insert(now, called);
        table.insert(now, heard);
        let traffic = |peer: &PublicKey| {
            let answered = *peer == heard;
            Traffic { heard: answered.then_some(now), open: answered, awaited: true }
        };
        let after = |age: Duration| table.evictable(now + age, QUIET, traffic);
        assert!(after(CALLED - Duration::from_millis(1)).is_empty());
        assert_eq!(after(CALLED), [called]);
        assert_eq!(after(LOST), [called]);
        table.remove(&called);
        assert!(table.evictable(now + LOST - Duration::from_millis(1), QUIET, traffic).is_empty());
        assert_eq!(table.evictable(now + LOST, QUIET, traffic), [heard]);
    }

    #[test]
    fn slips_of_one_pass_that_all_have_traffic_make_room_for_another_passes() {
        let now = crate::rt::test_now();
        let mut table = PeerTable::new(2 * EVICTED_SHARE);
        let slips: Vec<Account> = (0..128).map(|n| Account::for_tests(1, 1, n)).collect();
        for (n, slip) in slips.iter().enumerate() {
            let met = now + Duration::from_millis(n as u64);
            table.known.insert(slip.key(), Known { member: n == 0, met, standing: None, account: Some(*slip) });
        }
        let busy = |_: &PublicKey| Traffic { heard: Some(now), open: true, awaited: true };
        assert!(table.evictable(now, QUIET, busy).is_empty());
        let other = Account::for_tests(2, 2, 999);
        assert_eq!(table.payers(&other, true), [slips[1].key(), slips[2].key()], "two of 128; the member stays");
        assert!(table.payers(&Account::for_tests(1, 1, 999), true).is_empty(), "they pay for themselves");
        for slip in &slips[1..] {
            table.remove(&slip.key());
        }
        let second = Account::for_tests(1, 1, 1000);
        table.known.insert(second.key(), Known { member: true, met: now, standing: None, account: Some(second) });
        assert!(table.payers(&other, false).is_empty(), "no member makes room for one that is only called");
        assert_eq!(table.payers(&other, true).len(), 1);
    }

    #[test]
    fn the_longest_idle_strangers_are_evicted_a_share_at_a_time() {
        let now = crate::rt::test_now();
        let peer = |n: u8| PublicKey::from_bytes([n; 32]);
        let mut table = PeerTable::new(2 * EVICTED_SHARE);
        for n in 0..10 {
            table.insert(now + Duration::from_secs(u64::from(10 - n)), peer(n));
        }
        table.set_member(&peer(9), true);
        let silent = |_: &PublicKey| Traffic { heard: None, open: false, awaited: false };
        let later = now + Duration::from_secs(60);
        assert_eq!(table.evictable(later, QUIET, silent), [peer(8), peer(7)], "two of 128");
        let awaited = |_: &PublicKey| Traffic { heard: Some(later), open: true, awaited: true };
        assert!(table.evictable(later, Duration::ZERO, awaited).is_empty());
    }
}
