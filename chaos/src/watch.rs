//! Lets a reader watch a run: its last events in fixed columns, or its whole trace as a text file.
//!
//! The digest says *that* two runs differ; a trace file, one line for each record of the digest, says *where*, and is
//! what [`diff`](crate::diff) compares. The last events are a part of a failure's story. Both are off in an ordinary
//! run and cost nothing there: a run that failed is made again with them.
//!
//! A line is the moment in seconds, what happened, where (a host, `box NETWORK`, or `-` for the scenario), and the rest:
//!
//! ```text
//!     12.345678901 sent      a              #17     10.0.0.1:4000         > 10.0.0.2:4000         UDP       120 B  data 7 to index 0badcafe
//! ```

use crate::middlebox::Protocol;
use crate::packet;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Says in words what a packet carries. It is given the payload of UDP or TCP; an empty answer says nothing.
pub type Decoder = fn(Protocol, &[u8]) -> String;

/// Packets that are remembered: those sent last. A record of an older one is told by its number only.
const REMEMBERED: usize = 1 << 16;

/// The word for the records that close a digest, of which no reader learns anything.
pub(crate) const CLOSING: &str = "drawn";

/// What a reader wants of a run. Nothing, unless set.
#[derive(Debug, Clone, Default)]
pub struct Watching {
    /// So many events before the end.
    pub last: usize,
    /// What tells the payloads among them.
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

/// What a reader has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// The last events, in words.
    pub last: Vec<String>,
    /// The last log lines, as many as events are kept.
    pub logged: Vec<String>,
    /// The map of the world when faults were let loose in it, or at the end if none were.
    pub map: Option<String>,
}

/// The watch over a running world.
pub(crate) struct Watch {
    hosts: Vec<String>,
    nets: Vec<String>,
    packets: BTreeMap<u64, Seen>,
    keep: usize,
    last: VecDeque<String>,
    logged: VecDeque<String>,
    decoder: Option<Decoder>,
    out: Option<BufWriter<File>>,
    failed: Option<io::Error>,
}

/// A packet as it was seen last: addresses and length, and what it carries.
struct Seen {
    way: String,
    carries: String,
}

/// The fixed columns of a line.
fn head(now_ns: u64, what: &str, place: &str) -> String {
    format!("{:>6}.{:09} {what:<9} {place:<14} ", now_ns / 1_000_000_000, now_ns % 1_000_000_000)
}

impl Watch {
    /// A watch as it is wanted, if any is.
    pub(crate) fn begin(wanted: &Watching) -> io::Result<Option<Watch>> {
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
            failed: None,
        }))
    }

    /// Ends it; returns the last events, and the last log lines.
    pub(crate) fn end(mut self) -> io::Result<(Vec<String>, Vec<String>)> {
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

    fn line(&mut self, now_ns: u64, what: &str, place: &str, full: &str, short: Option<&str>) {
        let head = head(now_ns, what, place);
        if let Some(out) = &mut self.out
            && let Err(error) = writeln!(out, "{head}{}", full.replace('\n', "\\n"))
        {
            self.out = None;
            self.failed = Some(error);
        }
        if self.keep > 0 && what != CLOSING {
            if self.last.len() == self.keep {
                self.last.pop_front();
            }
            self.last.push_back(head + short.unwrap_or(full));
        }
    }

    /// A packet with its bytes: sent, or changed on its way.
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

    /// The fate of a packet that was seen before; `more` is why, or the hash of its damaged bytes.
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

    /// Anything else.
    pub(crate) fn note(&mut self, now_ns: u64, what: &str, place: &str, text: &str) {
        self.line(now_ns, what, place, text, None);
    }

    fn describe(&self, bytes: &[u8]) -> Seen {
        let Some(headers) = packet::parse(bytes) else {
            return Seen { way: format!("{} B that are no packet", bytes.len()), carries: String::new() };
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
        Seen {
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

/// Enough of a hash to tell two contents apart.
pub(crate) fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_owned()
}

/// Makes a file, and the folder that it is in; an error names it.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let made = folder.map_or(Ok(()), std::fs::create_dir_all).and_then(|()| File::create(path));
    made.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
