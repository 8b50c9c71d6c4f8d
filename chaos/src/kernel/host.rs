//! A host's kernel: the state that survives a crash of its process.
//!
//! Interfaces, clocks, port tables and the disk belong to the host. A process has a boot number. Sockets, files and
//! tasks belong to a boot, and those of an earlier boot have no effect.

use crate::ids::{HostId, INTERNET, LOOPBACK, NetId};
use crate::kernel::clock::Clock;
use crate::kernel::disk::Disk;
use crate::kernel::process::End;
use crate::kernel::slab::Key;
use crate::seed::{Rng, below, stream};
use madsim::runtime::NodeHandle;
use rand_core::Rng as _;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Waker;

/// The most interfaces of one host. The loopback's number is above it.
const MAX_NICS: usize = 64;

/// Ephemeral ports: Linux's `ip_local_port_range`.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

/// The main function of a host's process, kept for restarts.
pub(crate) type Main = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// One network interface.
pub(crate) struct Nic {
    pub(crate) name: String,
    /// The network that it is in.
    pub(crate) net: NetId,
    pub(crate) addrs: Vec<IpAddr>,
    pub(crate) up: bool,
}

/// The role of a scheduling node of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The main thread, or a network plane: it runs on when the CPU is pinned.
    Net,
    /// State and compute planes.
    Compute,
}

/// The sockets bound to each port; sockets on different addresses may share a port.
pub(crate) type Ports = BTreeMap<u16, Vec<(IpAddr, Key)>>;

pub(crate) struct HostState {
    pub(crate) id: HostId,
    pub(crate) name: String,
    /// Counts processes. A handle of another boot is dead.
    pub(crate) boot: u32,
    pub(crate) alive: bool,
    pub(crate) powered: bool,
    pub(crate) paused: bool,
    pub(crate) pinned: bool,
    pub(crate) suspended: bool,
    /// Whether its process makes progress, and the time of the last change of that.
    pub(crate) progress: (bool, u64),
    /// Crashes and power losses armed at a disk operation of the process, in the order of arming.
    pub(crate) armed: Vec<Armed>,
    pub(crate) nics: Vec<Nic>,
    pub(crate) nic_wakers: Vec<Waker>,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    pub(crate) main: Option<Main>,
    pub(crate) nodes: Vec<(NodeHandle, Role)>,
    pub(crate) udp_ports: Ports,
    pub(crate) tcp_ports: Ports,
    pub(crate) connections: BTreeMap<(SocketAddr, SocketAddr), Key>,
    pub(crate) link_rng: Rng,
    pub(crate) port_rng: Rng,
    pub(crate) tcp_rng: Rng,
    /// How many streams of each label the host's processes have opened.
    pub(crate) streams: BTreeMap<String, u64>,
    pub(crate) next_ident: u16,
    pub(crate) caps: Caps,
}

/// The limits of a kernel's resources.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caps {
    /// Bytes of datagrams queued in one socket.
    pub(crate) udp_buffer_bytes: usize,
    /// Whether the kernel supports receiving datagrams, and permits it to its processes.
    pub(crate) udp_receive: bool,
    /// Connections of one listener that are not accepted yet, including half-open ones.
    pub(crate) backlog: usize,
    /// Connections of all of its processes, including closing ones.
    pub(crate) connections: usize,
}

impl Default for Caps {
    /// The receive buffer that the real `rt` requests from its kernel, Linux's former `somaxconn`, and no limit of
    /// connections.
    fn default() -> Caps {
        Caps { udp_buffer_bytes: 4 << 20, udp_receive: true, backlog: 128, connections: usize::MAX }
    }
}

/// A crash or power loss armed at a disk operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Armed {
    /// Disk operations left, including the one that triggers it.
    pub(crate) left: u64,
    pub(crate) how: End,
    /// The number of the plan's fault that armed it; `None` if the scenario did.
    pub(crate) fault: Option<usize>,
}

/// How a packet leaves a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) src: IpAddr,
    pub(crate) nic: u8,
}

pub(crate) fn loopback_of(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

/// Whether two sockets can't share a port. A wildcard conflicts with every address of its family, but not with the
/// other family.
fn conflict(a: IpAddr, b: IpAddr) -> bool {
    same_family(a, b) && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// The socket bound to `addr`, or to its family's wildcard.
pub(crate) fn bound(ports: &Ports, addr: SocketAddr) -> Option<Key> {
    let bound = ports.get(&addr.port())?;
    bound
        .iter()
        .find(|(ip, _)| *ip == addr.ip() || (ip.is_unspecified() && same_family(*ip, addr.ip())))
        .map(|(_, key)| *key)
}

/// Whether binding `addr` would collide.
fn taken(ports: &Ports, addr: SocketAddr) -> bool {
    ports.get(&addr.port()).is_some_and(|bound| bound.iter().any(|(ip, _)| conflict(*ip, addr.ip())))
}

/// Removes a socket from a port table.
pub(crate) fn release(ports: &mut Ports, port: u16, key: Key) {
    if let Some(bound) = ports.get_mut(&port) {
        bound.retain(|(_, other)| *other != key);
        if bound.is_empty() {
            ports.remove(&port);
        }
    }
}

impl HostState {
    pub(crate) fn new(id: HostId, name: &str, seed: u64) -> HostState {
        HostState {
            id,
            name: name.to_owned(),
            boot: 1,
            alive: true,
            powered: true,
            paused: false,
            pinned: false,
            suspended: false,
            progress: (true, 0),
            armed: Vec::new(),
            nics: Vec::new(),
            nic_wakers: Vec::new(),
            clock: Clock::new(),
            disk: Disk::new(stream(seed, &format!("disk/{name}"))),
            main: None,
            nodes: Vec::new(),
            udp_ports: Ports::new(),
            tcp_ports: Ports::new(),
            connections: BTreeMap::new(),
            link_rng: stream(seed, &format!("link/{name}")),
            port_rng: stream(seed, &format!("port/{name}")),
            tcp_rng: stream(seed, &format!("tcp/{name}")),
            streams: BTreeMap::new(),
            next_ident: 0,
            caps: Caps::default(),
        }
    }

    /// Whether `boot` is the process that runs now.
    pub(crate) fn runs(&self, boot: u32) -> bool {
        self.alive && self.boot == boot
    }

    /// Records the time at which its process began or ceased to make progress.
    pub(crate) fn note_progress(&mut self, now_ns: u64) {
        let runs = self.alive && !self.paused && !self.suspended;
        if runs != self.progress.0 {
            self.progress = (runs, now_ns);
        }
    }

    /// Whether its kernel takes part in the network.
    pub(crate) fn answers(&self) -> bool {
        self.powered && !self.suspended
    }

    /// The interface named `name`; creates it if it doesn't exist.
    pub(crate) fn nic(&mut self, name: &str) -> u8 {
        let at = self.nics.iter().position(|nic| nic.name == name).unwrap_or_else(|| {
            assert!(self.nics.len() < MAX_NICS, "a host has at most {MAX_NICS} interfaces");
            let nic = Nic { name: name.to_owned(), net: INTERNET, addrs: Vec::new(), up: true };
            self.nics.push(nic);
            self.nics.len() - 1
        });
        at as u8
    }

    /// Whether `ip` is an address of this host now.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.nics.iter().any(|nic| nic.up && nic.addrs.contains(&ip))
    }

    /// Chooses interface and source address towards `dst`. `wanted` is the socket's own address, if it is bound to
    /// one; the packet then leaves by an interface that has this address. The order of interfaces is their metric,
    /// as with a default route on each. An interface whose network contains `dst`
    /// ([`on_link`](NetState::is_on_link)) takes precedence.
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
        if self.has(dst) {
            let src = wanted.unwrap_or(if dst.is_loopback() { loopback_of(dst) } else { dst });
            return Ok(Route { src, nic: LOOPBACK });
        }
        let mut candidates =
            self.nics.iter().enumerate().filter(|(_, nic)| nic.up).filter_map(|(index, nic)| {
                let src = match wanted {
                    Some(ip) => nic.addrs.iter().find(|addr| **addr == ip),
                    None => nic.addrs.iter().find(|addr| same_family(**addr, dst)),
                };
                src.map(|src| (Route { src: *src, nic: index as u8 }, nic.net))
            });
        if let Some((first, net)) = candidates.next() {
            if on_link(net) {
                return Ok(first);
            }
            let nearer = candidates.find(|(_, net)| on_link(*net));
            return Ok(nearer.map_or(first, |(route, _)| route));
        }
        Err(match wanted {
            Some(ip) => io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("{ip} is no address of {}", self.name),
            ),
            None => io::Error::new(io::ErrorKind::NetworkUnreachable, format!("no interface towards {dst}")),
        })
    }

    /// Resolves port 0 and checks that `addr` may be bound. `tcp` selects the table.
    pub(crate) fn choose_port(&mut self, tcp: bool, mut addr: SocketAddr) -> io::Result<SocketAddr> {
        if !addr.ip().is_unspecified() && !self.has(addr.ip()) {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("{} is no address of {}", addr.ip(), self.name),
            ));
        }
        let ports = if tcp { &self.tcp_ports } else { &self.udp_ports };
        if addr.port() != 0 {
            if taken(ports, addr) {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{addr} is in use")));
            }
            return Ok(addr);
        }
        let first = u64::from(*EPHEMERAL.start());
        let count = u64::from(*EPHEMERAL.end()) - first + 1;
        let begin = below(self.port_rng.next_u64(), count);
        for step in 0..count {
            addr.set_port((first + (begin + step) % count) as u16);
            if !taken(ports, addr) && !self.connections.keys().any(|(local, _)| tcp && *local == addr) {
                return Ok(addr);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "every ephemeral port is in use"))
    }

    /// Whether its kernel has room for a further connection.
    pub(crate) fn takes_connection(&self) -> bool {
        self.connections.len() < self.caps.connections
    }

    pub(crate) fn ident(&mut self) -> u16 {
        self.next_ident = self.next_ident.wrapping_add(1);
        self.next_ident
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::slab::Slab;

    fn host() -> HostState {
        let mut host = HostState::new(HostId(0), "a", 1);
        let nic = host.nic("eth0") as usize;
        host.nics[nic].addrs.push("10.0.0.1".parse().unwrap());
        host
    }

    #[test]
    fn a_route_needs_an_interface_of_the_family() {
        let host = host();
        let far = "10.9.9.9".parse().unwrap();
        let route = |wanted, dst| host.route(wanted, dst, |_| false);
        assert_eq!(route(None, far).unwrap().src, "10.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(route(None, "127.0.0.1".parse().unwrap()).unwrap().nic, LOOPBACK);
        let v6 = route(None, "fd00::1".parse().unwrap()).unwrap_err();
        assert_eq!(v6.kind(), io::ErrorKind::NetworkUnreachable);
        let gone = route(Some("10.0.0.2".parse().unwrap()), far).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn of_several_interfaces_the_first_leads_out_unless_another_has_the_destination_on_its_link() {
        let mut host = host();
        let wlan = host.nic("wlan0") as usize;
        host.nics[wlan].net = NetId(7);
        host.nics[wlan].addrs.push("192.168.1.2".parse().unwrap());
        let far = "10.9.9.9".parse().unwrap();
        let nic = |host: &HostState, wanted: Option<&str>, on_link: u32| {
            host.route(wanted.map(|ip| ip.parse().unwrap()), far, |net| net.0 == on_link).unwrap().nic
        };
        assert_eq!(nic(&host, None, 99), 0);
        assert_eq!(nic(&host, None, 7), 1);
        assert_eq!(nic(&host, Some("192.168.1.2"), 99), 1);
        assert_eq!(nic(&host, Some("10.0.0.1"), 7), 0);
        host.nics[0].up = false;
        assert_eq!(nic(&host, None, 99), 1);
    }

    #[test]
    fn a_wildcard_excludes_the_addresses_of_its_family_only() {
        let mut host = host();
        let key = Slab::new().insert(());
        let wildcard: SocketAddr = "0.0.0.0:80".parse().unwrap();
        host.udp_ports.entry(80).or_default().push((wildcard.ip(), key));
        let choose = |host: &mut HostState, text: &str| host.choose_port(false, text.parse().unwrap());
        assert_eq!(choose(&mut host, "10.0.0.1:80").unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(choose(&mut host, "[::]:80").is_ok());
        assert_eq!(bound(&host.udp_ports, "10.0.0.1:80".parse().unwrap()), Some(key));
        assert_eq!(bound(&host.udp_ports, "[::1]:80".parse().unwrap()), None);
        release(&mut host.udp_ports, 80, key);
        assert!(host.udp_ports.is_empty());
    }
}
