//! Hand-off: the copy of a former owner, or of a stand-in, goes to all owners before it is dropped.
//!
//! An acknowledgement counts as long as its owner can still have the copy: without a store, only from the process that
//! acknowledged. When the hold is over, the owners are asked once more, since a digest of a minute ago says nothing of now.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::copies::Copies;
use super::message::Message;
use super::own::{Own, Sums};
use super::shared::{Moment, Shared};
use crate::key::PublicKey;
use crate::replication::crdt::{Digest, Object};
use crate::ring::Ring;
use crate::rt::{Point, buggify};

/// The pause before a copy is offered again to the owners that didn't acknowledge it. It doubles up to [`PAUSE_MAX`],
/// so a hand-off to an absent owner continues at a low rate. A change of the view, perhaps with an owner that is
/// back, resets the pause.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// The upper limit of [`PAUSE_MIN`]'s doubling.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The pause before owners whose acknowledged states differ are asked again: a summary may have repaired them by
/// then.
const REPAIRED: Duration = Duration::from_secs(10);
/// How long an owner's last word counts: a few round trips.
const CONFIRMED_FOR: Duration = Duration::from_secs(10);
/// Limit on the copies examined in one tick.
const MAX_PER_TICK: usize = 1024;

/// The progress of one key's hand-off.
#[derive(Debug, Clone)]
struct HandOff {
    /// When the present owners became the owners.
    since: Instant,
    next: Instant,
    pause: Duration,
    id: u64,
    acknowledged: BTreeMap<PublicKey, Acknowledged>,
    /// When the owners were asked for the last time whether they have the copy: only what they answer then lets it go.
    confirming: Option<Instant>,
}

/// What an owner has told of its copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acknowledged {
    pub(super) digest: Digest,
    pub(super) boot: u64,
    pub(super) durable: bool,
}

impl HandOff {
    fn new(now: Instant) -> HandOff {
        let acknowledged = BTreeMap::new();
        HandOff { since: now, next: now, pause: PAUSE_MIN, id: 0, acknowledged, confirming: None }
    }

    /// Notes a view with the same owners: an absent owner may be back, or be another process that has nothing.
    fn view_changed(&mut self, now: Instant, ring: &Ring) {
        self.next = self.next.min(now + PAUSE_MIN);
        self.pause = PAUSE_MIN;
        self.acknowledged.retain(|owner, told| {
            told.durable || ring.member(owner).is_some_and(|member| member.boot == told.boot)
        });
    }

    /// Whether all owners have acknowledged the copy.
    fn is_complete(&self, owners: &[PublicKey]) -> bool {
        self.missing(owners).next().is_none()
    }

    /// The owners that haven't acknowledged the copy.
    fn missing(&self, owners: &[PublicKey]) -> impl Iterator<Item = PublicKey> {
        owners.iter().copied().filter(|owner| !self.acknowledged.contains_key(owner))
    }

    /// Whether all acknowledgements have one digest.
    fn agrees(&self) -> bool {
        let mut digests = self.acknowledged.values().map(|told| told.digest);
        let first = digests.next();
        digests.all(|digest| Some(digest) == first)
    }

    /// Forgets the acknowledgements, and asks for new ones at `next`.
    fn ask_again(&mut self, next: Instant) {
        self.acknowledged.clear();
        self.pause = PAUSE_MIN;
        self.next = next;
        self.confirming = None;
    }

    /// Notes an offer. The pause doubles with each further one.
    fn offered(&mut self, now: Instant, id: u64) {
        self.id = id;
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

/// The keys that this node holds without being an owner.
#[derive(Debug, Default)]
pub(super) struct HandOffs(BTreeMap<Vec<u8>, HandOff>);

impl HandOffs {
    /// Notes a view in which all keys have the same owners.
    pub(super) fn view_changed(&mut self, now: Instant, ring: &Ring) {
        self.0.values_mut().for_each(|hand_off| hand_off.view_changed(now, ring));
    }

    /// Notes whether this node owns a key that it holds in the new view, and whether the owners changed.
    pub(super) fn placed(&mut self, now: Instant, ring: &Ring, key: &[u8], owns: bool, changed: bool) {
        if owns {
            self.0.remove(key);
            return;
        }
        match self.0.get_mut(key) {
            Some(hand_off) if !changed => hand_off.view_changed(now, ring),
            _ => self.begin(now, key),
        }
    }

    /// Begins the hand-off of a copy that this node holds without being an owner.
    pub(super) fn begin(&mut self, now: Instant, key: &[u8]) {
        self.0.insert(key.to_vec(), HandOff::new(now));
    }

    /// Notes that the copy has grown: the owners may lack what is new.
    pub(super) fn grew(&mut self, now: Instant, key: &[u8]) {
        if let Some(hand_off) = self.0.get_mut(key) {
            let next = hand_off.next.min(now + PAUSE_MIN);
            hand_off.ask_again(next);
            // An answer to the last offer says nothing of what is new.
            hand_off.id = 0;
        }
    }

    /// Whether the acknowledgement belongs to a hand-off to `owners`.
    pub(super) fn acknowledged(
        &mut self,
        from: PublicKey,
        key: &[u8],
        id: u64,
        told: Acknowledged,
        owners: &[PublicKey],
    ) -> bool {
        let Some(hand_off) = self.0.get_mut(key).filter(|hand_off| hand_off.id == id) else { return false };
        hand_off.acknowledged.insert(from, told);
        if hand_off.is_complete(owners) {
            // The next tick compares the owners' digests, however long the pause would be.
            hand_off.next = hand_off.since;
        }
        true
    }

    /// Continues the hand-offs that are due, as far as the repair budget allows.
    pub(super) fn resume(&mut self, sh: &mut Shared, copies: &mut Copies, sums: &mut Sums, at: Moment) {
        let now = at.now;
        let most = if buggify(Point::HandOffOne) { 1 } else { MAX_PER_TICK };
        let due = self.0.iter().filter(|(_, hand_off)| hand_off.next <= now);
        let due: Vec<Vec<u8>> = due.map(|(key, _)| key.clone()).take(most).collect();
        for key in due {
            if !sh.may_repair() {
                return;
            }
            self.step(sh, copies, sums, at, &key);
        }
    }

    fn step(&mut self, sh: &mut Shared, copies: &mut Copies, sums: &mut Sums, at: Moment, key: &[u8]) {
        let now = at.now;
        let id = sh.fresh_id();
        let Some((hand_off, entry)) = self.0.get_mut(key).zip(copies.get(key)) else {
            self.0.remove(key);
            return;
        };
        let owners = entry.owners();
        if owners.is_empty() {
            hand_off.next = now + PAUSE_MAX;
            return;
        }
        if hand_off.is_complete(owners) {
            if !hand_off.agrees() {
                // All owners have the copy, but their digests differ: ask all again after they had time to repair.
                hand_off.ask_again(now + REPAIRED);
            } else if now.saturating_duration_since(hand_off.since) < sh.config.hand_off_hold {
                hand_off.next = hand_off.since + sh.config.hand_off_hold;
            } else if hand_off
                .confirming
                .is_none_or(|asked| now.saturating_duration_since(asked) > CONFIRMED_FOR)
            {
                hand_off.ask_again(now);
                hand_off.confirming = Some(now);
                hand_off.offered(now, id);
                for owner in owners {
                    sh.send(*owner, &Message::Confirm { key: key.to_vec().into(), id });
                }
            } else {
                drop_copy(sh, copies, sums, at.wall, key);
                self.0.remove(key);
                sh.stats.handed_off += 1;
            }
            return;
        }
        // Who doesn't confirm gets the copy once more.
        hand_off.confirming = None;
        let missing: Vec<PublicKey> = hand_off.missing(owners).collect();
        hand_off.offered(now, id);
        let state = entry.value().encode();
        for owner in missing {
            if !sh.spend(state.len() + key.len()) {
                return;
            }
            sh.stats.states_sent += 1;
            let message = Message::Copy { key: key.to_vec().into(), id, state: state.clone().into() };
            sh.send(owner, &message);
        }
    }
}

/// Drops a copy and remembers this node's own writes to it.
fn drop_copy(sh: &mut Shared, copies: &mut Copies, sums: &mut Sums, wall: Duration, key: &[u8]) {
    let Some(value) = copies.value(key).map(Object::value) else { return };
    let actor = sums.actor(sh, key, wall);
    if Own::of(value, &actor) != Own::default() {
        sums.make_room(sh, key);
    }
    // Under another id there is nothing to remember.
    let actor = sums.actor(sh, key, wall);
    let own = Own::of(value, &actor);
    if own != Own::default() {
        sums.join(key, &actor, own, wall);
    }
    copies.remove(sh, key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_off_is_over_when_all_owners_have_one_state() {
        let peer = |n| PublicKey::from_bytes([n; 32]);
        let owners = [peer(1), peer(2)];
        // The digests that the two owners acknowledged; whether all have; whether they agree.
        let table = [
            (vec![], false, true),
            (vec![(1, 7)], false, true),
            (vec![(1, 7), (2, 7)], true, true),
            (vec![(1, 7), (2, 8)], true, false),
            (vec![(1, 7), (3, 7)], false, true),
        ];
        for (acknowledged, complete, agrees) in table {
            let mut hand_off = HandOff::new(crate::rt::time::now());
            for (n, digest) in &acknowledged {
                let told = Acknowledged { digest: [*digest; 16], boot: 1, durable: false };
                hand_off.acknowledged.insert(peer(*n), told);
            }
            assert_eq!(hand_off.is_complete(&owners), complete, "{acknowledged:?}");
            assert_eq!(hand_off.agrees(), agrees, "{acknowledged:?}");
        }
    }

    #[test]
    fn the_pause_doubles_up_to_its_limit_and_a_view_resets_it() {
        let now = crate::rt::time::now();
        let mut hand_off = HandOff::new(now);
        for pause in [5, 10, 20, 40, 80, 160, 300, 300] {
            hand_off.offered(now, 1);
            assert_eq!(hand_off.next, now + Duration::from_secs(pause));
        }
        hand_off.view_changed(now, &Ring::default());
        assert_eq!(hand_off.next, now + PAUSE_MIN);
    }
}
