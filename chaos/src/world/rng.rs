//! The random streams that programs and scenarios hold, and how far each has been drawn from.
//!
//! A stream counts the words that are drawn from it. The digest has the count when the stream is dropped, or at the end of
//! the run, so two runs differ if they drew differently, even if nothing came of it. A whole trace has each draw.

use super::sim;
use crate::ids::HostId;
use crate::seed;
use rand_core::{SeedableRng, TryCryptoRng, TryRng};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The label of streams that a program seeds by itself, and of copies.
const SEEDED: &str = "seeded";

/// What a stream shares with the world's list of open streams.
#[derive(Debug, Default)]
struct Shared {
    /// The words drawn from it.
    words: AtomicU64,
    /// Whether `rekeyed` has something.
    is_rekeyed: AtomicBool,
    /// The generator with which the stream goes on, after a branch of the run; its position isn't yet the stream's.
    rekeyed: Mutex<Option<seed::Rng>>,
}

/// A generator of a program or scenario: ChaCha20, 20 rounds.
pub struct Rng {
    inner: seed::Rng,
    /// `None` outside of a run.
    meter: Option<Meter>,
}

/// What the world knows a stream by.
#[derive(Debug)]
pub(crate) struct Meter {
    number: u64,
    shared: Arc<Shared>,
    /// Whether each draw is told to the trace.
    is_watched: bool,
}

impl Rng {
    pub(crate) fn new(inner: seed::Rng, meter: Option<Meter>) -> Rng {
        Rng { inner, meter }
    }

    /// A generator that no label names.
    fn unnamed(inner: seed::Rng) -> Rng {
        let meter = sim::is_running().then(|| {
            let host = sim::place().map(|place| place.host);
            sim::with(|sim| sim.meter(host, SEEDED))
        });
        Rng { inner, meter }
    }

    /// The generator with which this one goes on since the last branch of the run, if there was one after the last draw.
    #[cold]
    fn rekeyed(&self) -> Option<seed::Rng> {
        let shared = &self.meter.as_ref()?.shared;
        let mut rekeyed = shared.rekeyed.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        rekeyed.set_stream(self.inner.get_stream());
        rekeyed.set_word_pos(self.inner.get_word_pos());
        Some(rekeyed)
    }

    /// Goes on with another generator after a branch of the run.
    #[inline]
    fn follow(&mut self) {
        let Some(meter) = &self.meter else { return };
        if meter.shared.is_rekeyed.load(Ordering::Relaxed) {
            meter.shared.is_rekeyed.store(false, Ordering::Relaxed);
            if let Some(rekeyed) = self.rekeyed() {
                self.inner = rekeyed;
            }
        }
    }

    /// Selects one of the 2^64 streams of this generator's key, from its current position on.
    pub fn set_stream(&mut self, stream: u64) {
        self.inner.set_stream(stream);
    }

    #[inline]
    fn drawn(&self, words: u64) {
        if let Some(meter) = &self.meter {
            // Only the generator itself counts, so this needs no atomic addition.
            let position = meter.shared.words.load(Ordering::Relaxed) + words;
            meter.shared.words.store(position, Ordering::Relaxed);
            if meter.is_watched {
                sim::try_with(|sim| sim.drawn(meter.number));
            }
        }
    }
}

impl TryRng for Rng {
    type Error = Infallible;

    #[inline]
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.follow();
        self.drawn(1);
        self.inner.try_next_u32()
    }

    #[inline]
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.follow();
        self.drawn(2);
        self.inner.try_next_u64()
    }

    #[inline]
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.follow();
        self.drawn(bytes.len().div_ceil(4) as u64);
        self.inner.try_fill_bytes(bytes)
    }
}

impl TryCryptoRng for Rng {}

impl SeedableRng for Rng {
    type Seed = [u8; 32];

    fn from_seed(seed: [u8; 32]) -> Rng {
        Rng::unnamed(seed::Rng::from_seed(seed))
    }
}

impl Clone for Rng {
    fn clone(&self) -> Rng {
        let is_rekeyed = |meter: &Meter| meter.shared.is_rekeyed.load(Ordering::Relaxed);
        let rekeyed = self.meter.as_ref().filter(|meter| is_rekeyed(meter)).and_then(|_| self.rekeyed());
        Rng::unnamed(rekeyed.unwrap_or_else(|| self.inner.clone()))
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rng").field("meter", &self.meter).finish_non_exhaustive()
    }
}

impl Drop for Rng {
    fn drop(&mut self) {
        if let Some(meter) = &self.meter {
            sim::try_with(|sim| sim.close_stream(meter));
        }
    }
}

/// An open stream.
pub(crate) struct OpenStream {
    pub(crate) host: Option<HostId>,
    pub(crate) label: String,
    /// Whether the world seeded it, by its label.
    is_of_world: bool,
    shared: Arc<Shared>,
}

impl OpenStream {
    /// Words drawn so far.
    pub(crate) fn position(&self) -> u64 {
        self.shared.words.load(Ordering::Relaxed)
    }
}

/// The open streams of a run, in the order in which they were opened.
#[derive(Default)]
pub(crate) struct OpenStreams {
    by_number: BTreeMap<u64, OpenStream>,
    opened: u64,
}

impl OpenStreams {
    /// Opens a stream; `is_of_world` if the world seeds it by its label.
    pub(crate) fn open(
        &mut self,
        host: Option<HostId>,
        label: String,
        is_of_world: bool,
        is_watched: bool,
    ) -> Meter {
        let (number, shared) = (self.opened, Arc::<Shared>::default());
        self.opened += 1;
        self.by_number.insert(number, OpenStream { host, label, is_of_world, shared: shared.clone() });
        Meter { number, shared, is_watched }
    }

    pub(crate) fn get(&self, number: u64) -> Option<&OpenStream> {
        self.by_number.get(&number)
    }

    /// Closes a stream; `None` if it is another run's.
    pub(crate) fn close(&mut self, meter: &Meter) -> Option<OpenStream> {
        let open = self.by_number.get(&meter.number)?;
        if Arc::ptr_eq(&open.shared, &meter.shared) { self.by_number.remove(&meter.number) } else { None }
    }

    /// Those that the world has opened by a label go on with another seed. A generator that a program has seeded itself
    /// stays: its draws may be a promise, such as a key derived from a secret.
    pub(crate) fn rekey(&self, seed: u64) {
        for open in self.by_number.values().filter(|open| open.is_of_world) {
            let fresh = seed::stream(seed, &open.label);
            *open.shared.rekeyed.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
            open.shared.is_rekeyed.store(true, Ordering::Relaxed);
        }
    }

    /// Closes all of them.
    pub(crate) fn close_all(&mut self) -> impl Iterator<Item = OpenStream> + use<> {
        std::mem::take(&mut self.by_number).into_values()
    }
}
