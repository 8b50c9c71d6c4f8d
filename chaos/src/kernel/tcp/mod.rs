//! TCP of the simulated kernels, by smoltcp.
//!
//! Each connection has a smoltcp interface of its own with one socket in it, and the kernel finds the connection by
//! its four-tuple. So the cost of a packet doesn't depend on the number of connections, a host may have any number
//! of addresses, and a listener is a port with a backlog, as with any kernel, rather than several listening sockets.
//! Timers fit Linux's: RTO from 10 ms to 10 s, Reno, Nagle until it is turned off. A connection without a holder is
//! kept until its FIN is acknowledged.

mod connection;
mod listen;
mod wire;

use crate::ids::{HostId, LOOPBACK};
use crate::kernel::host::bound;
use crate::kernel::slab::{Key, Slab};
use crate::kernel::timer::TimerKind;
use crate::wire::link::{Class, DropCause};
use crate::wire::packet::{self, Headers};
use crate::world::sim::{Flight, Place, Sim, dead};
use connection::{Connection, Holder};
use listen::Listener;
use rand_core::Rng as _;
use smoltcp::iface::SocketSet;
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Instant as SmolInstant;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::{Poll, Waker};
use wire::{Wire, interface};

/// The buffer of each direction in bytes, and so the largest window. It is the largest without window scale: smoltcp
/// 0.12 rounds a scaled window down, which moves its right edge back, and panics if the peer has filled the old
/// window.
const BUFFER_BYTES: usize = u16::MAX as usize;

/// How long a connection without a holder waits for the peer's FIN: Linux's `tcp_fin_timeout`.
const ORPHAN_NS: u64 = 60_000_000_000;

/// The MTU of the loopback.
const LOOPBACK_MTU: usize = 16 << 10;

/// All connections and listeners of a world.
pub(crate) struct Tcp {
    connections: Slab<Connection>,
    listeners: Slab<Listener>,
}

impl Tcp {
    pub(crate) const fn new() -> Tcp {
        Tcp { connections: Slab::new(), listeners: Slab::new() }
    }
}

impl Sim {
    fn smol_now(&self) -> SmolInstant {
        SmolInstant::from_micros((self.now_ns() / 1000) as i64)
    }

    fn tcp_new(&mut self, host: HostId, local: SocketAddr, remote: SocketAddr, holder: Holder) -> Connection {
        let mtu = match self.route(host, Some(local.ip()), remote.ip()) {
            Ok(route) if route.nic == LOOPBACK => LOOPBACK_MTU,
            Ok(route) => self.path_mtu(host, route.nic, remote.ip()),
            Err(_) => crate::wire::link::DEFAULT_MTU,
        };
        let mut wire = Wire { incoming: VecDeque::new(), outgoing: Vec::new(), mtu };
        let random_seed = self.host_mut(host).tcp_rng.next_u64();
        let interface = interface(&mut wire, local.ip(), random_seed, self.smol_now());
        let buffer = || SocketBuffer::new(vec![0; BUFFER_BYTES]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Reno);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        self.stats.tcp_connections += 1;
        Connection {
            host,
            local,
            remote,
            interface,
            sockets,
            socket,
            wire,
            holder,
            timer: None,
            reader: None,
            writer: None,
            reset: false,
            error: None,
            heard_ns: 0,
            owed_ns: None,
            probing: false,
        }
    }

    fn tcp_insert(&mut self, connection: Connection) -> Key {
        let (host, tuple) = (connection.host, (connection.local, connection.remote));
        let key = self.tcp.connections.insert(connection);
        self.host_mut(host).connections.insert(tuple, key);
        key
    }

    /// Removes a connection without notifying the peer.
    fn tcp_forget(&mut self, key: Key) {
        let Some(connection) = self.tcp.connections.remove(key) else { return };
        self.host_mut(connection.host).connections.remove(&(connection.local, connection.remote));
        if let Some((_, timer)) = connection.timer {
            self.timers.cancel(timer);
        }
        if let Holder::Listener(listener, _) = connection.holder
            && let Some(listener) = self.tcp.listeners.get_mut(listener)
        {
            listener.pending -= 1;
            listener.ready.retain(|ready| *ready != key);
        }
        for waker in [connection.reader, connection.writer].into_iter().flatten() {
            waker.wake();
        }
    }

    /// Begins a connection.
    pub(crate) fn tcp_connect(&mut self, place: Place, remote: SocketAddr) -> io::Result<(Key, SocketAddr)> {
        if remote.port() == 0 || remote.ip().is_unspecified() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{remote} is no destination")));
        }
        let route = self.route(place.host, None, remote.ip())?;
        if !self.host(place.host).takes_connection() {
            return Err(io::Error::other("the host has no room for a further connection"));
        }
        let local = self.host_mut(place.host).choose_port(true, SocketAddr::new(route.src, 0))?;
        let mut connection = self.tcp_new(place.host, local, remote, Holder::Process);
        let socket = connection.sockets.get_mut::<Socket<'_>>(connection.socket);
        socket.connect(connection.interface.context(), remote, local).map_err(io::Error::other)?;
        let key = self.tcp_insert(connection);
        self.tcp_poll(key);
        Ok((key, local))
    }

    /// Whether a connection attempt has completed.
    pub(crate) fn tcp_connected(&mut self, key: Key, waker: &Waker) -> Poll<io::Result<()>> {
        let Some(connection) = self.tcp.connections.get_mut(key) else { return Poll::Ready(Err(dead())) };
        if let Some(error) = connection.error.take() {
            return Poll::Ready(Err(error.into()));
        }
        if connection.state() == State::SynSent {
            connection.writer = Some(waker.clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn tcp_read(&mut self, key: Key, waker: &Waker, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(connection) = self.tcp.connections.get_mut(key) else { return Poll::Ready(Err(dead())) };
        let socket = connection.socket();
        if socket.can_recv() {
            let n = socket.recv_slice(buffer).unwrap_or(0);
            self.tcp_poll(key);
            return Poll::Ready(Ok(n));
        }
        if socket.may_recv() {
            connection.reader = Some(waker.clone());
            return Poll::Pending;
        }
        Poll::Ready(connection.error.take().map_or(Ok(0), |error| Err(error.into())))
    }

    pub(crate) fn tcp_write(&mut self, key: Key, waker: &Waker, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(connection) = self.tcp.connections.get_mut(key) else { return Poll::Ready(Err(dead())) };
        let socket = connection.socket();
        if !socket.may_send() {
            return Poll::Ready(Err(connection.error.take().unwrap_or(io::ErrorKind::BrokenPipe).into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let n = socket.send_slice(bytes).unwrap_or(0);
        if n == 0 {
            connection.writer = Some(waker.clone());
            return Poll::Pending;
        }
        self.tcp_poll(key);
        Poll::Ready(Ok(n))
    }

    /// Ends this side's direction, after the written bytes.
    pub(crate) fn tcp_shutdown(&mut self, key: Key) -> io::Result<()> {
        let connection = self.tcp.connections.get_mut(key).ok_or_else(dead)?;
        connection.socket().close();
        self.tcp_poll(key);
        Ok(())
    }

    pub(crate) fn tcp_set_nodelay(&mut self, key: Key, nodelay: bool) -> io::Result<()> {
        let connection = self.tcp.connections.get_mut(key).ok_or_else(dead)?;
        connection.socket().set_nagle_enabled(!nodelay);
        self.tcp_poll(key);
        Ok(())
    }

    /// The last handle is gone: FIN, or RST if bytes were left unread.
    pub(crate) fn tcp_drop(&mut self, key: Key) {
        let now_ns = self.now_ns();
        let Some(connection) = self.tcp.connections.get_mut(key) else { return };
        connection.holder = Holder::Nobody(now_ns + ORPHAN_NS);
        connection.reader = None;
        connection.writer = None;
        if connection.socket().recv_queue() > 0 {
            connection.socket().abort();
        } else {
            connection.socket().close();
        }
        self.tcp_poll(key);
    }

    fn tcp_abort(&mut self, key: Key) {
        let Some(connection) = self.tcp.connections.get_mut(key) else { return };
        connection.socket().abort();
        self.tcp_poll(key);
        self.tcp_forget(key);
    }

    /// A host's process has ended: its kernel closes the process's listeners and connections.
    pub(crate) fn tcp_process_ends(&mut self, host: HostId) {
        let listeners: Vec<Key> =
            self.host(host).tcp_ports.values().flatten().map(|(_, listener)| *listener).collect();
        for listener in listeners {
            self.tcp_unlisten(listener);
        }
        let connections: Vec<Key> = self.host(host).connections.values().copied().collect();
        for key in connections {
            if self.tcp.connections.get(key).is_some_and(|connection| connection.holder == Holder::Process) {
                self.tcp_drop(key);
            }
        }
    }

    /// A host has lost its power: its connections are removed, and no peer is notified.
    pub(crate) fn tcp_power_ends(&mut self, host: HostId) {
        let state = self.host_mut(host);
        let listeners: Vec<Key> =
            std::mem::take(&mut state.tcp_ports).into_values().flatten().map(|(_, key)| key).collect();
        for listener in listeners {
            self.tcp.listeners.remove(listener);
        }
        let connections: Vec<Key> = self.host(host).connections.values().copied().collect();
        for key in connections {
            self.tcp_forget(key);
        }
    }

    pub(crate) fn tcp_arrives(&mut self, now_ns: u64, flight: Flight, host: HostId, headers: &Headers) {
        let known = self.host(host).connections.get(&(headers.dst, headers.src)).copied();
        if let Some(key) = known {
            self.received(now_ns, &flight);
            if let Some(connection) = self.tcp.connections.get_mut(key) {
                connection.reset |= packet::tcp_resets(&flight.bytes, headers.transport);
                connection.heard_ns = now_ns;
                connection.wire.incoming.push_back(flight.bytes);
                self.tcp_poll(key);
            }
            return;
        }
        let listener = bound(&self.host(host).tcp_ports, headers.dst);
        if let Some(listener) = listener
            && packet::tcp_opens(&flight.bytes, headers.transport)
        {
            self.tcp_opened(now_ns, flight, host, headers, listener);
            return;
        }
        self.tcp_refuse(now_ns, flight, host, headers);
    }

    /// A segment without a connection: it is answered by RST, unless it is an RST.
    fn tcp_refuse(&mut self, now_ns: u64, mut flight: Flight, host: HostId, headers: &Headers) {
        let bytes = std::mem::take(&mut flight.bytes);
        self.end(now_ns, flight, DropCause::NoSocket);
        let mut wire =
            Wire { incoming: VecDeque::from([bytes]), outgoing: Vec::new(), mtu: crate::wire::link::MIN_MTU };
        let now = self.smol_now();
        let mut interface = interface(&mut wire, headers.dst.ip(), 0, now);
        interface.poll(now, &mut wire, &mut SocketSet::new(Vec::new()));
        for bytes in wire.outgoing {
            self.tcp_send(host, headers.dst, headers.src, bytes);
        }
    }

    fn tcp_send(&mut self, host: HostId, local: SocketAddr, remote: SocketAddr, bytes: Vec<u8>) {
        match self.route(host, Some(local.ip()), remote.ip()) {
            Ok(route) => self.forward(host, route.nic, remote.ip(), bytes, Class::Tcp),
            // The host no longer has the address (it has roamed), so the segment is not sent.
            Err(_) => self.stats.unroutable += 1,
        }
    }

    pub(crate) fn tcp_timer(&mut self, key: Key) {
        let Some(connection) = self.tcp.connections.get_mut(key) else { return };
        connection.timer = None;
        // A suspended kernel does nothing; it is polled when it wakes.
        if !self.hosts[connection.host.0 as usize].suspended {
            self.tcp_poll(key);
        }
    }

    /// A host has woken: its connections go on, and their time to give up begins anew.
    pub(crate) fn tcp_wakes(&mut self, host: HostId) {
        let now_ns = self.now_ns();
        let connections: Vec<Key> = self.host(host).connections.values().copied().collect();
        for key in connections {
            if let Some(connection) = self.tcp.connections.get_mut(key) {
                connection.owed_ns = connection.owed_ns.map(|_| now_ns);
            }
            self.tcp_poll(key);
        }
    }

    /// Advances a connection: handles arrived segments, sends further ones, wakes waiting tasks.
    fn tcp_poll(&mut self, key: Key) {
        let now_ns = self.now_ns();
        let now = self.smol_now();
        let Some(connection) = self.tcp.connections.get_mut(key) else { return };
        let before = connection.state();
        connection.interface.poll(now, &mut connection.wire, &mut connection.sockets);
        if connection.is_hopeless(now_ns) {
            connection.socket().abort();
            connection.interface.poll(now, &mut connection.wire, &mut connection.sockets);
        }
        let poll_at = connection.interface.poll_at(now, &connection.sockets);
        connection.probe(poll_at);
        let after = connection.state();
        if after == State::Closed && before != State::Closed {
            connection.error = match before {
                _ if connection.reset && before == State::SynSent => Some(io::ErrorKind::ConnectionRefused),
                _ if connection.reset => Some(io::ErrorKind::ConnectionReset),
                State::LastAck | State::Closing | State::TimeWait => None,
                _ => Some(io::ErrorKind::TimedOut),
            };
        }
        let mut outgoing = std::mem::take(&mut connection.wire.outgoing);
        let (host, local, remote) = (connection.host, connection.local, connection.remote);
        for bytes in outgoing.drain(..) {
            self.tcp_send(host, local, remote, bytes);
        }
        let Some(connection) = self.tcp.connections.get_mut(key) else { return };
        connection.wire.outgoing = outgoing;
        let socket = connection.sockets.get::<Socket<'_>>(connection.socket);
        let opening = matches!(after, State::SynSent | State::SynReceived | State::Listen);
        let wake_reader = !opening && (socket.can_recv() || !socket.may_recv());
        let wake_writer = !opening && (socket.can_send() || !socket.may_send());
        if wake_reader && let Some(reader) = connection.reader.take() {
            reader.wake();
        }
        if wake_writer && let Some(writer) = connection.writer.take() {
            writer.wake();
        }
        match connection.holder {
            Holder::Listener(listener, false) if !opening && after != State::Closed => {
                connection.holder = Holder::Listener(listener, true);
                if let Some(listener) = self.tcp.listeners.get_mut(listener) {
                    listener.ready.push_back(key);
                    for acceptor in listener.acceptors.drain(..) {
                        acceptor.wake();
                    }
                }
            }
            Holder::Listener(_, false) | Holder::Nobody(_) if after == State::Closed => {
                self.tcp_forget(key);
                return;
            }
            _ => {}
        }
        self.tcp_schedule(key, now_ns);
    }

    /// Sets the connection's timer to the first of smoltcp's next poll, the end of an orphan and the time to give
    /// up.
    fn tcp_schedule(&mut self, key: Key, now_ns: u64) {
        let now = self.smol_now();
        let Some(connection) = self.tcp.connections.get_mut(key) else { return };
        let poll_at = connection.interface.poll_at(now, &connection.sockets);
        let orphaned = match connection.holder {
            Holder::Nobody(until_ns) => Some(until_ns),
            Holder::Listener(..) | Holder::Process => None,
        };
        let polled = poll_at.map(|at| (at.total_micros().max(0) as u64) * 1000);
        let wanted = [polled, orphaned, connection.gives_up_ns()].into_iter().flatten().min();
        // At least a microsecond ahead, smoltcp's own resolution, so that time passes between two polls.
        let wanted = wanted.map(|at_ns| at_ns.max(now_ns + 1000));
        if connection.timer.map(|(at_ns, _)| at_ns) == wanted {
            return;
        }
        if let Some((_, timer)) = connection.timer.take() {
            self.timers.cancel(timer);
        }
        if let Some(at_ns) = wanted {
            let timer = self.set_timer(at_ns, TimerKind::Tcp(key));
            if let Some(connection) = self.tcp.connections.get_mut(key) {
                connection.timer = Some((at_ns, timer));
            }
        }
    }
}
