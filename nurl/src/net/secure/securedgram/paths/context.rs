//! What every part of a path machine may use while it handles one call.

use std::time::Instant;

use super::config::PathConfig;
use super::outbox::PathOutbox;
use super::status::PathStats;
use crate::rt::Rng;

/// The time of the call, and what the parts share.
pub(super) struct PathContext<'a> {
    pub(super) now: Instant,
    /// Whether there is a session.
    pub(super) established: bool,
    pub(super) config: &'a PathConfig,
    pub(super) rng: &'a mut Rng,
    pub(super) stats: &'a mut PathStats,
    pub(super) outbox: &'a mut PathOutbox,
}
