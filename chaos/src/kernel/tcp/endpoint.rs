//! The smoltcp side of one connection: an interface with one address, one socket, and two queues of packets.

use super::reminder::LastAck;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// The buffer of each direction in bytes, and so the largest window. It is the largest without window scale: smoltcp
/// 0.12 rounds a scaled window down, which moves its right edge back, and panics if the peer has filled the old
/// window.
const BUFFER_BYTES: usize = u16::MAX as usize;

/// Packets on their way into and out of one connection: the device below the interface.
struct Queues {
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
    mtu: usize,
}

struct Incoming(Vec<u8>);
struct Outgoing<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        self.0.push(bytes);
        result
    }
}

impl Device for Queues {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Incoming, Outgoing<'_>)> {
        let bytes = self.incoming.pop_front()?;
        Some((Incoming(bytes), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// An interface with one address that reaches every destination directly.
fn interface(queues: &mut Queues, ip: IpAddr, random_seed: u64, now: SmolInstant) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = random_seed;
    let mut interface = Interface::new(config, queues, now);
    interface.update_ip_addrs(|addrs| {
        addrs.push(IpCidr::new(ip.into(), 0)).expect("an interface has room for one address");
    });
    interface
}

/// smoltcp's form of the world's time. Its resolution is a microsecond.
pub(super) fn smol(now_ns: u64) -> SmolInstant {
    SmolInstant::from_micros((now_ns / 1000) as i64)
}

/// One connection's smoltcp interface and socket.
pub(super) struct Endpoint {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    queues: Queues,
    last_ack: Option<LastAck>,
}

impl Endpoint {
    /// An endpoint with the address `ip`, on a path of this MTU.
    pub(super) fn new(ip: IpAddr, mtu: usize, random_seed: u64, now_ns: u64) -> Endpoint {
        let mut queues = Queues { incoming: VecDeque::new(), outgoing: Vec::new(), mtu };
        let interface = interface(&mut queues, ip, random_seed, smol(now_ns));
        let buffer = || SocketBuffer::new(vec![0; BUFFER_BYTES]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Reno);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        Endpoint { interface, sockets, socket, queues, last_ack: None }
    }

    pub(super) fn connect(&mut self, local: SocketAddr, remote: SocketAddr) -> io::Result<()> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        socket.connect(self.interface.context(), remote, local).map_err(io::Error::other)
    }

    pub(super) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    pub(super) fn state(&self) -> State {
        self.sockets.get::<Socket<'_>>(self.socket).state()
    }

    /// A packet has come in; the next poll handles it.
    pub(super) fn push(&mut self, packet: Vec<u8>) {
        self.last_ack = LastAck::of(&packet).or(self.last_ack);
        self.queues.incoming.push_back(packet);
    }

    pub(super) fn poll(&mut self, now_ns: u64) {
        self.interface.poll(smol(now_ns), &mut self.queues, &mut self.sockets);
    }

    /// Has smoltcp send again what isn't acknowledged. Returns whether it sent something.
    pub(super) fn retransmit(&mut self, now_ns: u64) -> bool {
        let Some(ack) = self.last_ack else { return false };
        self.queues.incoming.extend(ack.duplicates());
        let before = self.queues.outgoing.len();
        self.poll(now_ns);
        self.queues.outgoing.len() > before
    }

    /// When smoltcp wants the next poll.
    pub(super) fn poll_at(&mut self, now_ns: u64) -> Option<SmolInstant> {
        self.interface.poll_at(smol(now_ns), &self.sockets)
    }

    /// The packets that the last poll made.
    pub(super) fn outgoing(&mut self) -> impl Iterator<Item = Vec<u8>> {
        self.queues.outgoing.drain(..)
    }
}

/// The answers to a segment without a connection: RST, unless it is an RST.
pub(super) fn refusal(now_ns: u64, ip: IpAddr, packet: Vec<u8>, mtu: usize) -> Vec<Vec<u8>> {
    let mut queues = Queues { incoming: VecDeque::from([packet]), outgoing: Vec::new(), mtu };
    let mut interface = interface(&mut queues, ip, 0, smol(now_ns));
    interface.poll(smol(now_ns), &mut queues, &mut SocketSet::new(Vec::new()));
    queues.outgoing
}
