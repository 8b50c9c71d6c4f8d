//! The context that the three roles of a node share: identity, clock-independent settings, queues, counters.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::{JobEvent, JobStats};
use super::message::Message;
use super::options::{Config, MAX_ASKED, TENURES_AGE};
use super::peers::PeerConditions;
use super::queues::Queues;
use super::task::TaskId;
use super::warrant::Warrants;
use crate::key::PublicKey;
use crate::kit::timers::Timers;
use crate::ring::{Epoch, TenureBook};
use crate::rt::{Point, Rng, buggify};

/// How long a former owner of a key may still tell outcomes: it passes them on within seconds of a change.
const TELLS_FOR: Duration = Duration::from_secs(600);
/// Limit on the former placements, each of which may be a ring's points in memory.
const MAX_FORMER: usize = 8;

/// The executors and the owners of keys in the node's present view. The ring implements it.
pub trait Placement {
    /// Live members that advertise `kind`, in the key's order of preference.
    fn executors(&self, kind: &str, key: &[u8]) -> Vec<PublicKey>;
    /// The first `r` of the key's placement list, alive or not: the replicas of its outcomes.
    fn owners(&self, key: &[u8], r: usize) -> Vec<PublicKey>;
    /// Whether any member of the view, live or not, advertises `kind`.
    fn has_kind(&self, kind: &str) -> bool;
}

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
    /// The next forwarded task that nobody claimed.
    Forwarded,
}

/// What submitter, executor and replica of one node have in common; each of their methods gets it from [`Jobs`](super::Jobs).
pub(super) struct SharedContext {
    pub(super) config: Config,
    pub(super) local: PublicKey,
    pub(super) boot: u64,
    pub(super) rng: Rng,
    pub(super) placement: Option<Arc<dyn Placement + Send + Sync>>,
    /// The placements before it, with the times at which they ended.
    former: VecDeque<(Instant, Arc<dyn Placement + Send + Sync>)>,
    pub(super) timers: Timers<Timer>,
    pub(super) tenures: TenureBook,
    /// Whether the driver's disk takes epoch counters.
    pub(super) counters_kept: bool,
    pub(super) peers: PeerConditions,
    pub(super) stats: JobStats,
    pub(super) queues: Queues,
    /// Whose word counts for tasks that another submits; none: nobody's.
    pub(super) warrants: Option<Warrants>,
}

impl SharedContext {
    pub(super) fn new(config: Config, local: PublicKey, boot: u64, rng: Rng) -> SharedContext {
        let tenures = TenureBook::new(local, config.initial_epoch);
        SharedContext {
            config: config.sane(),
            local,
            boot,
            rng,
            placement: None,
            former: VecDeque::new(),
            timers: Timers::default(),
            tenures,
            counters_kept: true,
            peers: PeerConditions::default(),
            stats: JobStats::default(),
            queues: Queues::default(),
            warrants: None,
        }
    }

    /// Takes the placement of a new view.
    pub(super) fn follow(&mut self, now: Instant, placement: Arc<dyn Placement + Send + Sync>) {
        if let Some(former) = self.placement.replace(placement) {
            self.former.push_back((now, former));
        }
        while self.former.len() > MAX_FORMER
            || self.former.front().is_some_and(|(until, _)| *until + TELLS_FOR <= now)
        {
            self.former.pop_front();
        }
    }

    /// Whether a peer may tell a task's outcome: it is among the first executors, which are the ones that a later executor
    /// asks; or it owns the key, or did lately, or would if the members that displaced it weren't there.
    pub(super) fn may_tell(&self, now: Instant, peer: &PublicKey, kind: &str, key: &[u8]) -> bool {
        let replicas = self.config.replicas;
        let owned = self.former.iter().filter(|(until, _)| *until + TELLS_FOR > now);
        self.placement.as_ref().is_some_and(|view| view.owners(key, 2 * replicas).contains(peer))
            || self.executors(kind, key).iter().take(MAX_ASKED).any(|executor| executor == peer)
            || owned.into_iter().any(|(_, view)| view.owners(key, replicas).contains(peer))
    }

    pub(super) fn send(&mut self, to: PublicKey, message: Message) {
        let other = (to != self.local).then_some(to);
        if other.is_some() && buggify(Point::JobMessageLost) {
            self.stats.outbox_dropped += 1;
            return;
        }
        self.stats.outbox_dropped += u64::from(!self.queues.send(other, message));
    }

    pub(super) fn event(&mut self, event: JobEvent) {
        self.stats.events_dropped += u64::from(!self.queues.event(event));
    }

    pub(super) fn executors(&self, kind: &str, key: &[u8]) -> Vec<PublicKey> {
        self.placement.as_ref().map(|view| view.executors(kind, key)).unwrap_or_default()
    }

    /// Executors that take work: draining members are left out.
    pub(super) fn candidates(&mut self, now: Instant, kind: &str, key: &[u8]) -> Vec<PublicKey> {
        let list = self.executors(kind, key);
        self.peers.without_draining(now, list)
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
        let believed = self.tenures.believe(token).is_ok();
        self.stats.epoch_refused += u64::from(!believed);
        believed
    }
}
