//! The entries of a history as columns of numbers, which a browser reads into typed arrays.

use super::lane;
use crate::wire::link::{DROP_NAMES, DropCause};
use crate::world::history::{Entry, Fate, History, PacketHistory, Shown};
use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;
use serde::Serialize;
use std::net::SocketAddr;

/// The kinds of entry; the page knows them by these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    Packet = 0,
    Event = 1,
    Fault = 2,
    Note = 3,
    Mark = 4,
    Phase = 5,
}

/// What a reader distinguishes about the ends of packets; the page knows them by these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndKind {
    Arrived = 0,
    Damaged = 1,
    Lost = 2,
    CutOff = 3,
    DroppedByBox = 4,
    QueueFull = 5,
    Unreceived = 6,
}

impl EndKind {
    fn of(fate: Fate) -> EndKind {
        match fate {
            Fate::Arrived => EndKind::Arrived,
            Fate::ArrivedDamaged => EndKind::Damaged,
            Fate::Dropped(cause) => match cause {
                DropCause::Loss | DropCause::Mtu | DropCause::Checksum => EndKind::Lost,
                DropCause::Partition => EndKind::CutOff,
                DropCause::NoMapping
                | DropCause::Filtered
                | DropCause::TableFull
                | DropCause::Hairpin
                | DropCause::Blocked
                | DropCause::BoxOff => EndKind::DroppedByBox,
                DropCause::BufferFull | DropCause::Backlog | DropCause::QueueFull => EndKind::QueueFull,
                DropCause::NoHost | DropCause::NoSocket | DropCause::HostDown => EndKind::Unreceived,
            },
        }
    }
}

/// Entries, one column each for what there is to know.
#[derive(Debug, Default, Serialize)]
pub(super) struct Entries {
    /// The time since the entry before, in nanoseconds; since the world's beginning for the first.
    step_ns: Vec<u64>,
    rank: Vec<u32>,
    kind: Vec<u8>,
    lane: Vec<u32>,
    /// The kind of message or event, and all of it: texts.
    label: Vec<u32>,
    text: Vec<u32>,
    /// The rest is of packets: the receiver's lane or -1, the number, the length of the payload, the protocol, the addresses.
    to: Vec<i32>,
    number: Vec<u64>,
    bytes: Vec<usize>,
    protocol: Vec<u32>,
    way: Vec<u32>,
}

/// The ends of packets, in the order of the packets' entries; a packet under way has none.
#[derive(Debug, Default, Serialize)]
pub(super) struct Ends {
    /// The packet: the place of its entry.
    entry: Vec<u32>,
    /// The time since it was sent.
    after_ns: Vec<u64>,
    rank: Vec<u32>,
    /// The host's lane, or -1 for a box.
    lane: Vec<i32>,
    kind: Vec<u8>,
    /// What happened, and where: a text.
    text: Vec<u32>,
}

/// Texts, each once.
#[derive(Debug, Default)]
pub(super) struct Texts(IndexSet<String, FxBuildHasher>);

impl Texts {
    fn place(&mut self, text: &str) -> u32 {
        let place = self.0.get_index_of(text).unwrap_or_else(|| self.0.insert_full(text.to_owned()).0);
        place as u32
    }

    pub(super) fn into_all(self) -> Vec<String> {
        self.0.into_iter().collect()
    }
}

/// All happenings, which are entries and ends of packets, in their order: the ranks of those that are left, without holes.
pub(super) struct Ranks {
    orders: Vec<u64>,
    times: Vec<u64>,
}

impl Ranks {
    pub(super) fn of(history: &History) -> Ranks {
        let ends = |entry: &Entry| match &entry.what {
            Shown::Packet(packet) => packet.ends.iter().map(|end| (end.order, end.at_ns)).collect(),
            _ => Vec::new(),
        };
        let entries = history.entries.iter();
        let mut all: Vec<(u64, u64)> =
            entries.flat_map(|entry| ends(entry).into_iter().chain([(entry.order, entry.at_ns)])).collect();
        all.sort_unstable();
        let (orders, times) = all.into_iter().unzip();
        Ranks { orders, times }
    }

    /// The number of happenings before this one.
    pub(super) fn of_order(&self, order: u64) -> u32 {
        self.orders.partition_point(|other| *other < order) as u32
    }

    /// The number of happenings up to a moment.
    pub(super) fn until(&self, at_ns: u64) -> u32 {
        self.times.partition_point(|other| *other <= at_ns) as u32
    }

    pub(super) fn count(&self) -> u32 {
        self.orders.len() as u32
    }
}

/// The columns of a history.
pub(super) fn of(history: &History, ranks: &Ranks, texts: &mut Texts) -> (Entries, Ends) {
    let (mut entries, mut ends) = (Entries::default(), Ends::default());
    let mut before_ns = 0;
    let empty = texts.place("");
    for entry in &history.entries {
        let packet = match &entry.what {
            Shown::Packet(packet) => Some(packet),
            _ => None,
        };
        let Some((kind, label, text)) = described(&entry.what) else { continue };
        let place = entries.rank.len() as u32;
        entries.step_ns.push(entry.at_ns - before_ns);
        before_ns = entry.at_ns;
        entries.rank.push(ranks.of_order(entry.order));
        entries.kind.push(kind as u8);
        entries.lane.push(lane(entry.host));
        entries.label.push(texts.place(&label));
        entries.text.push(texts.place(text.as_deref().unwrap_or("")));
        entries.to.push(packet.and_then(|packet| packet.to).map_or(-1, |host| lane(Some(host)) as i32));
        entries.number.push(packet.map_or(0, |packet| packet.number));
        entries.bytes.push(packet.map_or(0, |packet| packet.payload_bytes));
        entries.protocol.push(packet.map_or(empty, |packet| texts.place(&packet.protocol)));
        entries.way.push(packet.map_or(empty, |packet| texts.place(&way(packet))));
        for end in packet.map_or(&[][..], |packet| &packet.ends) {
            ends.entry.push(place);
            ends.after_ns.push(end.at_ns - entry.at_ns);
            ends.rank.push(ranks.of_order(end.order));
            ends.lane.push(end.host.map_or(-1, |host| lane(Some(host)) as i32));
            ends.kind.push(EndKind::of(end.fate) as u8);
            ends.text.push(texts.place(&match end.fate {
                Fate::Arrived => format!("arrived at {}", end.place),
                Fate::ArrivedDamaged => format!("arrived damaged at {}", end.place),
                Fate::Dropped(cause) => {
                    format!("dropped before {}: {}", end.place, DROP_NAMES[cause as usize])
                }
            }));
        }
    }
    (entries, ends)
}

/// An entry's kind, its label and its text; `None` for what is shown as a band.
fn described(what: &Shown) -> Option<(EntryKind, String, Option<String>)> {
    Some(match what {
        Shown::Packet(packet) => (EntryKind::Packet, label(packet), Some(packet.carries.clone())),
        Shown::Event(event) => {
            (EntryKind::Event, event.name.clone(), Some(format!("{event}\n{}", event.target)))
        }
        Shown::Fault(text) => (EntryKind::Fault, "fault or change".to_owned(), Some(text.clone())),
        Shown::FaultBegins(_, text) => (EntryKind::Fault, "planned fault".to_owned(), Some(text.clone())),
        Shown::Note(text) => (EntryKind::Note, "note of the scenario".to_owned(), Some(text.clone())),
        Shown::Mark(text) => (EntryKind::Mark, "mark".to_owned(), Some(text.clone())),
        Shown::Phase(phase) => {
            (EntryKind::Phase, "phase of a host".to_owned(), Some(phase.as_str().to_owned()))
        }
        Shown::FaultEnds(_) => return None,
    })
}

/// The kind of message, in a few words: of "relay to node 2: SWIM ping 7" it is "SWIM ping". A packet that nobody describes has
/// its protocol's name.
fn label(packet: &PacketHistory) -> String {
    let first = packet.carries.split("; ").next().unwrap_or_default();
    let inner = first.rsplit(": ").next().unwrap_or_default();
    let words = inner.split(' ').map(|word| (word.trim_end_matches([',', ':', ';']), word));
    let mut label = String::new();
    for (bare, word) in words {
        // Numbers and ids distinguish messages of one kind.
        if bare.is_empty() || bare.chars().any(|c| c.is_ascii_digit()) || label.len() + bare.len() > 32 {
            break;
        }
        if !label.is_empty() {
            label.push(' ');
        }
        label += bare;
        if bare != word {
            break;
        }
    }
    match label.is_empty() {
        true if packet.payload_bytes == 0 => format!("{}, empty", packet.protocol),
        true => packet.protocol.clone(),
        false => label,
    }
}

/// The addresses of a packet, and each change of them by a box.
fn way(packet: &PacketHistory) -> String {
    let pair = |src: SocketAddr, dst: SocketAddr| format!("{src} > {dst}");
    let Some((src, dst)) = packet.addrs else { return String::new() };
    let rewritten = packet.rewritten.iter().map(|(by, src, dst)| format!("\nby {by}: {}", pair(*src, *dst)));
    pair(src, dst) + &rewritten.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_kind_that_its_description_begins_with() {
        let label = |carries: &str, payload_bytes: usize| {
            let (protocol, carries) = ("TCP PA".to_owned(), carries.to_owned());
            let (addrs, to) = (None, None);
            let (rewritten, ends) = (Vec::new(), Vec::new());
            label(&PacketHistory { number: 1, protocol, payload_bytes, carries, addrs, rewritten, to, ends })
        };
        assert_eq!(label("data 156 to index c83910ba: SWIM ack 448", 9), "SWIM ack");
        assert_eq!(label("relay to node 2: QUIC, 25 B; relay to node 2: QUIC, 18 B", 9), "QUIC");
        assert_eq!(label("SUBMIT task 0 to beta", 9), "SUBMIT task");
        assert_eq!(label("", 9), "TCP PA");
        assert_eq!(label("", 0), "TCP PA, empty");
    }
}
