//! The trace: one record for each event, and the digest over all of them.
//!
//! A record has time, kind, host, interface and bytes, length-prefixed. Records are collected in a buffer and hashed
//! 64 KiB at a time with BLAKE3 (two hash updates per packet would halve the world's speed). A packet's bytes are in
//! its `Sent` record; later records refer to it by its number, and repeat the bytes only if they have changed on the
//! way. The last records are what no event shows: how far each random stream was drawn from, and the scheduler's next draw.

use super::history::{HostPhase, Shown};
use super::sighting::ProtocolEvent;
use super::watch::{CLOSED, ENDED, FAULT, MARK, NOTE, Recordings, SCHEDULER, Watch, hash};
use crate::ids::{End, HostId};
use crate::wire::link::DropCause;
use crate::wire::pcap::Pcap;
use std::io;

/// Bytes gathered before they are hashed: large enough for BLAKE3's wide code paths, small enough for the cache.
const BATCH_BYTES: usize = 64 << 10;

/// The kind of a record. The numbers are part of the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RecordKind {
    Sent = 1,
    Delivered = 2,
    Dropped = 3,
    DiskWrite = 4,
    DiskSync = 5,
    Fault = 6,
    Stream = 7,
    StreamEnd = 8,
    Note = 9,
    Setup = 10,
    Rewritten = 11,
    Mark = 12,
    DiskCrash = 13,
    Scheduler = 14,
    Ended = 15,
}

impl RecordKind {
    fn as_str(self) -> &'static str {
        match self {
            RecordKind::Sent => "sent",
            RecordKind::Delivered => "delivered",
            RecordKind::Dropped => "dropped",
            RecordKind::DiskWrite => "disk",
            RecordKind::DiskSync => "sync",
            RecordKind::Fault => FAULT,
            RecordKind::Stream => "stream",
            RecordKind::StreamEnd => CLOSED,
            RecordKind::Note => NOTE,
            RecordKind::Setup => "setup",
            RecordKind::Rewritten => "rewritten",
            RecordKind::Mark => MARK,
            RecordKind::DiskCrash => "survived",
            RecordKind::Scheduler => SCHEDULER,
            RecordKind::Ended => ENDED,
        }
    }
}

/// A note's bytes as text for a reader.
fn tell(kind: RecordKind, bytes: &[u8]) -> String {
    match (kind, std::str::from_utf8(bytes)) {
        (
            RecordKind::Fault
            | RecordKind::Stream
            | RecordKind::StreamEnd
            | RecordKind::Note
            | RecordKind::Setup
            | RecordKind::Mark
            | RecordKind::Ended,
            Ok(text),
        ) => text.to_owned(),
        (RecordKind::DiskCrash, _) => format!("a disk with {}", hash(bytes)),
        (RecordKind::Scheduler, _) => format!("next draw {}", hash(bytes)),
        _ => format!("{} B {}", bytes.len(), hash(bytes)),
    }
}

/// The position of a stream as a record and a trace file have it.
pub(crate) fn position(label: &str, words: u128) -> String {
    format!("stream `{label}` at word {words}")
}

fn name_of(watch: &Watch, end: End) -> String {
    match end {
        End::Host(host) => watch.names().host(host.0).to_owned(),
        End::Box(net) => watch.names().box_of(net.0),
    }
}

fn host_of(end: End) -> Option<u32> {
    match end {
        End::Host(host) => Some(host.0),
        End::Box(_) => None,
    }
}

/// The host number of the scenario itself, which runs on no host.
pub(crate) const NO_HOST: u32 = u32::MAX;

/// The bit that distinguishes the number of a network's box from a host's.
const BOX: u32 = 1 << 31;

fn number_of(end: End) -> u32 {
    match end {
        End::Host(host) => host.0,
        End::Box(net) => BOX | net.0,
    }
}

/// The length of the first fields of each record.
const HEAD_BYTES: usize = 15;

/// The first fields of a record: time, kind, the place with an interface's number, and a byte for the kind.
#[inline]
fn head_of(now_ns: u64, kind: RecordKind, (place, nic, extra): (u32, u8, u8)) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&now_ns.to_le_bytes());
    head[8] = kind as u8;
    head[9..13].copy_from_slice(&place.to_le_bytes());
    head[13] = nic;
    head[14] = extra;
    head
}

pub(crate) struct Trace {
    buffer: Vec<u8>,
    hasher: blake3::Hasher,
    records: u64,
    /// The packet capture, if there is one, and its first error. A captured run is watched, for the packets' comments.
    capture: Option<Pcap>,
    capture_error: Option<io::Error>,
    /// The watch, if there is one.
    watch: Option<Watch>,
}

impl Trace {
    pub(crate) fn new() -> Trace {
        Trace {
            buffer: Vec::with_capacity(2 * BATCH_BYTES),
            hasher: blake3::Hasher::new(),
            records: 0,
            capture: None,
            capture_error: None,
            watch: None,
        }
    }

    /// Captures every packet that is sent from now on.
    pub(crate) fn capture(&mut self, pcap: Pcap) {
        self.capture = Some(pcap);
    }

    /// Ends the capture.
    pub(crate) fn end_capture(&mut self) -> io::Result<()> {
        if let Some(error) = self.capture_error.take() {
            return Err(error);
        }
        self.capture.take().map_or(Ok(()), Pcap::finish)
    }

    /// Records the run in `watch` from now on.
    pub(crate) fn watch(&mut self, watch: Watch) {
        self.watch = Some(watch);
    }

    /// Ends the watch; returns what it has recorded.
    pub(crate) fn end_watch(&mut self) -> io::Result<Recordings> {
        self.watch.take().map_or(Ok(Recordings::default()), Watch::end)
    }

    /// The watch, if the run is watched.
    pub(crate) fn watcher(&mut self) -> Option<&mut Watch> {
        self.watch.as_mut()
    }

    /// Whether anything is recorded for a reader.
    pub(crate) fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// Whether each draw is told.
    pub(crate) fn has_draws(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::has_draws)
    }

    /// A stream has moved; no record.
    pub(crate) fn drawn(&mut self, now_ns: u64, host: Option<HostId>, label: &str, words: u128) {
        if let Some(watch) = &mut self.watch {
            let place = host.map_or_else(|| "-".to_owned(), |host| watch.names().host(host.0).to_owned());
            watch.drawn(now_ns, &place, &position(label, words));
        }
    }

    /// A program's event, for a reader; no record.
    pub(crate) fn event(&mut self, now_ns: u64, host: Option<HostId>, event: ProtocolEvent) {
        if let Some(watch) = &mut self.watch {
            watch.event(now_ns, host.map(|host| host.0), event);
        }
    }

    /// A fault of the plan begins, as the note says that was recorded last.
    pub(crate) fn fault_begins(&mut self, number: usize) {
        if let Some(watch) = &mut self.watch {
            watch.fault_begins(number);
        }
    }

    /// A fault of the plan is over; no record.
    pub(crate) fn fault_ends(&mut self, now_ns: u64, number: usize) {
        if let Some(history) = self.watch.as_mut().and_then(Watch::history_mut) {
            history.push(now_ns, None, Shown::FaultEnds(number));
        }
    }

    /// The phase of a host, which may have changed; no record.
    pub(crate) fn phase(&mut self, now_ns: u64, host: HostId, phase: HostPhase) {
        if let Some(history) = self.watch.as_mut().and_then(Watch::history_mut) {
            history.phase(now_ns, host.0, phase);
        }
    }

    /// Registers the name of the next host, in the order of creation.
    pub(crate) fn host_named(&mut self, name: &str) {
        if let Some(watch) = &mut self.watch {
            watch.names_mut().add_host(name);
        }
    }

    /// Registers the name of the next network.
    pub(crate) fn net_named(&mut self, name: &str) {
        if let Some(watch) = &mut self.watch {
            watch.names_mut().add_net(name);
        }
    }

    /// A packet's record: `bytes` are those that the digest has to learn with it.
    #[inline]
    fn packet(
        &mut self,
        (now_ns, kind): (u64, RecordKind),
        (place, nic, extra): (u32, u8, u8),
        number: u64,
        bytes: &[u8],
    ) {
        let mut head = [0; HEAD_BYTES + 8 + 4];
        head[..HEAD_BYTES].copy_from_slice(&head_of(now_ns, kind, (place, nic, extra)));
        head[HEAD_BYTES..HEAD_BYTES + 8].copy_from_slice(&number.to_le_bytes());
        head[HEAD_BYTES + 8..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.record(&head, bytes);
    }

    #[inline]
    fn record(&mut self, head: &[u8], bytes: &[u8]) {
        self.records += 1;
        self.buffer.extend_from_slice(head);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BATCH_BYTES {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    /// A packet leaves an interface.
    pub(crate) fn sent(&mut self, now_ns: u64, host: u32, nic: u8, number: u64, bytes: &[u8]) {
        self.packet((now_ns, RecordKind::Sent), (host, nic, 0), number, bytes);
        if let Some(watch) = &mut self.watch {
            let place = watch.names().host(host).to_owned();
            let comment = watch.packet(now_ns, (Some(host), &place), number, bytes);
            self.capture_packet(now_ns, bytes, &comment);
        }
    }

    fn capture_packet(&mut self, now_ns: u64, bytes: &[u8], comment: &str) {
        if let Some(capture) = &mut self.capture
            && let Err(error) = capture.packet(now_ns, bytes, comment)
        {
            self.capture = None;
            self.capture_error = Some(error);
        }
    }

    /// A box has rewritten a packet, within its first `changed` bytes. A packet that a link has damaged isn't
    /// captured again, because a reader of the capture would consider it malformed.
    pub(crate) fn rewritten(
        &mut self,
        now_ns: u64,
        by: End,
        number: u64,
        bytes: &[u8],
        changed: usize,
        damaged: bool,
    ) {
        self.packet((now_ns, RecordKind::Rewritten), (number_of(by), 0, 0), number, &bytes[..changed]);
        if let Some(watch) = &mut self.watch {
            let place = name_of(watch, by);
            let comment = watch.packet(now_ns, (None, &place), number, bytes);
            if !damaged {
                self.capture_packet(now_ns, bytes, &comment);
            }
        }
    }

    /// A packet has arrived; `changed` are its bytes if a link has damaged it.
    pub(crate) fn delivered(&mut self, now_ns: u64, at: End, nic: u8, number: u64, changed: &[u8]) {
        self.packet((now_ns, RecordKind::Delivered), (number_of(at), nic, 0), number, changed);
        if let Some(watch) = &mut self.watch {
            let place = name_of(watch, at);
            let damaged = (!changed.is_empty()).then(|| hash(changed));
            watch.arrived(now_ns, (host_of(at), &place), number, damaged.as_deref());
        }
    }

    /// A packet is dropped on the way, or at the destination host.
    pub(crate) fn dropped(&mut self, now_ns: u64, at: End, nic: u8, number: u64, why: DropCause) {
        self.packet((now_ns, RecordKind::Dropped), (number_of(at), nic, why as u8), number, &[]);
        if let Some(watch) = &mut self.watch {
            let place = name_of(watch, at);
            watch.dropped(now_ns, (host_of(at), &place), number, why);
        }
    }

    /// Any other event, described by `bytes`.
    pub(crate) fn note(&mut self, now_ns: u64, kind: RecordKind, host: u32, bytes: &[u8]) {
        let mut head = [0; HEAD_BYTES + 4];
        head[..HEAD_BYTES].copy_from_slice(&head_of(now_ns, kind, (host, 0, 0)));
        head[HEAD_BYTES..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.record(&head, bytes);
        if let Some(watch) = &mut self.watch {
            let is_told = matches!(kind, RecordKind::Fault | RecordKind::Note);
            let host = (host != NO_HOST).then_some(host);
            watch.note(now_ns, (kind.as_str(), is_told), host, &tell(kind, bytes));
        }
    }

    /// Records so far.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// The digest, in hex, over everything so far.
    pub(crate) fn digest(&mut self) -> String {
        self.hasher.update(&self.buffer);
        self.buffer.clear();
        self.hasher.finalize().to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_does_not_depend_on_where_a_batch_ends() {
        let run = |first_bytes: usize| {
            let mut trace = Trace::new();
            trace.note(1, RecordKind::Note, 0, &vec![7; first_bytes]);
            trace.note(2, RecordKind::Note, 0, b"x");
            trace.digest()
        };
        assert_eq!(run(BATCH_BYTES), run(BATCH_BYTES));
        assert_ne!(run(10), run(11));
    }

    #[test]
    fn a_record_more_is_another_digest() {
        let mut a = Trace::new();
        let mut b = Trace::new();
        a.sent(1, 2, 3, 4, b"hello");
        b.sent(1, 2, 3, 4, b"hello");
        b.delivered(1, End::Host(HostId(2)), 3, 4, b"");
        assert_eq!((a.records(), b.records()), (1, 2));
        assert_ne!(a.digest(), b.digest());
    }
}
