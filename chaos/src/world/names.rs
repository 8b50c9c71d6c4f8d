//! The names of a watched run's hosts, and the keys and addresses by which packets and programs mention them.

use super::sighting::{Seen, Sighting};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// A host by its number.
type HostNumber = u32;

/// Names of hosts and networks, and the words and addresses that stand for hosts.
#[derive(Debug)]
pub(crate) struct Names {
    hosts: Vec<String>,
    nets: Vec<String>,
    /// Words that mean a host, such as its key.
    aliases: BTreeMap<String, HostNumber>,
    /// The host that an address was seen to belong to last.
    addrs: BTreeMap<SocketAddr, HostNumber>,
}

impl Names {
    pub(crate) fn new() -> Names {
        Names {
            hosts: Vec::new(),
            nets: vec!["internet".to_owned()],
            aliases: BTreeMap::new(),
            addrs: BTreeMap::new(),
        }
    }

    pub(crate) fn add_host(&mut self, name: &str) {
        self.hosts.push(name.to_owned());
    }

    pub(crate) fn add_net(&mut self, name: &str) {
        self.nets.push(name.to_owned());
    }

    pub(crate) fn host(&self, number: u32) -> &str {
        self.hosts.get(number as usize).map_or("-", String::as_str)
    }

    pub(crate) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    pub(crate) fn box_of(&self, net: u32) -> String {
        format!("box {}", self.nets.get(net as usize).map_or("?", String::as_str))
    }

    /// From now on `word` means this host.
    pub(crate) fn alias(&mut self, word: &str, host: HostNumber) {
        self.aliases.insert(word.to_owned(), host);
    }

    /// The words that mean hosts, with the hosts' names.
    pub(crate) fn aliases(&self) -> BTreeMap<String, String> {
        self.aliases.iter().map(|(word, host)| (word.clone(), self.host(*host).to_owned())).collect()
    }

    /// Packets from this address were of this host, or packets to it have arrived there.
    pub(crate) fn lives_at(&mut self, addr: SocketAddr, host: HostNumber) {
        self.addrs.insert(addr, host);
    }

    /// The host that packets to this address are meant for, as far as earlier ones have shown.
    pub(crate) fn at(&self, addr: SocketAddr) -> Option<HostNumber> {
        self.addrs.get(&addr).copied()
    }

    /// The text with hosts' names in place of the words that mean them.
    pub(crate) fn shown(&self, text: &str) -> String {
        words(text).map(|word| self.aliases.get(word).map_or(word, |host| self.host(*host))).collect()
    }

    /// The sighting with hosts' names in it.
    pub(crate) fn sighting(&self, at: Duration, host: Option<u32>, mut what: Seen) -> Sighting {
        match &mut what {
            Seen::Event(event) => event.fields.iter_mut().for_each(|(_, value)| *value = self.shown(value)),
            // Its receiver's key may have been unknown when it was sent.
            Seen::Packet(packet) => packet.carries = self.shown(&packet.carries),
            Seen::Note { .. } => {}
        }
        Sighting { at, host: host.map(|number| self.host(number).to_owned()), what }
    }
}

/// Whether a text has this host's name as words of its own. A name of one letter may be an article: it must be the whole
/// text.
pub(crate) fn is_named(text: &str, host: &str) -> bool {
    if host.chars().count() < 2 {
        return text == host;
    }
    text.match_indices(host).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + host.len()..].chars().next();
        ![before, after].into_iter().flatten().any(char::is_alphanumeric)
    })
}

/// A text cut before and after each run of letters and digits; the parts make the text again.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let inner = first.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != inner).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_named_by_its_whole_name() {
        assert!(is_named("node 1 held node 12 dead", "node 1"));
        assert!(!is_named("node 12 held node 3 dead", "node 1"));
        assert!(is_named("a", "a") && !is_named("a task is lost", "a"));
    }

    #[test]
    fn a_key_is_shown_as_its_host_and_parts_of_words_are_not() {
        let mut names = Names::new();
        names.add_host("hub");
        names.add_host("node 1");
        names.alias("q7x", 1);
        assert_eq!(names.shown("relay to q7x: q7xx (q7x)"), "relay to node 1: q7xx (node 1)");
        assert_eq!(words(" a-b ").collect::<Vec<_>>(), [" ", "a", "-", "b", " "]);
    }
}
