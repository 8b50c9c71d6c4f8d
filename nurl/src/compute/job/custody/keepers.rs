//! Who keeps a task: the first live members of its id's preference list.
//!
//! A member that is away is not waited for: the next live one keeps the task in its place. The first keeper is the
//! custodian. Two nodes whose views differ may both be it; what they do is idempotent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::TaskId;
use crate::key::PublicKey;
use crate::ring::Ring;

/// How many members keep a task.
pub(super) const REPLICAS: usize = 3;
/// How long a former keeper may still tell of a task: it passes its copies on within seconds of a change.
const TELLS_FOR: Duration = Duration::from_secs(600);
/// Limit on the former rings.
const MAX_FORMER: usize = 8;

/// The ring, and those before it.
#[derive(Default)]
pub(super) struct Keepers {
    ring: Option<Arc<Ring>>,
    former: VecDeque<(Instant, Arc<Ring>)>,
}

impl Keepers {
    /// Takes the ring of a new view. Returns whether it is the first.
    pub(super) fn follow(&mut self, now: Instant, ring: Arc<Ring>) -> bool {
        let former = self.ring.replace(ring);
        let first = former.is_none();
        // A ring that places alike says nothing more about who kept what.
        let news = former.filter(|former| self.ring.as_ref().is_some_and(|ring| !ring.places_as(former)));
        self.former.extend(news.map(|former| (now, former)));
        while self.former.len() > MAX_FORMER
            || self.former.front().is_some_and(|(until, _)| *until + TELLS_FOR <= now)
        {
            self.former.pop_front();
        }
        first
    }

    /// Whether there is a view yet.
    pub(super) fn are_known(&self) -> bool {
        self.ring.is_some()
    }

    /// The keepers of a task, the custodian first.
    pub(super) fn of(&self, task: &TaskId) -> Vec<PublicKey> {
        let Some(ring) = &self.ring else { return Vec::new() };
        let live = ring.preference(task.as_bytes()).filter(|member| member.live);
        live.take(REPLICAS).map(|member| member.key).collect()
    }

    /// Whether a peer may tell of a task, or be told: it keeps it, or did lately, or would if a few of those before it
    /// were away.
    pub(super) fn may_tell(&self, now: Instant, peer: &PublicKey, task: &TaskId) -> bool {
        let near = |ring: &Ring| ring.owns(peer, task.as_bytes(), 2 * REPLICAS);
        let lately = self.former.iter().filter(|(until, _)| *until + TELLS_FOR > now);
        self.ring.as_deref().is_some_and(near)
            || self.of(task).contains(peer)
            || lately.into_iter().any(|(_, ring)| near(ring))
    }

    /// Every live worker.
    pub(super) fn live(&self) -> Vec<PublicKey> {
        let members = self.ring.iter().flat_map(|ring| ring.members());
        members.filter(|member| member.live).map(|member| member.key).collect()
    }

    /// Whether the process with this boot id is the member's present one, and lives.
    pub(super) fn is_present(&self, peer: &PublicKey, boot: u64) -> bool {
        let member = self.ring.as_ref().and_then(|ring| ring.member(peer));
        member.is_some_and(|member| member.live && member.boot == boot)
    }
}
