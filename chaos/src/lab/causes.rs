//! The causes in a story: what happened around the beginning of each fault.
//!
//! The last events of a run that checks at its end are often healthy, and what went wrong was long before. So a part of
//! a story is about the faults, of which a shrunk plan has few: of each its beginning, what was done just before, and the
//! packets that were lost since then, with what the hosts concerned did next. The hosts concerned are those that the
//! property names, and those that the fault names. Their peers, with which they exchanged packets, are heard too: a
//! peer's log says what it made of an answer that was late.

use crate::world::names::is_named;
use crate::world::sighting::{PacketSeen, Seen, Sighting, WORLD};
use crate::world::watch::NOTE;
use std::collections::BTreeSet;

/// The fewest lines that are worth telling of a fault, and of a moment since its beginning.
const LEAST_LINES: usize = 4;
const LEAST_OF_A_MOMENT: usize = 3;

/// One of so many lines, and at most so many, are what the hosts concerned did before a fault.
const BEFORE_ONE_OF: usize = 5;
const MOST_BEFORE: usize = 3;

/// One of so many lines is a packet also if there are enough events of programs.
const PACKETS_ONE_OF: usize = 3;

/// Chooses at most `room` of a run's sightings, by their places, and counts the faults of which they are. Without names
/// every host is concerned.
pub(super) fn around_faults(
    run: &[&Sighting],
    named: &BTreeSet<String>,
    hosts: &[String],
    room: usize,
) -> (BTreeSet<usize>, usize) {
    let begins = begins(run, named, room / LEAST_LINES);
    let mut chosen = BTreeSet::new();
    for (n, &begin) in begins.iter().enumerate() {
        let end = begins.get(n + 1).copied().unwrap_or(run.len());
        let mut whom: BTreeSet<&str> = named.iter().map(String::as_str).collect();
        whom.extend(hosts.iter().filter(|host| run[begin].mentions(host)).map(String::as_str));
        if named.is_empty() {
            whom.extend(hosts.iter().map(String::as_str));
        }
        let around = Around { run, peers: peers(run, &whom), whom };
        let share = (room - chosen.len()) / (begins.len() - n);
        let since = n.checked_sub(1).map_or(0, |earlier| begins[earlier]);
        let before = around.before(since, begin, (share / BEFORE_ONE_OF).min(MOST_BEFORE));
        let share = share - before.len();
        chosen.extend(around.fault(begin, end, share));
        chosen.extend(before);
    }
    (chosen, begins.len())
}

/// Where faults of the plan begin: at most so many, rather those that mention a named host, and rather late ones.
fn begins(run: &[&Sighting], named: &BTreeSet<String>, most: usize) -> Vec<usize> {
    let mut begins: Vec<usize> = (0..run.len()).filter(|&at| begin(run[at]).is_some()).collect();
    if begins.len() > most {
        begins.sort_by_key(|&at| (named.iter().any(|host| run[at].mentions(host)), at));
        begins.drain(..begins.len() - most);
        begins.sort_unstable();
    }
    begins
}

/// The number of the fault that begins, if it is a line about that: "fault 1: 5s crash b for=10ms".
fn begin(sighting: &Sighting) -> Option<&str> {
    let Seen::Note { kind: NOTE, text } = &sighting.what else { return None };
    let (number, _) = text.strip_prefix("fault ")?.split_once(": ")?;
    number.parse::<usize>().is_ok().then_some(number)
}

/// The hosts that exchanged packets with these.
fn peers<'a>(run: &[&'a Sighting], whom: &BTreeSet<&str>) -> BTreeSet<&'a str> {
    let ends = run.iter().filter_map(|sighting| match &sighting.what {
        Seen::Packet(packet) => Some((sighting.host.as_deref()?, packet.to.as_str())),
        _ => None,
    });
    ends.flat_map(|(from, to)| [(from, to), (to, from)])
        .filter_map(|(one, other)| whom.contains(one).then_some(other))
        .collect()
}

/// A packet of TCP without data.
pub(super) fn is_bare(packet: &PacketSeen) -> bool {
    packet.size.starts_with("TCP") && packet.size.ends_with(" 0 B")
}

/// A run, and the hosts concerned by one of its faults.
struct Around<'a> {
    run: &'a [&'a Sighting],
    whom: BTreeSet<&'a str>,
    peers: BTreeSet<&'a str>,
}

impl Around<'_> {
    /// The last events of the hosts concerned before the fault, rather those of hosts that it mentions: what it interrupts may
    /// have been told to be done.
    fn before(&self, since: usize, begin: usize, room: usize) -> Vec<usize> {
        let is_event = |at: &usize| matches!(self.run[*at].what, Seen::Event(_));
        let host = |at: &usize| self.run[*at].host.as_deref().filter(|host| self.whom.contains(host));
        let is_its = |at: &usize| host(at).is_some_and(|host| self.run[begin].mentions(host));
        let events = || (since..begin).rev().filter(is_event);
        let of_its = events().filter(is_its);
        let mut latest: Vec<usize> = of_its.take(room).collect();
        if latest.is_empty() {
            latest = events().filter(|at| host(at).is_some()).take(room).collect();
        }
        latest
    }

    /// Lines about the fault that begins at `begin`, of those before `end`.
    fn fault(&self, begin: usize, end: usize, room: usize) -> BTreeSet<usize> {
        let mut chosen = BTreeSet::from([begin]);
        // Its effect stands behind its beginning, and its end has a line of its own.
        let is_effect = |at: &usize| {
            matches!(self.run[*at].what, Seen::Note { kind, .. } if kind != NOTE)
                && self.run[*at].at == self.run[begin].at
        };
        chosen.extend(Some(begin + 1).filter(|at| *at < end).filter(is_effect));
        let ends = self::begin(self.run[begin]).map(|number| format!("fault {number} ends"));
        let is_end = |at: &usize| matches!(&self.run[*at].what, Seen::Note { text, .. } if ends.as_ref() == Some(text));
        chosen.extend((begin..self.run.len()).find(is_end));
        // An armed crash comes later than its fault begins.
        let is_done_to_it = |at: &usize| {
            matches!(&self.run[*at].what, Seen::Event(event) if event.target == WORLD) && self.is_theirs(*at)
        };
        chosen.extend((begin..end).find(is_done_to_it));
        let is_lost = |at: &usize| match &self.run[*at].what {
            Seen::Packet(packet) => packet.in_trouble && self.is_theirs(*at),
            _ => false,
        };
        let left = room.saturating_sub(chosen.len());
        let most = (left / LEAST_OF_A_MOMENT).max(1);
        // Of two moments one is the beginning: nothing may be lost before long.
        let lost = (begin..end).filter(is_lost);
        let mut moments: Vec<usize> = lost.take(if most > 1 { most - 1 } else { 1 }).collect();
        if moments.len() < most {
            moments.insert(0, begin);
        }
        let mut told = BTreeSet::new();
        for (n, &moment) in moments.iter().enumerate() {
            let next = moments.get(n + 1).copied().unwrap_or(end);
            let share = room.saturating_sub(chosen.len()) / (moments.len() - n);
            self.next(moment..next, share, &mut chosen, &mut told);
        }
        chosen
    }

    /// Chooses what comes next: events of programs, and packets, with data if there are any. What a host says again in
    /// the same words is chosen once.
    fn next(
        &self,
        stretch: std::ops::Range<usize>,
        room: usize,
        chosen: &mut BTreeSet<usize>,
        told: &mut BTreeSet<(Option<String>, String)>,
    ) {
        let (mut events, mut packets, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for at in stretch.filter(|at| !chosen.contains(at) && self.is_theirs(*at)) {
            let sighting = self.run[at];
            match &sighting.what {
                Seen::Event(event) if events.len() < room => {
                    if told.insert((sighting.host.clone(), event.to_string())) {
                        events.push(at);
                    }
                }
                Seen::Packet(packet) if is_bare(packet) && !packet.in_trouble => bare.push(at),
                Seen::Packet(_) => packets.push(at),
                Seen::Event(_) | Seen::Note { .. } => {}
            }
        }
        packets.truncate(room.saturating_sub(events.len()).max(room.div_ceil(PACKETS_ONE_OF)));
        events.truncate(room - packets.len().min(room));
        bare.truncate(room.saturating_sub(events.len() + packets.len()));
        chosen.extend([events, packets, bare].into_iter().flatten());
    }

    /// Whether it is a packet from or to a host concerned, or an event of such a host or of a peer.
    fn is_theirs(&self, at: usize) -> bool {
        let sighting = self.run[at];
        let Some(host) = sighting.host.as_deref() else { return false };
        match &sighting.what {
            Seen::Packet(packet) => self.whom.contains(host) || self.whom.contains(packet.to.as_str()),
            Seen::Event(_) => self.whom.contains(host) || self.peers.contains(host),
            Seen::Note { text, .. } => self.whom.iter().any(|host| is_named(text, host)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sighting::ProtocolEvent;
    use std::time::Duration;

    fn at(ms: u64, host: &str, what: Seen) -> Sighting {
        let host = Some(host.to_owned()).filter(|host| !host.is_empty());
        Sighting { at: Duration::from_millis(ms), host, what }
    }

    fn event(ms: u64, host: &str, name: &str) -> Sighting {
        at(ms, host, Seen::Event(ProtocolEvent { target: "t", name: name.to_owned(), fields: vec![] }))
    }

    fn packet(ms: u64, host: &str, to: &str, is_lost: bool) -> Sighting {
        let [to, size, fate] = [to, "UDP 9 B", "?"].map(str::to_owned);
        at(ms, host, Seen::Packet(PacketSeen { to, size, fate, carries: String::new(), in_trouble: is_lost }))
    }

    fn note(ms: u64, kind: &'static str, text: &str) -> Sighting {
        at(ms, "", Seen::Note { kind, text: text.to_owned() })
    }

    fn chosen(run: &[Sighting], named: &[&str], room: usize) -> (Vec<u64>, usize) {
        let run: Vec<&Sighting> = run.iter().collect();
        let hosts = ["a", "backup", "client", "stranger"].map(str::to_owned);
        let named = named.iter().map(|host| (*host).to_owned()).collect();
        let (chosen, faults) = around_faults(&run, &named, &hosts, room);
        (chosen.iter().map(|&place| run[place].at.as_millis() as u64).collect(), faults)
    }

    /// A second of traffic each 100 ms, from before the fault until long after it.
    fn with_a_fault(mut lost: impl FnMut(u64) -> bool) -> Vec<Sighting> {
        let mut run: Vec<Sighting> = (0..100)
            .flat_map(|n| {
                let ms = n * 100;
                [
                    packet(ms, "client", "backup", lost(n)),
                    event(ms + 10, "client", &format!("sends {n}")),
                    event(ms + 20, "stranger", &format!("works {n}")),
                ]
            })
            .collect();
        run.push(note(1_001, "note", "fault 1: 1s loss backup udp=3 tcp=0 for=2s"));
        run.push(note(1_001, "fault", "Host(\"backup\") Both Loss"));
        run.push(note(3_001, "note", "fault 1 ends"));
        run.sort_by_key(|sighting| sighting.at);
        run
    }

    #[test]
    fn a_fault_is_told_with_what_came_next_also_of_peers() {
        let run = with_a_fault(|_| false);
        let (told, faults) = chosen(&run, &["backup"], 8);
        assert_eq!((told, faults), (vec![1_001, 1_001, 1_010, 1_100, 1_110, 1_200, 1_210, 3_001], 1));
    }

    #[test]
    fn when_a_process_was_killed_is_told_however_long_after_its_fault_began() {
        let mut run = with_a_fault(|_| false);
        let name = "its process is killed".to_owned();
        run.push(at(2_222, "backup", Seen::Event(ProtocolEvent { target: WORLD, name, fields: vec![] })));
        run.sort_by_key(|sighting| sighting.at);
        assert!(chosen(&run, &["client"], 6).0.contains(&2_222));
    }

    #[test]
    fn packets_that_were_lost_are_told_with_what_came_next() {
        let run = with_a_fault(|n| n == 14 || n == 25);
        let (told, _) = chosen(&run, &["backup"], 11);
        assert_eq!(told, [1_001, 1_001, 1_010, 1_100, 1_110, 1_200, 1_400, 1_410, 1_500, 1_510, 3_001]);
        let (with_room, _) = chosen(&run, &["backup"], 14);
        assert!([1_010, 1_400, 2_500].iter().all(|at| with_room.contains(at)), "{with_room:?}");
    }

    #[test]
    fn what_was_done_just_before_a_fault_is_told_rather_of_the_host_that_it_hits() {
        let mut run = with_a_fault(|_| false);
        run.extend((0..10).map(|n| event(n * 100 + 50, "backup", &format!("stores {n}"))));
        run.sort_by_key(|sighting| sighting.at);
        let before = |named: &[&str], room| {
            let (told, _) = chosen(&run, named, room);
            told.into_iter().filter(|at| *at < 1_001).collect::<Vec<_>>()
        };
        assert_eq!(before(&["client", "backup"], 20), [750, 850, 950]);
        assert_eq!(before(&["client"], 9), [950]);
        assert!(before(&["client"], 4).is_empty());
        run.retain(|sighting| sighting.host.as_deref() != Some("backup"));
        let (told, _) = chosen(&run, &["client"], 10);
        assert_eq!(told[..3], [810, 910, 1_001], "if it has none, of those that the property names");
    }

    #[test]
    fn of_many_faults_the_last_ones_of_the_named_hosts_are_told() {
        let fault = |n: u64| {
            let host = if n.is_multiple_of(2) { "backup" } else { "stranger" };
            note(n * 100, "note", &format!("fault {}: 1s crash {host} for=10ms", n + 1))
        };
        let run: Vec<Sighting> = (0..20).map(fault).collect();
        assert_eq!(chosen(&run, &["backup"], 12), (vec![1_400, 1_600, 1_800], 3));
        assert_eq!(chosen(&run, &[], 12), (vec![1_700, 1_800, 1_900], 3));
        assert_eq!(chosen(&with_a_fault(|_| false)[..3], &["backup"], 12), (vec![], 0));
    }
}
