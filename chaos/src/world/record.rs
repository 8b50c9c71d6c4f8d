//! The record of a world: the trace of its events, and counters over them.

use super::novelty::{FirstReach, Novelty, NoveltyWatch};
use super::stats::WorldStats;
use super::trace::{NO_HOST, RecordKind, Trace, position};
use crate::ids::HostId;
use crate::kernel::disk::Op;
use crate::wire::flight::Flight;
use crate::wire::link::{Class, DropCause};
use crate::wire::path::{Alteration, Recorder};
use std::time::Duration;

/// Trace and counters.
pub(crate) struct Record {
    pub(crate) trace: Trace,
    pub(crate) stats: WorldStats,
    /// What the run reaches, if a reader asks for it.
    pub(crate) novelties: Option<NoveltyWatch>,
}

impl Record {
    pub(crate) fn new() -> Record {
        Record { trace: Trace::new(), stats: WorldStats::default(), novelties: None }
    }

    fn note(&mut self, now_ns: u64, kind: RecordKind, host: Option<HostId>, bytes: &[u8]) {
        self.trace.note(now_ns, kind, host.map_or(NO_HOST, |host| host.0), bytes);
    }

    /// A fault.
    pub(crate) fn fault(&mut self, now_ns: u64, host: Option<HostId>, text: &str) {
        self.stats.faults += 1;
        self.note(now_ns, RecordKind::Fault, host, text.as_bytes());
    }

    /// A change of settings by the scenario.
    pub(crate) fn setup(&mut self, now_ns: u64, host: Option<HostId>, text: &str) {
        self.note(now_ns, RecordKind::Setup, host, text.as_bytes());
    }

    /// A random stream is opened.
    pub(crate) fn stream(&mut self, now_ns: u64, host: Option<HostId>, label: &str) {
        self.note(now_ns, RecordKind::Stream, host, label.as_bytes());
    }

    /// The final position of a random stream, in words.
    pub(crate) fn stream_end(&mut self, now_ns: u64, host: Option<HostId>, label: &str, words: u128) {
        self.note(now_ns, RecordKind::StreamEnd, host, position(label, words).as_bytes());
    }

    /// A mark is reached for the first time.
    pub(crate) fn mark(&mut self, now_ns: u64, mark: &'static str) {
        self.note(now_ns, RecordKind::Mark, None, mark.as_bytes());
        self.reaches(now_ns, |novelties, place| novelties.reach(Novelty::Mark(mark), place));
    }

    /// Notes what the run reaches now, if a reader asks for it.
    #[inline]
    pub(crate) fn reaches(&mut self, now_ns: u64, note: impl FnOnce(&mut NoveltyWatch, FirstReach)) {
        if let Some(novelties) = &mut self.novelties {
            let place = FirstReach { event: self.trace.records(), at: Duration::from_nanos(now_ns) };
            note(novelties, place);
        }
    }

    /// Notes which counters of the world have come to a new height; `spawns` are the tasks so far.
    pub(crate) fn levels(&mut self, now_ns: u64, spawns: u64) {
        if let Some(mut novelties) = self.novelties.take() {
            let place = FirstReach { event: self.trace.records(), at: Duration::from_nanos(now_ns) };
            novelties.counters(&self.stats, place);
            novelties.level("tasks spawned", spawns, place);
            self.novelties = Some(novelties);
        }
    }

    /// A crash has decided what a disk holds.
    pub(crate) fn disk_after_crash(&mut self, now_ns: u64, host: HostId, content: &blake3::Hash) {
        self.note(now_ns, RecordKind::DiskCrash, Some(host), content.as_bytes());
    }

    /// The next draw of the scheduler's generator, at the end.
    pub(crate) fn scheduler(&mut self, now_ns: u64, draw: u64) {
        self.note(now_ns, RecordKind::Scheduler, None, &draw.to_le_bytes());
    }

    /// The scenario has ended with this result.
    pub(crate) fn ended(&mut self, now_ns: u64, result: &str) {
        self.note(now_ns, RecordKind::Ended, None, result.as_bytes());
    }

    /// A line of the scenario.
    pub(crate) fn line(&mut self, now_ns: u64, text: &str) {
        self.note(now_ns, RecordKind::Note, None, text.as_bytes());
    }

    /// A disk operation; `buffer` is for its bytes, and returned.
    pub(crate) fn disk(&mut self, now_ns: u64, host: HostId, op: &Op<'_>, mut buffer: Vec<u8>) -> Vec<u8> {
        buffer.clear();
        op.encode(&mut buffer);
        let kind = if op.is_sync() {
            self.stats.disk_syncs += 1;
            RecordKind::DiskSync
        } else {
            self.stats.disk_writes += 1;
            RecordKind::DiskWrite
        };
        self.note(now_ns, kind, Some(host), &buffer);
        buffer
    }

    /// A packet leaves an interface.
    #[inline]
    pub(crate) fn sent(&mut self, now_ns: u64, flight: &Flight) {
        self.trace.sent(now_ns, flight.origin.0, flight.nic, flight.number, &flight.bytes);
        self.stats.packets_sent += 1;
        match flight.class {
            Class::Udp => self.stats.udp_datagrams += 1,
            Class::Tcp => self.stats.tcp_segments += 1,
        }
    }

    /// A packet has reached its receiver.
    #[inline]
    pub(crate) fn received(&mut self, now_ns: u64, flight: &Flight) {
        let changed = if flight.corrupted { flight.bytes.as_slice() } else { &[] };
        self.trace.delivered(now_ns, flight.to, flight.nic, flight.number, changed);
        self.stats.packets_delivered += 1;
    }
}

impl Recorder for Record {
    fn altered(&mut self, how: Alteration) {
        match how {
            Alteration::Duplicated => self.stats.packets_duplicated += 1,
            Alteration::Truncated => self.stats.packets_truncated += 1,
            Alteration::Corrupted => self.stats.packets_corrupted += 1,
        }
    }

    fn rewritten(&mut self, now_ns: u64, flight: &Flight, changed: usize) {
        self.trace.rewritten(now_ns, flight.to, flight.number, &flight.bytes, changed, flight.corrupted);
    }

    fn dropped(&mut self, now_ns: u64, flight: &Flight, why: DropCause) {
        self.trace.dropped(now_ns, flight.to, flight.nic, flight.number, why);
        self.stats.drop_one(why);
    }
}
