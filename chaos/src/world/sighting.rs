//! What a watched run shows of each host: the events of its programs, its packets with their fates, its faults.
//!
//! They are kept in rings, for each host its own, so that a busy host doesn't displace the earlier ones of a quiet host.

use super::names::is_named;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

/// The entries in one ring, the last ones. A story tells 40 of all hosts. As many of earlier ones are kept for their causes.
const KEPT: usize = 256;

/// The entries of one ring that are kept from the beginning of each fault on. A story tells 20 around all faults.
const AROUND_A_FAULT: usize = 32;

/// The events of one host that are kept from before the beginning of each fault. A story tells three around all faults.
const BEFORE_A_FAULT: usize = 8;

/// One event of a watched run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The world's time.
    pub at: Duration,
    /// The host on which it happened; of a packet its sender. `None` for the scenario itself.
    pub host: Option<String>,
    /// The event.
    pub what: Seen,
}

/// The target of events of the world: what it does to a host without the host's programs.
pub(crate) const WORLD: &str = "world";

/// The kinds of event that a run shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A decision of a program: a `tracing` event.
    Event(ProtocolEvent),
    /// A packet, as it was sent.
    Packet(PacketSeen),
    /// A fault, or a line of the scenario.
    Note {
        /// The kind of the record, in a word.
        kind: &'static str,
        /// The record.
        text: String,
    },
}

/// A decision of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtocolEvent {
    /// The part of the program: `nurl::membership`.
    pub target: &'static str,
    /// What happened: "a member changed its state".
    pub name: String,
    /// Its fields with their values, in the order in which they were given.
    pub fields: Vec<(&'static str, String)>,
}

/// A packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketSeen {
    /// Its receiver: a host if it is known, or else an address.
    pub to: String,
    /// Its protocol and the length of its payload.
    pub size: String,
    /// What became of it; empty while it is under way.
    pub fate: String,
    /// What is in it, as far as a label or a decoder tells.
    pub carries: String,
    /// It was dropped, damaged or doubled on its way.
    pub in_trouble: bool,
}

impl Sighting {
    /// Whether it is about this host though it happened elsewhere: a packet's receiver, or a peer.
    pub fn mentions(&self, host: &str) -> bool {
        self.host.as_deref() != Some(host)
            && match &self.what {
                Seen::Event(event) => event.fields.iter().any(|(_, value)| is_named(value, host)),
                Seen::Packet(packet) => packet.to == host || is_named(&packet.carries, host),
                Seen::Note { text, .. } => is_named(text, host),
            }
    }
}

/// One line: time, kind, host, and what happened.
impl fmt::Display for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or("-");
        let kind = match &self.what {
            Seen::Event(_) => "event",
            Seen::Packet(_) => "packet",
            Seen::Note { kind, .. } => kind,
        };
        write!(f, "{:>6}.{:09} {kind:<7} {host:<10} ", self.at.as_secs(), self.at.subsec_nanos())?;
        match &self.what {
            Seen::Event(event) => event.fmt(f),
            Seen::Packet(PacketSeen { to, size, fate, carries, .. }) => {
                let fate = if fate.is_empty() { "under way" } else { fate };
                let colon = if carries.is_empty() { "" } else { ": " };
                write!(f, "> {to:<10} {size}, {fate}{colon}{carries}")
            }
            Seen::Note { text, .. } => f.write_str(text),
        }
    }
}

/// The name, then the fields.
impl fmt::Display for ProtocolEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.fields.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// The rings in which sightings wait for the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ring {
    /// Events of programs, faults and notes, which are few.
    Events,
    /// Packets, which are many.
    Packets,
}

/// An entry, its place in the order of all, and whether it outlives its place in the ring.
#[derive(Debug)]
struct Numbered<T> {
    order: u64,
    stays: bool,
    entry: T,
}

/// The entries of one host and kind.
#[derive(Debug)]
struct HostRing<T> {
    last: VecDeque<Numbered<T>>,
    /// Older ones that stay.
    staying: Vec<Numbered<T>>,
    /// The faults that had begun at the last entry, and how many more entries stay because of the newest of them.
    faults: u64,
    still_stay: usize,
}

/// Each host's last entries of both kinds, and those around the beginnings of faults, with their order among those of all
/// hosts.
#[derive(Debug)]
pub(crate) struct Rings<T> {
    /// By the host's number; `None` is the scenario.
    rings: BTreeMap<(Option<u32>, Ring), HostRing<T>>,
    pushed: u64,
    faults: u64,
}

impl<T> Rings<T> {
    pub(crate) fn new() -> Rings<T> {
        Rings { rings: BTreeMap::new(), pushed: 0, faults: 0 }
    }

    /// A fault begins: of each ring the next entries stay, also when newer ones have displaced all others, and the latest
    /// events.
    pub(crate) fn fault_begins(&mut self) {
        self.faults += 1;
        let events = self.rings.iter_mut().filter(|((_, ring), _)| *ring == Ring::Events);
        for (_, ring) in events {
            ring.last.iter_mut().rev().take(BEFORE_A_FAULT).for_each(|entry| entry.stays = true);
        }
    }

    /// Appends an entry of a host; the oldest one of its ring makes room, unless it stays, as `is_told` ones do. Returns
    /// whether the entry stays.
    pub(crate) fn push(
        &mut self,
        host: Option<u32>,
        ring: Ring,
        entry: T,
        is_told: impl Fn(&T) -> bool,
    ) -> bool {
        let new = HostRing { last: VecDeque::new(), staying: Vec::new(), faults: 0, still_stay: 0 };
        let ring = self.rings.entry((host, ring)).or_insert(new);
        if ring.faults != self.faults {
            (ring.faults, ring.still_stay) = (self.faults, AROUND_A_FAULT);
        }
        if ring.last.len() == KEPT
            && let Some(oldest) = ring.last.pop_front()
            && ring.staying.len() < KEPT
            && (oldest.stays || is_told(&oldest.entry))
        {
            ring.staying.push(oldest);
        }
        let stays = ring.still_stay > 0;
        ring.still_stay = ring.still_stay.saturating_sub(1);
        ring.last.push_back(Numbered { order: self.pushed, stays, entry });
        self.pushed += 1;
        stays
    }

    /// All entries in their order, each with its host.
    pub(crate) fn into_ordered(self) -> Vec<(Option<u32>, T)> {
        let rings = self.rings.into_iter();
        let mut all: Vec<(u64, Option<u32>, T)> = rings
            .flat_map(|((host, _), ring)| {
                let entries = ring.staying.into_iter().chain(ring.last);
                entries.map(move |Numbered { order, entry, .. }| (order, host, entry))
            })
            .collect();
        all.sort_by_key(|(order, ..)| *order);
        all.into_iter().map(|(_, host, entry)| (host, entry)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_host_displaces_only_its_own_entries_of_one_kind() {
        let mut rings = Rings::new();
        let mut push = |host, ring, entry: &str| rings.push(host, ring, entry.to_owned(), |_| false);
        push(Some(3), Ring::Events, "quiet");
        push(Some(0), Ring::Events, "first");
        (0..KEPT + 5).for_each(|number| _ = push(Some(0), Ring::Packets, &number.to_string()));
        push(None, Ring::Events, "scenario");
        let all = rings.into_ordered();
        assert_eq!(all.len(), KEPT + 3);
        let at = |place: usize| (all[place].0, all[place].1.as_str());
        assert_eq!([at(0), at(1), at(2)], [(Some(3), "quiet"), (Some(0), "first"), (Some(0), "5")]);
        assert_eq!(at(KEPT + 2), (None, "scenario"));
    }

    #[test]
    fn the_latest_events_before_a_fault_stay() {
        let mut rings = Rings::new();
        for number in 0..2_000usize {
            if number == 100 {
                rings.fault_begins();
            }
            rings.push(Some(0), Ring::Events, number, |_| false);
        }
        let all: Vec<usize> = rings.into_ordered().into_iter().map(|(_, number)| number).collect();
        let expected: Vec<usize> =
            (100 - BEFORE_A_FAULT..100 + AROUND_A_FAULT).chain(2_000 - KEPT..2_000).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn entries_around_a_fault_and_those_that_are_told_anyway_stay() {
        let mut rings = Rings::new();
        for number in 0..2_000usize {
            if number == 100 {
                rings.fault_begins();
            }
            rings.push(Some(0), Ring::Packets, number, |number| *number == 500);
        }
        let all: Vec<usize> = rings.into_ordered().into_iter().map(|(_, number)| number).collect();
        let expected: Vec<usize> =
            (100..100 + AROUND_A_FAULT).chain([500]).chain(2_000 - KEPT..2_000).collect();
        assert_eq!(all, expected);
    }
}
