//! Which events a story tells: those [around the faults](super::causes), and the last ones that concern the hosts that the
//! broken property names.
//!
//! A property's observation names hosts, by their names or by words that mean them, such as keys, and other things by
//! their ids: "node 3 has no outcome of task 0badcafe". Then only sightings of these concern it:
//!
//! | named | a sighting concerns the property if |
//! | --- | --- |
//! | an id | it has that id |
//! | one host | it happened there, or mentions the host |
//! | several | it is of one of them and mentions another, or is a program's event there that mentions nobody else |
//! | nobody | always; with an id: as if the hosts that mention the id were named |
//!
//! A fault that names no host concerns everyone. An event that a host repeats word for word is told once, at its last time,
//! so that a page reaches far back.

use super::causes::{around_faults, is_bare};
use crate::world::names::{is_named, words};
use crate::world::property::Violation;
use crate::world::sighting::{Seen, Sighting, WORLD};
use crate::world::watch::Recordings;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Sightings in a story: about a page.
const TOLD: usize = 40;

/// Sightings among them that are told because of a fault, if there was one.
const CAUSES: usize = TOLD / 2;

/// One of so many last sightings is a packet if there are enough of other events: the programs' own events say more.
const PACKETS_ONE_OF: usize = 4;

/// The shortest word that counts as an id; its letters and digits are those of hexadecimal numbers.
const ID_CHARS: usize = 8;

/// The things that a property names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    hosts: BTreeSet<String>,
    ids: BTreeSet<String>,
}

impl Named {
    fn by(broken: &Violation, seen: &Recordings) -> Named {
        let text = format!("{} {}", broken.property, broken.seen);
        let mut named = Named::default();
        named.hosts.extend(seen.hosts.iter().filter(|host| is_named(&text, host)).cloned());
        named.hosts.extend(broken.host.clone());
        for word in words(&text) {
            match seen.aliases.get(word) {
                Some(host) => _ = named.hosts.insert(host.clone()),
                None if is_id(word) => _ = named.ids.insert(word.to_owned()),
                None => {}
            }
        }
        if named.hosts.is_empty() {
            let of_ids = seen
                .sightings
                .iter()
                .filter(|sighting| matches!(sighting.what, Seen::Event(_)) && has_id(sighting, &named.ids));
            named.hosts = of_ids.filter_map(|sighting| sighting.host.clone()).collect();
        }
        named
    }

    fn concerns(&self, sighting: &Sighting, hosts: &[String]) -> bool {
        if self.hosts.is_empty() || has_id(sighting, &self.ids) {
            return true;
        }
        let there = sighting.host.as_ref().is_some_and(|host| self.hosts.contains(host));
        let mentioned = self.hosts.iter().filter(|host| sighting.mentions(host)).count();
        let alone = self.hosts.len() == 1;
        match &sighting.what {
            Seen::Packet(_) => usize::from(there) + mentioned >= if alone { 1 } else { 2 },
            Seen::Event(_) => {
                mentioned > 0 || there && (alone || !hosts.iter().any(|host| sighting.mentions(host)))
            }
            Seen::Note { .. } => {
                there
                    || mentioned > 0
                    || sighting.host.is_none() && !hosts.iter().any(|host| sighting.mentions(host))
            }
        }
    }
}

fn is_id(word: &str) -> bool {
    word.len() >= ID_CHARS
        && word.chars().all(|c| c.is_ascii_hexdigit())
        && word.chars().any(|c| c.is_ascii_digit())
}

/// Whether it has one of the ids. Programs cut ids short.
fn has_id(sighting: &Sighting, ids: &BTreeSet<String>) -> bool {
    if ids.is_empty() {
        return false;
    }
    let text = sighting.to_string();
    words(&text)
        .filter(|word| is_id(word))
        .any(|word| ids.iter().any(|id| id.starts_with(word) || word.starts_with(id.as_str())))
}

/// Appends the events up to the moment of the broken property that are around a fault or the last ones that concern it, with
/// their number and that of all others.
pub(crate) fn tell(text: &mut String, broken: &Violation, seen: &Recordings) {
    let named = Named::by(broken, seen);
    let until: Vec<&Sighting> = seen.sightings.iter().filter(|sighting| sighting.at <= broken.at).collect();
    let concerns = |at: &usize| named.concerns(until[*at], &seen.hosts);
    let concerned: BTreeSet<usize> = (0..until.len()).filter(concerns).collect();
    let (causes, faults) = around_faults(&until, &named.hosts, &seen.hosts, CAUSES);
    let last = last(&until, &concerned, &causes);
    for host in &named.hosts {
        // A program may be known by a long key and by its beginning.
        let keys = seen.aliases.iter().filter(|(_, name)| *name == host).map(|(word, _)| word);
        if let Some(key) = keys.min_by_key(|word| word.len()) {
            let _ = writeln!(text, "  key         {host} is {key}");
        }
    }
    let whom: Vec<&str> = named.hosts.iter().chain(&named.ids).map(String::as_str).collect();
    let concern = match whom.as_slice() {
        [] => String::new(),
        whom => format!(" that concern {}", whom.join(", ")),
    };
    let mut told: BTreeMap<usize, &str> = causes.iter().map(|at| (*at, "")).collect();
    told.extend(last.iter().map(|(at, more)| (*at, more.as_str())));
    let is_whole = concerned.iter().all(|at| told.contains_key(at));
    let (around, of_last) = match (causes.len(), faults) {
        (0, _) => (String::new(), last.len()),
        _ if is_whole => (String::new(), told.len()),
        (lines, 1) => (format!("{lines} events around 1 fault, and the "), last.len()),
        (lines, faults) => (format!("{lines} events around {faults} faults, and the "), last.len()),
    };
    let others = seen.sightings.len() - concerned.union(&causes).count();
    let _ = writeln!(
        text,
        "  {around}last {of_last} events of {}{concern}; {others} others are left out",
        concerned.len()
    );
    let gap = causes.last().and_then(|end| {
        let (next, _) = last.range(end + 1..).next()?;
        concerned.range(end + 1..*next).next().map(|_| *next)
    });
    for (at, more) in &told {
        if Some(*at) == gap {
            *text += "         …\n";
        }
        let _ = writeln!(text, "    {}{more}", until[*at]);
    }
}

/// The last of the sightings that concern the property and that aren't told as causes: by their places, each with what is
/// to be added to it.
fn last(run: &[&Sighting], concerned: &BTreeSet<usize>, causes: &BTreeSet<usize>) -> BTreeMap<usize, String> {
    let (mut events, mut packets, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for &at in concerned {
        match &run[at].what {
            Seen::Packet(_) if causes.contains(&at) => {}
            Seen::Packet(packet) if is_bare(packet) && !packet.in_trouble => bare.push(at),
            Seen::Packet(_) => packets.push(at),
            Seen::Event(_) | Seen::Note { .. } => events.push(at),
        }
    }
    let mut events = without_repetitions(run, &events);
    events.retain(|(at, _)| !causes.contains(at));
    let room = TOLD - causes.len();
    let most_events = room - (packets.len() + bare.len()).min(room / PACKETS_ONE_OF);
    let mut last: BTreeMap<usize, String> = newest(events, most_events).collect();
    for packets in [packets, bare] {
        last.extend(newest(packets, room - last.len()).map(|at| (at, String::new())));
    }
    last
}

/// The last elements, at most so many.
fn newest<T>(of: Vec<T>, most: usize) -> impl Iterator<Item = T> {
    let older = of.len().saturating_sub(most);
    of.into_iter().skip(older)
}

/// The events without those that the same process of their host repeats in the same words later; the last one says how
/// often it was there.
fn without_repetitions(run: &[&Sighting], events: &[usize]) -> Vec<(usize, String)> {
    let (mut count, mut ends, mut words) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for &at in events {
        if let Seen::Event(event) = &run[at].what {
            let host = &run[at].host;
            // What the world does to a host ends its process.
            let ended = ends.entry(host).or_insert(0);
            *ended += usize::from(event.target == WORLD);
            let said = (host, *ended, event.to_string());
            count.entry(said.clone()).or_insert((run[at].at, 0)).1 += 1;
            words.insert(at, said);
        }
    }
    let mut told = Vec::new();
    for &at in events.iter().rev() {
        let more = match &run[at].what {
            Seen::Event(_) => match count.remove(&words[&at]) {
                Some((_, 1)) => String::new(),
                Some((first, times)) => format!(" ({times} times since {:.3} s)", first.as_secs_f64()),
                None => continue,
            },
            _ => String::new(),
        };
        told.push((at, more));
    }
    told.reverse();
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::property::PropertyKind;
    use crate::world::sighting::{PacketSeen, ProtocolEvent};
    use std::time::Duration;

    fn at(second: u64, host: Option<&str>, what: Seen) -> Sighting {
        Sighting { at: Duration::from_secs(second), host: host.map(str::to_owned), what }
    }

    fn event(second: u64, host: &str, name: &str, peer: &str) -> Sighting {
        let fields = if peer.is_empty() { vec![] } else { vec![("peer", peer.to_owned())] };
        at(second, Some(host), Seen::Event(ProtocolEvent { target: "t", name: name.to_owned(), fields }))
    }

    fn packet(second: u64, host: &str, to: &str, carries: &str) -> Sighting {
        let size = "UDP 9 B".to_owned();
        let fate = "delivered".to_owned();
        let packet =
            PacketSeen { to: to.to_owned(), size, fate, carries: carries.to_owned(), in_trouble: false };
        at(second, Some(host), Seen::Packet(packet))
    }

    fn story(seen_text: &str, sightings: &[Sighting]) -> String {
        story_of(1_000, seen_text, sightings)
    }

    fn story_of(second: u64, seen_text: &str, sightings: &[Sighting]) -> String {
        let hosts = ["hub", "node 1", "node 2", "node 3"].map(str::to_owned).to_vec();
        let aliases = [("q7x".to_owned(), "node 2".to_owned())].into();
        let seen = Recordings { sightings: sightings.to_vec(), hosts, aliases, ..Recordings::default() };
        let broken = Violation {
            property: "all is well".to_owned(),
            kind: PropertyKind::Safety,
            seen: seen_text.to_owned(),
            at: Duration::from_secs(second),
            host: None,
            file: String::new(),
            line: 0,
        };
        let mut text = String::new();
        tell(&mut text, &broken, &seen);
        text
    }

    fn sightings() -> Vec<Sighting> {
        vec![
            event(1, "node 1", "session-up", "node 2"),
            event(2, "node 1", "session-up", "node 3"),
            event(3, "node 3", "held-dead", "node 2"),
            event(4, "node 2", "drained", ""),
            packet(5, "node 1", "node 3", "ping"),
            packet(6, "node 1", "hub", "relay to node 2"),
            packet(7, "hub", "node 2", "relayed from node 1"),
            at(8, None, Seen::Note { kind: "fault", text: "heal".to_owned() }),
            event(9, "node 3", "task 0badcafe12", ""),
        ]
    }

    fn told(text: &str) -> Vec<u64> {
        let lines = text.lines().filter_map(|line| line.trim().split_once('.')?.0.parse().ok());
        lines.collect()
    }

    #[test]
    fn of_two_named_hosts_what_is_between_them_is_told() {
        let text = story("node 1 doesn't hear q7x", &sightings());
        assert_eq!(told(&text), [1, 3, 4, 6, 7, 8], "{text}");
        assert!(
            text.contains("last 6 events of 6 that concern node 1, node 2; 3 others are left out"),
            "{text}"
        );
        assert!(text.contains("node 2 is q7x"), "{text}");
    }

    #[test]
    fn of_one_named_host_all_is_told_that_mentions_it() {
        assert_eq!(told(&story("node 2 is silent", &sightings())), [1, 3, 4, 6, 7, 8]);
        assert_eq!(told(&story("nobody is there", &sightings())), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn what_came_after_the_moment_is_left_out() {
        let text = story_of(3, "node 3 held node 2 dead", &sightings());
        assert_eq!(told(&text), [1, 2, 3], "{text}");
        assert!(text.contains("last 3 events of 3 that concern"), "{text}");
    }

    #[test]
    fn an_id_names_the_hosts_that_mention_it() {
        assert_eq!(told(&story("no outcome of 0badcafe1234", &sightings())), [2, 3, 5, 8, 9]);
    }

    #[test]
    fn packets_leave_room_for_events_and_fill_what_these_leave() {
        let mut many: Vec<Sighting> = (0..50).map(|second| packet(second, "node 1", "hub", "")).collect();
        assert_eq!(told(&story("", &many)), (10..50).collect::<Vec<_>>());
        many.extend((0..50).map(|second| event(second, "node 1", &format!("said {second}"), "")));
        let text = story("", &many);
        let of = |kind: &str| text.lines().filter(|line| line.contains(kind)).count();
        assert_eq!((of(" packet "), of(" event ")), (10, 30));
    }

    #[test]
    fn what_two_processes_of_a_host_say_in_the_same_words_is_told_of_each() {
        let mut run: Vec<_> = (0..4).map(|second| event(second, "node 1", "a write is over", "")).collect();
        let name = "its process is killed".to_owned();
        let killed = ProtocolEvent { target: WORLD, name, fields: vec![] };
        run.insert(3, at(2, Some("node 1"), Seen::Event(killed)));
        let text = story("node 1", &run);
        assert!(text.contains("a write is over (3 times since 0.000 s)\n"), "{text}");
        assert!(text.contains("a write is over\n"), "{text}");
    }

    #[test]
    fn a_repeated_event_is_told_once_with_its_number() {
        let mut many: Vec<Sighting> = (0..50).map(|second| event(second, "node 1", "tries", "hub")).collect();
        many.push(event(60, "node 2", "tries", "hub"));
        many.insert(7, event(6, "node 1", "once", ""));
        let text = story("", &many);
        assert_eq!(told(&text), [6, 49, 60], "{text}");
        assert!(text.contains("node 1     tries peer=hub (50 times since 0.000 s)\n"), "{text}");
    }

    #[test]
    fn half_of_a_story_is_about_the_fault_and_the_rest_about_the_end() {
        let fault = |text: &str| Seen::Note { kind: "note", text: text.to_owned() };
        let mut many: Vec<Sighting> = (0..200).map(|second| packet(second, "node 1", "node 2", "")).collect();
        many.insert(51, at(50, None, fault("fault 1: 50s latency node 2 add=1s jitter=0s for=2s")));
        let text = story("node 2 is late", &many);
        let expected: Vec<u64> = [50].into_iter().chain(51..70).chain(180..200).collect();
        assert_eq!(told(&text), expected, "{text}");
        let heading =
            "  20 events around 1 fault, and the last 20 events of 201 that concern node 2; 0 others";
        assert!(text.contains(heading), "{text}");
        assert_eq!(text.matches("         …\n").count(), 1, "{text}");
    }
}
