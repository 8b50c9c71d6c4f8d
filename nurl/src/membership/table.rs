//! The members, and the rule that merges facts about them.
//!
//! **Merge rule.** A [`MemberRecord`] is the join of two maxima: of (incarnation, state), where alive < suspect < dead
//! < left, and of the profile (incarnation, boot id, metadata). So merging is commutative, associative and idempotent:
//! two nodes that receive the same facts end with equal records, in any order and with repetitions. Dead is sticky at
//! its incarnation; only its subject can raise it, by a higher incarnation.
//!
//! **Shown state.** [`Member::state`] may differ from the record that the node passes on, in two ways that are never
//! sent: an ack that came before the suspicion ended *clears* it here, and a verdict reached in isolation is held
//! here alone ([`super::isolation`]).
//!
//! **Bounds.** At most [`MAX_MEMBERS`]; a full table first reclaims members that left, then dead ones, longest gone
//! first. Live members are never evicted. An accusation's incarnation has a limit ([`super::limit`]); what a member says
//! itself needs none. A member enters by its own checked word alone ([`super::profile`]).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::DetectorConfig;
use super::forgotten::Forgotten;
use super::meta::{Meta, Roles};
use super::profile::SignedProfile;
use super::suspicion::MAX_ACCUSERS;
use crate::authority::level::Level;
use crate::authority::pass::Grant;
use crate::key::PublicKey;
use crate::rt::{Table, bound};

/// The most members other than this node. At about 400 bytes each a table is 1.6 MiB, and one push-pull about as
/// much; a larger mesh needs partial views, which this design doesn't have.
pub const MAX_MEMBERS: usize = 4096;

/// The highest incarnation on the wire: above every [limit](super::limit) of the next 2,000 years.
pub const MAX_INCARNATION: u64 = 1 << 62;

/// A dead or left member that will be forgotten sooner than this is no longer learned: it would be forgotten at once,
/// and learned again from the next table.
const RECLAIM_MARGIN: Duration = Duration::from_secs(30);

/// A member's state. The order is the precedence at equal incarnations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Answers, as far as is known.
    Alive,
    /// Failed a probe of some member; counts as live until its suspicion times out.
    Suspect,
    /// Its suspicion timed out.
    Dead,
    /// It left gracefully.
    Left,
}

impl State {
    /// Its name, for people and machines.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Alive => "alive",
            State::Suspect => "suspect",
            State::Dead => "dead",
            State::Left => "left",
        }
    }
}

impl State {
    /// Alive and suspect members own keys, run jobs and are counted in n.
    pub fn is_live(self) -> bool {
        self <= State::Suspect
    }
}

/// A member as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its public key.
    pub key: PublicKey,
    /// Its state in this node's view.
    pub state: State,
    /// Its incarnation.
    pub incarnation: u64,
    /// The boot id of its process.
    pub boot: u64,
    /// Its metadata about itself.
    pub meta: Meta,
    /// What its pass says: no metadata go beyond it.
    pub grant: Arc<Grant>,
    /// Since when it has been in this state.
    pub since: Instant,
}

impl Member {
    /// Whether it has a place on the placement ring: a worker by its word and its pass that is live, or dead but with a
    /// store, until it is reclaimed. No clock decides, so all members that know the same facts agree.
    pub fn is_placed(&self) -> bool {
        self.meta.roles().contains(Roles::WORKER)
            && self.grant.level >= Level::Worker
            && (self.state.is_live()
                || (self.state == State::Dead && self.meta.roles().contains(Roles::STORE)))
    }

    /// Its share of the ring, relative to others: what it claims, as far as its pass permits.
    pub fn weight(&self) -> u16 {
        self.meta.weight().min(self.grant.weight.into())
    }
}

/// The part of a member's state that is gossiped; a join-semilattice (see the module).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    /// The highest incarnation in any fact about the member.
    pub incarnation: u64,
    /// The highest-precedence state reported at that incarnation.
    pub state: State,
    /// The newest profile.
    pub profile: Option<SignedProfile>,
}

impl MemberRecord {
    /// Joins another record into this one and returns the change.
    pub fn merge(&mut self, other: &MemberRecord) -> RecordChange {
        let mut change = RecordChange::default();
        // 1. A higher incarnation wins; at the same one the state of higher precedence.
        if (other.incarnation, other.state) > (self.incarnation, self.state) {
            self.incarnation = other.incarnation;
            self.state = other.state;
            change.state = true;
        }
        // 2. The newest profile wins, whatever the state is. Two profiles at one incarnation (from a restarted
        // process that doesn't know its earlier incarnations) merge by boot id; the process then outbids.
        if other.profile > self.profile {
            change.restarted = match (&self.profile, &other.profile) {
                (Some(old), Some(new)) => old.said().boot != new.said().boot,
                _ => false,
            };
            change.profile = true;
            self.profile.clone_from(&other.profile);
        }
        change
    }
}

/// The change made by a merge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordChange {
    /// A higher incarnation, or a state of higher precedence.
    pub state: bool,
    /// A newer profile.
    pub profile: bool,
    /// The newer profile has another boot id.
    pub restarted: bool,
}

/// One statement about one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The subject.
    pub key: PublicKey,
    /// The subject's record.
    pub record: MemberRecord,
    /// For how many seconds the subject has been dead or gone; 0 if it is live.
    pub age_s: u32,
    /// The subject's accusers, if it is a suspect.
    pub accusers: Vec<PublicKey>,
}

/// The reason why a fact was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactRefusal {
    /// The incarnation is above the limit.
    IncarnationTooHigh,
    /// The table is full, and no member can be reclaimed.
    TableFull,
    /// The subject is about to be forgotten.
    Expired,
    /// The subject isn't in the table, and the fact lacks its checked profile.
    Unknown,
    /// The subject was forgotten, and more than this was known of it.
    Forgotten,
}

/// The effect of a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedFact {
    /// The state shown before; `None` if the member is new.
    pub before: Option<State>,
    /// The state shown now.
    pub after: State,
    /// The change of the record.
    pub change: RecordChange,
    /// Accusers that were not known at this incarnation.
    pub new_accusers: Vec<PublicKey>,
    /// Whether metadata or the pass differ from before.
    pub meta_changed: bool,
    /// The member reclaimed to make room.
    pub reclaimed: Option<PublicKey>,
}

/// A verdict that only this node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LocalVerdict {
    Suspect,
    /// Shown as suspect until it counts.
    Dead {
        counts_at: Instant,
        counts: bool,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct MemberEntry {
    pub(crate) member: Member,
    pub(crate) record: MemberRecord,
    pub(crate) accusers: Vec<PublicKey>,
    /// An ack cleared the suspicion at the record's incarnation.
    pub(crate) cleared: bool,
    pub(crate) verdict: Option<LocalVerdict>,
    /// When this node itself published an accusation at the record's incarnation.
    pub(crate) published: Option<Instant>,
    /// When its last own message reached this node.
    pub(crate) heard: Option<Instant>,
    /// When a hub's denial of it last caused a probe.
    pub(crate) denied: Option<Instant>,
    /// An exchange has voided a verdict on it, and it has sent nothing since: the next verdict is kept and published.
    pub(crate) reprieved: bool,
}

impl MemberEntry {
    /// Whether the record has the profile of its own incarnation, as an alive fact must.
    pub(crate) fn speaks_for_itself(&self) -> bool {
        let profile = self.record.profile.as_ref().map(SignedProfile::said);
        profile.is_some_and(|profile| profile.incarnation == self.record.incarnation)
    }

    /// When a verdict of isolation takes effect in this node's own view, if one waits for that.
    fn counts_at(&self) -> Option<Instant> {
        match self.verdict {
            Some(LocalVerdict::Dead { counts_at, counts: false }) => Some(counts_at),
            _ => None,
        }
    }

    fn effective(&self) -> State {
        let state = match self.record.state {
            State::Suspect if self.cleared => State::Alive,
            state => state,
        };
        match self.verdict {
            Some(verdict) if state.is_live() => match verdict {
                LocalVerdict::Dead { counts: true, .. } => State::Dead,
                _ => State::Suspect,
            },
            _ => state,
        }
    }

    /// The record as a fact, with its age.
    pub(crate) fn fact(&self, now: Instant) -> Fact {
        let gone = !self.record.state.is_live();
        let age = if gone { now.saturating_duration_since(self.member.since).as_secs() } else { 0 };
        Fact {
            key: self.member.key,
            record: self.record.clone(),
            age_s: u32::try_from(age).unwrap_or(u32::MAX),
            accusers: if self.record.state == State::Suspect { self.accusers.clone() } else { Vec::new() },
        }
    }
}

/// All members but this node.
#[derive(Debug, Default)]
pub struct MemberTable {
    entries: BTreeMap<PublicKey, MemberEntry>,
    live: usize,
    /// Members with a verdict of isolation that isn't in effect yet.
    waiting_verdicts: BTreeSet<PublicKey>,
    forgotten: Forgotten,
}

impl MemberTable {
    /// Live members, without this node.
    pub fn live(&self) -> usize {
        self.live
    }

    /// All members that are remembered, in key order.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.entries.values().map(|entry| &entry.member)
    }

    /// One member.
    pub fn get(&self, key: &PublicKey) -> Option<&Member> {
        self.entries.get(key).map(|entry| &entry.member)
    }

    /// Whether `key` is a member, alive or suspect.
    pub fn is_live(&self, key: &PublicKey) -> bool {
        self.get(key).is_some_and(|member| member.state.is_live())
    }

    /// When the next verdict of isolation takes effect.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting_verdicts.iter().filter_map(|key| self.entries.get(key)?.counts_at()).min()
    }

    /// The members whose verdict of isolation takes effect now.
    pub(crate) fn due_verdicts(&self, now: Instant) -> Vec<PublicKey> {
        let counts_at = |key: &PublicKey| self.entries.get(key).and_then(MemberEntry::counts_at);
        let due = |key: &&PublicKey| counts_at(key).is_some_and(|at| at <= now);
        self.waiting_verdicts.iter().filter(due).copied().collect()
    }

    /// A member sent this node a message itself.
    pub(crate) fn hear(&mut self, now: Instant, key: &PublicKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.heard = Some(now);
            entry.reprieved = false;
        }
    }

    /// A hub has denied a member, and the member is probed for that.
    pub(crate) fn deny(&mut self, now: Instant, key: &PublicKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.denied = Some(now);
        }
    }

    /// The members heard since `since`; `None` is the beginning of time.
    pub(crate) fn heard_since(&self, since: Option<Instant>) -> BTreeSet<PublicKey> {
        let heard = self.entries.values().filter(|entry| entry.heard.is_some() && entry.heard >= since);
        heard.map(|entry| entry.member.key).collect()
    }

    pub(crate) fn entry(&self, key: &PublicKey) -> Option<&MemberEntry> {
        self.entries.get(key)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &MemberEntry> {
        self.entries.values()
    }

    /// Changes an entry and updates its shown state. Returns the state before and after.
    pub(crate) fn update(
        &mut self,
        now: Instant,
        key: &PublicKey,
        change: impl FnOnce(&mut MemberEntry),
    ) -> Option<(State, State)> {
        let entry = self.entries.get_mut(key)?;
        let before = entry.member.state;
        change(entry);
        let after = entry.effective();
        entry.member.incarnation = entry.record.incarnation;
        if let Some(profile) = &entry.record.profile {
            let said = profile.said();
            entry.member.boot = said.boot;
            if entry.member.meta != said.meta {
                entry.member.meta = said.meta.clone();
            }
            if let Some(grant) = profile.grant() {
                entry.member.grant = grant.clone();
            }
        }
        if entry.counts_at().is_some() {
            self.waiting_verdicts.insert(*key);
        } else {
            self.waiting_verdicts.remove(key);
        }
        if before != after {
            entry.member.state = after;
            entry.member.since = now;
        }
        match before.is_live().cmp(&after.is_live()) {
            Ordering::Less => self.live += 1,
            Ordering::Greater => self.live -= 1,
            Ordering::Equal => {}
        }
        Some((before, after))
    }

    /// Merges a fact, unless its incarnation is above `limit`.
    ///
    /// # Errors
    /// A [`FactRefusal`]; the table is then unchanged, except for a reclaimed member.
    pub fn apply(
        &mut self,
        now: Instant,
        config: &DetectorConfig,
        fact: &Fact,
        limit: u64,
    ) -> Result<AppliedFact, FactRefusal> {
        if fact.record.incarnation > limit {
            return Err(FactRefusal::IncarnationTooHigh);
        }
        if self.entries.contains_key(&fact.key) {
            Ok(self.merge_known(now, fact))
        } else {
            self.insert(now, config, fact)
        }
    }

    fn merge_known(&mut self, now: Instant, fact: &Fact) -> AppliedFact {
        let (mut change, mut new_accusers, mut meta_changed) = (RecordChange::default(), Vec::new(), false);
        let shown = self.update(now, &fact.key, |entry| {
            let incarnation = entry.record.incarnation;
            change = entry.record.merge(&fact.record);
            if change.state {
                entry.cleared = false;
                entry.published = None;
                if entry.record.incarnation > incarnation {
                    entry.accusers.clear();
                    entry.verdict = None;
                    entry.reprieved = false;
                }
                if !entry.record.state.is_live() {
                    entry.verdict = None;
                }
            }
            if entry.record.state == State::Suspect
                && (fact.record.incarnation, fact.record.state) == (entry.record.incarnation, State::Suspect)
            {
                for accuser in &fact.accusers {
                    if entry.accusers.len() < MAX_ACCUSERS && !entry.accusers.contains(accuser) {
                        entry.accusers.push(*accuser);
                        new_accusers.push(*accuser);
                    }
                }
                // An accuser that hadn't accused it when the ack came has evidence of its own.
                if !new_accusers.is_empty() {
                    entry.cleared = false;
                }
            }
            if change.profile {
                meta_changed = entry.record.profile.as_ref().is_some_and(|profile| {
                    profile.said().meta != entry.member.meta || profile.grant() != Some(&entry.member.grant)
                });
            }
        });
        let (before, after) = shown.expect("the caller looked the member up");
        AppliedFact { before: Some(before), after, change, new_accusers, meta_changed, reclaimed: None }
    }

    /// Whether a fact about somebody who isn't in the table would be taken, if its profile is good: a refusal that needs
    /// no check of signatures.
    ///
    /// # Errors
    /// A [`FactRefusal`].
    pub(crate) fn has_room_for(&self, config: &DetectorConfig, fact: &Fact) -> Result<(), FactRefusal> {
        let age = Duration::from_secs(fact.age_s.into());
        let state = fact.record.state;
        let Some(said) = fact.record.profile.as_ref().map(SignedProfile::said) else {
            return Err(FactRefusal::Unknown);
        };
        if reclaim_after(config, state, said.meta.roles()).is_some_and(|limit| age + RECLAIM_MARGIN > limit) {
            return Err(FactRefusal::Expired);
        }
        if self.forgotten.incarnation(&fact.key).is_some_and(|known| said.incarnation <= known) {
            return Err(FactRefusal::Forgotten);
        }
        let full = self.entries.len() >= bound(Table::Members, MAX_MEMBERS);
        if full && (!state.is_live() || self.longest_gone().is_none()) {
            return Err(FactRefusal::TableFull);
        }
        Ok(())
    }

    fn insert(
        &mut self,
        now: Instant,
        config: &DetectorConfig,
        fact: &Fact,
    ) -> Result<AppliedFact, FactRefusal> {
        let age = Duration::from_secs(fact.age_s.into());
        let state = fact.record.state;
        self.has_room_for(config, fact)?;
        let proven =
            fact.record.profile.as_ref().and_then(|profile| Some((profile.said(), profile.grant()?)));
        let Some((said, grant)) = proven else { return Err(FactRefusal::Unknown) };
        let mut reclaimed = None;
        if self.entries.len() >= bound(Table::Members, MAX_MEMBERS)
            && let Some(victim) = self.longest_gone()
        {
            self.remove(&victim);
            reclaimed = Some(victim);
        }
        let since = if state.is_live() { now } else { now.checked_sub(age).unwrap_or(now) };
        let mut accusers = fact.accusers.clone();
        accusers.truncate(MAX_ACCUSERS);
        self.entries.insert(
            fact.key,
            MemberEntry {
                member: Member {
                    key: fact.key,
                    state,
                    incarnation: fact.record.incarnation,
                    boot: said.boot,
                    meta: said.meta.clone(),
                    grant: grant.clone(),
                    since,
                },
                record: fact.record.clone(),
                accusers: accusers.clone(),
                cleared: false,
                verdict: None,
                published: None,
                heard: None,
                denied: None,
                reprieved: false,
            },
        );
        self.live += usize::from(state.is_live());
        self.forgotten.remove(&fact.key);
        let change = RecordChange { state: true, profile: true, restarted: false };
        Ok(AppliedFact {
            before: None,
            after: state,
            change,
            new_accusers: accusers,
            meta_changed: false,
            reclaimed,
        })
    }

    /// The member that a new one displaces: left before dead, and the longest gone of them.
    fn longest_gone(&self) -> Option<PublicKey> {
        self.entries
            .values()
            .filter(|entry| !entry.member.state.is_live() && !entry.record.state.is_live())
            .min_by_key(|entry| (entry.member.state != State::Left, entry.member.since, entry.member.key))
            .map(|entry| entry.member.key)
    }

    /// Forgets the dead and left members whose retention time is over.
    pub fn reclaim(&mut self, now: Instant, config: &DetectorConfig) -> Vec<PublicKey> {
        let over: Vec<PublicKey> = self
            .entries
            .values()
            .filter(|entry| {
                let gone = now.saturating_duration_since(entry.member.since);
                let roles = entry.member.meta.roles();
                reclaim_after(config, entry.member.state, roles).is_some_and(|limit| gone >= limit)
            })
            .map(|entry| entry.member.key)
            .collect();
        for key in &over {
            self.remove(key);
        }
        over
    }

    /// Removes a member, whatever its state is. Returns whether it was there.
    pub(crate) fn expel(&mut self, key: &PublicKey) -> bool {
        let Some(member) = self.get(key) else { return false };
        self.live -= usize::from(member.state.is_live());
        self.remove(key);
        // Its pass is revoked, so its old words count no more; with another one it begins anew.
        self.forgotten.remove(key);
        true
    }

    /// The incarnation that one who is forgotten has to outbid to be a member again.
    pub(crate) fn forgotten(&self, key: &PublicKey) -> Option<u64> {
        self.forgotten.incarnation(key)
    }

    fn remove(&mut self, key: &PublicKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.forgotten.insert(*key, entry.record.incarnation);
        }
        self.waiting_verdicts.remove(key);
    }
}

/// Time after which a member is forgotten. A dead member without a store has no place on the ring to return to.
fn reclaim_after(config: &DetectorConfig, state: State, roles: Roles) -> Option<Duration> {
    match state {
        State::Alive | State::Suspect => None,
        State::Dead if roles.contains(Roles::STORE) => Some(config.stored_reclaim),
        State::Dead => Some(config.dead_reclaim),
        State::Left => Some(config.left_reclaim),
    }
}

#[cfg(test)]
mod tests;
