//! What a watched run showed from its beginning to its end, for a reader who wants to see all of it: packets with all of
//! their fates, events of programs, faults, marks, and when hosts stood still.
//!
//! It is bounded: the newest entries stay, and those that had to go are counted. Of what they began, an entry that is kept
//! may be the end, so the phases of hosts and the faults at the first kept entry are known.

use super::packets::PacketText;
use super::sighting::ProtocolEvent;
use crate::wire::link::DropCause;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// The entries that are kept. A page with so many opens within a few seconds, and needs some 100 MB in a browser.
pub const HISTORY_KEPT: usize = 200_000;

/// A host, by its number in the order of creation.
pub type HostNumber = u32;

/// The entries of a run, or the newest of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The entries, by [`order`](Entry::order).
    pub entries: VecDeque<Entry>,
    /// How many older ones were left out.
    pub left_out: u64,
    /// The phases that hosts were in before the first entry, unless they ran.
    pub phases_before: BTreeMap<HostNumber, HostPhase>,
    /// The faults that had begun before the first entry and hadn't ended: number and text.
    pub faults_before: BTreeMap<usize, String>,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The world's time.
    pub at_ns: u64,
    /// Its place among all entries and all ends of packets.
    pub order: u64,
    /// The host where it happened; of a packet its sender. `None` for the scenario.
    pub host: Option<HostNumber>,
    /// What happened.
    pub what: Shown,
}

/// The kinds of entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// A packet was sent.
    Packet(PacketHistory),
    /// A program's event.
    Event(ProtocolEvent),
    /// A change by a fault or by the scenario, as the trace has it.
    Fault(String),
    /// A line of the scenario.
    Note(String),
    /// A mark was reached.
    Mark(String),
    /// A fault of the plan begins: its number from 0, and its text.
    FaultBegins(usize, String),
    /// A fault of the plan is over.
    FaultEnds(usize),
    /// A host enters a phase.
    Phase(HostPhase),
}

/// A packet from its sending on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketHistory {
    /// Its number in the trace.
    pub number: u64,
    /// UDP, or TCP with the letters of its flags.
    pub protocol: String,
    /// The length of its payload.
    pub payload_bytes: usize,
    /// What is in it, as far as a label or a decoder tells.
    pub carries: String,
    /// Its addresses as it was sent; `None` if it is no packet.
    pub addrs: Option<(SocketAddr, SocketAddr)>,
    /// The boxes that rewrote it, with the addresses that it had then.
    pub rewritten: Vec<(String, SocketAddr, SocketAddr)>,
    /// The host to which it was on its way, if that is known.
    pub to: Option<HostNumber>,
    /// What became of it: empty while it is under way, and more than one if a link has duplicated it.
    pub ends: Vec<PacketEnd>,
}

/// An end of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketEnd {
    /// The world's time.
    pub at_ns: u64,
    /// Its place among all entries and all ends of packets.
    pub order: u64,
    /// The host that it reached, or before which it was dropped; `None` for a box.
    pub host: Option<HostNumber>,
    /// The name of that host or box.
    pub place: String,
    /// How it ended.
    pub fate: Fate,
}

/// How a packet ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrived as it was sent.
    Arrived,
    /// It arrived with other bytes.
    ArrivedDamaged,
    /// It was dropped.
    Dropped(DropCause),
}

/// Whether a host works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostPhase {
    /// Its process runs.
    #[default]
    Running,
    /// It has no process.
    Down,
    /// It has no power.
    PowerOff,
    /// Its process is stopped; its kernel runs.
    Paused,
    /// Process and kernel are stopped.
    Suspended,
    /// All of its cores are busy.
    Pinned,
}

impl HostPhase {
    /// It in words.
    pub fn as_str(self) -> &'static str {
        match self {
            HostPhase::Running => "running",
            HostPhase::Down => "no process",
            HostPhase::PowerOff => "no power",
            HostPhase::Paused => "paused",
            HostPhase::Suspended => "suspended",
            HostPhase::Pinned => "cores busy",
        }
    }
}

/// The history of a run that goes on.
pub(crate) struct HistoryRecorder {
    history: History,
    kept: usize,
    /// Happenings so far: entries and ends of packets.
    order: u64,
    /// Where each kept packet is, counted from the first entry of all.
    packets: BTreeMap<u64, u64>,
    /// The phases of the hosts that don't run.
    phases: BTreeMap<HostNumber, HostPhase>,
}

impl HistoryRecorder {
    /// A recorder that keeps so many entries.
    pub(crate) fn new(kept: usize) -> HistoryRecorder {
        HistoryRecorder {
            history: History::default(),
            kept,
            order: 0,
            packets: BTreeMap::new(),
            phases: BTreeMap::new(),
        }
    }

    fn next(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// Appends an entry; the oldest one makes room.
    pub(crate) fn push(&mut self, at_ns: u64, host: Option<HostNumber>, what: Shown) {
        if self.history.entries.len() == self.kept
            && let Some(oldest) = self.history.entries.pop_front()
        {
            self.history.left_out += 1;
            self.forget(oldest);
        }
        let order = self.next();
        self.history.entries.push_back(Entry { at_ns, order, host, what });
    }

    fn forget(&mut self, oldest: Entry) {
        match (oldest.what, oldest.host) {
            (Shown::Packet(packet), _) => _ = self.packets.remove(&packet.number),
            (Shown::Phase(HostPhase::Running), Some(host)) => _ = self.history.phases_before.remove(&host),
            (Shown::Phase(phase), Some(host)) => _ = self.history.phases_before.insert(host, phase),
            (Shown::FaultBegins(number, text), _) => _ = self.history.faults_before.insert(number, text),
            (Shown::FaultEnds(number), _) => _ = self.history.faults_before.remove(&number),
            _ => {}
        }
    }

    /// A packet leaves its host.
    pub(crate) fn sent(&mut self, now_ns: u64, host: HostNumber, number: u64, seen: &PacketText) {
        let packet = PacketHistory {
            number,
            protocol: seen.protocol.clone(),
            payload_bytes: seen.payload_bytes,
            carries: seen.carries.clone(),
            addrs: seen.src.zip(seen.dst),
            rewritten: Vec::new(),
            to: None,
            ends: Vec::new(),
        };
        self.push(now_ns, Some(host), Shown::Packet(packet));
        self.packets.insert(number, self.history.left_out + self.history.entries.len() as u64 - 1);
    }

    fn packet(&mut self, number: u64) -> Option<&mut PacketHistory> {
        let at = self.packets.get(&number)?.checked_sub(self.history.left_out)?;
        match &mut self.history.entries.get_mut(at as usize)?.what {
            Shown::Packet(packet) => Some(packet),
            _ => None,
        }
    }

    /// A box has rewritten a packet.
    pub(crate) fn rewritten(&mut self, by: &str, number: u64, seen: &PacketText) {
        if let (Some(src), Some(dst), Some(packet)) = (seen.src, seen.dst, self.packet(number)) {
            packet.rewritten.push((by.to_owned(), src, dst));
        }
    }

    /// A packet, or its copy, has ended at a place, which is a host or a box.
    pub(crate) fn ended(
        &mut self,
        at_ns: u64,
        (host, place): (Option<HostNumber>, &str),
        number: u64,
        fate: Fate,
    ) {
        let order = self.next();
        if let Some(packet) = self.packet(number) {
            packet.to = packet.to.or(host);
            packet.ends.push(PacketEnd { at_ns, order, host, place: place.to_owned(), fate });
        }
    }

    /// The note that was recorded last says that a fault of the plan begins.
    pub(crate) fn last_note_begins(&mut self, number: usize) {
        if let Some(Entry { what, .. }) = self.history.entries.back_mut()
            && let Shown::Note(text) = what
        {
            *what = Shown::FaultBegins(number, std::mem::take(text));
        }
    }

    /// The phase of a host now.
    pub(crate) fn phase(&mut self, now_ns: u64, host: HostNumber, phase: HostPhase) {
        let before = match phase {
            HostPhase::Running => self.phases.remove(&host),
            _ => self.phases.insert(host, phase),
        };
        if before.unwrap_or_default() != phase {
            self.push(now_ns, Some(host), Shown::Phase(phase));
        }
    }

    /// The history at the run's end. `at` tells the host of an address, and `shown` puts hosts' names in place of the
    /// words that mean them.
    pub(crate) fn end(
        mut self,
        at: impl Fn(SocketAddr) -> Option<HostNumber>,
        shown: impl Fn(&str) -> String,
    ) -> History {
        for entry in &mut self.history.entries {
            match &mut entry.what {
                Shown::Packet(packet) => {
                    let last = packet.rewritten.last().map(|(_, _, dst)| *dst);
                    packet.to = packet.to.or_else(|| at(last.or(packet.addrs.map(|(_, dst)| dst))?));
                    packet.carries = shown(&packet.carries);
                }
                Shown::Event(event) => {
                    event.fields.iter_mut().for_each(|(_, value)| *value = shown(value));
                }
                _ => {}
            }
        }
        self.history
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(recorder: &mut HistoryRecorder, number: u64) {
        recorder.sent(number, 0, number, &PacketText::default());
    }

    fn end(recorder: HistoryRecorder) -> History {
        recorder.end(|_| None, str::to_owned)
    }

    #[test]
    fn the_newest_entries_stay_and_the_others_are_counted() {
        let mut recorder = HistoryRecorder::new(3);
        (0..10).for_each(|number| sent(&mut recorder, number));
        // An end of a packet that is gone changes nothing, and one of a kept packet finds it.
        recorder.ended(20, (Some(1), "b"), 2, Fate::Arrived);
        recorder.ended(21, (Some(1), "b"), 8, Fate::Arrived);
        recorder.ended(22, (Some(1), "b"), 8, Fate::Dropped(DropCause::Loss));
        let history = end(recorder);
        assert_eq!(history.left_out, 7);
        let packets: Vec<(u64, usize)> = history
            .entries
            .iter()
            .map(|entry| match &entry.what {
                Shown::Packet(packet) => (packet.number, packet.ends.len()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(packets, [(7, 0), (8, 2), (9, 0)]);
    }

    #[test]
    fn what_has_begun_before_the_first_entry_is_known() {
        let mut recorder = HistoryRecorder::new(2);
        for number in 0..2 {
            recorder.push(1, None, Shown::Note(format!("fault {number}")));
            recorder.last_note_begins(number);
        }
        recorder.phase(2, 0, HostPhase::Suspended);
        recorder.phase(3, 1, HostPhase::Down);
        recorder.phase(4, 1, HostPhase::Running);
        recorder.phase(5, 1, HostPhase::Running);
        recorder.push(6, None, Shown::FaultEnds(0));
        sent(&mut recorder, 7);
        sent(&mut recorder, 8);
        let history = end(recorder);
        assert_eq!(history.phases_before, BTreeMap::from([(0, HostPhase::Suspended)]));
        assert_eq!(history.faults_before, BTreeMap::from([(1, "fault 1".to_owned())]));
    }
}
