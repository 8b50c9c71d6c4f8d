//! The boxes of these tests, each with few and simple rules.

use chaos::middlebox::{BoxVerdict, Middlebox, Packet, Passage, Protocol, Refusal};
use rand_core::Rng as _;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

/// A NAT with one port per inner address and port, for all destinations; mappings never expire.
#[derive(Default)]
pub(crate) struct Cone {
    /// Lets packets in only from addresses and ports that the inner side has sent to.
    restricted: bool,
    /// Refuses packets from inside to its own outer address.
    no_hairpin: bool,
    ports: BTreeMap<(Protocol, SocketAddr), u16>,
    inner: BTreeMap<(Protocol, u16), SocketAddr>,
    contacts: BTreeSet<(Protocol, u16, SocketAddr)>,
}

impl Cone {
    pub(crate) fn open() -> Cone {
        Cone::default()
    }

    pub(crate) fn restricted() -> Cone {
        Cone { restricted: true, ..Cone::default() }
    }

    pub(crate) fn hairpin(self, on: bool) -> Cone {
        Cone { no_hairpin: !on, ..self }
    }
}

impl Middlebox for Cone {
    fn outbound(&mut self, passage: &mut Passage<'_>, packet: &mut Packet) -> BoxVerdict {
        let protocol = packet.protocol();
        if self.no_hairpin && passage.outer.contains(&packet.dst().ip()) {
            return BoxVerdict::Refuse(Refusal::Hairpin);
        }
        let port = *self.ports.entry((protocol, packet.src())).or_insert_with(|| {
            let drawn = || 1024 + (passage.rng.next_u32() % 60_000) as u16;
            std::iter::repeat_with(drawn).find(|port| !self.inner.contains_key(&(protocol, *port))).unwrap()
        });
        self.inner.insert((protocol, port), packet.src());
        self.contacts.insert((protocol, port, packet.dst()));
        packet.set_src(SocketAddr::new(passage.outer[0], port));
        BoxVerdict::Pass
    }

    fn inbound(&mut self, _: &mut Passage<'_>, packet: &mut Packet) -> BoxVerdict {
        let (protocol, port) = (packet.protocol(), packet.dst().port());
        let Some(inner) = self.inner.get(&(protocol, port)) else {
            return BoxVerdict::Refuse(Refusal::NoMapping);
        };
        if self.restricted && !self.contacts.contains(&(protocol, port, packet.src())) {
            return BoxVerdict::Refuse(Refusal::Filtered);
        }
        packet.set_dst(*inner);
        BoxVerdict::Pass
    }

    fn reboot(&mut self) {
        *self = Cone { restricted: self.restricted, no_hairpin: self.no_hairpin, ..Cone::default() };
    }

    fn describe(&self) -> String {
        if self.restricted { "a restricted cone" } else { "a cone" }.to_owned()
    }
}

/// Lets in only answers to outbound packets, and rewrites nothing.
#[derive(Default)]
pub(crate) struct Firewall(BTreeSet<(Protocol, SocketAddr, SocketAddr)>);

impl Middlebox for Firewall {
    fn outbound(&mut self, _: &mut Passage<'_>, packet: &mut Packet) -> BoxVerdict {
        self.0.insert((packet.protocol(), packet.src(), packet.dst()));
        BoxVerdict::Pass
    }

    fn inbound(&mut self, _: &mut Passage<'_>, packet: &mut Packet) -> BoxVerdict {
        match self.0.contains(&(packet.protocol(), packet.dst(), packet.src())) {
            true => BoxVerdict::Pass,
            false => BoxVerdict::Refuse(Refusal::Filtered),
        }
    }

    fn translates(&self, _: IpAddr) -> bool {
        false
    }

    fn describe(&self) -> String {
        "a firewall".to_owned()
    }
}

/// Records inbound packets, and lets everything pass.
#[derive(Clone, Default)]
pub(crate) struct Tap(Arc<Mutex<Vec<Packet>>>);

impl Tap {
    pub(crate) fn seen(&self) -> Vec<Packet> {
        self.0.lock().unwrap().clone()
    }
}

impl Middlebox for Tap {
    fn outbound(&mut self, _: &mut Passage<'_>, _: &mut Packet) -> BoxVerdict {
        BoxVerdict::Pass
    }

    fn inbound(&mut self, _: &mut Passage<'_>, packet: &mut Packet) -> BoxVerdict {
        self.0.lock().unwrap().push(packet.clone());
        BoxVerdict::Pass
    }

    fn translates(&self, _: IpAddr) -> bool {
        false
    }

    fn describe(&self) -> String {
        "a tap".to_owned()
    }
}
