//! A typical home router: one port per inner socket, the same number if it is free, open for two minutes to each
//! destination of an outbound packet.

use chaos::middlebox::{BoxVerdict, Middlebox, Packet, Passage, Protocol, Refusal};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

const LIFETIME: Duration = Duration::from_secs(120);

struct Mapping {
    inner: SocketAddr,
    ends: Duration,
    contacts: BTreeMap<SocketAddr, Duration>,
}

#[derive(Default)]
pub(crate) struct Router {
    ports: BTreeMap<(Protocol, SocketAddr), u16>,
    mappings: BTreeMap<(Protocol, u16), Mapping>,
}

impl Middlebox for Router {
    fn outbound(&mut self, passage: &mut Passage<'_>, packet: &mut Packet) -> BoxVerdict {
        let (protocol, src, dst) = (packet.protocol(), packet.src(), packet.dst());
        let mappings = &self.mappings;
        let port = *self.ports.entry((protocol, src)).or_insert_with(|| {
            let free = |port: &u16| !mappings.contains_key(&(protocol, *port));
            (src.port()..=u16::MAX).chain(1024..src.port()).find(free).expect("a free port")
        });
        let ends = passage.now + LIFETIME;
        let mapping = self.mappings.entry((protocol, port)).or_insert_with(|| Mapping {
            inner: src,
            ends,
            contacts: BTreeMap::new(),
        });
        mapping.ends = ends;
        mapping.contacts.insert(dst, ends);
        packet.set_src(SocketAddr::new(passage.outer[0], port));
        BoxVerdict::Pass
    }

    fn inbound(&mut self, passage: &mut Passage<'_>, packet: &mut Packet) -> BoxVerdict {
        let Some(mapping) = self.mappings.get(&(packet.protocol(), packet.dst().port())) else {
            return BoxVerdict::Refuse(Refusal::NoMapping);
        };
        if mapping.ends < passage.now {
            return BoxVerdict::Refuse(Refusal::NoMapping);
        }
        if mapping.contacts.get(&packet.src()).is_none_or(|ends| *ends < passage.now) {
            return BoxVerdict::Refuse(Refusal::Filtered);
        }
        packet.set_dst(mapping.inner);
        BoxVerdict::Pass
    }

    fn describe(&self) -> String {
        "a home router".to_owned()
    }
}
