//! The receive budget: which peers are read from, which are paused, and who pays when it is used up.
//!
//! Bytes count when they have arrived, also those beyond a gap; nothing is reserved for what is announced. While all
//! incomplete messages together are below half of the budget, everybody is read from. Above it the half is divided
//! fairly among the [accounts](crate::authority::account): each invitation may hold the same, and those within one share
//! what it may hold; one that holds less than the others doesn't lower theirs. So a newcomer's message fits, whatever
//! others hold.
//!
//! A peer without room is paused: QUIC's windows stop it. One of them at a time leads: it is read from, so that its
//! messages complete, and another one gets its turn after [`STALL`]; invitations take turns, and passes within one. A peer
//! without room that was read from and sent less than [`MIN_PROGRESS_BYTES`] within [`STALL`] only holds memory, and loses
//! its connection. So does the largest holder when seven eighths of the budget are used up.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::authority::account::{Account, Party};
use crate::key::PublicKey;
use crate::kit::shares::{Holder as _, Shares};
use crate::transport::Gauge;
use crate::transport::reliable::limits::{MIN_PROGRESS_BYTES, STALL};

/// Parties whose turn to lead is remembered. Memory is short for hours before there are so many.
const MAX_LED: usize = 4_096;

/// How fast a peer sends that holds bytes here.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// When it had last sent [`MIN_PROGRESS_BYTES`], or when it began or was allowed to.
    since: Instant,
    /// The bytes since then.
    bytes: u64,
}

/// Why a peer's connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It holds more than its share and sends nothing of use.
    Stalled,
    /// It holds most, and there is no room.
    Largest,
}

/// The bytes received from all peers, against their budget.
pub(super) struct Receiving {
    /// Bytes received, incomplete or not yet taken.
    bytes: usize,
    budget: usize,
    /// The bytes of incomplete messages.
    held: Shares<Account>,
    /// The accounts of the peers that hold some, or will.
    accounts: BTreeMap<PublicKey, Account>,
    /// None of a peer that just began, or was paused: it may have been unable to send.
    paces: BTreeMap<PublicKey, Pace>,
    /// Peers with reading paused because of the budget, and since when.
    paused: BTreeMap<PublicKey, Instant>,
    /// The latest time that was told.
    now: Instant,
    /// The only peer without room that is read from, and since when.
    leader: Option<(PublicKey, Instant)>,
    /// The number of each party's latest lead, while it holds something.
    led: BTreeMap<(usize, Party), u64>,
    leads: u64,
}

impl Receiving {
    pub(super) fn new(now: Instant, budget: usize) -> Receiving {
        Receiving {
            bytes: 0,
            budget,
            held: Shares::default(),
            accounts: BTreeMap::new(),
            paces: BTreeMap::new(),
            paused: BTreeMap::new(),
            now,
            leader: None,
            led: BTreeMap::new(),
            leads: 0,
        }
    }

    pub(super) fn gauge(&self) -> Gauge {
        Gauge { now: self.bytes, bound: self.budget }
    }

    /// Bytes of a complete message wait to be taken.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// They were taken.
    pub(super) fn remove(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// Notes on whose account a peer holds what it holds, from now on.
    pub(super) fn meet(&mut self, account: Account) {
        let (peer, held) = (account.key(), self.held_by(&account.key()));
        self.holds(peer, 0);
        self.accounts.insert(peer, account);
        self.holds(peer, held as usize);
    }

    /// A peer is known no more; its connection has ended.
    pub(super) fn part(&mut self, peer: &PublicKey) {
        self.accounts.remove(peer);
    }

    fn account(&self, peer: &PublicKey) -> Account {
        self.accounts.get(peer).copied().unwrap_or(Account::alone(*peer))
    }

    fn held_by(&self, peer: &PublicKey) -> u64 {
        self.held.of(&self.account(peer))
    }

    /// Notes the bytes of a peer's incomplete messages.
    pub(super) fn holds(&mut self, peer: PublicKey, held: usize) {
        let (account, before) = (self.account(&peer), self.held_by(&peer));
        self.bytes = self.bytes - before as usize + held;
        self.held.sub(account, before);
        self.held.add(account, held as u64);
    }

    /// The bytes that are divided; none while there is room for all.
    fn divided(&self) -> Option<u64> {
        let shared = (self.budget / 2) as u64;
        (self.held.total() >= shared).then_some(shared)
    }

    /// Whether an account holds as much as it may, or more, of so many bytes.
    fn is_above(&self, account: &Account, divided: u64) -> bool {
        self.held.room(account, divided) == 0
    }

    fn leads(&self, peer: &PublicKey) -> bool {
        self.leader.is_some_and(|(leader, _)| leader == *peer)
    }

    /// How many bytes of a peer may be read now; none while it has to wait.
    pub(super) fn room(&self, peer: &PublicKey) -> Option<usize> {
        let room = match self.divided() {
            _ if self.leads(peer) => usize::MAX,
            _ if self.bytes >= self.budget => 0,
            None => self.budget / 2 - self.held.total() as usize,
            Some(divided) => self.held.room(&self.account(peer), divided) as usize,
        };
        (room > 0).then_some(room)
    }

    /// Notes the time before peers are read from.
    pub(super) fn tick(&mut self, now: Instant) {
        self.now = now;
    }

    /// Pauses a peer. Returns whether it wasn't paused before.
    pub(super) fn pause(&mut self, peer: PublicKey) -> bool {
        let now = self.now;
        let mut fresh = false;
        self.paused.entry(peer).or_insert_with(|| {
            fresh = true;
            now
        });
        fresh
    }

    pub(super) fn unpause(&mut self, peer: &PublicKey) {
        if self.paused.remove(peer).is_some() && !self.leads(peer) {
            self.paces.remove(peer);
        }
    }

    /// A paused peer that may be read from again.
    pub(super) fn resumable(&self) -> Option<PublicKey> {
        self.paused.keys().find(|peer| self.room(peer).is_some()).copied()
    }

    /// A peer's connection ended, and with it its incomplete messages.
    pub(super) fn forget(&mut self, peer: &PublicKey) {
        self.holds(*peer, 0);
        self.paces.remove(peer);
        self.paused.remove(peer);
        self.leader.take_if(|(leader, _)| leader == peer);
    }

    /// A datagram was handled that brought so many bytes of a peer's messages.
    pub(super) fn progressed(&mut self, now: Instant, peer: &PublicKey, bytes: u64) {
        if self.held_by(peer) == 0 {
            self.paces.remove(peer);
            return;
        }
        let pace = self.paces.entry(*peer).or_insert(Pace { since: now, bytes: 0 });
        pace.bytes += bytes;
        if pace.bytes >= MIN_PROGRESS_BYTES {
            *pace = Pace { since: now, bytes: 0 };
        }
    }

    /// Ends a lead that is over, and lets the next peer lead: of those without room the one whose invitation, pass and own
    /// last lead are longest ago, then the largest.
    pub(super) fn choose_leader(&mut self, now: Instant) {
        let full = (self.bytes >= self.budget).then_some(0);
        let divided = self.divided().or(full);
        let over = self.leader.is_some_and(|(leader, since)| {
            let account = self.account(&leader);
            let goes_on = divided.is_some_and(|divided| self.is_above(&account, divided));
            !goes_on || self.held.of(&account) == 0 || now >= since + STALL
        });
        self.leader.take_if(|_| over);
        if divided.is_none() || self.led.len() > MAX_LED {
            self.led.clear();
        }
        let Some(divided) = divided.filter(|_| self.leader.is_none()) else { return };
        let above = self.held.ranking().map(|(account, _)| account);
        let above = above.filter(|account| self.is_above(account, divided));
        let Some(next) = above.min_by_key(|account| self.last_leads(account)) else { return };
        self.leads += 1;
        self.leader = Some((next.key(), now));
        for (tier, party) in next.path().into_iter().enumerate() {
            self.led.insert((tier, party), self.leads);
        }
        let fresh = Pace { since: now, bytes: 0 };
        if self.paused.contains_key(&next.key()) {
            // It couldn't send while it was paused.
            self.paces.insert(next.key(), fresh);
        } else {
            self.paces.entry(next.key()).or_insert(fresh);
        }
    }

    /// The numbers of the latest leads of an account's parties, outermost first.
    fn last_leads(&self, account: &Account) -> [u64; 3] {
        let path = account.path();
        std::array::from_fn(|tier| self.led.get(&(tier, path[tier])).copied().unwrap_or(0))
    }

    /// When [`verdict`](Receiving::verdict) and [`choose_leader`](Receiving::choose_leader) are due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.leader.map(|(_, since)| since + STALL)
    }

    /// A peer whose connection has to end.
    pub(super) fn verdict(&self, now: Instant) -> Option<(PublicKey, Verdict)> {
        let divided = self.divided()?;
        let above = |account: &Account| self.is_above(account, divided);
        // The leader is never the one that pays, since it alone goes on.
        let mut others = self.held.ranking().map(|(account, _)| account).filter(|it| !self.leads(&it.key()));
        let leader = self.leader.map_or(0, |(leader, _)| self.held_by(&leader));
        if self.held.total() - leader >= (self.budget * 7 / 8) as u64
            && let Some(largest) = others.next().filter(above)
        {
            return Some((largest.key(), Verdict::Largest));
        }
        // A paused peer is judged by what it did before.
        let until =
            |peer: &PublicKey| self.paused.get(peer).copied().filter(|_| !self.leads(peer)).unwrap_or(now);
        let slow =
            |peer: &PublicKey| self.paces.get(peer).is_some_and(|pace| until(peer) >= pace.since + STALL);
        let slow = self.held.ranking().map(|(account, _)| account).filter(|account| slow(&account.key()));
        slow.into_iter().find(above).map(|account| (account.key(), Verdict::Stalled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    /// A budget of 1,600, so that 800 are divided.
    fn holding(held: &[usize]) -> Receiving {
        let mut receiving = Receiving::new(crate::rt::time::now(), 1600);
        for (n, held) in (1..).zip(held) {
            receiving.holds(key(n), *held);
        }
        receiving
    }

    #[test]
    fn the_half_is_divided_and_small_holders_take_nothing_from_large_ones() {
        // The room of key 4, and that of another one.
        for (held, own, new) in [
            (&[799][..], 1, 1),
            (&[900], 800, 800),
            (&[500, 400], 400, 400),
            (&[600, 500, 10, 10], 380, 390),
            (&[500, 500, 0, 300], 0, 266),
            (&[100; 9], 0, 88),
        ] {
            let room = [4, 99].map(|n| holding(held).room(&key(n)).unwrap_or(0));
            assert_eq!(room, [own, new], "{held:?}");
        }
    }

    /// 64 keys of one invitation, each of which holds this much.
    fn hoarders(held: usize) -> Receiving {
        let mut receiving = Receiving::new(crate::rt::time::now(), 1600);
        for n in 0..64 {
            let hoarder = Account::for_tests(1, n, n.into());
            receiving.meet(hoarder);
            receiving.holds(hoarder.key(), held);
        }
        receiving
    }

    #[test]
    fn a_newcomer_of_another_invitation_has_as_much_room_as_all_keys_of_the_first_together() {
        let mut receiving = hoarders(16);
        let [same, other] = [Account::for_tests(1, 99, 99), Account::for_tests(2, 100, 100)];
        [same, other].into_iter().for_each(|account| receiving.meet(account));
        let room = |receiving: &Receiving| [same, other].map(|account| receiving.room(&account.key()));
        // Together they have 1,024, more than the 800 that are divided.
        assert_eq!(room(&receiving), [Some(12), Some(800)]);
        receiving.holds(other.key(), 399);
        assert_eq!(room(&receiving)[1], Some(2));
        assert_eq!(receiving.verdict(receiving.now).map(|(_, verdict)| verdict), Some(Verdict::Largest));
    }

    #[test]
    fn invitations_take_turns_to_lead_however_many_keys_one_has() {
        let now = crate::rt::time::now();
        let mut receiving = hoarders(16);
        let other = Account::for_tests(2, 100, 100);
        receiving.meet(other);
        receiving.holds(other.key(), 500);
        let mut led = Vec::new();
        for turn in 0..6 {
            receiving.choose_leader(now + STALL * turn);
            let (leader, _) = receiving.leader.unwrap();
            led.push(leader == other.key());
            if leader != other.key() {
                // A key that has led comes again with nothing.
                receiving.forget(&leader);
                receiving.holds(leader, 16);
            }
        }
        assert_eq!(led.iter().filter(|other| **other).count(), 3, "{led:?}");
    }

    #[test]
    fn one_that_holds_little_is_read_from_whatever_others_hold_and_one_above_the_level_when_it_leads() {
        let now = crate::rt::time::now();
        let mut receiving = holding(&[600, 500, 0, 10]);
        let may = |receiving: &Receiving| [1, 2, 3, 4].map(|n| receiving.room(&key(n)).is_some());
        assert_eq!(may(&receiving), [false, false, true, true]);
        receiving.choose_leader(now);
        assert_eq!(may(&receiving), [true, false, true, true], "the largest leads first");
        assert!(receiving.pause(key(2)) && !receiving.pause(key(2)));
        assert_eq!(receiving.resumable(), None);
        receiving.choose_leader(now + STALL);
        assert_eq!(may(&receiving), [false, true, true, true], "then the other one");
        assert_eq!(receiving.resumable(), Some(key(2)));
        receiving.holds(key(2), 100);
        receiving.choose_leader(now + STALL);
        assert_eq!(may(&receiving), [true; 4]);
        assert_eq!(receiving.poll_timeout(), None);
        receiving.add(900);
        assert_eq!(may(&receiving), [false; 4], "what nobody takes is the reader's fault");
    }

    #[test]
    fn one_above_the_level_that_sends_too_little_is_ended_and_one_that_was_paused_gets_time() {
        let now = crate::rt::time::now();
        let mut receiving = holding(&[600, 300, 300]);
        for n in 1..=3 {
            receiving.progressed(now, &key(n), 1);
        }
        receiving.tick(now);
        receiving.pause(key(1));
        assert_eq!(receiving.verdict(now + STALL - Duration::from_millis(1)), None);
        receiving.progressed(now + STALL / 2, &key(2), MIN_PROGRESS_BYTES - 1);
        assert_eq!(receiving.verdict(now + STALL), Some((key(3), Verdict::Stalled)));
        receiving.forget(&key(3));
        assert_eq!(receiving.verdict(now + STALL), None, "the first is paused, the second sends enough");
        receiving.choose_leader(now + STALL);
        assert_eq!(receiving.verdict(now + STALL), None);
        assert_eq!(receiving.poll_timeout(), Some(now + STALL * 2));
        assert_eq!(receiving.verdict(now + STALL * 2), Some((key(1), Verdict::Stalled)));
        receiving.holds(key(1), 400);
        assert_eq!(receiving.verdict(now + STALL * 9), None, "there is room: silence ends nothing");
        receiving.holds(key(1), 600);
        receiving.holds(key(2), 600);
        receiving.tick(now + STALL * 10);
        receiving.pause(key(2));
        receiving.progressed(now + STALL * 10, &key(1), MIN_PROGRESS_BYTES);
        assert_eq!(receiving.verdict(now + STALL * 10), Some((key(2), Verdict::Stalled)), "before its pause");
    }

    #[test]
    fn the_largest_pays_when_the_budget_is_used_up() {
        let now = crate::rt::time::now();
        let mut receiving = holding(&[800, 500, 99]);
        assert_eq!(receiving.verdict(now), None);
        receiving.holds(key(3), 100);
        assert_eq!(receiving.verdict(now), Some((key(1), Verdict::Largest)));
        receiving.choose_leader(now);
        assert_eq!(receiving.verdict(now), None, "but for the leader, there is room");
        receiving.holds(key(2), 1300);
        assert_eq!(receiving.verdict(now), Some((key(2), Verdict::Largest)));
        receiving.forget(&key(2));
        assert_eq!((receiving.verdict(now), receiving.gauge().now), (None, 900));
    }
}
