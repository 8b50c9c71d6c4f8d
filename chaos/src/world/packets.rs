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
}

/// The remembered packets, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Packets(BTreeMap<u64, PacketText>);

impl Packets {
    pub(crate) fn get(&self, number: u64) -> Option<&PacketText> {
        self.0.get(&number)
    }

    /// Remembers a packet that was sent, or changed on its way.
    pub(crate) fn insert(&mut self, now_ns: u64, number: u64, mut text: PacketText) {
        if let Some(before) = self.0.remove(&number) {
            (text.origin, text.to, text.sent_ns, text.fate) =
                (before.origin, before.to, before.sent_ns, before.fate);
        } else {
            text.sent_ns = now_ns;
        }
        self.0.insert(number, text);
        if self.0.len() > REMEMBERED {
            self.0.pop_first();
        }
    }

    /// A packet's fate: the receiver, if it has arrived there, and how in words. A copy's fate stands behind that of the
    /// packet.
    pub(crate) fn end(&mut self, now_ns: u64, number: u64, receiver: Option<&str>, how: &str) {
        let Some(packet) = self.0.get_mut(&number) else { return };
        if let Some(receiver) = receiver {
            packet.to = receiver.to_owned();
        }
        let took_ms = now_ns.saturating_sub(packet.sent_ns) as f64 / 1e6;
        let and = if packet.fate.is_empty() { "" } else { " and " };
        packet.fate += &format!("{and}{how} after {took_ms:.1} ms");
    }

    /// The packet for a story, with the time at which it was sent.
    pub(crate) fn take(&mut self, number: u64) -> Option<(u64, PacketSeen)> {
        let PacketText { carries, protocol, payload_bytes, to, sent_ns, fate, .. } =
            self.0.remove(&number)?;
        let size = format!("{protocol} {payload_bytes} B");
        Some((sent_ns, PacketSeen { to, size, fate, carries }))
    }
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
    let carries = decoder.map_or_else(String::new, |decode| decode(protocol, payload, labels));
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
