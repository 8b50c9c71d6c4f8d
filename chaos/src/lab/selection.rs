//! Which events a story tells: the last ones that concern the hosts that the broken property names.
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

use crate::world::names::{is_named, words};
use crate::world::property::Violation;
use crate::world::sighting::{Seen, Sighting};
use crate::world::watch::Recordings;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Sightings in a story: about a page.
const TOLD: usize = 40;

/// Packets among them if there are enough of other events: the programs' own events say more.
const PACKETS: usize = 10;

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

/// Appends the last events up to the moment of the broken property that concern it, with their number and that of all
/// others.
pub(crate) fn tell(text: &mut String, broken: &Violation, seen: &Recordings) {
    let named = Named::by(broken, seen);
    let until = seen.sightings.iter().filter(|sighting| sighting.at <= broken.at);
    let concerned: Vec<&Sighting> = until.filter(|sighting| named.concerns(sighting, &seen.hosts)).collect();
    let (packets, events): (Vec<_>, Vec<_>) =
        concerned.iter().copied().partition(|sighting| matches!(sighting.what, Seen::Packet(_)));
    let events = without_repetitions(&events);
    let packets: Vec<(&Sighting, String)> =
        packets.into_iter().map(|packet| (packet, String::new())).collect();
    let most_events = TOLD - packets.len().min(PACKETS);
    let events = &events[events.len().saturating_sub(most_events)..];
    let packets = &packets[packets.len().saturating_sub(TOLD - events.len())..];
    let mut told: Vec<&(&Sighting, String)> = events.iter().chain(packets).collect();
    told.sort_by_key(|(sighting, _)| sighting.at);
    let whom: Vec<&str> = named.hosts.iter().chain(&named.ids).map(String::as_str).collect();
    let concern = match whom.as_slice() {
        [] => String::new(),
        whom => format!(" that concern {}", whom.join(", ")),
    };
    for host in &named.hosts {
        // A program may be known by a long key and by its beginning.
        let keys = seen.aliases.iter().filter(|(_, name)| *name == host).map(|(word, _)| word);
        if let Some(key) = keys.min_by_key(|word| word.len()) {
            let _ = writeln!(text, "  key         {host} is {key}");
        }
    }
    let others = seen.sightings.len() - concerned.len();
    let _ = writeln!(
        text,
        "  last {} events of {}{concern}; {others} others are left out",
        told.len(),
        concerned.len()
    );
    told.iter().for_each(|(sighting, more)| *text += &format!("    {sighting}{more}\n"));
}

/// The events without those that their host repeats in the same words later; the last one says how often it was there.
fn without_repetitions<'a>(events: &[&'a Sighting]) -> Vec<(&'a Sighting, String)> {
    let mut count = BTreeMap::new();
    for sighting in events {
        if let Seen::Event(event) = &sighting.what {
            count.entry((&sighting.host, event.to_string())).or_insert((sighting.at, 0)).1 += 1;
        }
    }
    let mut told = Vec::new();
    for sighting in events.iter().rev() {
        let more = match &sighting.what {
            Seen::Event(event) => match count.remove(&(&sighting.host, event.to_string())) {
                Some((_, 1)) => String::new(),
                Some((first, times)) => format!(" ({times} times since {:.3} s)", first.as_secs_f64()),
                None => continue,
            },
            _ => String::new(),
        };
        told.push((*sighting, more));
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
        let packet = PacketSeen { to: to.to_owned(), size, fate, carries: carries.to_owned() };
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
    fn a_repeated_event_is_told_once_with_its_number() {
        let mut many: Vec<Sighting> = (0..50).map(|second| event(second, "node 1", "tries", "hub")).collect();
        many.push(event(60, "node 2", "tries", "hub"));
        many.insert(7, event(6, "node 1", "once", ""));
        let text = story("", &many);
        assert_eq!(told(&text), [6, 49, 60], "{text}");
        assert!(text.contains("node 1     tries peer=hub (50 times since 0.000 s)\n"), "{text}");
    }
}
