//! Packets between the kernels and the wire: what sockets send, and what reaches them.
//!
//! A kernel and the wire don't know each other. A send is checked by the kernel, written and put on the way here; a
//! packet that has reached a host is handed to the kernel's socket here, and its answers are sent.
//!
//! **Speed.** Each datagram of a world passes here twice, so the functions on its path are `#[inline]`, those of the
//! kernel and the wire too: they lie in many files, and a compiler that doesn't see across them copies the packet at each
//! call. Without that a world is 4 % slower (`benches/world`, which shows it best under `valgrind --tool=callgrind`).

use super::findings::{PropertyKind, Violation};
use super::sim::Sim;
use crate::ids::{HostId, LOOPBACK};
use crate::kernel::nics::Route;
use crate::kernel::process::Place;
use crate::kernel::slab::Key;
use crate::kernel::tcp::{Outbox, Receiver, Request, Tcp};
use crate::kernel::timer::TimerKind;
use crate::kernel::udp::{Datagram, Received, Unwanted};
use crate::wire::flight::Flight;
use crate::wire::link::{Class, DEFAULT_MTU, DropCause, MIN_MTU};
use crate::wire::packet::{self, Headers};
use crate::wire::path::Onward;
use crate::wire::uplink;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::Poll;
use std::time::Duration;

/// The MTU of the loopback.
const LOOPBACK_MTU: usize = 16 << 10;

/// A socket, listener or connection of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketId {
    pub(crate) host: HostId,
    pub(crate) key: Key,
}

impl Sim {
    /// Interface and source address of `host` towards `dst`; see [`HostState::route`](crate::kernel::host::HostState::route).
    #[inline]
    fn route(&self, host: HostId, wanted: Option<IpAddr>, dst: IpAddr) -> io::Result<Route> {
        self.host(host).route(wanted, dst, |net| self.wire.nets.get(net).is_on_link(dst))
    }

    /// Sends a packet from `nic` of `from` towards `dst`.
    #[inline]
    fn send(&mut self, from: HostId, nic: u8, dst: IpAddr, bytes: Vec<u8>, class: Class) {
        // Here too, so that what a task sends at the place of a branch isn't yet decided.
        self.branch_if_due();
        let now_ns = self.now_ns();
        let flight = self.wire.depart(now_ns, from, nic, bytes, class);
        self.record.sent(now_ns, &flight);
        let net = (nic != LOOPBACK).then(|| self.host(from).nics.get(nic).net);
        if net.is_some() {
            self.check_forbidden(Some(from), &flight.bytes, || format!("packet {}", flight.number));
        }
        let onward = self.wire.set_out(now_ns, flight, net, dst, &mut self.record);
        self.go_on(now_ns, onward);
    }

    /// Breaks the property of the first forbidden byte sequence found in `bytes`.
    pub(crate) fn check_forbidden(&mut self, host: Option<HostId>, bytes: &[u8], what: impl Fn() -> String) {
        let Some(forbidden) = self.findings.forbidden_in(bytes) else { return };
        let broken = Violation {
            property: forbidden.property.clone(),
            kind: PropertyKind::Safety,
            seen: format!("{} of {} bytes carries it", what(), bytes.len()),
            at: Duration::from_nanos(self.now_ns()),
            host: host.map(|id| self.host(id).name.clone()),
            file: forbidden.place.file().to_owned(),
            line: forbidden.place.line(),
        };
        self.break_property(broken);
    }

    /// Ends the run: a property was found broken. Only the first report of a run counts.
    pub(crate) fn break_property(&mut self, broken: Violation) {
        self.findings.break_property(broken);
        self.agenda.wake_driver();
    }

    #[inline(always)] // In a send only one case is left, and the packet goes straight to the agenda.
    fn go_on(&mut self, now_ns: u64, onward: Onward) {
        match onward {
            Onward::Ended => {}
            Onward::Fly { at_ns, flight, copy } => {
                if let Some(copy) = copy {
                    let (at_ns, copy) = *copy;
                    self.agenda.launch(at_ns, copy);
                }
                self.agenda.launch(at_ns, flight);
            }
            Onward::Reach { host, flight, headers } => self.reach(now_ns, flight, host, &headers),
        }
    }

    /// A packet has reached the far end of a link.
    #[inline]
    pub(super) fn arrive(&mut self, now_ns: u64, flight: Flight) {
        let onward = self.wire.arrive(now_ns, flight, &mut self.record);
        self.go_on(now_ns, onward);
    }

    fn drop_packet(&mut self, now_ns: u64, flight: Flight, why: DropCause) {
        let _ = self.wire.end(now_ns, flight, why, &mut self.record);
    }

    /// A packet has reached its receiver's interface.
    #[inline(never)] // A send doesn't come here, and is shorter without it.
    fn reach(&mut self, now_ns: u64, flight: Flight, to: HostId, headers: &Headers) {
        if flight.nic != LOOPBACK && self.wire.links.crosses_cut(flight.origin, to, flight.sent_ns, now_ns) {
            return self.drop_packet(now_ns, flight, DropCause::Partition);
        }
        if !self.host(to).answers() {
            return self.drop_packet(now_ns, flight, DropCause::HostDown);
        }
        match headers.proto {
            packet::PROTO_UDP => self.udp_arrives(now_ns, flight, to, headers),
            _ => self.tcp_arrives(now_ns, flight, to, headers),
        }
    }

    #[inline]
    fn udp_arrives(&mut self, now_ns: u64, flight: Flight, to: HostId, headers: &Headers) {
        if flight.corrupted && !packet::udp_checksum_holds(&flight.bytes, headers) {
            return self.drop_packet(now_ns, flight, DropCause::Checksum);
        }
        let udp = &mut self.hosts.get_mut(to).udp;
        let why = match udp.taker(headers.dst, flight.bytes.len()) {
            Ok(socket) => {
                self.record.received(now_ns, &flight);
                let body_at = packet::udp_body_at(headers);
                let (src, dst_ip) = (headers.src, headers.dst.ip());
                socket.deliver(Datagram { packet: flight.bytes, body_at, src, dst_ip });
                let waiting = socket.waiting() as u64;
                let queued = "datagrams in a socket's queue";
                return self
                    .record
                    .reaches(now_ns, |novelties, place| novelties.level(queued, waiting, place));
            }
            Err(Unwanted::NoSocket) => DropCause::NoSocket,
            Err(Unwanted::BufferFull) => DropCause::BufferFull,
        };
        self.drop_packet(now_ns, flight, why);
    }

    fn tcp_arrives(&mut self, now_ns: u64, mut flight: Flight, to: HostId, headers: &Headers) {
        let opens = packet::tcp_opens(&flight.bytes, headers.transport);
        let mut out = Outbox::default();
        match self.host(to).tcp.receiver(headers.dst, headers.src, opens) {
            Receiver::Connection(key) => {
                let resets = packet::tcp_resets(&flight.bytes, headers.transport);
                if self.host(to).tcp.overflows(key, resets) {
                    return self.drop_packet(now_ns, flight, DropCause::Backlog);
                }
                self.record.received(now_ns, &flight);
                self.host_mut(to).tcp.segment(now_ns, key, flight.bytes, resets, &mut out);
            }
            Receiver::Listener(key) if self.host(to).tcp.admits(key) => {
                self.record.received(now_ns, &flight);
                self.record.stats.tcp_connections += 1;
                let mtu = self.tcp_mtu(to, headers.dst.ip(), headers.src.ip());
                let tuple = (headers.dst, headers.src);
                self.host_mut(to).tcp.open(now_ns, key, tuple, flight.bytes, mtu, &mut out);
            }
            Receiver::Listener(_) => return self.drop_packet(now_ns, flight, DropCause::Backlog),
            Receiver::Nobody => {
                let bytes = std::mem::take(&mut flight.bytes);
                self.drop_packet(now_ns, flight, DropCause::NoSocket);
                for bytes in Tcp::refusal(now_ns, headers.dst.ip(), bytes, MIN_MTU) {
                    self.tcp_send(to, headers.dst, headers.src, bytes);
                }
                return;
            }
        }
        self.carry_out(to, out);
    }

    /// The MTU of a new connection's path.
    fn tcp_mtu(&self, host: HostId, local: IpAddr, remote: IpAddr) -> usize {
        match self.route(host, Some(local), remote) {
            Ok(route) if route.nic == LOOPBACK => LOOPBACK_MTU,
            Ok(route) => self.wire.path_mtu(host, self.host(host).nics.get(route.nic).net, remote),
            Err(_) => DEFAULT_MTU,
        }
    }

    fn tcp_send(&mut self, host: HostId, local: SocketAddr, remote: SocketAddr, bytes: Vec<u8>) {
        match self.route(host, Some(local.ip()), remote.ip()) {
            Ok(route) => self.send(host, route.nic, remote.ip(), bytes, Class::Tcp),
            // The host no longer has the address (it has roamed), so the segment is not sent.
            Err(_) => self.record.stats.unroutable += 1,
        }
    }

    /// Carries out the requests of a host's TCP.
    fn carry_out(&mut self, host: HostId, out: Outbox) {
        for request in out {
            match request {
                Request::Send { local, remote, packet } => self.tcp_send(host, local, remote, packet),
                Request::Wake(waker) => waker.wake(),
                Request::SetTimer { connection, at_ns } => {
                    let timer = self.agenda.set_timer(at_ns, TimerKind::Tcp(host, connection));
                    if !self.host_mut(host).tcp.timer_is_set(connection, at_ns, timer) {
                        self.agenda.cancel(timer);
                    }
                }
                Request::CancelTimer(timer) => {
                    self.agenda.cancel(timer);
                }
            }
        }
    }

    /// Calls `f` with a host's TCP and the time, and carries out the requests.
    pub(crate) fn with_tcp<R>(&mut self, host: HostId, f: impl FnOnce(&mut Tcp, u64, &mut Outbox) -> R) -> R {
        let now_ns = self.now_ns();
        let mut out = Outbox::default();
        let result = f(&mut self.host_mut(host).tcp, now_ns, &mut out);
        self.carry_out(host, out);
        result
    }

    pub(super) fn tcp_due(&mut self, now_ns: u64, host: HostId, connection: Key) {
        let mut out = Outbox::default();
        let state = self.host_mut(host);
        state.tcp.due(now_ns, connection, state.suspended, &mut out);
        self.carry_out(host, out);
    }

    /// Begins a connection; returns it, and its local address.
    pub(crate) fn tcp_connect(
        &mut self,
        place: Place,
        remote: SocketAddr,
    ) -> io::Result<(SocketId, SocketAddr)> {
        if remote.port() == 0 || remote.ip().is_unspecified() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{remote} is no destination")));
        }
        let host = place.host;
        let route = self.route(host, None, remote.ip())?;
        if !self.host(host).tcp.has_room() {
            return Err(io::Error::other("the host has no room for a further connection"));
        }
        let local = self.host_mut(host).tcp_local(SocketAddr::new(route.src, 0))?;
        let mtu = self.tcp_mtu(host, local.ip(), remote.ip());
        self.record.stats.tcp_connections += 1;
        let key = self.with_tcp(host, |tcp, now_ns, out| tcp.connect(now_ns, local, remote, mtu, out))?;
        Ok((SocketId { host, key }, local))
    }

    /// Listens at an address; returns the listener, and its address.
    pub(crate) fn tcp_listen(
        &mut self,
        place: Place,
        addr: SocketAddr,
    ) -> io::Result<(SocketId, SocketAddr)> {
        let state = self.host_mut(place.host);
        let local = state.tcp_local(addr)?;
        Ok((SocketId { host: place.host, key: state.tcp.listen(local) }, local))
    }

    /// Binds a UDP socket; returns it, and its address.
    pub(crate) fn udp_bind(&mut self, place: Place, addr: SocketAddr) -> io::Result<(SocketId, SocketAddr)> {
        let (key, local) = self.host_mut(place.host).udp_bind(addr)?;
        Ok((SocketId { host: place.host, key }, local))
    }

    /// Sends datagrams of `segment_size` bytes each (the last may be shorter), or one datagram. `WouldBlock` if so much waits on
    /// the first link that the socket's send buffer is full; the whole batch is checked once, as on Linux.
    pub(crate) fn udp_send(
        &mut self,
        SocketId { host, key }: SocketId,
        dst: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
        src_ip: Option<IpAddr>,
    ) -> io::Result<()> {
        let sending = self.host(host).udp.send(key, dst, contents.len(), segment_size, src_ip)?;
        let route = self.route(host, sending.wanted, dst.ip())?;
        if route.nic != LOOPBACK
            && let Some(towards) =
                uplink::first_link(&self.wire, self.host(host).nics.get(route.nic).net, dst.ip())
        {
            let waiting_bytes = uplink::waiting_bytes(&self.wire, self.now_ns(), host, towards);
            if !self.host_mut(host).udp.takes_send(key, towards, waiting_bytes) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        let src = SocketAddr::new(route.src, sending.port);
        let mut rest = contents;
        loop {
            let (body, behind) = rest.split_at(sending.segment.min(rest.len()));
            let ident = self.host_mut(host).udp.ident();
            let mut bytes = self.wire.pool.take();
            packet::write_udp(&mut bytes, src, dst, ident, body);
            self.send(host, route.nic, dst.ip(), bytes, Class::Udp);
            rest = behind;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// How long a socket whose send buffer was full still has to wait, as it looks now; `None` if there is room.
    pub(crate) fn udp_room_after(&self, SocketId { host, key }: SocketId) -> io::Result<Option<Duration>> {
        let full = self.host(host).udp.full_towards(key)?;
        let room =
            |(towards, most_bytes)| uplink::room_after(&self.wire, self.now_ns(), host, towards, most_bytes);
        Ok(full.and_then(room))
    }

    /// Receives one datagram, if there is one. Bytes that don't fit into `buffer` are lost, as with any kernel.
    pub(crate) fn udp_receive(&mut self, socket: SocketId, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        self.hosts.get_mut(socket.host).udp.receive(socket.key, buffer).map_ok(|(received, packet)| {
            self.wire.pool.give_back(packet);
            received
        })
    }
}
