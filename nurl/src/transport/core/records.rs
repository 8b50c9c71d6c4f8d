//! Sealed records of rendezvous: ours is sealed for each hub, others' are opened.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::key::PublicKey;
use crate::mesh::Generation;
use crate::net::reach::rendezvous::{Record, RecordError, SealedRecord};
use crate::rt::Rng;

/// How often our record is sealed again, and how long it is valid: an older record belongs to a node that is gone.
const RECORD_EVERY: Duration = Duration::from_secs(600);
const RECORD_LIFE: Duration = Duration::from_secs(1_200);

/// The mesh's secrets as far as records need them, and the sequence of our own record.
pub(super) struct Records {
    local: PublicKey,
    /// In the order in which they are tried; the first one seals.
    generations: Vec<Generation>,
    /// The sequence number of our last record.
    seq: u64,
    /// When our record is to be sealed again; `None` for a node without a record.
    due: Option<Instant>,
    /// One point in time on the monotonic clock and on the wall clock.
    unix_base: (Instant, Duration),
    rng: Rng,
}

impl Records {
    /// The records of the node `local`, which publishes its own one if it is `listed`.
    pub(super) fn new(
        local: PublicKey,
        generations: Vec<Generation>,
        listed: bool,
        now: Instant,
        unix_now: Duration,
        rng: Rng,
    ) -> Records {
        Records {
            local,
            generations,
            seq: unix_now.as_micros() as u64,
            due: listed.then_some(now),
            unix_base: (now, unix_now),
            rng,
        }
    }

    /// The mesh's secret changed.
    pub(super) fn set_generations(&mut self, generations: Vec<Generation>) {
        self.generations = generations;
    }

    /// Begins a new record of ours. Returns its sequence number, or `None` for a node without a record.
    pub(super) fn renew(&mut self, now: Instant) -> Option<u64> {
        if self.generations.is_empty() {
            return None;
        }
        *self.due.as_mut()? = now + RECORD_EVERY;
        self.seq += 1;
        Some(self.seq)
    }

    /// Our record for one hub, under the sequence number of the last [`renew`](Records::renew).
    ///
    /// # Errors
    /// Those of [`Record::seal`].
    pub(super) fn seal(
        &mut self,
        now: Instant,
        hub: PublicKey,
        candidates: &[SocketAddr],
    ) -> Result<Bytes, RecordError> {
        let expires = self.unix(now) + RECORD_LIFE;
        let record = Record { candidates: candidates.to_vec(), home: Some(hub), capabilities: 0, expires };
        let generation = self.generations.first().ok_or(RecordError::Sealed)?;
        record.seal(generation, &self.local, self.seq, &mut self.rng).map(Bytes::from)
    }

    /// A hub holds a record of ours with this number, from another publisher with our key: ours must be above it.
    pub(super) fn outbid(&mut self, seq: u64) {
        self.seq = self.seq.max(seq);
    }

    /// The content of a record, if it was sealed by this mesh and hasn't expired.
    ///
    /// # Errors
    /// Those of [`Record::open`].
    pub(super) fn open(&self, now: Instant, record: &SealedRecord) -> Result<Record, RecordError> {
        Record::open(&self.generations, &record.key, record.seq, &record.sealed, self.unix(now))
    }

    /// Whether our record is to be sealed again.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// When our record is to be sealed again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn unix(&self, now: Instant) -> Duration {
        let (base, unix_base) = self.unix_base;
        unix_base + now.saturating_duration_since(base)
    }
}
