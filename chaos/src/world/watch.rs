//! Records a run for a reader: its last events in fixed columns, or its whole trace as a text file.
//!
//! The digest shows *that* two runs differ. A trace file, with one line for each record of the digest and for the draws
//! from a stream at an instant, shows *where*; [`diff`](crate::lab::diff) compares such files. The last events are a part of a failure's story. Both are off
//! in an ordinary run and cost nothing there: a failed run is repeated with them.
//!
//! A line has the time in seconds, the event, the place (a host, `box NETWORK`, or `-` for the scenario), and the
//! details:
//!
//! ```text
//!     12.345678901 sent      a              #17     10.0.0.1:4000         > 10.0.0.2:4000         UDP       120 B  data 7 to index 0badcafe
//! ```

use crate::wire::middlebox::Protocol;
use crate::wire::packet;
use crate::wire::pcap::create;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

/// Describes the content of a packet. Its input is the payload of UDP or TCP; an empty answer adds nothing.
pub type Decoder = fn(Protocol, &[u8]) -> String;

/// The number of packets that are remembered: the last ones sent. A record of an older packet shows only its number.
const REMEMBERED: usize = 1 << 16;

/// The event of a stream's last position.
pub(crate) const CLOSED: &str = "closed";

/// The event of the scheduler's last position.
pub(crate) const SCHEDULER: &str = "scheduler";

/// The event of the scenario's result.
pub(crate) const ENDED: &str = "ended";

/// The event of a draw, which is no record of the digest.
pub(crate) const DRAWN: &str = "drawn";

/// Records that only the digest needs: among the last events they would be useless to a reader.
const CLOSING: [&str; 3] = [CLOSED, SCHEDULER, ENDED];

/// The recordings that a reader requests of a run. None, unless set.
#[derive(Debug, Clone, Default)]
pub struct RecordingOptions {
    /// The number of last events to keep.
    pub last: usize,
    /// Describes the payloads in these events.
    pub decoder: Option<Decoder>,
    /// Where to write the whole trace as text.
    pub trace: Option<PathBuf>,
    /// Where to write a `.pcap`.
    pub capture: Option<PathBuf>,
    /// The [map](crate::World::map) of the world.
    pub map: bool,
    /// Log lines of these targets (beginnings of them, such as a crate's name), among the last events and by themselves.
    pub logs: &'static [&'static str],
}

/// The recordings of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recordings {
    /// The last events, as text.
    pub last: Vec<String>,
    /// The last log lines, as many as events are kept.
    pub logged: Vec<String>,
    /// The map of the world when faults were started, or at the end if none were.
    pub map: Option<String>,
}

/// The recorder of a running world.
pub(crate) struct Watch {
    hosts: Vec<String>,
    nets: Vec<String>,
    packets: BTreeMap<u64, PacketText>,
    keep: usize,
    last: VecDeque<String>,
    logged: VecDeque<String>,
    decoder: Option<Decoder>,
    out: Option<BufWriter<File>>,
    /// The last draw, not yet written: further draws from that stream at that instant replace it.
    drawn: Option<Drawn>,
    failed: Option<io::Error>,
}

/// A packet as recorded last: its addresses and length, and its decoded content.
struct PacketText {
    way: String,
    carries: String,
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
        if wanted.last == 0 && wanted.trace.is_none() {
            return Ok(None);
        }
        Ok(Some(Watch {
            hosts: Vec::new(),
            nets: vec!["internet".to_owned()],
            packets: BTreeMap::new(),
            keep: wanted.last,
            last: VecDeque::new(),
            logged: VecDeque::new(),
            decoder: wanted.decoder,
            out: wanted.trace.as_deref().map(create).transpose()?.map(BufWriter::new),
            drawn: None,
            failed: None,
        }))
    }

    /// Ends the watch; returns the last events, and the last log lines.
    pub(crate) fn end(mut self) -> io::Result<(Vec<String>, Vec<String>)> {
        self.write_draw();
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Some(out) = &mut self.out {
            out.flush()?;
        }
        Ok((self.last.into(), self.logged.into()))
    }

    pub(crate) fn host_named(&mut self, name: &str) {
        self.hosts.push(name.to_owned());
    }

    pub(crate) fn net_named(&mut self, name: &str) {
        self.nets.push(name.to_owned());
    }

    pub(crate) fn host(&self, number: u32) -> String {
        self.hosts.get(number as usize).map_or("-", String::as_str).to_owned()
    }

    pub(crate) fn box_of(&self, net: u32) -> String {
        format!("box {}", self.nets.get(net as usize).map_or("?", String::as_str))
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
        if self.keep > 0 && !CLOSING.contains(&what) {
            if self.last.len() == self.keep {
                self.last.pop_front();
            }
            self.last.push_back(head + short.unwrap_or(full));
        }
    }

    /// Records a packet with its bytes: sent, or changed on its way.
    pub(crate) fn packet(&mut self, now_ns: u64, what: &str, place: &str, number: u64, bytes: &[u8]) {
        let seen = self.describe(bytes);
        let full = format!("#{number:<6} {} {}", seen.way, hash(bytes));
        let short = format!("#{number:<6} {}  {}", seen.way, seen.carries);
        self.line(now_ns, what, place, &full, Some(short.trim_end()));
        self.packets.insert(number, seen);
        if self.packets.len() > REMEMBERED {
            self.packets.pop_first();
        }
    }

    /// Records the fate of an earlier packet; `more` is the cause, or the hash of its damaged bytes.
    pub(crate) fn fate(&mut self, now_ns: u64, what: &str, place: &str, number: u64, more: &str) {
        let (way, carries) = match self.packets.get(&number) {
            Some(seen) => (seen.way.as_str(), seen.carries.as_str()),
            None => ("", ""),
        };
        let more = if more.is_empty() { String::new() } else { format!(" ({more})") };
        let full = format!("#{number:<6} {way}{more}");
        let short = format!("#{number:<6} {way}{more}  {carries}");
        self.line(now_ns, what, place, &full, Some(short.trim_end()));
    }

    /// A log line. It isn't a part of the trace, so it isn't written there.
    pub(crate) fn log(&mut self, now_ns: u64, place: &str, text: &str) {
        if self.keep == 0 {
            return;
        }
        let line = head(now_ns, "log", place) + text;
        for kept in [&mut self.last, &mut self.logged] {
            if kept.len() == self.keep {
                kept.pop_front();
            }
            kept.push_back(line.clone());
        }
    }

    /// Records any other event.
    pub(crate) fn note(&mut self, now_ns: u64, what: &str, place: &str, text: &str) {
        self.line(now_ns, what, place, text, None);
    }

    fn describe(&self, bytes: &[u8]) -> PacketText {
        let Some(headers) = packet::parse(bytes) else {
            return PacketText {
                way: format!("{} B that are no packet", bytes.len()),
                carries: String::new(),
            };
        };
        let (name, protocol, payload) = match headers.proto {
            packet::PROTO_UDP => ("UDP".to_owned(), Protocol::Udp, headers.transport + 8),
            _ => {
                let at = headers.transport;
                let flags = bytes.get(at + 13).copied().unwrap_or(0);
                let letters: String = "FSRPA"
                    .chars()
                    .enumerate()
                    .filter(|(bit, _)| flags >> bit & 1 == 1)
                    .map(|(_, c)| c)
                    .collect();
                let data = bytes.get(at + 12).map_or(20, |offset| usize::from(offset >> 4) * 4);
                (format!("TCP {letters}"), Protocol::Tcp, at + data)
            }
        };
        let payload = bytes.get(payload..).unwrap_or(&[]);
        let carries = self.decoder.map_or_else(String::new, |decode| decode(protocol, payload));
        PacketText {
            way: format!(
                "{:<21} > {:<21} {name:<7} {:>5} B",
                headers.src.to_string(),
                headers.dst.to_string(),
                payload.len()
            ),
            carries,
        }
    }
}

/// The beginning of a hash, enough to distinguish two contents.
pub(crate) fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_owned()
}
