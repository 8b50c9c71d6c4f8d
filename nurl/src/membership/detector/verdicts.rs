//! Facts about others and about this node, suspicions, and the verdicts that follow.

use std::time::{Duration, Instant};

use super::{Detector, MAX_REFUTATIONS_PER_SECOND, MembershipEvent, RETRACT};
use crate::key::PublicKey;
use crate::membership::gossip::GossipTopic;
use crate::membership::suspicion::{MAX_ACCUSERS, Suspicion, expected_confirmations, min_timeout};
use crate::membership::table::{Fact, FactRefusal, LocalVerdict, State};

impl Detector {
    /// Takes a fact in. True if it is about this node and needs its current fact as a reply: refuted now or before.
    pub(super) fn handle_fact(&mut self, now: Instant, fact: &Fact, first_hand: bool) -> bool {
        if fact.key == self.me.key {
            return self.handle_self_fact(now, fact, true);
        }
        let applied = match self.table.apply(now, &self.config, fact, first_hand) {
            Ok(applied) => applied,
            Err(FactRefusal::IncarnationJump) => {
                self.stats.incarnation_jumps += 1;
                return false;
            }
            Err(FactRefusal::TableFull) => {
                self.stats.table_full += 1;
                return false;
            }
            Err(FactRefusal::Expired) => {
                self.stats.expired_facts += 1;
                return false;
            }
        };
        if let Some(gone) = applied.reclaimed {
            self.forget(gone);
        }
        let key = fact.key;
        let record_state = self.table.entry(&key).map_or(State::Alive, |entry| entry.record.state);
        if applied.change.state {
            if record_state != State::Suspect {
                self.suspicions.remove(&key);
                self.local_dead.remove(&key);
            }
            self.gossip_member(now, &key);
        } else if applied.change.profile
            || (record_state == State::Suspect && !applied.new_accusers.is_empty())
        {
            self.gossip_member(now, &key);
        }
        if record_state == State::Suspect {
            self.suspect(now, key, &applied.new_accusers, applied.change.state);
        }
        if applied.change.restarted
            && let Some(member) = self.table.get(&key)
        {
            let boot = member.boot;
            self.emit(MembershipEvent::Restarted { peer: key, boot });
        }
        if applied.meta_changed
            && let Some(member) = self.table.get(&key)
        {
            let member = member.clone();
            self.emit(MembershipEvent::MetaChanged(member));
        }
        // Last, so that the event has the member as the steps above left it.
        self.show(&key, applied.before, applied.after);
        false
    }

    /// Starts or confirms the timer of a suspicion that others published.
    fn suspect(&mut self, now: Instant, key: PublicKey, accusers: &[PublicKey], anew: bool) {
        if anew {
            self.suspicions.remove(&key);
        }
        // Only members are independent accusers: a forged name must not shorten a suspicion.
        let counts = |accuser: &&PublicKey| {
            **accuser == self.me.key || self.table.get(accuser).is_some_and(|member| member.state.is_live())
        };
        let accusers: Vec<PublicKey> = accusers.iter().filter(counts).copied().collect();
        for accuser in &accusers {
            self.confirm(now, key, *accuser);
        }
        if anew && accusers.is_empty() {
            // An accusation without a valid accuser still starts the timer.
            self.confirm(now, key, key);
        }
        // Probe the suspect: an ack clears the suspicion here at once, a failure is a confirmation. Even if no
        // confirmation is needed, a new suspicion is checked: its time is the shortest, and the refutation may not
        // arrive here.
        let open = self.suspicions.get(&key).is_some_and(Suspicion::is_open);
        let mine = self.table.entry(&key).is_some_and(|entry| entry.accusers.contains(&self.me.key));
        if !mine && (anew || (open && !accusers.is_empty())) {
            self.urge(now, key, false);
        }
    }

    /// Counts an accuser, or starts the timer with the first. True if the accuser is new.
    fn confirm(&mut self, now: Instant, key: PublicKey, accuser: PublicKey) -> bool {
        if let Some(suspicion) = self.suspicions.get_mut(&key) {
            return suspicion.confirm(accuser);
        }
        let n = self.live();
        let min = min_timeout(self.config.suspicion_min, n);
        let max = min * self.config.suspicion_max_factor;
        let k = expected_confirmations(self.config.suspicion_confirmations, n);
        self.suspicions.insert(key, Suspicion::new(now, accuser, min, max, k));
        true
    }

    /// Handles a fact about this node. Only this node may declare itself anything but alive. An accusation lowers
    /// local health only if a member may have `probed` this node. True if the sender needs this node's current fact:
    /// its fact is refuted now, or was refuted before.
    pub(super) fn handle_self_fact(&mut self, now: Instant, fact: &Fact, probed: bool) -> bool {
        if self.observer {
            return false;
        }
        let record = &fact.record;
        if record.incarnation < self.me.incarnation {
            return record.state != State::Alive;
        }
        if record.incarnation
            > self.me.incarnation.saturating_add(crate::membership::table::MAX_INCARNATION_JUMP)
        {
            self.stats.incarnation_jumps += 1;
            return false;
        }
        if self.me.state == State::Left {
            // The claim is true in that this node isn't alive, but no higher incarnation may contradict that it left.
            if record.state != State::Left && record.incarnation > self.me.incarnation {
                self.me.incarnation = record.incarnation;
                self.gossip_self();
            }
            return false;
        }
        let own = self.self_fact().record;
        let foreign = record.profile.as_ref().is_some_and(|profile| {
            profile.incarnation >= self.me.incarnation && own.profile.as_ref() != Some(profile)
        });
        let accused = record.state != State::Alive;
        if !foreign && !accused {
            return false;
        }
        if !self.may_refute(now) {
            self.stats.refutations_limited += 1;
            return false;
        }
        self.me.incarnation = record.incarnation.max(self.me.incarnation) + 1;
        self.gossip_self();
        if accused {
            // A suspected node may itself be slow. A stale "left" fact of an earlier process says nothing about
            // health.
            if probed && record.state != State::Left {
                self.awareness.worse(1);
            }
            let incarnation = self.me.incarnation;
            tracing::info!(target: "nurl::membership", incarnation, accusers = fact.accusers.len(), "this node was accused, and refutes");
            self.emit(MembershipEvent::Refuted { incarnation });
        }
        true
    }

    fn may_refute(&mut self, now: Instant) -> bool {
        let (since, count) = match self.refutations {
            (Some(since), count) if now.saturating_duration_since(since) < Duration::from_secs(1) => {
                (since, count)
            }
            _ => (now, 0),
        };
        self.refutations = (Some(since), count.saturating_add(1));
        count < MAX_REFUTATIONS_PER_SECOND
    }

    /// An ack confirmed that `peer` is alive, however late and on any leg: the suspicion is cleared here.
    pub(super) fn proof_of_life(&mut self, now: Instant, peer: PublicKey) {
        self.isolation.probed(now, peer, true);
        self.weigh_isolation(now);
        let me = self.me.key;
        let Some(entry) = self.table.entry(&peer) else { return };
        let only_mine = entry.record.state == State::Suspect && entry.accusers == [me];
        let risen = entry.record.state == State::Dead;
        self.suspicions.remove(&peer);
        self.local_dead.remove(&peer);
        if only_mine {
            self.queue.remove(&GossipTopic::Member(peer));
        }
        self.change(now, &peer, |entry| {
            entry.verdict = None;
            entry.reprieved = false;
            entry.cleared = entry.record.state == State::Suspect;
        });
        if risen {
            // Only the peer itself can refute its death, so it must learn of it.
            self.start_push_pull(now, peer);
        }
    }

    /// A probe of `peer` failed on every leg.
    pub(super) fn accuse(&mut self, now: Instant, peer: PublicKey) {
        let me = self.me.key;
        let isolated = self.is_isolated();
        let Some(entry) = self.table.entry(&peer) else { return };
        if !entry.record.state.is_live() || (isolated && entry.member.state == State::Dead) {
            return;
        }
        let suspected = entry.record.state == State::Suspect && !entry.cleared;
        let named = entry.accusers.contains(&me);
        if isolated {
            if suspected {
                self.confirm(now, peer, me);
            } else if entry.verdict.is_none() {
                self.confirm(now, peer, me);
                self.change(now, &peer, |entry| entry.verdict = Some(LocalVerdict::Suspect));
            }
            return;
        }
        if entry.verdict.is_some() {
            // A verdict of isolation is void now; the same verdict from here on is published.
            self.local_dead.remove(&peer);
            self.suspicions.remove(&peer);
        }
        let news = self.confirm(now, peer, me);
        let publish = !suspected || (news && !named);
        tracing::debug!(target: "nurl::membership", peer = %peer.short(), suspected, "a probe failed on every leg");
        self.change(now, &peer, |entry| {
            entry.verdict = None;
            if publish {
                entry.record.state = State::Suspect;
                entry.cleared = false;
                entry.published = Some(now);
                if !named && entry.accusers.len() < MAX_ACCUSERS {
                    entry.accusers.push(me);
                }
            }
        });
        if publish {
            self.gossip_member(now, &peer);
        }
    }

    /// Ends the suspicions whose timeout has passed.
    pub(super) fn end_suspicions(&mut self, now: Instant) {
        if self.verdicts_held(now) {
            return;
        }
        let due = |suspicion: &Suspicion| suspicion.deadline() <= now;
        let over: Vec<PublicKey> =
            self.suspicions.iter().filter(|(_, suspicion)| due(suspicion)).map(|(key, _)| *key).collect();
        for peer in over {
            if self.observer {
                // No gossip reaches an observer, so it may have missed a refutation. It asks the accused and another
                // member, and reaches no verdict.
                tracing::debug!(target: "nurl::membership", peer = %peer.short(), "an observer asks a suspect");
                self.suspicions.entry(peer).and_modify(|suspicion| suspicion.restart(now));
                self.next_push_pull = now;
                continue;
            }
            self.suspicions.remove(&peer);
            let Some(entry) = self.table.entry(&peer) else { continue };
            let isolated_since = self.isolation.since();
            if isolated_since.is_some() || entry.verdict.is_some() {
                let counts_at = isolated_since.unwrap_or(now) + self.config.isolation_counts_after;
                self.local_dead.insert(peer);
                self.urge(now, peer, false);
                self.change(now, &peer, |entry| {
                    entry.verdict = Some(LocalVerdict::Dead { counts_at, counts: false });
                });
                continue;
            }
            self.change(now, &peer, |entry| {
                entry.record.state = State::Dead;
                entry.published = Some(now);
            });
            self.gossip_member(now, &peer);
        }
    }

    /// Whether verdicts wait for a push-pull after a suspend.
    pub(super) fn verdicts_held(&self, now: Instant) -> bool {
        self.hold_verdicts.is_some_and(|until| now < until)
    }

    /// Lets the verdicts of isolation that have waited long enough take effect, in this node's own view.
    pub(super) fn count_local_verdicts(&mut self, now: Instant) {
        for peer in self.local_dead.clone() {
            if self.counts_at(&peer).is_none_or(|at| at <= now) {
                self.local_dead.remove(&peer);
                self.change(now, &peer, |entry| {
                    if let Some(LocalVerdict::Dead { counts, .. }) = &mut entry.verdict {
                        *counts = true;
                    }
                });
            }
        }
    }

    pub(super) fn counts_at(&self, peer: &PublicKey) -> Option<Instant> {
        match self.table.entry(peer)?.verdict? {
            LocalVerdict::Dead { counts_at, .. } => Some(counts_at),
            LocalVerdict::Suspect => None,
        }
    }

    /// Evaluates the evidence for isolation; when isolation begins, retracts the recent accusations.
    pub(super) fn weigh_isolation(&mut self, now: Instant) {
        if self.observer || !self.isolation.weigh(now) {
            return;
        }
        let isolated = self.is_isolated();
        self.emit(MembershipEvent::Isolated(isolated));
        // An exchange ends isolation, and afterwards updates this node to the mesh's view.
        self.next_push_pull = now;
        if !isolated {
            return;
        }
        let me = self.me.key;
        let recent: Vec<PublicKey> = self
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
        let counts_at = now + self.config.isolation_counts_after;
        for peer in recent {
            self.queue.remove(&GossipTopic::Member(peer));
            let mut dead = false;
            self.change(now, &peer, |entry| {
                dead = entry.record.state == State::Dead;
                let verdict = if dead {
                    LocalVerdict::Dead { counts_at, counts: false }
                } else {
                    LocalVerdict::Suspect
                };
                if !entry.cleared {
                    entry.verdict = Some(verdict);
                }
                entry.record.state = State::Alive;
                entry.cleared = false;
                entry.published = None;
                entry.accusers.clear();
            });
            if dead {
                self.local_dead.insert(peer);
            }
        }
    }

    /// After a successful push-pull, voids the verdicts reached in isolation; their subjects are probed again soon.
    /// Each subject gets this once: a second verdict without a message from the subject in between is no mistake of a
    /// briefly disconnected node, and is published.
    pub(super) fn discard_local_verdicts(&mut self, now: Instant) {
        let held: Vec<PublicKey> = self
            .table
            .entries()
            .filter(|entry| entry.verdict.is_some())
            .map(|entry| entry.member.key)
            .collect();
        for peer in held {
            if self.table.entry(&peer).is_some_and(|entry| entry.reprieved) {
                self.publish_verdict(now, peer);
                continue;
            }
            self.local_dead.remove(&peer);
            self.suspicions.remove(&peer);
            self.change(now, &peer, |entry| {
                entry.verdict = None;
                entry.reprieved = true;
            });
            let accusers = self.table.entry(&peer).map_or(Vec::new(), |entry| {
                if entry.record.state == State::Suspect { entry.accusers.clone() } else { Vec::new() }
            });
            for accuser in accusers {
                self.confirm(now, peer, accuser);
            }
            self.urge(now, peer, false);
        }
    }

    /// Publishes a verdict that only this node held.
    fn publish_verdict(&mut self, now: Instant, peer: PublicKey) {
        let me = self.me.key;
        self.local_dead.remove(&peer);
        let mut dead = false;
        self.change(now, &peer, |entry| {
            dead = matches!(entry.verdict.take(), Some(LocalVerdict::Dead { .. }));
            let state = if dead { State::Dead } else { State::Suspect };
            entry.record.state = entry.record.state.max(state);
            entry.cleared = false;
            entry.published = Some(now);
            if !entry.accusers.contains(&me) && entry.accusers.len() < MAX_ACCUSERS {
                entry.accusers.push(me);
            }
        });
        if dead {
            self.suspicions.remove(&peer);
        }
        self.gossip_member(now, &peer);
    }

    /// Changes a member's entry, and emits the resulting change of the view.
    pub(super) fn change(
        &mut self,
        now: Instant,
        peer: &PublicKey,
        change: impl FnOnce(&mut crate::membership::table::MemberEntry),
    ) {
        if let Some((before, after)) = self.table.update(now, peer, change) {
            self.show(peer, Some(before), after);
        }
    }

    /// Emits a change of the view.
    fn show(&mut self, peer: &PublicKey, before: Option<State>, after: State) {
        if before == Some(after) {
            return;
        }
        if after.is_live() && !self.observer {
            self.prober.add(&mut self.rng, *peer);
        }
        let Some(member) = self.table.get(peer).cloned() else { return };
        self.emit(match after {
            State::Alive => MembershipEvent::Alive(member),
            State::Suspect => MembershipEvent::Suspect(member),
            State::Dead => MembershipEvent::Dead(member),
            State::Left => MembershipEvent::Left(member),
        });
    }

    /// A member is no longer in the table.
    pub(super) fn forget(&mut self, peer: PublicKey) {
        self.suspicions.remove(&peer);
        self.local_dead.remove(&peer);
        self.prober.remove(&peer);
        self.queue.remove(&GossipTopic::Member(peer));
        self.emit(MembershipEvent::Reclaimed(peer));
    }
}
