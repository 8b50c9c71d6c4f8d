//! Watches: the value of an object now, and after each change the newest one.
//!
//! A node with a whole copy looks at it whenever it changes. Any other node begins with a read, and then asks one live keeper
//! after the other to answer once its copy differs ([`watchers`](super::watchers)). What is read and answered is merged, so a
//! keeper that lags takes nothing back. When a keeper is lost, or has nothing new for long, all are read again: what one of
//! them has missed is seen then. While a read is partial, and where a keeper has no room, the watch reads every few seconds.
//!
//! Values may be skipped: at most some ten a second are told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::asking::{Asked, Asking};
use super::error::UpdateError;
use super::event::ReplicatorEvent;
use super::held::Held;
use super::key::checked_key;
use super::message::Message;
use super::reads::{self, Reads};
use super::shared::{Moment, Shared};
use super::watchers::{DIFFERS, NO_ROOM, NOTHING_NEW, NOTHING_NEW_AFTER};
use super::writes::Writes;
use crate::key::PublicKey;
use crate::replication::crdt::{Digest, Kind, Object};
use crate::ring::RingMember;

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

/// What a watch needs of the replicator's other parts.
pub(super) struct Parts<'a> {
    pub(super) sh: &'a mut Shared,
    pub(super) held: &'a Held,
    pub(super) writes: &'a Writes,
    pub(super) reads: &'a mut Reads,
    pub(super) asking: &'a mut Asking,
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

    /// Takes a keeper's word that it keeps the key no more.
    pub(super) fn on_refused(&mut self, now: Instant, from: PublicKey, id: u64) {
        let asked = |watch: &&mut Watch| matches!(watch.phase, Phase::Asked { peer, .. } if peer == from);
        if let Some(watch) = self.0.get_mut(&id).filter(asked) {
            watch.read_next(now + AGAIN);
        }
    }

    /// Asks others in place of a keeper that is lost.
    pub(super) fn on_peer_lost(&mut self, peer: PublicKey) {
        for watch in self.0.values_mut() {
            if let Phase::Asked { peer: asked, until, .. } = watch.phase
                && asked == peer
            {
                // A second after it was asked, so that one which is always lost isn't asked all the time.
                watch.read_next(until - SILENT_AFTER + AGAIN);
            }
        }
    }

    /// Begins to watch the object of this kind and name. [`ReplicatorEvent::Watched`] tells its value, and each newest one, under
    /// the id that is returned.
    ///
    /// # Errors
    /// [`UpdateError::Full`], [`UpdateError::KeyTooLong`].
    pub(super) fn begin(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        kind: Kind,
        name: &[u8],
    ) -> Result<u64, UpdateError> {
        let key = checked_key(kind, name)?;
        if self.0.len() >= MAX_WATCHES {
            return Err(UpdateError::Full("watches"));
        }
        let id = sh.fresh_id();
        sh.events.touched.watch(&key);
        let watch = Watch { key, seen: None, told: None, reads: true, turn: 0, phase: Phase::Due(now) };
        self.0.insert(id, watch);
        Ok(id)
    }

    /// Ends a watch.
    pub(super) fn end(&mut self, sh: &mut Shared, id: u64) {
        if let Some(watch) = self.0.remove(&id) {
            sh.events.touched.unwatch(&watch.key);
        }
    }

    /// Goes on with the watches that are due, and with those of changed objects.
    pub(super) fn tend(&mut self, parts: &mut Parts<'_>, at: Moment, touched: &BTreeSet<Vec<u8>>) {
        let due = self.0.iter().filter(|(_, watch)| match watch.phase {
            Phase::Due(due) | Phase::Asked { until: due, .. } => due <= at.now,
            Phase::Here => touched.contains(&watch.key),
            Phase::Reading => false,
        });
        let due: Vec<u64> = due.map(|(id, _)| *id).collect();
        for id in due {
            self.step(parts, at, id);
        }
    }

    /// Adapts to a new view.
    pub(super) fn follow(&mut self, sh: &Shared, now: Instant) {
        for watch in self.0.values_mut() {
            let goes_on = match watch.phase {
                Phase::Asked { peer, boot, .. } => {
                    let is_as_before = |member: &RingMember| member.live && member.boot == boot;
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

    fn step(&mut self, parts: &mut Parts<'_>, at: Moment, id: u64) {
        let Some(watch) = self.0.get_mut(&id) else { return };
        if matches!(watch.phase, Phase::Asked { .. } | Phase::Here) {
            watch.reads = true;
        }
        let key = watch.key.clone();
        if let Some(whole) = parts.held.whole(parts.sh, &key).cloned() {
            let changed = watch.notice(parts, at, id, Some(&whole), false);
            watch.phase = if changed { Phase::Due(at.now + PACE) } else { Phase::Here };
            return;
        }
        let keepers = parts.sh.other_keepers(&key);
        let live: Vec<PublicKey> =
            keepers.iter().filter(|keeper| keeper.live).map(|keeper| keeper.key).collect();
        if watch.reads || live.is_empty() {
            watch.reads = true;
            let Parts { sh, held, reads, asking, .. } = parts;
            let begun = sh.met
                && !keepers.is_empty()
                && asking.begin((sh, held, reads), at.now, &key, Asked::Watch(id)).is_ok();
            watch.phase = if begun { Phase::Reading } else { Phase::Due(at.now + POLL) };
            return;
        }
        let peer = live[watch.turn % live.len()];
        let boot = parts.sh.ring.member(&peer).map_or(0, |member| member.boot);
        watch.phase = Phase::Asked { peer, boot, until: at.now + SILENT_AFTER };
        let has = watch.told.and_then(|(digest, _)| digest).map(Into::into);
        parts.sh.send(peer, &Message::Watch { key: key.into(), id, has });
    }

    /// Continues after a read.
    pub(super) fn on_read(
        &mut self,
        parts: &mut Parts<'_>,
        at: Moment,
        id: u64,
        value: Option<&Object>,
        partial: bool,
    ) {
        let Some(watch) = self.0.get_mut(&id) else { return };
        let changed = watch.notice(parts, at, id, value, partial);
        watch.reads = partial;
        let pause = if partial { POLL } else { PACE };
        watch.phase = Phase::Due(at.now + pause);
        if !changed && !partial {
            self.step(parts, at, id);
        }
    }

    /// Takes a keeper's answer.
    pub(super) fn on_watched(
        &mut self,
        parts: &mut Parts<'_>,
        at: Moment,
        from: PublicKey,
        (key, id): (&[u8], u64),
        (outcome, state): (u8, Option<&[u8]>),
    ) {
        let is_asked = |watch: &&mut Watch| {
            watch.key == key && matches!(watch.phase, Phase::Asked { peer, .. } if peer == from)
        };
        let Some(watch) = self.0.get_mut(&id).filter(is_asked) else {
            parts.sh.stats.stray += 1;
            return;
        };
        let pause = match (outcome, state.map(Object::decode).transpose()) {
            (DIFFERS, Ok(state)) => {
                let partial = watch.told.is_some_and(|(_, partial)| partial);
                let changed = watch.notice(parts, at, id, state.as_ref(), partial);
                watch.phase = Phase::Due(at.now + if changed { PACE } else { AGAIN });
                if !changed {
                    // It lags: it compares with the others, and the next one is asked.
                    watch.turn += 1;
                    parts.sh.send(from, &Message::Behind { key: key.to_vec().into() });
                }
                return;
            }
            (DIFFERS, Err(_)) => {
                parts.sh.stats.bad_states += 1;
                AGAIN
            }
            (NOTHING_NEW, _) => Duration::ZERO,
            (NO_ROOM, _) => POLL,
            _ => {
                parts.sh.stats.malformed += 1;
                AGAIN
            }
        };
        watch.read_next(at.now + pause);
    }
}

impl Watch {
    /// Reads all keepers at this time, and asks the next one then.
    fn read_next(&mut self, at: Instant) {
        (self.reads, self.phase) = (true, Phase::Due(at));
        self.turn += 1;
    }

    /// Merges what was told, with this node's own pending write, and tells it if it shows something new. Returns whether it
    /// does.
    fn notice(
        &mut self,
        parts: &mut Parts<'_>,
        at: Moment,
        id: u64,
        told: Option<&Object>,
        partial: bool,
    ) -> bool {
        let pending = parts.writes.pending(&self.key);
        for news in told.into_iter().chain(pending) {
            let seen = self.seen.get_or_insert_with(|| Object::new(news.kind()));
            parts.sh.stats.bad_states += u64::from(seen.merge(news, at.wall).is_err());
        }
        let shown = self.seen.as_ref().filter(|object| object.dead_since().is_none());
        let now = (shown.map(Object::digest), partial);
        let before = self.told.replace(now);
        if before != Some(now) {
            let value = reads::shown(self.seen.clone());
            parts.sh.events.push(ReplicatorEvent::Watched { id, value, partial });
        }
        before.is_none_or(|before| before.0 != now.0)
    }
}
