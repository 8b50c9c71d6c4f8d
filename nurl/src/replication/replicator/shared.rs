//! The state that the parts of a replicator share: identity, settings, view, clock, outputs and counters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use minicbor::bytes::ByteVec;
use rand_core::Rng as _;

use super::config::Config;
use super::confirm::Decline;
use super::error::UpdateError;
use super::event::{Events, ReplicationStats};
use super::history::History;
use super::message::Message;
use super::outbox::Outbox;
use crate::key::PublicKey;
use crate::replication::crdt::{Clock, Digest};
use crate::replication::identity::ReplicaId;
use crate::ring::Ring;
use crate::rt::{Rng, Table, bound};

/// The time of a call, on the monotonic clock and on the wall's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// The time since 1970.
    pub(super) wall: Duration,
}

/// A node that keeps a key: an owner, or a live one that stands in for an owner that is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keeper {
    pub(super) key: PublicKey,
    pub(super) live: bool,
    pub(super) owner: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) local: ReplicaId,
    pub(super) ring: Arc<Ring>,
    /// Whether there was a view of the mesh. Before, nobody is known who may own a key.
    pub(super) met: bool,
    pub(super) history: History,
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    /// The id given last, and the one before the first: those of this process lie between.
    next_id: u64,
    no_id: u64,
    pub(super) outbox: Outbox,
    pub(super) events: Events,
    pub(super) stats: ReplicationStats,
}

impl Shared {
    pub(super) fn new(config: Config, local: ReplicaId, mut rng: Rng) -> Shared {
        let no_id = rng.next_u64() >> 1;
        let mut events = Events::default();
        events.restore_presence(config.presence);
        Shared {
            local,
            ring: Arc::default(),
            met: false,
            history: History::default(),
            clock: Clock::new(config.clock),
            next_id: no_id,
            no_id,
            rng,
            outbox: Outbox::new(config.repair_bytes_per_tick),
            events,
            stats: ReplicationStats::default(),
            config,
        }
    }

    /// Takes the ring of a new view.
    pub(super) fn follow(&mut self, now: Instant, ring: Arc<Ring>) {
        self.history.follow(now, &self.ring, &ring);
        (self.ring, self.met) = (ring, true);
    }

    /// How long the mark of a deletion is kept.
    pub(super) fn marks_kept(&self) -> Duration {
        Duration::from_secs(bound(Table::MarkLife, self.config.marks_kept.as_secs() as usize) as u64)
    }

    /// Whether another member is alive in this node's view.
    pub(super) fn sees_others(&self) -> bool {
        self.ring.members().iter().any(|member| member.live && member.key != self.local.key)
    }

    /// Whether no other member was seen for longer than the marks of deletions are kept.
    pub(super) fn was_long_away(&self, wall: Duration) -> bool {
        self.events.presence.is_broken(wall, self.marks_kept())
    }

    /// Takes another replica id: this node has written nothing under it.
    pub(super) fn renew(&mut self) {
        self.local.incarnation = self.rng.next_u64();
        self.stats.renewed += 1;
        tracing::debug!(target: "nurl::state", "the table of sums is full: this node writes under another incarnation");
    }

    /// Whether a peer may tell other authors' writes to a key: it owns the key, or may lately have owned it.
    pub(super) fn may_tell(&self, now: Instant, peer: &PublicKey, key: &[u8]) -> bool {
        self.history.owned(now, &self.ring, (&self.local.key, self.config.replicas), peer, key)
    }

    /// Whether a peer may have stood in for owners that were out of its reach.
    pub(super) fn stood_in(&self, now: Instant, peer: &PublicKey) -> bool {
        self.history.stood_in(now, &self.ring, peer)
    }

    /// Whether an author may have written where this node couldn't see it.
    pub(super) fn was_away(&self, now: Instant, author: &PublicKey) -> bool {
        self.history.was_away(now, &self.ring, author)
    }

    /// The key's owners.
    pub(super) fn owners(&self, key: &[u8]) -> Vec<PublicKey> {
        self.ring.owners(key, self.config.replicas)
    }

    /// The key's owners except this node.
    pub(super) fn other_owners(&self, key: &[u8]) -> Vec<PublicKey> {
        let mut owners = self.owners(key);
        owners.retain(|owner| *owner != self.local.key);
        owners
    }

    /// Whether `peer` is an owner of the key.
    pub(super) fn owns(&self, peer: &PublicKey, key: &[u8]) -> bool {
        self.ring.owns(peer, key, self.config.replicas)
    }

    /// Whether this node is an owner of the key.
    pub(super) fn is_owner(&self, key: &[u8]) -> bool {
        self.owns(&self.local.key, key)
    }

    /// The key's keepers: its owners, and those that stand in for owners that are away.
    pub(super) fn keepers(&self, key: &[u8]) -> Vec<Keeper> {
        let (mut keepers, mut live) = (Vec::new(), 0);
        for (place, member) in self.ring.preference(key).enumerate() {
            let owner = place < self.config.replicas;
            if !owner && live >= self.config.replicas {
                break;
            }
            live += usize::from(member.live);
            if owner || member.live {
                keepers.push(Keeper { key: member.key, live: member.live, owner });
            }
        }
        keepers
    }

    /// The key's keepers except this node.
    pub(super) fn other_keepers(&self, key: &[u8]) -> Vec<Keeper> {
        let mut keepers = self.keepers(key);
        keepers.retain(|keeper| keeper.key != self.local.key);
        keepers
    }

    /// Whether `peer` keeps the key.
    pub(super) fn keeps(&self, peer: &PublicKey, key: &[u8]) -> bool {
        self.owns(peer, key) || self.keepers(key).iter().any(|keeper| keeper.key == *peer)
    }

    /// Whether this node takes states for the key: an observer holds nothing.
    pub(super) fn takes(&self, key: &[u8]) -> bool {
        !self.config.observer && self.keeps(&self.local.key, key)
    }

    /// Whether this node's disk takes no commits.
    pub(super) fn is_read_only(&self) -> bool {
        self.config.read_only.is_some()
    }

    /// An error if this node's disk takes no commits.
    pub(super) fn check_disk(&self) -> Result<(), UpdateError> {
        self.config.read_only.clone().map_or(Ok(()), |why| Err(UpdateError::Disk(why)))
    }

    /// An id for a request. Ids begin at a random number, so that an answer to an earlier process matches none.
    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Whether a request of this process has this id.
    pub(super) fn has_given(&self, id: u64) -> bool {
        self.no_id < id && id <= self.next_id
    }

    /// The id given last.
    #[cfg(test)]
    pub(super) fn last_id(&self) -> u64 {
        self.next_id
    }

    /// Queues a message, or counts it as dropped.
    pub(super) fn send(&mut self, to: PublicKey, message: &Message) {
        self.stats.summaries += u64::from(matches!(message, Message::Summary { .. }));
        let queued = self.outbox.push(to, message.encode());
        self.stats.outbox_dropped += u64::from(!queued);
    }

    /// Sends a delta to all other keepers for which `lacks` holds.
    pub(super) fn fan_out(
        &mut self,
        key: &[u8],
        id: Option<u64>,
        state: Vec<u8>,
        lacks: impl Fn(&PublicKey) -> bool,
    ) {
        let message = Message::Delta { key: key.to_vec().into(), id, state: state.into() };
        for keeper in self.other_keepers(key) {
            if lacks(&keeper.key) {
                self.send(keeper.key, &message);
            }
        }
    }

    /// Acknowledges a delta or a copy, of which this node has now all.
    pub(super) fn acknowledge(&mut self, to: PublicKey, key: &[u8], id: u64, digest: Digest) {
        let (boot, durable) = (self.config.boot, self.config.durable);
        self.send(to, &Message::Ack { key: key.to_vec().into(), id, digest: digest.into(), boot, durable });
    }

    /// Tells a writer why its write wasn't taken.
    pub(super) fn decline(&mut self, to: PublicKey, key: &[u8], id: u64, why: Decline) {
        self.stats.declined += 1;
        tracing::debug!(target: "nurl::state", peer = %to.short(), id, %why, "a write is declined");
        self.send(to, &Message::Declined { key: key.to_vec().into(), id, why: why.to_wire() });
    }

    /// Tells a peer that this node isn't an owner of the key, and which nodes are.
    pub(super) fn refuse(&mut self, to: PublicKey, key: ByteVec, id: Option<u64>) {
        self.stats.not_owner += 1;
        let owners = self.owners(&key);
        tracing::debug!(target: "nurl::state", peer = %to.short(), ?id, ?owners, "a write or read is refused: not an owner");
        let owners = owners.iter().map(|owner| (*owner.as_bytes()).into()).collect();
        self.send(to, &Message::Refused { key, id, owners });
    }

    /// Whether any of the repair budget is left; if not, this is counted.
    pub(super) fn may_repair(&mut self) -> bool {
        let spent = self.outbox.is_spent();
        self.stats.throttled += u64::from(spent);
        !spent
    }

    /// Charges repair traffic to the tick's budget, if any budget is left.
    pub(super) fn spend(&mut self, bytes: usize) -> bool {
        let may = self.may_repair();
        if may {
            self.outbox.charge(bytes);
        }
        may
    }
}
