//! Records a run for a reader: its last events in fixed columns, or its whole trace as a text file.
//!
//! The digest shows *that* two runs differ. A trace file, with one line for each record of the digest and for the draws
//! from a stream at an instant, shows *where*; [`diff`](crate::lab::diff) compares such files. The last events are a part of
//! a failure's story. Both are off in an ordinary run and cost nothing there: a failed run is repeated with them. What a story
//! tells of them is kept by host, as [`Sighting`]s.
//!
//! A line has the time in seconds, the event, the place (a host, `box NETWORK`, or `-` for the scenario), and the
//! details:
//!
//! ```text
//!     12.345678901 sent      a              #17     10.0.0.1:4000         > 10.0.0.2:4000         UDP       120 B  data 7 to index 0badcafe
//! ```

use super::history::{Fate, HISTORY_KEPT, History, HistoryRecorder, Shown};
use super::labels::Labels;
use super::names::Names;
use super::novelty::Novelties;
use super::packets::{ARRIVED, PacketText, Packets, describe};
use super::sighting::{ProtocolEvent, Ring, Rings, Seen, Sighting};
use super::timeline::{Timeline, TimelineRecorder};
use crate::wire::link::DropCause;
use crate::wire::middlebox::Protocol;
use crate::wire::pcap::create;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// Describes the content of a packet. Its input is the payload of UDP or TCP, and what the run's programs have told of
/// bytes that they sealed; an empty answer adds nothing.
pub type Decoder = fn(Protocol, &[u8], &Labels) -> String;

/// The event of a stream's last position.
pub(crate) const CLOSED: &str = "closed";

/// The event of the scheduler's last position.
pub(crate) const SCHEDULER: &str = "scheduler";

/// The event of the scenario's result.
pub(crate) const ENDED: &str = "ended";

/// The event of a draw, which is no record of the digest.
pub(crate) const DRAWN: &str = "drawn";

/// The event of a fault or of a change that the scenario makes, of a line of the scenario, and of a mark.
pub(crate) const FAULT: &str = "fault";
pub(crate) const NOTE: &str = "note";
pub(crate) const MARK: &str = "mark";

/// Records that only the digest needs: among the last events they would be useless to a reader.
const CLOSING: [&str; 3] = [CLOSED, SCHEDULER, ENDED];

/// The recordings that a reader requests of a run. None, unless set.
#[derive(Debug, Clone, Default)]
pub struct RecordingOptions {
    /// The number of last events to keep.
    pub last: usize,
    /// Describes the payloads in these events and in the capture.
    pub decoder: Option<Decoder>,
    /// Where to write the whole trace as text.
    pub trace: Option<PathBuf>,
    /// Where to write a `.pcapng`.
    pub capture: Option<PathBuf>,
    /// All that the run shows, for a [picture](crate::picture).
    pub history: bool,
    /// When each record of the trace was made, and the text of the records in this range of numbers.
    pub timeline: Option<Range<u64>>,
    /// The [map](crate::World::map) of the world.
    pub map: bool,
    /// Log lines of these targets (beginnings of them, such as a crate's name): among the last events, and as sightings.
    pub logs: &'static [&'static str],
    /// What the run reaches, and where first; with the log lines of `logs`.
    pub novelties: bool,
}

/// The recordings of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recordings {
    /// The last events, as text.
    pub last: Vec<String>,
    /// How many events there were before these.
    pub earlier: u64,
    /// What each host's last events and packets were, and those after the beginning of each fault, in the order of time.
    pub sightings: Vec<Sighting>,
    /// The hosts, in the order in which they were made.
    pub hosts: Vec<String>,
    /// All that the run showed, if it was requested.
    pub history: Option<History>,
    /// When each record of the trace was made, if it was requested.
    pub timeline: Option<Timeline>,
    /// Words by which programs mention hosts, such as keys, with the hosts' names.
    pub aliases: BTreeMap<String, String>,
    /// The map of the world when faults were started, or at the end if none were.
    pub map: Option<String>,
    /// What the run reached, and where first.
    pub novelties: Novelties,
}

impl Recordings {
    /// Adds what a watch has recorded; map and novelties aren't its.
    pub(crate) fn add(&mut self, watched: Recordings) {
        let novelties = std::mem::take(&mut self.novelties);
        *self = Recordings { map: self.map.take(), novelties, ..watched };
    }
}

/// The recorder of a running world.
pub(crate) struct Watch {
    names: Names,
    labels: Labels,
    packets: Packets,
    sightings: Rings<Kept>,
    history: Option<HistoryRecorder>,
    timeline: Option<TimelineRecorder>,
    keep: usize,
    last: VecDeque<String>,
    earlier: u64,
    decoder: Option<Decoder>,
    out: Option<BufWriter<File>>,
    /// The last draw, not yet written: further draws from that stream at that instant replace it.
    drawn: Option<Drawn>,
    failed: Option<io::Error>,
}

/// A sighting until the run ends: only then are a packet's fate and all names known.
enum Kept {
    Packet(u64),
    Other(u64, Seen),
}

/// A draw of a whole trace.
struct Drawn {
    head: String,
    position: String,
}

/// The fixed columns of a line.
fn head(now_ns: u64, what: &str, place: &str) -> String {
    format!("{:>6}.{:09} {what:<9} {place:<14} ", now_ns / 1_000_000_000, now_ns % 1_000_000_000)
}

impl Watch {
    /// A watch for the requested recordings, if it is needed for any.
    pub(crate) fn begin(wanted: &RecordingOptions) -> io::Result<Option<Watch>> {
        let has_reader =
            wanted.last > 0 || wanted.capture.is_some() || wanted.history || wanted.timeline.is_some();
        if !has_reader && wanted.trace.is_none() {
            return Ok(None);
        }
        Ok(Some(Watch {
            names: Names::new(),
            labels: Labels::default(),
            packets: Packets::default(),
            sightings: Rings::new(),
            history: wanted.history.then(|| HistoryRecorder::new(HISTORY_KEPT)),
            timeline: wanted.timeline.clone().map(TimelineRecorder::new),
            keep: wanted.last,
            last: VecDeque::new(),
            earlier: 0,
            decoder: wanted.decoder.filter(|_| has_reader),
            out: wanted.trace.as_deref().map(create).transpose()?.map(BufWriter::new),
            drawn: None,
            failed: None,
        }))
    }

    /// Ends the watch; returns what it has recorded, without the map.
    pub(crate) fn end(mut self) -> io::Result<Recordings> {
        self.write_draw();
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Some(out) = &mut self.out {
            out.flush()?;
        }
        let (names, packets) = (&self.names, &mut self.packets);
        let sightings = self.sightings.into_ordered().into_iter().filter_map(|(host, kept)| {
            let (at_ns, what) = match kept {
                Kept::Packet(number) => {
                    packets.take(number).map(|(at_ns, seen)| (at_ns, Seen::Packet(seen)))?
                }
                Kept::Other(at_ns, seen) => (at_ns, seen),
            };
            Some(names.sighting(Duration::from_nanos(at_ns), host, what))
        });
        let sightings = sightings.collect();
        let history =
            self.history.map(|history| history.end(|addr| names.at(addr), |text| names.shown(text)));
        let (hosts, aliases) = (names.hosts().to_vec(), names.aliases());
        let timeline = self.timeline.map(TimelineRecorder::end);
        let (last, earlier) = (self.last.into(), self.earlier);
        Ok(Recordings {
            last,
            earlier,
            sightings,
            history,
            timeline,
            hosts,
            aliases,
            ..Recordings::default()
        })
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    pub(crate) fn names_mut(&mut self) -> &mut Names {
        &mut self.names
    }

    /// Whether anybody decodes packets, and so asks for labels.
    pub(crate) fn wants_labels(&self) -> bool {
        self.decoder.is_some()
    }

    pub(crate) fn labels(&self) -> &Labels {
        &self.labels
    }

    pub(crate) fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    /// The recorder of all that the run shows, if a reader asks for it.
    pub(crate) fn history_mut(&mut self) -> Option<&mut HistoryRecorder> {
        self.history.as_mut()
    }

    /// A fault of the plan begins, as the last record says.
    pub(crate) fn fault_begins(&mut self, number: usize) {
        self.sightings.fault_begins();
        if let Some(history) = &mut self.history {
            history.last_note_begins(number);
        }
        if let Some(timeline) = &mut self.timeline {
            timeline.fault_begins(number);
        }
    }

    fn keep_line(&mut self, line: String) {
        if self.last.len() == self.keep {
            self.last.pop_front();
            self.earlier += 1;
        }
        self.last.push_back(line);
    }

    fn keep(&mut self, host: Option<u32>, ring: Ring, kept: Kept) {
        if self.keep == 0 {
            return;
        }
        let packet = match kept {
            Kept::Packet(number) => Some(number),
            Kept::Other(..) => None,
        };
        let packets = &self.packets;
        let stays = self.sightings.push(host, ring, kept, |kept| match kept {
            Kept::Packet(number) => packets.is_in_trouble(*number),
            Kept::Other(..) => false,
        });
        if let Some(number) = packet.filter(|_| stays) {
            self.packets.stays(number);
        }
    }

    fn write(&mut self, head: &str, full: &str) {
        if let Some(out) = &mut self.out
            && let Err(error) = writeln!(out, "{head}{}", full.replace('\n', "\\n"))
        {
            self.out = None;
            self.failed = Some(error);
        }
    }

    /// Whether each draw is written: into a whole trace.
    pub(crate) fn has_draws(&self) -> bool {
        self.out.is_some()
    }

    /// A stream has moved.
    pub(crate) fn drawn(&mut self, now_ns: u64, place: &str, position: &str) {
        let drawn = Drawn { head: head(now_ns, DRAWN, place), position: position.to_owned() };
        let stream = |drawn: &Drawn| drawn.position.rsplit_once(' ').map(|(stream, _)| stream.to_owned());
        let is_further =
            self.drawn.as_ref().is_some_and(|last| last.head == drawn.head && stream(last) == stream(&drawn));
        if !is_further {
            self.write_draw();
        }
        self.drawn = Some(drawn);
    }

    fn write_draw(&mut self) {
        if let Some(Drawn { head, position }) = self.drawn.take() {
            self.write(&head, &position);
        }
    }

    fn line(&mut self, now_ns: u64, what: &str, place: &str, full: &str, short: Option<&str>) {
        self.write_draw();
        let head = head(now_ns, what, place);
        self.write(&head, full);
        if let Some(timeline) = &mut self.timeline {
            timeline.record(now_ns, CLOSING.contains(&what), || head.clone() + short.unwrap_or(full));
        }
        if self.keep > 0 && !CLOSING.contains(&what) {
            self.keep_line(head + short.unwrap_or(full));
        }
    }

    /// Records a packet with its bytes, sent by this host or changed on its way; returns a comment on it.
    pub(crate) fn packet(
        &mut self,
        now_ns: u64,
        (sender, place): (Option<u32>, &str),
        number: u64,
        bytes: &[u8],
    ) -> String {
        let mut seen = describe(bytes, &self.names, self.decoder, &self.labels);
        let what = if sender.is_some() { "sent" } else { "rewritten" };
        seen.origin = sender.or_else(|| self.packets.get(number)?.origin);
        if let (Some(src), Some(origin)) = (seen.src, seen.origin) {
            self.names.lives_at(src, origin);
        }
        let is_kept = sender.is_some() && !seen.is_empty;
        if let Some(history) = &mut self.history {
            match sender {
                Some(host) => history.sent(now_ns, host, number, &seen),
                None => history.rewritten(place, number, &seen),
            }
        }
        let full = format!("#{number:<6} {} {}", seen.way, hash(bytes));
        let short = format!("#{number:<6} {}  {}", seen.way, seen.carries);
        self.line(now_ns, what, place, &full, Some(short.trim_end()));
        let comment = comment(&self.names, &seen, sender.is_none().then_some(place));
        self.packets.insert(now_ns, number, seen);
        if is_kept {
            self.keep(sender, Ring::Packets, Kept::Packet(number));
        }
        comment
    }

    /// Records that an earlier packet has arrived at `place`; `damaged` is the hash of its bytes if they were damaged.
    pub(crate) fn arrived(
        &mut self,
        now_ns: u64,
        (host, place): (Option<u32>, &str),
        number: u64,
        damaged: Option<&str>,
    ) {
        if let (Some(host), Some(dst)) = (host, self.packets.get(number).and_then(|packet| packet.dst)) {
            self.names.lives_at(dst, host);
        }
        let how = if damaged.is_some() { "delivered damaged" } else { ARRIVED };
        let more = damaged.map_or_else(String::new, |hash| format!("damaged {hash}"));
        self.fate(now_ns, "delivered", place, number, &more);
        self.packets.end(now_ns, number, Some(place), how);
        if let Some(history) = &mut self.history {
            let fate = if damaged.is_some() { Fate::ArrivedDamaged } else { Fate::Arrived };
            history.ended(now_ns, (host, place), number, fate);
        }
    }

    /// Records that an earlier packet was dropped on its way to `place`.
    pub(crate) fn dropped(
        &mut self,
        now_ns: u64,
        (host, place): (Option<u32>, &str),
        number: u64,
        cause: DropCause,
    ) {
        let why = format!("{cause:?}");
        self.fate(now_ns, "dropped", place, number, &why);
        self.packets.end(now_ns, number, None, &format!("dropped before {place} ({why})"));
        if let Some(history) = &mut self.history {
            history.ended(now_ns, (host, place), number, Fate::Dropped(cause));
        }
    }

    fn fate(&mut self, now_ns: u64, what: &str, place: &str, number: u64, more: &str) {
        let (way, carries) = match self.packets.get(number) {
            Some(seen) => (seen.way.as_str(), seen.carries.as_str()),
            None => ("", ""),
        };
        let more = if more.is_empty() { String::new() } else { format!(" ({more})") };
        let full = format!("#{number:<6} {way}{more}");
        let short = format!("#{number:<6} {way}{more}  {carries}");
        self.line(now_ns, what, place, &full, Some(short.trim_end()));
    }

    /// A program's event. It isn't a part of the trace, so it isn't written there.
    pub(crate) fn event(&mut self, now_ns: u64, host: Option<u32>, event: ProtocolEvent) {
        if let Some(history) = &mut self.history {
            history.push(now_ns, host, Shown::Event(event.clone()));
        }
        if self.keep == 0 && self.timeline.is_none() {
            return;
        }
        let place = host.map_or("-", |number| self.names.host(number));
        let line = head(now_ns, "log", place) + &event.to_string();
        if let Some(timeline) = &mut self.timeline {
            timeline.log(&line);
        }
        if self.keep == 0 {
            return;
        }
        self.keep_line(line);
        self.keep(host, Ring::Events, Kept::Other(now_ns, Seen::Event(event)));
    }

    /// Records any other event; a story tells it if it is a fault or a line of the scenario.
    pub(crate) fn note(
        &mut self,
        now_ns: u64,
        (kind, is_told): (&'static str, bool),
        host: Option<u32>,
        text: &str,
    ) {
        if let Some(history) = &mut self.history
            && let Some(shown) = shown(kind, text)
        {
            history.push(now_ns, host, shown);
        }
        let place = host.map_or("-", |number| self.names.host(number)).to_owned();
        self.line(now_ns, kind, &place, text, None);
        if is_told {
            let text = text.to_owned();
            self.keep(host, Ring::Events, Kept::Other(now_ns, Seen::Note { kind, text }));
        }
    }
}

/// The entry of a history for a record of the trace; `None` if it is of no interest there.
fn shown(kind: &str, text: &str) -> Option<Shown> {
    let text = || text.to_owned();
    match kind {
        FAULT => Some(Shown::Fault(text())),
        NOTE => Some(Shown::Note(text())),
        MARK => Some(Shown::Mark(text())),
        _ => None,
    }
}

/// A packet's origin, the box that it leaves if that isn't its origin, and its content.
fn comment(names: &Names, seen: &PacketText, by_box: Option<&str>) -> String {
    let origin = seen.origin.map_or("?", |number| names.host(number));
    let by = by_box.map_or_else(String::new, |place| format!(", by {place}"));
    format!("from {origin}{by}: {}", seen.carries).trim_end_matches([' ', ':']).to_owned()
}

/// The beginning of a hash, enough to distinguish two contents.
pub(crate) fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_owned()
}
