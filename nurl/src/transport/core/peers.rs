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

use crate::authority::account::Account;
use crate::authority::checker::Standing;
use crate::authority::level::Level;
use crate::authority::revocation::Revocation;
use crate::key::PublicKey;
use crate::kit::shares::{Holder as _, Shares};
use crate::transport::Gauge;

/// A peer that was added or heard more recently than this isn't idle: an exchange over a slow path, with a lost
/// packet in it, ends within this time. With a shorter time, clients that arrive at the same moment evict each other.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// A stranger that we call, such as a client whose result is due, has this long to answer before it makes room for another
/// call: time for the first tries of its handshake. A call that ends so is made again later. Who has come to us and shown
/// its pass doesn't wait so long for the place of one that may be gone: without this, calls to clients that are gone,
/// repeated for their tasks' lives, keep newcomers out.
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
    account: Account,
}

impl Known {
    /// What decides whether the peer may be evicted, and when it was last seen.
    fn case(&self, now: Instant, times: &Times, traffic: Traffic) -> (Case, Instant) {
        let Traffic { heard, open, awaited } = traffic;
        let seen = heard.map_or(self.met, |heard| heard.max(self.met));
        let silent = now.saturating_duration_since(seen);
        let heard = heard.is_some() || open;
        let fresh = silent < if heard { times.quiet } else { times.called };
        (Case { member: self.member, heard, open, awaited, fresh, lost: silent >= LOST }, seen)
    }
}

/// For how long after its last sign a peer stays in any case.
struct Times {
    quiet: Duration,
    /// One that was never heard, after it was called.
    called: Duration,
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
    /// It was added or heard within [`Times`].
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

/// A peer for which there has to be room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newcomer {
    pub(super) account: Account,
    /// Whether it has shown its pass. Members make room only for such a one.
    pub(super) shown: bool,
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
    /// Who has how many places.
    shares: Shares<Account>,
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
        PeerTable {
            known: BTreeMap::new(),
            shares: Shares::default(),
            live: BTreeSet::new(),
            limit,
            refused: 0,
            evicted: 0,
        }
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
        if !self.known.contains_key(&peer) {
            let account = Account::alone(peer);
            self.shares.add(account, 1);
            self.known.insert(peer, Known { member: false, met: now, standing: None, account });
        }
    }

    /// A known peer has a session that permits this.
    pub(super) fn set_standing(&mut self, peer: &PublicKey, standing: &Standing) {
        if let Some(known) = self.known.get_mut(peer) {
            self.shares.sub(known.account, 1);
            known.account = standing.account(*peer);
            self.shares.add(known.account, 1);
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
        self.standing(peer).map_or(Level::Look, |standing| standing.level)
    }

    /// What a peer's latest session proved.
    pub(super) fn standing(&self, peer: &PublicKey) -> Option<&Standing> {
        self.known.get(peer).and_then(|known| known.standing.as_ref())
    }

    /// On whose account a peer is here; its own alone, for a peer that has had no session.
    pub(super) fn account(&self, peer: &PublicKey) -> Account {
        self.known.get(peer).map_or(Account::alone(*peer), |known| known.account)
    }

    /// Makes a known peer a member or a stranger. Returns whether it is known.
    pub(super) fn set_member(&mut self, peer: &PublicKey, member: bool) -> bool {
        let known = self.known.get_mut(peer);
        known.map(|known| known.member = member).is_some()
    }

    /// Removes a peer. Returns whether it was known.
    pub(super) fn remove(&mut self, peer: &PublicKey) -> bool {
        let known = self.known.remove(peer);
        known.iter().for_each(|known| self.shares.sub(known.account, 1));
        known.is_some()
    }

    /// The peers to evict so that there is room for `newcomer`: some of the pass that has most, if that is more than the
    /// newcomer's, also with recent or pending traffic; else some of the lowest rank among those silent for `quiet`. Nobody
    /// makes room for one whose pass or invitation has more than its own; all calls that nobody has answered count as one
    /// party, since they are this node's own.
    pub(super) fn evictable(
        &self,
        now: Instant,
        quiet: Duration,
        newcomer: &Newcomer,
        traffic: impl Fn(&PublicKey) -> Traffic,
    ) -> Vec<PublicKey> {
        let many = (self.limit / EVICTED_SHARE).max(1);
        let called = if newcomer.shown { Duration::ZERO } else { CALLED };
        let times = Times { quiet, called: quiet.min(called) };
        if let Some((payer, surplus)) = self.payer(&newcomer.account) {
            let theirs =
                |account: &Account| (account.group(), account.pass()) == (payer.group(), payer.pass());
            let crowd = self.known.iter().filter(|(_, known)| theirs(&known.account));
            let crowd = crowd.filter(|(_, known)| newcomer.shown || !known.member);
            let mut crowd: Vec<_> = crowd
                .map(|(peer, known)| {
                    let (case, seen) = known.case(now, &times, traffic(peer));
                    // No rank is below none, and those without one come last.
                    (
                        case.judge().map_or((true, None), |missed| (false, Some(missed))),
                        known.member,
                        seen,
                        *peer,
                    )
                })
                .collect();
            crowd.sort_unstable();
            crowd.truncate(many.min(surplus));
            if !crowd.is_empty() {
                return crowd.into_iter().map(|(.., peer)| peer).collect();
            }
        }
        let mut found: Vec<(Missed, Instant, PublicKey)> = Vec::new();
        let mut calls = 0;
        for (peer, known) in &self.known {
            let (case, seen) = known.case(now, &times, traffic(peer));
            calls += u64::from(!case.member && !case.heard);
            found.extend(case.judge().map(|missed| (missed, seen, *peer)));
        }
        let most = self.shares.amounts(&newcomer.account).next().unwrap_or_default();
        found.retain(|(missed, _, peer)| match missed {
            Missed::Unanswered if calls > most => true,
            _ => self.may_make_room(&self.account(peer), &newcomer.account),
        });
        found.sort_unstable();
        let idle = found.iter().take_while(|(missed, ..)| *missed == Missed::Idle).count();
        found.truncate(idle.min(many).max(1));
        found.into_iter().map(|(.., peer)| peer).collect()
    }

    /// One of the pass that pays for a newcomer, and how many places that can give until neither has more.
    fn payer(&self, newcomer: &Account) -> Option<(Account, usize)> {
        let payer = self.shares.payer(newcomer, 1)?;
        let tiers = self.shares.amounts(&payer).zip(self.shares.amounts(newcomer));
        // They differ first where the payer has more.
        let (has, own) = tiers.take(2).find(|(has, own)| *has > own + 1)?;
        Some((payer, ((has - own) as usize / 2).max(1)))
    }

    /// Whether `other` has as much as the newcomer would have, by the first party that isn't also the newcomer's.
    fn may_make_room(&self, other: &Account, newcomer: &Account) -> bool {
        let parties = other.path().into_iter().zip(newcomer.path());
        let amounts = self.shares.amounts(other).zip(self.shares.amounts(newcomer));
        let mut differ = parties.zip(amounts).filter(|((theirs, own), _)| theirs != own);
        differ.next().is_none_or(|(_, (has, own))| has > own)
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
        let after = |age: Duration, shown| {
            table.evictable(now + age, QUIET, &Newcomer { shown, ..newcomer() }, traffic)
        };
        assert!(after(CALLED - Duration::from_millis(1), false).is_empty(), "another call");
        assert_eq!(after(CALLED, false), [called]);
        assert_eq!(after(LOST, false), [called]);
        assert_eq!(after(Duration::ZERO, true), [called], "one that has come");
        table.remove(&called);
        assert!(
            table.evictable(now + LOST - Duration::from_millis(1), QUIET, &newcomer(), traffic).is_empty()
        );
        assert_eq!(table.evictable(now + LOST, QUIET, &newcomer(), traffic), [heard]);
    }

    #[test]
    fn calls_that_nobody_has_answered_make_room_the_oldest_first_while_they_are_more_than_the_newcomers() {
        let now = crate::rt::test_now();
        let mut table = PeerTable::new(8);
        let slips: Vec<Account> = (0..6).map(|n| Account::for_tests(1, 1, n)).collect();
        let calls: Vec<PublicKey> = (0..2).map(|n| PublicKey::from_bytes([0xc0 + n; 32])).collect();
        for (n, call) in calls.iter().enumerate() {
            table.insert(now - Duration::from_millis(n as u64), *call);
        }
        let evicted = |table: &PeerTable, account| {
            let traffic = |peer: &PublicKey| {
                let called = calls.contains(peer);
                Traffic { heard: (!called).then_some(now), open: !called, awaited: true }
            };
            table.evictable(now, QUIET, &Newcomer { account, shown: true }, traffic)
        };
        let own = Account::for_tests(1, 1, 999);
        assert_eq!(evicted(&table, own), [calls[1]], "the older one");
        for (n, account) in slips.iter().enumerate() {
            assert_eq!(!evicted(&table, own).is_empty(), n < calls.len(), "{n} slips");
            table.shares.add(*account, 1);
            let known = Known { member: false, met: now, standing: None, account: *account };
            table.known.insert(account.key(), known);
        }
    }

    fn newcomer() -> Newcomer {
        Newcomer { account: Account::alone(PublicKey::from_bytes([0xff; 32])), shown: true }
    }

    /// A full table: 128 places, most of which have slips of one pass.
    fn crowded(others: &[Account]) -> (PeerTable, Vec<Account>, Instant) {
        let now = crate::rt::test_now();
        let mut table = PeerTable::new(2 * EVICTED_SHARE);
        let slips: Vec<Account> = (others.len() as u32..128).map(|n| Account::for_tests(1, 1, n)).collect();
        for (n, account) in slips.iter().chain(others).enumerate() {
            let known = Known {
                member: n == 0,
                met: now + Duration::from_millis(n as u64),
                standing: None,
                account: *account,
            };
            table.shares.add(*account, 1);
            table.known.insert(account.key(), known);
        }
        (table, slips, now + QUIET)
    }

    #[test]
    fn slips_of_one_pass_that_all_have_traffic_make_room_for_another_passes() {
        let (mut table, slips, now) = crowded(&[]);
        let evicted = |table: &PeerTable, account, shown| {
            let busy = |_: &PublicKey| Traffic { heard: Some(now), open: true, awaited: true };
            table.evictable(now, QUIET, &Newcomer { account, shown }, busy)
        };
        let other = Account::for_tests(2, 2, 999);
        assert_eq!(
            evicted(&table, other, true),
            [slips[1].key(), slips[2].key()],
            "two of 128; the member stays"
        );
        assert!(evicted(&table, Account::for_tests(1, 1, 999), true).is_empty(), "they pay for themselves");
        slips[2..].iter().for_each(|slip| assert!(table.remove(&slip.key())));
        assert_eq!(evicted(&table, other, true), [slips[1].key()]);
        table.known.values_mut().for_each(|known| known.member = true);
        assert!(evicted(&table, other, false).is_empty(), "no member makes room for one that is only called");
        assert_eq!(evicted(&table, other, true).len(), 1);
    }

    #[test]
    fn an_idle_peer_makes_room_for_one_that_has_as_little_and_not_for_a_slip_of_the_largest_pass() {
        let idle = Account::for_tests(3, 3, 900);
        let (mut table, slips, now) = crowded(&[idle]);
        let evicted = |table: &PeerTable, account| {
            let traffic = |peer: &PublicKey| {
                let heard = if *peer == idle.key() { None } else { Some(now) };
                Traffic { heard, open: true, awaited: false }
            };
            table.evictable(now + QUIET / 2, QUIET, &Newcomer { account, shown: true }, traffic)
        };
        assert!(evicted(&table, Account::for_tests(1, 1, 999)).is_empty());
        assert!(
            !evicted(&table, Account::for_tests(1, 2, 999)).contains(&idle.key()),
            "another pass of the same"
        );
        slips[1..].iter().for_each(|slip| assert!(table.remove(&slip.key())));
        assert_eq!(evicted(&table, Account::for_tests(2, 2, 999)), [idle.key()]);
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
        assert_eq!(table.evictable(later, QUIET, &newcomer(), silent), [peer(8), peer(7)], "two of 128");
        let awaited = |_: &PublicKey| Traffic { heard: Some(later), open: true, awaited: true };
        assert!(table.evictable(later, Duration::ZERO, &newcomer(), awaited).is_empty());
    }
}
