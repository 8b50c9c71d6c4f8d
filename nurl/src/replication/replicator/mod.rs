//! The replicator keeps every key on its owners, and only temporarily anywhere else.
//!
//! # Guarantees
//! - A write is made on the node where it is called, as a delta under this node's replica id. Deltas are idempotent:
//!   a retry repeats the delta, never the operation. A node that isn't an owner keeps the delta until an owner has
//!   acknowledged it, and answers its caller then.
//! - The owners refuse a write of another type than the key's, and the write changes nothing. This holds as long as
//!   one owner, in the view of the owner that takes the write, has a copy. An owner without a copy asks the other
//!   owners first. It makes no write if all that answered have no copy and another is silent, or if it has no room
//!   for the state that they sent.
//! - If no such owner has a copy, two types may meet: all owners are new and the former ones haven't handed over yet,
//!   or two owners make the first write at the same time, or on two sides of a partition. Only consensus on the first
//!   write would prevent that, and a minority couldn't write then. All copies keep both types, both types accept
//!   further writes, and [`ReplicationStats::mixed`] counts the case.
//! - Owners of a key that can reach each other converge despite any message loss: they compare digests and exchange
//!   the keys that differ. Equal digests transfer no state.
//! - A node that is no longer an owner hands its copy over, and drops it only after all owners, unchanged for
//!   [`Config::hand_off_hold`], acknowledged it with one digest.
//! - Repair traffic is bounded: the bytes of state per second, the summaries per tick, and every queue have limits.
//!   Dropped messages are counted, and a later round repairs the loss.
//!
//! # How it works
//! Deltas fan out to `owners(key, R)`. Each tick a few peers get a *summary* of the next range of shared keys: one
//! hash. If the hash differs, the peer answers with its digests of the range, and the sender pulls and pushes the
//! states that differ. Reads by non-owners ask all owners, merge, and repair those that lag. An observer sends an
//! operation with an id to one member and retries only there. A node that leaves offers the states that no other
//! owner is known to have.
//!
//! # Rejected input
//! States for keys that this node doesn't own in its own view (it answers with that view), bytes that are not
//! canonical, and everything over a limit. There are no hinted hand-offs: while an owner is away the other owners
//! hold the key.

mod apply;
mod asking;
mod calls;
mod handoff;
mod leave;
mod message;
mod operations;
mod reads;
mod sync;
#[cfg(test)]
mod tests;
mod writes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use minicbor::bytes::ByteVec;
use rand_core::Rng as _;

pub use leave::Unheld;
pub use message::{MAX_MESSAGE_BYTES, Op};
pub use operations::{OperationId, OperationOutcome};

use self::apply::Own;
use self::asking::Asking;
use self::handoff::HandOff;
use self::message::Message;
use self::operations::Operations;
use self::reads::Reading;
use self::writes::Pending;
use crate::key::PublicKey;
use crate::kit::draw;
use crate::replication::crdt::{Clock, CrdtError, Digest, Stamp, Value};
use crate::replication::identity::ReplicaId;
use crate::ring::Ring;
use crate::rt::Rng;

/// The longest key; the same limit as for a tenure's key.
pub const MAX_KEY_BYTES: usize = crate::ring::MAX_TENURE_KEY_BYTES;

/// Limit on the keys held. The tables cost about 300 bytes a key besides its state.
pub const MAX_ENTRIES: usize = 262_144;

/// Limit on the bytes of encoded state held.
pub const MAX_HELD_BYTES: usize = 512 * 1024 * 1024;

/// Limit on the keys written here that other nodes own. Each entry keeps this node's own sums. They must not be
/// forgotten while the replica id lives, or the others would take a later write for one already seen and lose it.
pub const MAX_OWN: usize = 65_536;

/// Limit on the deltas that no owner has acknowledged yet. It is reached when no owner was reachable for a long time.
pub const MAX_PENDING: usize = 4096;

/// Limit on the reads under way.
pub const MAX_READS: usize = 1024;

/// Limit on the messages, and their bytes, that wait to be sent. Repair replaces the messages dropped at this limit.
pub const MAX_OUTBOX: usize = 4096;
/// See [`MAX_OUTBOX`].
pub const MAX_OUTBOX_BYTES: usize = 16 * 1024 * 1024;

/// The interval at which budgets refill and retries are checked.
pub const TICK: Duration = Duration::from_secs(1);

/// Limit on the peers that get a summary in one tick.
pub const MAX_SYNCS_PER_TICK: usize = 4;

/// The limits and rates of a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The number of owners of a key.
    pub replicas: usize,
    /// The pause between two rounds of summaries to a peer.
    pub sync_period: Duration,
    /// The time for which the owners must be unchanged before a former owner drops its copy.
    pub hand_off_hold: Duration,
    /// Bytes of state a second for repair and hand-off.
    pub repair_bytes_per_tick: usize,
    /// Limit on the keys held.
    pub max_entries: usize,
    /// Limit on the bytes of state held.
    pub max_held_bytes: usize,
    /// Limit on the unacknowledged deltas.
    pub max_pending: usize,
    /// Limit on the keys of other owners written here.
    pub max_own: usize,
    /// The stamp after which the hybrid clock continues: the durable [`Replicator::clock_high_water`].
    pub clock: Stamp,
    /// An observer writes through a member and holds nothing.
    pub observer: bool,
    /// Whether the driver stores the keys of [`ReplicatorEvent::Changed`] durably: then a write is safe here without any
    /// owner's answer.
    pub durable: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            replicas: 3,
            sync_period: Duration::from_secs(10),
            hand_off_hold: Duration::from_secs(60),
            repair_bytes_per_tick: 1024 * 1024,
            max_entries: MAX_ENTRIES,
            max_held_bytes: MAX_HELD_BYTES,
            max_pending: MAX_PENDING,
            max_own: MAX_OWN,
            clock: Stamp::default(),
            observer: false,
            durable: false,
        }
    }
}

/// Why a write or a read wasn't started, or a write failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// The value refused it.
    #[error(transparent)]
    Value(#[from] CrdtError),
    /// The key is longer than [`MAX_KEY_BYTES`].
    #[error("a key of {0} bytes, the limit is {MAX_KEY_BYTES}")]
    KeyTooLong(usize),
    /// A table is full: try again after owners have acknowledged, or at another node.
    #[error("the table of {0} is full")]
    Full(&'static str),
    /// This node holds no copy, and the other owners haven't said whether one exists.
    #[error("the other owners of the key don't answer, so its value isn't known: try again")]
    Unknown,
    /// This node keeps the write and goes on sending it, but the write is lost if the process ends first.
    #[error("no owner of the key has acknowledged the write yet: it is lost if this process ends before")]
    Unacknowledged,
    /// An observer has no replica id to write under. It sends an operation to a member instead.
    #[error("an observer writes through a member")]
    Observer,
    /// The ring is empty.
    #[error("nobody owns the key")]
    NoOwners,
}

/// An event for the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicatorEvent {
    /// The durable record of a key changed: store [`Replicator::record`], or delete it if there is none.
    Changed {
        /// The key.
        key: Vec<u8>,
    },
    /// A read is done.
    ReadDone {
        /// The id given by the caller.
        id: u64,
        /// The merged state; none if no owner has one.
        value: Option<Value>,
    },
    /// No owner answered.
    ReadFailed {
        /// The id given by the caller.
        id: u64,
    },
    /// A write is over.
    WriteDone {
        /// The id given by the caller.
        id: u64,
        /// Whether the write was made.
        outcome: Result<(), UpdateError>,
    },
    /// A peer's view has other owners for a key than this node's: the driver does a push-pull with the peer.
    ViewDiffers {
        /// The peer.
        peer: PublicKey,
    },
    /// An operation sent to a member is over.
    OperationDone {
        /// The operation's id.
        id: OperationId,
        /// How it ended.
        outcome: OperationOutcome,
    },
}

/// Counters of the replicator's work, of drops and of refusals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplicationStats {
    /// Messages that didn't decode.
    pub malformed: u64,
    /// States whose bytes were not canonical, or that exceeded a limit.
    pub bad_states: u64,
    /// States for keys that this node doesn't own.
    pub not_owner: u64,
    /// Writes refused because the key holds another type.
    pub other_kind: u64,
    /// Merges that kept a state of another type beside the held state.
    pub mixed: u64,
    /// Acknowledgements and answers that match no request, or come from the wrong node.
    pub stray: u64,
    /// States refused because the node holds as much as it may, and deltas refused because too many wait.
    pub full: u64,
    /// Messages dropped because the queue was full.
    pub outbox_dropped: u64,
    /// Times that repair stopped because its budget was used up.
    pub throttled: u64,
    /// Received summaries that matched.
    pub in_sync: u64,
    /// Received summaries that differed.
    pub out_of_sync: u64,
    /// Whole states sent for repair or hand-off.
    pub states_sent: u64,
    /// Merges that parked a write whose stamp is too far ahead.
    pub parked: u64,
    /// Keys handed off and dropped.
    pub handed_off: u64,
    /// Copies that a former owner kept because it has no room to remember its own sums.
    pub hand_off_held: u64,
}

#[derive(Debug)]
struct Entry {
    value: Value,
    /// The first R owners on the ring for this key.
    owners: Vec<PublicKey>,
    /// The digest of the present value, if it was computed.
    digest: Option<Digest>,
    /// The entry's part of `held_bytes`: exact after a digest, else an upper bound.
    size: usize,
    /// Set while this node holds the key without being an owner.
    hand_off: Option<HandOff>,
    /// Whether the value was written or acknowledged here, and no other owner is known to have it.
    unspread: bool,
    /// The id of the last offer to other owners; 0 if there was none.
    offered: u64,
}

impl Entry {
    /// Notes that the other owners may lack the present value.
    fn unspread(&mut self) {
        (self.unspread, self.offered) = (true, 0);
    }

    /// Notes that another owner has the present value.
    fn spread(&mut self) {
        (self.unspread, self.offered) = (false, 0);
    }
}

/// One node's replication state.
#[derive(Debug)]
pub struct Replicator {
    config: Config,
    local: ReplicaId,
    rng: Rng,
    ring: Arc<Ring>,
    clock: Clock,
    entries: BTreeMap<Vec<u8>, Entry>,
    held_bytes: usize,
    own: BTreeMap<Vec<u8>, Own>,
    pending: BTreeMap<Vec<u8>, Pending>,
    reads: BTreeMap<u64, Reading>,
    /// The writes and deltas that wait for the other owners' states.
    asking: Asking,
    /// Callers' writes that wait for an acknowledgement.
    waiting_writes: usize,
    operations: Operations,
    /// Keys with parked writes. `leaving` has the keys to hand off.
    parked: BTreeSet<Vec<u8>>,
    leaving: BTreeSet<Vec<u8>>,
    /// For each peer, when its next summary is due, and where in the keys it begins.
    syncs: BTreeMap<PublicKey, sync::Cursor>,
    outbox: VecDeque<(PublicKey, Vec<u8>)>,
    outbox_bytes: usize,
    dirty: BTreeSet<Vec<u8>>,
    differing: BTreeSet<PublicKey>,
    events: VecDeque<ReplicatorEvent>,
    /// Bytes of state that may still be sent in this tick; a large state may overdraw it.
    budget: i64,
    next_tick: Instant,
    /// Once this node leaves: when it next offers the states that no other owner has.
    next_offer: Option<Instant>,
    next_id: u64,
    /// Counters of the replicator's work, of drops and of refusals.
    pub stats: ReplicationStats,
}

impl Replicator {
    /// A replicator without keys and without a ring.
    pub fn new(config: Config, local: ReplicaId, now: Instant, mut rng: Rng) -> Replicator {
        // A random offset keeps the ticks of nodes that start together apart.
        let first = now + TICK / 2 + draw::duration(&mut rng, TICK / 2);
        let budget = config.repair_bytes_per_tick as i64;
        Replicator {
            clock: Clock::new(config.clock),
            config,
            local,
            next_id: rng.next_u64() >> 1,
            rng,
            ring: Arc::default(),
            entries: BTreeMap::new(),
            held_bytes: 0,
            own: BTreeMap::new(),
            pending: BTreeMap::new(),
            reads: BTreeMap::new(),
            asking: Asking::default(),
            waiting_writes: 0,
            operations: Operations::default(),
            parked: BTreeSet::new(),
            leaving: BTreeSet::new(),
            syncs: BTreeMap::new(),
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            dirty: BTreeSet::new(),
            differing: BTreeSet::new(),
            events: VecDeque::new(),
            budget,
            next_tick: first,
            next_offer: None,
            stats: ReplicationStats::default(),
        }
    }

    /// The id under which this node writes.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn local(&self) -> ReplicaId {
        self.local
    }

    /// Whether this node writes through members.
    pub fn is_observer(&self) -> bool {
        self.config.observer
    }

    /// The state that this node holds for a key, as an owner or until the key is handed off.
    pub fn get(&self, key: &[u8]) -> Option<&Value> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// The keys held.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.keys().map(Vec::as_slice)
    }

    /// The number of deltas that no owner has acknowledged.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The greatest stamp given or seen. It must be kept durably.
    pub fn clock_high_water(&self) -> Stamp {
        self.clock.high_water()
    }

    /// Takes the ring of a new view.
    pub fn set_ring(&mut self, now: Instant, ring: Arc<Ring>) {
        self.ring = ring;
        let mut peers = BTreeSet::new();
        for (key, entry) in &mut self.entries {
            let owners = self.ring.owners(key, self.config.replicas);
            let changed = owners != entry.owners;
            entry.owners = owners;
            peers.extend(entry.owners.iter().copied());
            if entry.owners.contains(&self.local.key) {
                entry.hand_off = None;
                self.leaving.remove(key);
            } else if changed || entry.hand_off.is_none() {
                entry.hand_off = Some(HandOff::new(now));
                self.leaving.insert(key.clone());
            } else if let Some(hand_off) = &mut entry.hand_off {
                hand_off.view_changed(now);
            }
        }
        self.syncs.retain(|peer, _| peers.contains(peer));
        for peer in peers {
            self.know_peer(now, peer);
        }
        for pending in self.pending.values_mut() {
            pending.retry_now(now);
        }
        self.ask_present_owners(now);
    }

    /// Takes a message from `from`. `wall` is the wall clock as time since 1970.
    pub fn handle_message(&mut self, now: Instant, wall: Duration, from: PublicKey, bytes: &[u8]) {
        let Some(message) = Message::decode(bytes) else {
            self.stats.malformed += 1;
            return;
        };
        match message {
            Message::Delta { key, id, state } => self.on_delta(now, wall, from, key.into(), id, &state),
            Message::Ack { key, id, digest } => self.on_ack(from, &key, id, digest.into()),
            Message::Refused { key, id, owners } => self.on_refused(from, &key, id, &owners),
            Message::Summary { range, hash } => self.on_summary(from, range, hash.into()),
            Message::Digests { range, items } => self.on_digests(from, &range, &items),
            Message::Pull { keys } => self.on_pull(from, &keys),
            Message::States { items } => {
                for item in items {
                    self.merge_from(now, wall, from, item.key.into(), &item.bytes);
                }
            }
            Message::OtherKind { key, id, held } => self.on_other_kind(from, &key, id, held),
            Message::Copy { key, id, state } => self.on_copy(now, wall, from, key.into(), id, &state),
            Message::Read { key, id } => self.on_read(from, key, id),
            Message::ReadReply { key, id, state } => {
                self.on_read_reply(now, wall, from, &key, id, state.as_ref().map(|state| state.as_slice()));
            }
            Message::Operation { id, key, op } => {
                self.on_operation(now, wall, from, id.into(), key.into(), op);
            }
            Message::OperationReply { id, outcome } => self.on_operation_reply(from, id.into(), outcome),
        }
    }

    /// Does the work that is due.
    pub fn handle_timeout(&mut self, now: Instant, wall: Duration) {
        self.expire_reads(now, wall);
        self.offer_again(now);
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        self.budget = (self.budget + self.config.repair_bytes_per_tick as i64)
            .min(self.config.repair_bytes_per_tick as i64);
        self.settle_parked(wall);
        self.retry_pending(now, wall);
        self.expire_writes(now);
        self.retry_operations(now);
        self.continue_hand_off(now);
        self.summarise(now);
    }

    /// The time at which [`handle_timeout`](Replicator::handle_timeout) must be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let read = self.reads.values().map(|reading| reading.due()).min();
        [read, self.next_offer].into_iter().flatten().chain([self.next_tick]).min()
    }

    /// The next message to send, as a reliable message of at most [`MAX_MESSAGE_BYTES`].
    ///
    /// A driver with a store drains [`poll_event`](Replicator::poll_event) and commits the changed records first.
    /// Then an acknowledgement means that the delta is durable here, and after a crash no dot or sum that others have
    /// seen is given out again.
    pub fn poll_transmit(&mut self) -> Option<(PublicKey, Vec<u8>)> {
        let (to, bytes) = self.outbox.pop_front()?;
        self.outbox_bytes -= bytes.len();
        Some((to, bytes))
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ReplicatorEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if let Some(peer) = self.differing.pop_first() {
            return Some(ReplicatorEvent::ViewDiffers { peer });
        }
        self.dirty.pop_first().map(|key| ReplicatorEvent::Changed { key })
    }

    /// Tells that a message to this peer failed because the peer restarted or left the mesh.
    pub fn on_peer_lost(&mut self, peer: PublicKey) {
        self.fail_operations(peer);
        self.lose_reader(peer);
    }

    fn send(&mut self, to: PublicKey, message: &Message) -> bool {
        let bytes = message.encode();
        if self.outbox.len() >= MAX_OUTBOX
            || self.outbox_bytes + bytes.len() > MAX_OUTBOX_BYTES
            || bytes.len() > MAX_MESSAGE_BYTES
        {
            self.stats.outbox_dropped += 1;
            return false;
        }
        self.outbox_bytes += bytes.len();
        self.outbox.push_back((to, bytes));
        true
    }

    /// Charges repair traffic to the tick's budget, if any budget is left.
    fn spend(&mut self, bytes: usize) -> bool {
        if self.budget <= 0 {
            self.stats.throttled += 1;
            return false;
        }
        self.budget -= bytes as i64;
        true
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn refuse(&mut self, to: PublicKey, key: ByteVec, id: Option<u64>) {
        self.stats.not_owner += 1;
        let owners = self.ring.owners(&key, self.config.replicas);
        let owners = owners.iter().map(|owner| (*owner.as_bytes()).into()).collect();
        self.send(to, &Message::Refused { key, id, owners });
    }
}
