//! Watches: the value of an object now, and after each change the newest one.
//!
//! A node with a whole copy looks at it whenever it changes. Any other node begins with a read, and then asks one live keeper
//! after the other to answer once its copy differs ([`watchers`](super::watchers)). What is read and answered is merged, so a
//! keeper that lags takes nothing back. When a keeper is lost, or has nothing new for long, all are read again: what one of
//! them has missed is seen then. While a read is partial, and where a keeper has no room, the watch reads every few seconds.
//!
//! Values may be skipped: at most some ten a second are told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Replicator;
use super::asking::Asked;
use super::error::UpdateError;
use super::event::ReplicatorEvent;
use super::key::checked_key;
use super::message::Message;
use super::reads;
use super::shared::Moment;
use super::watchers::{DIFFERS, NO_ROOM, NOTHING_NEW, NOTHING_NEW_AFTER};
use crate::key::PublicKey;
use crate::replication::crdt::{Digest, Kind, Object};

/// Limit on the watches of a node.
pub const MAX_WATCHES: usize = 1024;
/// The pause after a value that was told.
const PACE: Duration = Duration::from_millis(100);
/// The pause after an answer that brought nothing, or a keeper that was lost.
const AGAIN: Duration = Duration::from_secs(1);
/// The pause between two reads where nobody tells of changes.
const POLL: Duration = Duration::from_secs(3);
/// How long a keeper may be silent: longer than it waits itself.
const SILENT_AFTER: Duration = NOTHING_NEW_AFTER.saturating_add(Duration::from_secs(10));

/// What a watch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The time of its next step.
    Due(Instant),
    /// A read.
    Reading,
    /// A keeper's answer, of this process, until then.
    Asked { peer: PublicKey, boot: u64, until: Instant },
    /// A change of the whole copy that this node has.
    Here,
}

#[derive(Debug)]
struct Watch {
    key: Vec<u8>,
    /// All that was read and told, merged.
    seen: Option<Object>,
    /// What was told last: the digest of what is shown, and whether that was partial.
    told: Option<(Option<Digest>, bool)>,
    /// Whether all keepers are to be read before one of them is asked.
    reads: bool,
    /// How many keepers were asked so far: each in its turn.
    turn: usize,
    phase: Phase,
}

/// The watches of this node, by id.
#[derive(Debug, Default)]
pub(super) struct Watches(BTreeMap<u64, Watch>);

impl Watches {
    /// When the next one has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let due = |watch: &Watch| match watch.phase {
            Phase::Due(at) | Phase::Asked { until: at, .. } => Some(at),
            Phase::Reading | Phase::Here => None,
        };
        self.0.values().filter_map(due).min()
    }

    /// Lets a watch read all keepers at this time, if it waits for this one.
    fn turn_from(&mut self, id: u64, from: PublicKey, at: Instant) -> bool {
        let asked = |watch: &&mut Watch| matches!(watch.phase, Phase::Asked { peer, .. } if peer == from);
        let Some(watch) = self.0.get_mut(&id).filter(asked) else { return false };
        (watch.reads, watch.phase) = (true, Phase::Due(at));
        watch.turn += 1;
        true
    }

    /// Takes a keeper's word that it keeps the key no more.
    pub(super) fn on_refused(&mut self, now: Instant, from: PublicKey, id: u64) {
        self.turn_from(id, from, now + AGAIN);
    }

    /// Asks others in place of a keeper that is lost.
    pub(super) fn on_peer_lost(&mut self, peer: PublicKey) {
        for watch in self.0.values_mut() {
            if let Phase::Asked { peer: asked, until, .. } = watch.phase
                && asked == peer
            {
                // A while after it was asked.
                (watch.reads, watch.phase) = (true, Phase::Due(until - SILENT_AFTER + AGAIN));
                watch.turn += 1;
            }
        }
    }
}

impl Replicator {
    /// Watches the object of this kind and name until [`unwatch`](Replicator::unwatch): [`ReplicatorEvent::Watched`] tells its
    /// value, and each newest one, under the id that is returned.
    ///
    /// # Errors
    /// [`UpdateError::Full`], [`UpdateError::KeyTooLong`].
    pub fn watch(&mut self, now: Instant, kind: Kind, name: &[u8]) -> Result<u64, UpdateError> {
        let key = checked_key(kind, name)?;
        if self.watches.0.len() >= MAX_WATCHES {
            return Err(UpdateError::Full("watches"));
        }
        let id = self.shared.fresh_id();
        self.shared.events.touched.watch(&key);
        let watch = Watch { key, seen: None, told: None, reads: true, turn: 0, phase: Phase::Due(now) };
        self.watches.0.insert(id, watch);
        Ok(id)
    }

    /// Ends a watch.
    pub fn unwatch(&mut self, id: u64) {
        if let Some(watch) = self.watches.0.remove(&id) {
            self.shared.events.touched.unwatch(&watch.key);
        }
    }

    /// Goes on with the watches that are due, and with those of changed objects, here and elsewhere.
    pub(super) fn tend_watches(&mut self, at: Moment) {
        let touched = self.shared.events.touched.take();
        for key in &touched {
            self.watchers.look(&mut self.shared, &mut self.held.copies, key);
        }
        let due = self.watches.0.iter().filter(|(_, watch)| match watch.phase {
            Phase::Due(due) | Phase::Asked { until: due, .. } => due <= at.now,
            Phase::Here => touched.contains(&watch.key),
            Phase::Reading => false,
        });
        let due: Vec<u64> = due.map(|(id, _)| *id).collect();
        for id in due {
            self.step(at, id);
        }
    }

    /// Adapts the watches to a new view.
    pub(super) fn follow_watches(&mut self, now: Instant) {
        let sh = &mut self.shared;
        self.watchers.follow(sh, &mut self.held.copies);
        for watch in self.watches.0.values_mut() {
            let goes_on = match watch.phase {
                Phase::Asked { peer, boot, .. } => {
                    let is_as_before = |member: &crate::ring::RingMember| member.live && member.boot == boot;
                    sh.ring.member(&peer).is_some_and(is_as_before) && sh.keeps(&peer, &watch.key)
                }
                Phase::Reading => true,
                // Perhaps there are keepers now, or the copy here isn't whole any more.
                Phase::Due(_) => !watch.reads,
                Phase::Here => false,
            };
            if !goes_on {
                (watch.reads, watch.phase) = (true, Phase::Due(now));
            }
        }
    }

    fn step(&mut self, at: Moment, id: u64) {
        let Some(watch) = self.watches.0.get_mut(&id) else { return };
        if matches!(watch.phase, Phase::Asked { .. } | Phase::Here) {
            watch.reads = true;
        }
        let key = watch.key.clone();
        if let Some(whole) = self.held.whole(&self.shared, &key).cloned() {
            let changed = self.notice(at, id, Some(&whole), false);
            self.rest(id, if changed { Phase::Due(at.now + PACE) } else { Phase::Here });
            return;
        }
        let keepers = self.shared.other_keepers(&key);
        let live: Vec<PublicKey> =
            keepers.iter().filter(|keeper| keeper.live).map(|keeper| keeper.key).collect();
        let Some(watch) = self.watches.0.get_mut(&id) else { return };
        if watch.reads || live.is_empty() {
            watch.reads = true;
            let begun =
                self.shared.met && !keepers.is_empty() && self.ask(at.now, &key, Asked::Watch(id)).is_ok();
            self.rest(id, if begun { Phase::Reading } else { Phase::Due(at.now + POLL) });
            return;
        }
        let peer = live[watch.turn % live.len()];
        let boot = self.shared.ring.member(&peer).map_or(0, |member| member.boot);
        watch.phase = Phase::Asked { peer, boot, until: at.now + SILENT_AFTER };
        let has = watch.told.and_then(|(digest, _)| digest).map(Into::into);
        self.shared.send(peer, &Message::Watch { key: key.into(), id, has });
    }

    fn rest(&mut self, id: u64, phase: Phase) {
        if let Some(watch) = self.watches.0.get_mut(&id) {
            watch.phase = phase;
        }
    }

    /// Continues after a read.
    pub(super) fn watch_read(&mut self, at: Moment, id: u64, value: Option<&Object>, partial: bool) {
        let changed = self.notice(at, id, value, partial);
        let Some(watch) = self.watches.0.get_mut(&id) else { return };
        watch.reads = partial;
        let pause = if partial { POLL } else { PACE };
        if changed || partial {
            watch.phase = Phase::Due(at.now + pause);
        } else {
            self.step(at, id);
        }
    }

    /// Takes a keeper's answer.
    pub(super) fn on_watched(
        &mut self,
        at: Moment,
        from: PublicKey,
        (key, id): (&[u8], u64),
        (outcome, state): (u8, Option<&[u8]>),
    ) {
        let is_asked = |watch: &&mut Watch| {
            watch.key == key && matches!(watch.phase, Phase::Asked { peer, .. } if peer == from)
        };
        let Some(watch) = self.watches.0.get_mut(&id).filter(is_asked) else {
            self.shared.stats.stray += 1;
            return;
        };
        match outcome {
            DIFFERS => {}
            NOTHING_NEW | NO_ROOM => {
                let pause = if outcome == NO_ROOM { POLL } else { Duration::ZERO };
                self.watches.turn_from(id, from, at.now + pause);
                return;
            }
            _ => {
                self.shared.stats.malformed += 1;
                self.watches.turn_from(id, from, at.now + AGAIN);
                return;
            }
        }
        let state = match state.map(Object::decode).transpose() {
            Ok(state) => state,
            Err(_) => {
                self.shared.stats.bad_states += 1;
                self.watches.turn_from(id, from, at.now + AGAIN);
                return;
            }
        };
        let partial = watch.told.is_some_and(|(_, partial)| partial);
        watch.phase = Phase::Due(at.now + PACE);
        if !self.notice(at, id, state.as_ref(), partial) {
            // It lags: it compares with the others, and the next one is asked.
            self.rest(id, Phase::Due(at.now + AGAIN));
            if let Some(watch) = self.watches.0.get_mut(&id) {
                watch.turn += 1;
            }
            self.shared.send(from, &Message::Behind { key: key.to_vec().into() });
        }
    }

    /// Merges what was told, with this node's own pending write, and tells it if it shows something new. Returns whether it
    /// does.
    fn notice(&mut self, at: Moment, id: u64, told: Option<&Object>, partial: bool) -> bool {
        let Some(watch) = self.watches.0.get_mut(&id) else { return false };
        let pending = self.writes.pending(&watch.key);
        for news in told.into_iter().chain(pending) {
            let seen = watch.seen.get_or_insert_with(|| Object::new(news.kind()));
            self.shared.stats.bad_states += u64::from(seen.merge(news, at.wall).is_err());
        }
        let shown = watch.seen.as_ref().filter(|object| object.dead_since().is_none());
        let now = (shown.map(Object::digest), partial);
        let before = watch.told.replace(now);
        if before != Some(now) {
            let value = reads::shown(watch.seen.clone());
            self.shared.events.push(ReplicatorEvent::Watched { id, value, partial });
        }
        before.is_none_or(|before| before.0 != now.0)
    }
}
