//! SWIM's suspicion mechanism (§4.2): the members under suspicion, and the verdicts that follow.
//!
//! An accusation starts a suspicion or confirms it; proof of life clears it here; if its time passes and a probe of this
//! node has failed, the verdict is *dead*. A node that is isolated suspects itself: it keeps its verdicts in its own view ([`LocalVerdict`]), and
//! retracts the recent ones that it published. After the exchange of tables that ends isolation it voids them, once
//! for each subject, and has the subjects probed again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::hearsay::Claim;
use super::prober::Prober;
use super::view::MeshView;
use crate::key::PublicKey;
use crate::membership::config::DetectorConfig;
use crate::membership::event::MembershipEvent;
use crate::membership::gossip::GossipTopic;
use crate::membership::isolation::Isolation;
use crate::membership::suspicion::{MAX_ACCUSERS, Suspicion, expected_confirmations, min_timeout};
use crate::membership::table::{LocalVerdict, MemberEntry, State};

/// When this node becomes isolated, it retracts its own accusations younger than this, since they were made while it
/// lost contact. Isolation shows within one probe window; this is three windows.
pub const RETRACT: Duration = Duration::from_secs(30);

/// The suspicions under way, and whether their verdicts are trusted and published.
#[derive(Debug)]
pub(super) struct Suspicions {
    running: BTreeMap<PublicKey, Suspicion>,
    /// After a suspend no verdict is reached before a push-pull, or before this time.
    held_until: Option<Instant>,
    isolation: Isolation,
}

impl Suspicions {
    /// No suspicion; not isolated.
    pub(super) fn new(config: &DetectorConfig) -> Suspicions {
        Suspicions {
            running: BTreeMap::new(),
            held_until: None,
            isolation: Isolation::new(config.isolation_window, config.hub_freshness),
        }
    }

    /// When the next suspicion ends.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = self.running.values().filter_map(Suspicion::due);
        due.map(|due| self.held_until.map_or(due, |held| due.max(held))).min()
    }

    // ---- One suspicion.

    /// Counts an accuser, or starts the suspicion with the first. True if the accuser is new.
    fn confirm(&mut self, now: Instant, view: &MeshView, key: PublicKey, accuser: PublicKey) -> bool {
        if let Some(suspicion) = self.running.get_mut(&key) {
            return suspicion.confirm(accuser);
        }
        let n = view.live();
        let min = min_timeout(view.config.suspicion_min, n);
        let max = min * view.config.suspicion_max_factor;
        let k = expected_confirmations(view.config.suspicion_confirmations, n);
        self.running.insert(key, Suspicion::new(now, accuser, min, max, k));
        true
    }

    /// Ends a suspicion without a verdict.
    pub(super) fn remove(&mut self, key: &PublicKey) {
        self.running.remove(key);
    }

    /// A suspicion that others published, or confirmed by `accusers`. `anew`: at a new incarnation.
    pub(super) fn heed(
        &mut self,
        now: Instant,
        view: &mut MeshView,
        prober: &mut Prober,
        key: PublicKey,
        accusers: &[PublicKey],
        anew: bool,
    ) {
        if anew {
            self.running.remove(&key);
        }
        // Only other members are independent accusers: a forged name must not shorten a suspicion.
        let counts = |accuser: &&PublicKey| view.table.is_live(accuser);
        let accusers: Vec<PublicKey> = accusers.iter().filter(counts).copied().collect();
        for accuser in &accusers {
            self.confirm(now, view, key, *accuser);
        }
        if anew && accusers.is_empty() {
            // An accusation without a valid accuser still starts the timer.
            self.confirm(now, view, key, key);
        }
        // Probe the suspect: an ack clears the suspicion here at once, a failure is a confirmation. Even if no
        // confirmation is needed, a new suspicion is checked: its time is the shortest, and the refutation may not
        // arrive here.
        let open = self.running.get(&key).is_some_and(Suspicion::is_open);
        if !self.is_proven(&key) && (anew || (open && !accusers.is_empty())) {
            prober.urge(now, view, key, false);
        }
    }

    /// Whether `key` is under suspicion.
    pub(super) fn is_under_way(&self, key: &PublicKey) -> bool {
        self.running.contains_key(key)
    }

    /// Whether a probe of this node supports the suspicion of `key`.
    pub(super) fn is_proven(&self, key: &PublicKey) -> bool {
        self.running.get(key).is_some_and(Suspicion::is_proven)
    }

    /// Others have said that `peer` is dead, and a probe of this node has failed: a short time for a refutation is left.
    pub(super) fn hasten(&mut self, now: Instant, view: &mut MeshView, peer: PublicKey, claim: Claim) {
        let Some(known) = view.table.entry(&peer).map(|entry| entry.record.incarnation) else { return };
        let Some(suspicion) = self.running.get_mut(&peer).filter(|_| known <= claim.incarnation) else {
            return;
        };
        suspicion.hasten(claim.told);
        // A refutation has to be above what others know.
        if known < claim.incarnation {
            view.change(now, &peer, |entry| entry.record.incarnation = claim.incarnation);
            view.gossip_member(now, &peer);
        }
    }

    /// A probe of `peer` failed on every leg: this node accuses it.
    pub(super) fn accuse(&mut self, now: Instant, view: &mut MeshView, peer: PublicKey) {
        let me = view.local.key();
        let isolated = self.is_isolated();
        let Some(entry) = view.table.entry(&peer) else { return };
        if !entry.record.state.is_live() || (isolated && entry.member.state == State::Dead) {
            return;
        }
        let suspected = entry.record.state == State::Suspect && !entry.cleared;
        let named = entry.accusers.contains(&me);
        let verdict = entry.verdict;
        if isolated {
            if suspected {
                self.accuse_first_hand(now, view, peer);
            } else if verdict.is_none() {
                self.accuse_first_hand(now, view, peer);
                view.change(now, &peer, |entry| entry.verdict = Some(LocalVerdict::Suspect));
            }
            return;
        }
        if verdict.is_some() {
            // A verdict of isolation is void now; the same verdict from here on is published.
            self.running.remove(&peer);
        }
        let news = self.accuse_first_hand(now, view, peer);
        let publish = !suspected || (news && !named);
        tracing::debug!(target: "nurl::membership", peer = %peer.short(), suspected, "a probe failed on every leg");
        view.change(now, &peer, |entry| {
            entry.verdict = None;
            if publish {
                entry.record.state = State::Suspect;
                entry.cleared = false;
                entry.published = Some(now);
                add_accuser(entry, me);
            }
        });
        // When many die together, most sends of the first accusations go to the dead. So whoever fails again is accused
        // again before those that are left, until there are enough confirmations.
        let open = self.running.get(&peer).is_some_and(Suspicion::is_open);
        if publish || (suspected && open) {
            view.gossip_member(now, &peer);
        }
    }

    /// Counts this node as an accuser that has evidence. True if it hadn't accused before.
    fn accuse_first_hand(&mut self, now: Instant, view: &MeshView, peer: PublicKey) -> bool {
        let news = self.confirm(now, view, peer, view.local.key());
        self.running.entry(peer).and_modify(Suspicion::prove);
        news
    }

    /// An ack proved that `peer` is alive, however late and on any leg: the suspicion is cleared here. True if the
    /// peer is held dead by others: only the peer itself can refute that, so it must learn of it.
    pub(super) fn clear(&mut self, now: Instant, view: &mut MeshView, peer: PublicKey) -> bool {
        let me = view.local.key();
        let Some(entry) = view.table.entry(&peer) else { return false };
        let only_mine = entry.record.state == State::Suspect && entry.accusers == [me];
        let risen = entry.record.state == State::Dead;
        self.running.remove(&peer);
        if only_mine {
            view.gossip.queue.remove(&GossipTopic::Member(peer));
        }
        view.change(now, &peer, |entry| {
            entry.verdict = None;
            entry.reprieved = false;
            entry.cleared = entry.record.state == State::Suspect;
        });
        risen
    }

    // ---- Time.

    /// Ends the suspicions whose timeout has passed. True if an observer has to ask a member for its table instead.
    pub(super) fn end_due(&mut self, now: Instant, view: &mut MeshView, prober: &mut Prober) -> bool {
        if self.held_until.is_some_and(|until| until <= now) {
            self.held_until = None;
        }
        let mut ask = false;
        if self.is_held(now) {
            return ask;
        }
        let due = |suspicion: &Suspicion| suspicion.due().is_some_and(|due| due <= now);
        let over: Vec<PublicKey> =
            self.running.iter().filter(|(_, suspicion)| due(suspicion)).map(|(key, _)| *key).collect();
        for peer in over {
            if view.local.is_observer() {
                // No gossip reaches an observer, so it may have missed a refutation. It asks the accused and another
                // member, and reaches no verdict.
                tracing::debug!(target: "nurl::membership", peer = %peer.short(), "an observer asks a suspect");
                self.running.entry(peer).and_modify(|suspicion| suspicion.restart(now));
                ask = true;
                continue;
            }
            if !self.is_proven(&peer) {
                // All accusers are hearsay: they are as many as one liar names. A probe of this node decides.
                self.running.entry(peer).and_modify(Suspicion::wait);
                prober.urge(now, view, peer, false);
                continue;
            }
            self.running.remove(&peer);
            self.conclude(now, view, prober, peer);
        }
        ask
    }

    /// The verdict on a suspect: *dead*, published unless this node is or was isolated.
    fn conclude(&mut self, now: Instant, view: &mut MeshView, prober: &mut Prober, peer: PublicKey) {
        let Some(entry) = view.table.entry(&peer) else { return };
        let isolated_since = self.isolation.since();
        if isolated_since.is_some() || entry.verdict.is_some() {
            let counts_at = isolated_since.unwrap_or(now) + view.config.isolation_counts_after;
            prober.urge(now, view, peer, false);
            view.change(now, &peer, |entry| {
                entry.verdict = Some(LocalVerdict::Dead { counts_at, counts: false });
            });
            return;
        }
        view.change(now, &peer, |entry| {
            entry.record.state = State::Dead;
            entry.published = Some(now);
        });
        view.gossip_member(now, &peer);
    }

    /// Excludes the time `by` in which this node stalled.
    pub(super) fn postpone(&mut self, by: Duration) {
        self.running.values_mut().for_each(|suspicion| suspicion.postpone(by));
    }

    /// This machine was suspended: every suspicion begins anew, and no verdict is reached before a push-pull or
    /// `until`.
    pub(super) fn hold(&mut self, now: Instant, until: Instant) {
        self.held_until = Some(until);
        self.running.values_mut().for_each(|suspicion| suspicion.restart(now));
    }

    /// Whether verdicts wait for a push-pull after a suspend.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    // ---- Isolation.

    /// The evidence for isolation. [`weigh_isolation`](Suspicions::weigh_isolation) must follow each new piece of it.
    pub(super) fn evidence(&mut self) -> &mut Isolation {
        &mut self.isolation
    }

    /// Whether this node considers itself isolated.
    pub(super) fn is_isolated(&self) -> bool {
        self.isolation.since().is_some()
    }

    /// Evaluates the evidence for isolation; when isolation begins, retracts the recent accusations. True if
    /// isolation began or ended.
    pub(super) fn weigh_isolation(&mut self, now: Instant, view: &mut MeshView) -> bool {
        if view.local.is_observer() || !self.isolation.weigh(now) {
            return false;
        }
        view.emit(MembershipEvent::Isolated(self.is_isolated()));
        if self.is_isolated() {
            retract_recent(now, view);
        }
        true
    }

    /// An exchange of tables with `from` is complete. It ends isolation and a hold of verdicts, and voids the verdicts
    /// that were reached in isolation.
    pub(super) fn exchanged(
        &mut self,
        now: Instant,
        view: &mut MeshView,
        prober: &mut Prober,
        from: PublicKey,
    ) {
        self.held_until = None;
        let isolated = self.isolation.since().map(|since| now.saturating_duration_since(since));
        if self.isolation.exchanged(now, from) {
            view.emit(MembershipEvent::Isolated(false));
            // A probe from a long isolation is no evidence against its target, so the target is probed again soon. A
            // short isolation may be due to the death of the only probed member, so its probes stay valid.
            let long = isolated > Some(view.config.push_pull_timeout);
            let void = if long { prober.abandon() } else { Vec::new() };
            void.into_iter().for_each(|target| prober.urge(now, view, target, false));
        }
        self.void_local_verdicts(now, view, prober);
    }

    /// Voids the verdicts reached in isolation; their subjects are probed again soon. Each subject gets this once: a
    /// second verdict without a message from the subject in between is no mistake of a briefly disconnected node, and
    /// is published.
    fn void_local_verdicts(&mut self, now: Instant, view: &mut MeshView, prober: &mut Prober) {
        let with_verdict = view.table.entries().filter(|entry| entry.verdict.is_some());
        let subjects: Vec<PublicKey> = with_verdict.map(|entry| entry.member.key).collect();
        for peer in subjects {
            if view.table.entry(&peer).is_some_and(|entry| entry.reprieved) {
                self.publish_verdict(now, view, peer);
                continue;
            }
            self.running.remove(&peer);
            view.change(now, &peer, |entry| {
                entry.verdict = None;
                entry.reprieved = true;
            });
            let accusers = view.table.entry(&peer).map_or(Vec::new(), |entry| {
                if entry.record.state == State::Suspect { entry.accusers.clone() } else { Vec::new() }
            });
            for accuser in accusers {
                self.confirm(now, view, peer, accuser);
            }
            prober.urge(now, view, peer, false);
        }
    }

    /// Publishes a verdict that this node had kept to itself.
    fn publish_verdict(&mut self, now: Instant, view: &mut MeshView, peer: PublicKey) {
        let me = view.local.key();
        let mut dead = false;
        view.change(now, &peer, |entry| {
            dead = matches!(entry.verdict.take(), Some(LocalVerdict::Dead { .. }));
            let state = if dead { State::Dead } else { State::Suspect };
            entry.record.state = entry.record.state.max(state);
            entry.cleared = false;
            entry.published = Some(now);
            add_accuser(entry, me);
        });
        if dead {
            self.running.remove(&peer);
        }
        view.gossip_member(now, &peer);
    }

    /// Lets the verdicts of isolation that have waited long enough take effect, in this node's own view.
    pub(super) fn count_local_verdicts(&self, now: Instant, view: &mut MeshView) {
        for peer in view.table.due_verdicts(now) {
            view.change(now, &peer, |entry| {
                if let Some(LocalVerdict::Dead { counts, .. }) = &mut entry.verdict {
                    *counts = true;
                }
            });
        }
    }

    /// When the suspicion of `key` ends.
    #[cfg(test)]
    pub(super) fn deadline(&self, key: &PublicKey) -> Option<Instant> {
        self.running.get(key).map(Suspicion::deadline)
    }
}

fn add_accuser(entry: &mut MemberEntry, accuser: PublicKey) {
    if !entry.accusers.contains(&accuser) && entry.accusers.len() < MAX_ACCUSERS {
        entry.accusers.push(accuser);
    }
}

/// Turns this node's accusations younger than [`RETRACT`] into verdicts that only this node has.
fn retract_recent(now: Instant, view: &mut MeshView) {
    let me = view.local.key();
    let recent: Vec<PublicKey> = view
        .table
        .entries()
        .filter(|entry| {
            let own = entry.published.is_some_and(|at| now.saturating_duration_since(at) <= RETRACT);
            let others = entry.accusers.iter().any(|accuser| *accuser != me);
            // A verdict that an exchange has voided once isn't retracted: a mesh half without a hub enters and
            // leaves isolation in turns.
            !entry.reprieved && own && (entry.record.state == State::Dead || !others)
        })
        .map(|entry| entry.member.key)
        .collect();
    let counts_at = now + view.config.isolation_counts_after;
    for peer in recent {
        view.gossip.queue.remove(&GossipTopic::Member(peer));
        view.change(now, &peer, |entry| {
            let dead = entry.record.state == State::Dead;
            let verdict =
                if dead { LocalVerdict::Dead { counts_at, counts: false } } else { LocalVerdict::Suspect };
            if !entry.cleared {
                entry.verdict = Some(verdict);
            }
            entry.record.state = State::Alive;
            entry.cleared = false;
            entry.published = None;
            entry.accusers.clear();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{key, view};
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_deadline_is_the_first_end_of_a_suspicion_or_of_a_hold() {
        let now = crate::rt::test_now();
        let view = view(now, false, 5);
        let mut suspicions = Suspicions::new(&view.config);
        assert_eq!(suspicions.poll_timeout(), None);
        // Six members: three confirmations suffice, and the longest time is 24 s.
        assert!(suspicions.confirm(now, &view, key(1), key(2)));
        assert!(suspicions.confirm(now + S, &view, key(3), key(2)));
        assert!(!suspicions.confirm(now + S, &view, key(3), key(2)), "it accused before");
        assert_eq!(suspicions.poll_timeout(), Some(now + S * 24));
        (4..7).for_each(|accuser| assert!(suspicions.confirm(now + S, &view, key(3), key(accuser))));
        assert_eq!(suspicions.poll_timeout(), Some(now + S * 5));
        suspicions.postpone(S * 2);
        assert_eq!(suspicions.poll_timeout(), Some(now + S * 7));
        for (until, due) in [(3, 14), (14, 14), (20, 20)] {
            suspicions.hold(now + S * 10, now + S * until);
            assert_eq!(suspicions.poll_timeout(), Some(now + S * due), "held for {until} s");
        }
        assert!(suspicions.is_held(now + S * 19) && !suspicions.is_held(now + S * 20));
        suspicions.remove(&key(3));
        assert_eq!(suspicions.poll_timeout(), Some(now + S * 34));
    }

    #[test]
    fn an_accusation_in_isolation_is_kept_here_and_any_other_is_told() {
        let now = crate::rt::test_now();
        for isolated in [false, true] {
            let mut view = view(now, false, 5);
            let mut suspicions = Suspicions::new(&view.config);
            suspicions.evidence().probed(now, key(1), !isolated);
            assert_eq!(suspicions.weigh_isolation(now, &mut view), isolated);
            suspicions.accuse(now, &mut view, key(1));
            let entry = view.table.entry(&key(1)).unwrap();
            assert_eq!(entry.member.state, State::Suspect, "in this node's view it is suspect either way");
            assert_eq!(entry.record.state == State::Suspect, !isolated);
            assert_eq!(view.gossip.queue.contains(&GossipTopic::Member(key(1))), !isolated);
            assert!(!suspicions.clear(now, &mut view, key(1)), "nobody holds it dead");
            assert_eq!(view.table.get(&key(1)).unwrap().state, State::Alive);
            assert!(!view.gossip.queue.contains(&GossipTopic::Member(key(1))), "nobody else accuses it");
        }
    }

    #[test]
    fn a_suspicion_that_ends_is_a_verdict_of_a_member_and_a_question_of_an_observer() {
        let now = crate::rt::test_now();
        for (observer, state) in [(false, State::Dead), (true, State::Suspect)] {
            let mut view = view(now, observer, 5);
            let (mut suspicions, mut prober) = (Suspicions::new(&view.config), Prober::new(now));
            suspicions.accuse(now, &mut view, key(1));
            let end = suspicions.poll_timeout().unwrap();
            assert!(!suspicions.end_due(end - S, &mut view, &mut prober), "too early");
            assert_eq!(suspicions.end_due(end, &mut view, &mut prober), observer);
            assert_eq!(view.table.get(&key(1)).unwrap().state, state);
            assert_eq!(suspicions.poll_timeout().is_some(), observer, "it asks again later");
        }
    }

    #[test]
    fn a_suspicion_of_others_alone_waits_for_this_nodes_own_evidence() {
        let now = crate::rt::test_now();
        for claimed in [false, true] {
            let mut view = view(now, false, 9);
            let (mut suspicions, mut prober) = (Suspicions::new(&view.config), Prober::new(now + S * 100));
            view.change(now, &key(1), |entry| entry.record.state = State::Suspect);
            suspicions.heed(now, &mut view, &mut prober, key(1), &[2, 3, 4, 5].map(key), true);
            let end = now + S * 4;
            assert_eq!(suspicions.poll_timeout(), Some(end), "enough confirm it");
            if claimed {
                // A told death is no evidence either.
                suspicions.hasten(now, &mut view, key(1), Claim { incarnation: 1, told: now });
            }
            suspicions.end_due(end, &mut view, &mut prober);
            assert_eq!(view.table.get(&key(1)).unwrap().state, State::Suspect);
            assert_eq!(suspicions.poll_timeout(), None, "it would be due for ever");
            suspicions.accuse(end + S, &mut view, key(1));
            assert_eq!(suspicions.poll_timeout(), Some(end), "its time is over already");
            suspicions.end_due(end + S, &mut view, &mut prober);
            assert_eq!(view.table.get(&key(1)).unwrap().state, State::Dead);
        }
    }
}
