//! TCP of a simulated kernel, by smoltcp.
//!
//! Each connection has a smoltcp interface of its own with one socket in it, and the kernel finds the connection by
//! its four-tuple. So the cost of a packet doesn't depend on the number of connections, a host may have any number
//! of addresses, and a listener is a port with a backlog, as with any kernel, rather than several listening sockets.
//!
//! smoltcp has the sequence numbers, windows, Reno, and Nagle until that is turned off. When a segment is sent again, and
//! when a connection is given up, is decided here, as on Linux:
//!
//! | | after |
//! | --- | --- |
//! | data or FIN without acknowledgement | an RTO of 200 ms above the round trip or more, doubled up to 120 s (`rto`) |
//! | SYN | 1, 2, 4, 8, 16, 32 s; ETIMEDOUT after 127 s |
//! | SYN-ACK | 1, 2, 4, 8, 16 s; forgotten after 63 s |
//! | no progress while an acknowledgement is owed | 30 s to 15 min, drawn for each connection (`patience`): ETIMEDOUT, without RST |
//! | without a holder | 8 retries, and 60 s for the peer's FIN; RST for bytes that still come in |
//! | nothing owed | never: keepalives are off, as on Linux, and there is no option for them |
//!
//! What Linux has and this hasn't: SACK, timestamps (see `rto`), window scale, tail loss probes, MTU probing (off on Linux
//! too), ICMP, SYN cookies. Delayed ACKs take 10 ms and TIME-WAIT 10 s, smoltcp's times, where Linux has 40 ms and 60 s.
//!
//! Nothing here sends, wakes or sets a timer: a call puts its requests into an [`Outbox`], and the world carries them
//! out in their order.

mod connection;
mod endpoint;
mod listen;
mod outbox;
mod patience;
mod reminder;
mod rto;
mod segment;

use super::ports::Ports;
use super::process::dead;
use super::slab::{Key, Slab};
use crate::seed::Rng;
use connection::{Connection, Holder};
use endpoint::Endpoint;
use listen::Listener;
pub(crate) use outbox::{Outbox, Request};
use patience::Patience;
use rand_core::Rng as _;
use smoltcp::socket::tcp::State;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Poll, Waker};

/// The connections of a listener that wait to be accepted, and as many that are half-open: what tokio's `TcpListener::bind` and
/// the standard library ask of listen(2), within Linux's `somaxconn` of 4,096.
const BACKLOG: usize = 1024;

/// The connections and listeners of a host.
pub(crate) struct Tcp {
    connections: Slab<Connection>,
    listeners: Slab<Listener>,
    /// The connection of each pair of a local and a remote address.
    tuples: BTreeMap<(SocketAddr, SocketAddr), Key>,
    ports: Ports,
    rng: Rng,
    /// Draws how long each connection waits for an acknowledgement.
    patience_rng: Rng,
    /// The time that each new connection waits, if it is set rather than drawn.
    user_timeout_ns: Option<u64>,
    backlog: usize,
    /// The most connections of all processes, including closing ones.
    most_connections: usize,
}

/// The receiver of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    Connection(Key),
    Listener(Key),
    Nobody,
}

impl Tcp {
    pub(crate) fn new(rng: Rng, patience_rng: Rng) -> Tcp {
        Tcp {
            connections: Slab::new(),
            listeners: Slab::new(),
            tuples: BTreeMap::new(),
            ports: Ports::default(),
            rng,
            patience_rng,
            user_timeout_ns: None,
            backlog: BACKLOG,
            most_connections: usize::MAX,
        }
    }

    /// Its random streams: of sequence numbers, and of the times to give up.
    pub(crate) fn rngs(&self) -> [&Rng; 2] {
        [&self.rng, &self.patience_rng]
    }

    pub(crate) fn rngs_mut(&mut self) -> [&mut Rng; 2] {
        [&mut self.rng, &mut self.patience_rng]
    }

    pub(crate) fn set_user_timeout_ns(&mut self, timeout_ns: u64) {
        self.user_timeout_ns = Some(timeout_ns);
    }

    pub(crate) fn set_backlog(&mut self, connections: usize) {
        self.backlog = connections;
    }

    pub(crate) fn set_most_connections(&mut self, connections: usize) {
        self.most_connections = connections;
    }

    /// How many connections it has, including closing ones.
    pub(crate) fn len(&self) -> usize {
        self.tuples.len()
    }

    /// Whether it has room for a further connection.
    pub(crate) fn has_room(&self) -> bool {
        self.tuples.len() < self.most_connections
    }

    /// Resolves port 0, and checks that `addr` may be bound.
    pub(crate) fn choose_port(&self, addr: SocketAddr, rng: &mut Rng) -> io::Result<SocketAddr> {
        self.ports.choose(addr, rng, |addr| self.tuples.keys().any(|(local, _)| *local == addr))
    }

    fn make(
        &mut self,
        now_ns: u64,
        local: SocketAddr,
        remote: SocketAddr,
        mtu: usize,
        holder: Holder,
    ) -> Connection {
        let random_seed = self.rng.next_u64();
        let drawn_ns = patience::drawn_ns(self.patience_rng.next_u64());
        let patience = Patience::new(self.user_timeout_ns.unwrap_or(drawn_ns));
        let endpoint = Endpoint::new(local.ip(), mtu, random_seed, now_ns);
        Connection::new(local, remote, endpoint, holder, patience)
    }

    fn insert(&mut self, connection: Connection) -> Key {
        let tuple = (connection.local, connection.remote);
        let key = self.connections.insert(connection);
        self.tuples.insert(tuple, key);
        key
    }

    /// Removes a connection without notifying the peer.
    fn forget(&mut self, key: Key, out: &mut Outbox) {
        let Some(connection) = self.connections.remove(key) else { return };
        self.tuples.remove(&(connection.local, connection.remote));
        if let Some((_, timer)) = connection.timer {
            out.push(Request::CancelTimer(timer));
        }
        if let Holder::Listener(listener, is_ready) = connection.holder
            && let Some(listener) = self.listeners.get_mut(listener)
        {
            listener.forget(key, is_ready);
        }
        out.wake([connection.reader, connection.writer].into_iter().flatten());
    }

    /// Begins a connection on a path of this MTU, from `local`, which [`choose_port`](Tcp::choose_port) gave.
    pub(crate) fn connect(
        &mut self,
        now_ns: u64,
        local: SocketAddr,
        remote: SocketAddr,
        mtu: usize,
        out: &mut Outbox,
    ) -> io::Result<Key> {
        let mut connection = self.make(now_ns, local, remote, mtu, Holder::Process);
        connection.endpoint.connect(local, remote)?;
        let key = self.insert(connection);
        self.poll(now_ns, key, out);
        Ok(key)
    }

    /// Whether a connection attempt has completed.
    pub(crate) fn connected(&mut self, key: Key, waker: &Waker) -> Poll<io::Result<()>> {
        let Some(connection) = self.connections.get_mut(key) else { return Poll::Ready(Err(dead())) };
        if let Some(error) = connection.error.take() {
            return Poll::Ready(Err(error.into()));
        }
        if connection.state() == State::SynSent {
            connection.writer = Some(waker.clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn read(
        &mut self,
        now_ns: u64,
        key: Key,
        waker: &Waker,
        buffer: &mut [u8],
        out: &mut Outbox,
    ) -> Poll<io::Result<usize>> {
        let Some(connection) = self.connections.get_mut(key) else { return Poll::Ready(Err(dead())) };
        let socket = connection.socket();
        if socket.can_recv() {
            let n = socket.recv_slice(buffer).unwrap_or(0);
            self.poll(now_ns, key, out);
            return Poll::Ready(Ok(n));
        }
        if socket.may_recv() {
            connection.reader = Some(waker.clone());
            return Poll::Pending;
        }
        Poll::Ready(connection.error.take().map_or(Ok(0), |error| Err(error.into())))
    }

    pub(crate) fn write(
        &mut self,
        now_ns: u64,
        key: Key,
        waker: &Waker,
        bytes: &[u8],
        out: &mut Outbox,
    ) -> Poll<io::Result<usize>> {
        let Some(connection) = self.connections.get_mut(key) else { return Poll::Ready(Err(dead())) };
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
        self.poll(now_ns, key, out);
        Poll::Ready(Ok(n))
    }

    /// Ends this side's direction, after the written bytes.
    pub(crate) fn shutdown(&mut self, now_ns: u64, key: Key, out: &mut Outbox) -> io::Result<()> {
        let connection = self.connections.get_mut(key).ok_or_else(dead)?;
        connection.socket().close();
        self.poll(now_ns, key, out);
        Ok(())
    }

    pub(crate) fn set_nodelay(
        &mut self,
        now_ns: u64,
        key: Key,
        nodelay: bool,
        out: &mut Outbox,
    ) -> io::Result<()> {
        let connection = self.connections.get_mut(key).ok_or_else(dead)?;
        connection.socket().set_nagle_enabled(!nodelay);
        self.poll(now_ns, key, out);
        Ok(())
    }

    /// The last handle is gone: FIN, or RST if bytes were left unread.
    pub(crate) fn release(&mut self, now_ns: u64, key: Key, out: &mut Outbox) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.holder = Holder::Nobody(None);
        connection.reader = None;
        connection.writer = None;
        if connection.socket().recv_queue() > 0 {
            connection.socket().abort();
        } else {
            connection.socket().close();
        }
        self.poll(now_ns, key, out);
    }

    fn abort(&mut self, now_ns: u64, key: Key, out: &mut Outbox) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.socket().abort();
        self.poll(now_ns, key, out);
        self.forget(key, out);
    }

    /// The process has ended: the kernel closes its listeners and connections.
    pub(crate) fn process_ends(&mut self, now_ns: u64, out: &mut Outbox) {
        for listener in self.ports.sockets() {
            self.unlisten(now_ns, listener, out);
        }
        let connections: Vec<Key> = self.tuples.values().copied().collect();
        for key in connections {
            if self.connections.get(key).is_some_and(|connection| connection.holder == Holder::Process) {
                self.release(now_ns, key, out);
            }
        }
    }

    /// The host has lost its power: its connections are removed, and no peer is notified.
    pub(crate) fn power_ends(&mut self, out: &mut Outbox) {
        for listener in std::mem::take(&mut self.ports).sockets() {
            self.listeners.remove(listener);
        }
        let connections: Vec<Key> = self.tuples.values().copied().collect();
        for key in connections {
            self.forget(key, out);
        }
    }

    /// The receiver of a segment from `remote` to `local`; `opens` if it is a SYN.
    pub(crate) fn receiver(&self, local: SocketAddr, remote: SocketAddr, opens: bool) -> Receiver {
        match self.tuples.get(&(local, remote)) {
            Some(key) => Receiver::Connection(*key),
            None if opens => self.ports.bound(local).map_or(Receiver::Nobody, Receiver::Listener),
            None => Receiver::Nobody,
        }
    }

    /// A segment has come in for a connection; `resets` if it is an RST.
    pub(crate) fn segment(&mut self, now_ns: u64, key: Key, packet: Vec<u8>, resets: bool, out: &mut Outbox) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.reset |= resets;
        connection.push(now_ns, packet);
        self.poll(now_ns, key, out);
    }

    /// The answers to a segment that has no receiver at `ip`: RST, unless it is an RST.
    pub(crate) fn refusal(now_ns: u64, ip: IpAddr, packet: Vec<u8>, mtu: usize) -> Vec<Vec<u8>> {
        endpoint::refusal(now_ns, ip, packet, mtu)
    }

    /// The timer that a connection requested is set. Returns whether the connection still exists.
    pub(crate) fn timer_is_set(&mut self, key: Key, at_ns: u64, timer: Key) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        connection.timer = Some((at_ns, timer));
        true
    }

    /// A connection's timer is due. A suspended kernel does nothing; its connections go on when it wakes.
    pub(crate) fn due(&mut self, now_ns: u64, key: Key, is_suspended: bool, out: &mut Outbox) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.timer = None;
        if !is_suspended {
            self.poll(now_ns, key, out);
        }
    }

    /// The host has woken: its connections go on, and their time to give up begins anew.
    pub(crate) fn wakes(&mut self, now_ns: u64, out: &mut Outbox) {
        let connections: Vec<Key> = self.tuples.values().copied().collect();
        for key in connections {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.patience.begin_anew(now_ns);
            }
            self.poll(now_ns, key, out);
        }
    }

    /// Advances a connection: handles arrived segments, sends further ones, wakes waiting tasks.
    fn poll(&mut self, now_ns: u64, key: Key, out: &mut Outbox) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let polled = connection.poll(now_ns, out);
        // smoltcp listens again after an RST to its SYN-ACK, or a damaged SYN.
        let is_closed = matches!(polled.state, State::Closed | State::Listen);
        match connection.holder {
            Holder::Listener(listener, false) if !polled.is_opening && !is_closed => {
                connection.holder = Holder::Listener(listener, true);
                if let Some(listener) = self.listeners.get_mut(listener) {
                    listener.is_ready(key, out);
                }
            }
            Holder::Listener(_, false) | Holder::Nobody(_) if is_closed => {
                self.forget(key, out);
                return;
            }
            _ => {}
        }
        connection.schedule(key, now_ns, out);
    }
}
