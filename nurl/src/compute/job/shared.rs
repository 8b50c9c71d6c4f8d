//! The context that the three roles of a node share: identity, clock-independent settings, queues, counters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::event::{JobEvent, JobStats};
use super::message::Message;
use super::options::{Config, DRAINING_FOR, MAX_EVENTS, MAX_OUTBOX, SILENT_FOR, TENURES_AGE};
use super::task::TaskId;
use crate::key::PublicKey;
use crate::kit::timers::Timers;
use crate::ring::{Epoch, TenureBook};
use crate::rt::Rng;

/// The executors and the owners of keys in the node's present view. The ring implements it.
pub trait Placement {
    /// Live members that advertise `kind`, in the key's order of preference.
    fn executors(&self, kind: &str, key: &[u8]) -> Vec<PublicKey>;
    /// The first `r` of the key's placement list, alive or not: the replicas of its outcomes.
    fn owners(&self, key: &[u8], r: usize) -> Vec<PublicKey>;
    /// Whether any member of the view, live or not, advertises `kind`.
    fn has_kind(&self, kind: &str) -> bool;
}

/// Limit on the members held down, or with an undelivered message; a forgotten member costs a full timeout.
pub(super) const MAX_DOWN: usize = 16_384;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A submission's next step.
    Submission(TaskId),
    /// The time to forget a resolved id.
    Resolved(TaskId),
    /// An execution's next step.
    Execution(TaskId),
    /// The next record's horizon.
    Records,
    /// The ageing of idle tenures.
    Tenures,
    /// The next beat.
    Beat,
    /// The next batch of records to new replicas.
    Resync,
    /// The next try for undelivered records.
    Redeliver,
    /// Members to whom a message was not delivered need handling.
    Failed,
    /// The limit of a drain.
    Drain,
}

/// What submitter, executor and replica of one node have in common; each of their methods gets it from [`Jobs`](super::Jobs).
pub(super) struct SharedContext {
    pub(super) config: Config,
    pub(super) local: PublicKey,
    pub(super) boot: u64,
    pub(super) rng: Rng,
    pub(super) placement: Option<Arc<dyn Placement + Send + Sync>>,
    pub(super) timers: Timers<Timer>,
    pub(super) tenures: TenureBook,
    pub(super) down: BTreeSet<PublicKey>,
    /// Members to whom a message was not delivered, until the next timeout handles them.
    pub(super) failed: BTreeSet<PublicKey>,
    /// Draining members, and until when they are passed over.
    pub(super) draining: BTreeMap<PublicKey, Instant>,
    /// Members that fell silent over a task, and until when they are asked last.
    pub(super) silent: BTreeMap<PublicKey, Instant>,
    pub(super) stats: JobStats,
    pub(super) events: VecDeque<JobEvent>,
    /// Messages to this node itself that are not yet handled.
    pub(super) to_self: VecDeque<Message>,
    /// Messages are encoded when they are fetched, so that a queue of large payloads holds references, not copies.
    pub(super) outbox: VecDeque<(PublicKey, Message)>,
}

impl SharedContext {
    pub(super) fn send(&mut self, to: PublicKey, message: Message) {
        let queue = self.to_self.len() + self.outbox.len();
        if queue >= MAX_OUTBOX {
            self.stats.outbox_dropped += 1;
        } else if to == self.local {
            self.to_self.push_back(message);
        } else {
            self.outbox.push_back((to, message));
        }
    }

    pub(super) fn event(&mut self, event: JobEvent) {
        if self.events.len() >= MAX_EVENTS && !matches!(event, JobEvent::Done { .. }) {
            self.stats.events_dropped += 1;
        } else {
            self.events.push_back(event);
        }
    }

    pub(super) fn executors(&self, kind: &str, key: &[u8]) -> Vec<PublicKey> {
        self.placement.as_ref().map(|view| view.executors(kind, key)).unwrap_or_default()
    }

    /// Executors that take work: draining members are left out.
    pub(super) fn candidates(&mut self, now: Instant, kind: &str, key: &[u8]) -> Vec<PublicKey> {
        self.draining.retain(|_, until| *until > now);
        let mut list = self.executors(kind, key);
        list.retain(|member| !self.draining.contains_key(member));
        list
    }

    /// Notes that a member fell silent: it is asked last until it is heard.
    pub(super) fn fell_silent(&mut self, now: Instant, peer: PublicKey) {
        self.silent.retain(|_, until| *until > now);
        if self.silent.len() < MAX_DOWN {
            self.silent.insert(peer, now + SILENT_FOR);
        }
    }

    /// Notes that a member, or a new process of it, was heard.
    pub(super) fn is_heard(&mut self, peer: &PublicKey) {
        self.silent.remove(peer);
    }

    /// The members of the list that haven't fallen silent lately; the whole list if all have.
    pub(super) fn not_silent(&self, now: Instant, list: &[PublicKey]) -> Vec<PublicKey> {
        let silent = |member: &PublicKey| self.silent.get(member).is_some_and(|until| *until > now);
        let heard: Vec<_> = list.iter().filter(|member| !silent(member)).copied().collect();
        if heard.is_empty() { list.to_vec() } else { heard }
    }

    /// Notes that a member drains; false if there is no room to remember it.
    pub(super) fn pass_over(&mut self, now: Instant, peer: PublicKey) -> bool {
        self.draining.retain(|_, until| *until > now);
        let fits = self.draining.len() < MAX_DOWN;
        if fits {
            self.draining.insert(peer, now + DRAINING_FOR);
        }
        fits
    }

    /// Whether any member of the view has the kind, including members that are dead or have left.
    pub(super) fn has_kind(&self, kind: &str) -> bool {
        self.placement.as_ref().is_some_and(|view| view.has_kind(kind))
    }

    pub(super) fn owners(&self, key: &[u8]) -> Vec<PublicKey> {
        let replicas = self.config.replicas;
        self.placement.as_ref().map(|view| view.owners(key, replicas)).unwrap_or_default()
    }

    /// Drops the tenures that have been idle for long, and repeats this while any are left.
    pub(super) fn age_tenures(&mut self, now: Instant) {
        self.tenures.age();
        if !self.tenures.is_empty() {
            self.timers.set(Timer::Tenures, now + TENURES_AGE);
        }
    }

    /// Learns the counter of a token that a message carried; false if it is too far ahead to be believed.
    pub(super) fn believe(&mut self, token: Epoch) -> bool {
        let believed = self.tenures.note(token.counter).is_ok();
        self.stats.epoch_refused += u64::from(!believed);
        believed
    }
}

/// The digest of a task id's content: BLAKE3 over kind, key and payload, each with its length.
pub(super) fn digest(kind: &str, key: &[u8], payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in [kind.as_bytes(), key, payload] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}
