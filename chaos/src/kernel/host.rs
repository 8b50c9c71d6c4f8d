//! A host's kernel: the state that survives a crash of its process.

use super::clock::Clock;
use super::disk::Disk;
use super::names::Names;
use super::nics::{Nics, Route};
use super::points::Points;
use super::ports::same_family;
use super::process::{Process, Role};
use super::processor::Slowness;
use super::slab::Key;
use super::tcp::Tcp;
use super::udp::UdpSockets;
use crate::ids::{HostId, NetId};
use crate::seed::{Rng, rekey, stream};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// A host.
pub(crate) struct HostState {
    pub(crate) id: HostId,
    pub(crate) name: String,
    pub(crate) powered: bool,
    pub(crate) suspended: bool,
    pub(crate) process: Process,
    pub(crate) cpu: Slowness,
    pub(crate) nics: Nics,
    pub(crate) names: Names,
    pub(crate) points: Points,
    /// The bounds of its program's tables that a scenario has set, by the names of the tables.
    pub(crate) bounds: BTreeMap<String, usize>,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    pub(crate) udp: UdpSockets,
    pub(crate) tcp: Tcp,
    /// Chooses ephemeral ports, of both transports.
    port_rng: Rng,
}

impl HostState {
    pub(crate) fn new(id: HostId, name: &str, seed: u64) -> HostState {
        HostState {
            id,
            name: name.to_owned(),
            powered: true,
            suspended: false,
            process: Process::new(),
            cpu: Slowness::default(),
            nics: Nics::default(),
            names: Names::default(),
            bounds: BTreeMap::new(),
            points: Points::new(stream(seed, &format!("points/{name}"))),
            clock: Clock::new(),
            disk: Disk::new(
                stream(seed, &format!("disk/{name}")),
                stream(seed, &format!("disk-kernel/{name}")),
            ),
            udp: UdpSockets::new(),
            tcp: Tcp::new(
                stream(seed, &format!("tcp/{name}")),
                stream(seed, &format!("tcp-patience/{name}")),
            ),
            port_rng: stream(seed, &format!("port/{name}")),
        }
    }

    /// The random streams of its kernel, in the order in which the digest records their positions.
    pub(crate) fn streams(&self) -> [&Rng; 4] {
        let [tcp, patience] = self.tcp.rngs();
        [&self.port_rng, tcp, patience, self.disk.rng()]
    }

    /// The random streams of its kernel go on with another seed.
    pub(crate) fn rekey(&mut self, seed: u64) {
        let name = &self.name;
        rekey(&mut self.port_rng, seed, &format!("port/{name}"));
        let [tcp, patience] = self.tcp.rngs_mut();
        rekey(tcp, seed, &format!("tcp/{name}"));
        rekey(patience, seed, &format!("tcp-patience/{name}"));
        let [disk, kernel] = self.disk.rngs_mut();
        rekey(disk, seed, &format!("disk/{name}"));
        rekey(kernel, seed, &format!("disk-kernel/{name}"));
    }

    /// Whether `boot` is the process that runs now.
    pub(crate) fn runs(&self, boot: u32) -> bool {
        self.process.runs(boot)
    }

    /// Records whether its process makes progress from `now_ns` on.
    pub(crate) fn note_progress(&mut self, now_ns: u64) {
        self.process.note_progress(now_ns, self.suspended);
    }

    /// Whether scheduling nodes of this role are stopped now.
    pub(crate) fn stands_still(&self, role: Role) -> bool {
        self.process.paused || self.suspended || (self.process.pinned && role != Role::Net)
    }

    /// Whether its kernel takes part in the network.
    pub(crate) fn answers(&self) -> bool {
        self.powered && !self.suspended
    }

    /// Chooses interface and source address towards `dst`; see [`Nics::route`]. `wanted` is the socket's own address,
    /// if it is bound to one.
    #[inline]
    pub(crate) fn route(
        &self,
        wanted: Option<IpAddr>,
        dst: IpAddr,
        on_link: impl Fn(NetId) -> bool,
    ) -> io::Result<Route> {
        if wanted.is_some_and(|ip| !same_family(ip, dst)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "source and destination differ in family",
            ));
        }
        self.nics.route(wanted, dst, on_link).ok_or_else(|| match wanted {
            Some(ip) => self.has_not(ip),
            None => io::Error::new(io::ErrorKind::NetworkUnreachable, format!("no interface towards {dst}")),
        })
    }

    fn has_not(&self, ip: IpAddr) -> io::Error {
        io::Error::new(io::ErrorKind::AddrNotAvailable, format!("{ip} is no address of {}", self.name))
    }

    fn check_addr(&self, ip: IpAddr) -> io::Result<()> {
        if ip.is_unspecified() || self.nics.has(ip) { Ok(()) } else { Err(self.has_not(ip)) }
    }

    /// Binds a UDP socket; port 0 is any free one.
    pub(crate) fn udp_bind(&mut self, addr: SocketAddr) -> io::Result<(Key, SocketAddr)> {
        self.check_addr(addr.ip())?;
        self.udp.bind(addr, &mut self.port_rng)
    }

    /// The local address of a new TCP listener or connection; port 0 is any free one.
    pub(crate) fn tcp_local(&mut self, addr: SocketAddr) -> io::Result<SocketAddr> {
        self.check_addr(addr.ip())?;
        self.tcp.choose_port(addr, &mut self.port_rng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LOOPBACK;

    #[test]
    fn every_stream_of_a_kernel_goes_on_with_another_seed() {
        use rand_core::Rng as _;
        let next = |mut host: HostState| {
            let kernel = host.disk.rngs_mut()[1].next_u64();
            let others = host.streams().map(|rng| rng.clone().next_u64());
            (kernel, others)
        };
        let mut moved = HostState::new(HostId(0), "a", 1);
        moved.rekey(2);
        assert_eq!(next(moved), next(HostState::new(HostId(0), "a", 2)));
    }

    #[test]
    fn a_route_needs_an_interface_of_the_family() {
        let mut host = HostState::new(HostId(0), "a", 1);
        host.nics.named("eth0").addrs.push("10.0.0.1".parse().unwrap());
        let far = "10.9.9.9".parse().unwrap();
        let route = |wanted, dst| host.route(wanted, dst, |_| false);
        assert_eq!(route(None, far).unwrap().src, "10.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(route(None, "127.0.0.1".parse().unwrap()).unwrap().nic, LOOPBACK);
        let v6 = route(None, "fd00::1".parse().unwrap()).unwrap_err();
        assert_eq!(v6.kind(), io::ErrorKind::NetworkUnreachable);
        let gone = route(Some("10.0.0.2".parse().unwrap()), far).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
