//! The packets of a watched run: where each comes from, what is in it, and what became of it.

use super::labels::Labels;
use super::names::Names;
use super::sighting::PacketSeen;
use super::watch::Decoder;
use crate::wire::middlebox::Protocol;
use crate::wire::packet;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The number of packets that are remembered: the last ones sent. A record of an older packet shows only its number.
const REMEMBERED: usize = 1 << 16;

/// The number of older packets that are remembered besides, because a story may tell them.
const SET_ASIDE: usize = 1 << 12;

/// The longest payload that is shown as text.
const TEXT_BYTES: usize = 32;

/// A packet as recorded last: its addresses and length, and its decoded content.
#[derive(Debug, Default)]
pub(crate) struct PacketText {
    pub(crate) way: String,
    pub(crate) carries: String,
    /// The host that sent it.
    pub(crate) origin: Option<u32>,
    /// The addresses that it has now.
    pub(crate) src: Option<SocketAddr>,
    pub(crate) dst: Option<SocketAddr>,
    /// UDP, or TCP with the letters of its flags.
    pub(crate) protocol: String,
    pub(crate) payload_bytes: usize,
    /// The addressee when the packet was sent, and the address.
    to: String,
    sent_ns: u64,
    /// Neither payload nor more than an acknowledgement: of no interest to a story.
    pub(crate) is_empty: bool,
    fate: String,
    /// It was dropped, damaged or doubled.
    pub(crate) in_trouble: bool,
    /// A story may tell it, however old it becomes.
    stays: bool,
}

/// The remembered packets, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Packets {
    last: BTreeMap<u64, PacketText>,
    /// Older ones that stay.
    aside: BTreeMap<u64, PacketText>,
}

impl Packets {
    pub(crate) fn get(&self, number: u64) -> Option<&PacketText> {
        self.last.get(&number)
    }

    /// Whether a packet was dropped, damaged or doubled.
    pub(crate) fn is_in_trouble(&self, number: u64) -> bool {
        let packet = self.last.get(&number).or_else(|| self.aside.get(&number));
        packet.is_some_and(|packet| packet.in_trouble)
    }

    /// Remembers a packet that was sent, or changed on its way.
    pub(crate) fn insert(&mut self, now_ns: u64, number: u64, mut text: PacketText) {
        if let Some(before) = self.last.remove(&number) {
            (text.origin, text.to, text.sent_ns, text.fate) =
                (before.origin, before.to, before.sent_ns, before.fate);
            (text.in_trouble, text.stays) = (before.in_trouble, before.stays);
        } else {
            text.sent_ns = now_ns;
        }
        self.last.insert(number, text);
        if self.last.len() > REMEMBERED
            && let Some((number, oldest)) = self.last.pop_first()
            && (oldest.stays || oldest.in_trouble)
            && self.aside.len() < SET_ASIDE
        {
            self.aside.insert(number, oldest);
        }
    }

    /// A story may tell this packet, however old it becomes.
    pub(crate) fn stays(&mut self, number: u64) {
        if let Some(packet) = self.last.get_mut(&number) {
            packet.stays = true;
        }
    }

    /// A packet's fate: the receiver, if it has arrived there, and how in words. A copy's fate stands behind that of the
    /// packet.
    pub(crate) fn end(&mut self, now_ns: u64, number: u64, receiver: Option<&str>, how: &str) {
        let Some(packet) = self.last.get_mut(&number) else { return };
        packet.in_trouble |= receiver.is_none() || how != ARRIVED || !packet.fate.is_empty();
        if let Some(receiver) = receiver {
            packet.to = receiver.to_owned();
        }
        let took_ms = now_ns.saturating_sub(packet.sent_ns) as f64 / 1e6;
        let and = if packet.fate.is_empty() { "" } else { " and " };
        packet.fate += &format!("{and}{how} after {took_ms:.1} ms");
    }

    /// The packet for a story, with the time at which it was sent.
    pub(crate) fn take(&mut self, number: u64) -> Option<(u64, PacketSeen)> {
        let packet = self.last.remove(&number).or_else(|| self.aside.remove(&number))?;
        let PacketText { carries, protocol, payload_bytes, to, sent_ns, fate, in_trouble, .. } = packet;
        let size = format!("{protocol} {payload_bytes} B");
        Some((sent_ns, PacketSeen { to, size, fate, carries, in_trouble }))
    }
}

/// The fate of a packet that arrived as it was sent.
pub(crate) const ARRIVED: &str = "delivered";

/// A short payload in quotes, if it is text.
fn as_text(payload: &[u8]) -> Option<String> {
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n');
    let is_short = (1..=TEXT_BYTES).contains(&payload.len());
    (is_short && payload.iter().all(is_text)).then(|| format!("{:?}", String::from_utf8_lossy(payload)))
}

/// Describes a packet's bytes.
pub(crate) fn describe(bytes: &[u8], names: &Names, decoder: Option<Decoder>, labels: &Labels) -> PacketText {
    let Some(headers) = packet::parse(bytes) else {
        let way = format!("{} B that are no packet", bytes.len());
        return PacketText { way, ..PacketText::default() };
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
    let carries = decoder.map(|decode| decode(protocol, payload, labels)).filter(|text| !text.is_empty());
    let carries = carries.or_else(|| as_text(payload)).unwrap_or_default();
    let to = names.at(headers.dst).map(|host| names.host(host).to_owned());
    PacketText {
        way: format!(
            "{:<21} > {:<21} {name:<7} {:>5} B",
            headers.src.to_string(),
            headers.dst.to_string(),
            payload.len()
        ),
        carries: names.shown(&carries),
        payload_bytes: payload.len(),
        src: Some(headers.src),
        dst: Some(headers.dst),
        to: to.unwrap_or_else(|| headers.dst.to_string()),
        is_empty: payload.is_empty() && name == "TCP A",
        protocol: name,
        ..PacketText::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_payload_is_shown_if_it_is_text() {
        assert_eq!(as_text(b"14 k13 v").unwrap(), "\"14 k13 v\"");
        assert_eq!(as_text(b"GET \"k1\"\n").unwrap(), "\"GET \\\"k1\\\"\\n\"");
        let others = [&b""[..], b"\x00\x00k", "\u{e9}t\u{e9}".as_bytes(), &[b'a'; TEXT_BYTES + 1]];
        assert_eq!(others.map(as_text), [const { None }; 4]);
    }

    #[test]
    fn a_packet_that_was_lost_long_ago_is_remembered() {
        let mut packets = Packets::default();
        let text = || PacketText { protocol: "UDP".to_owned(), ..PacketText::default() };
        packets.insert(0, 0, text());
        packets.insert(0, 1, text());
        packets.insert(0, 2, text());
        packets.end(1, 1, None, "dropped before b (Loss)");
        packets.stays(2);
        (3..REMEMBERED as u64 + 10).for_each(|number| packets.insert(2, number, text()));
        assert_eq!(packets.take(0), None);
        assert!(packets.take(1).is_some_and(|(_, seen)| seen.in_trouble));
        assert!(packets.take(2).is_some_and(|(_, seen)| !seen.in_trouble));
    }
}
