//! The transport's driver: sockets, the hubs' streams and the interface list for [`Transport`].
//!
//! The driver is a thin loop in two halves: [`Driver::wait`] sleeps until there is work, [`Driver::turn`] does a
//! bounded amount of it. The network plane alternates them, so one busy source (a bulk transfer, a hub with many
//! events) delays the others by at most one turn.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use super::TransportConfig;
use super::core::Transport;
use crate::key::PublicKey;
use crate::net::reach::faults::ReceiveFaults;
use crate::net::reach::hub_client::Link;
use crate::net::reach::listen::Listen;
use crate::rt::net::{
    Interface, InterfaceWatch, RecvMeta, Transmit, UdpSocket, interfaces, lookup_host, source_towards,
};
use crate::rt::sync::mpsc;
use crate::rt::{self, Cost, Point, buggify, time};

/// Bytes of one receive buffer: a whole GRO batch.
const BUFFER_BYTES: usize = 65_536;

/// Buffers filled by one receive: enough to empty a burst with one system call, and small enough for the cache.
const BUFFERS: usize = 8;

/// Receives per turn and socket: bounds the time for which a flood delays other work, and thus the error of a
/// measured round trip. The core's inbox must hold everything that one turn receives.
const RECEIVES_PER_TURN: usize = 2;

/// A hub, and the addresses to which its name resolves.
type Resolved = (PublicKey, Vec<SocketAddr>);

/// The source that ended a wait, with the data already taken from it.
enum Woke {
    Udp(usize, io::Result<usize>),
    Interfaces(Vec<Interface>),
    Resolved(PublicKey, Vec<SocketAddr>),
    Work,
}

/// How long [`Driver::wait`] waits for a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Only poll. A past deadline isn't equivalent: timers fire at whole milliseconds.
    Now,
    /// Wait until this instant at most.
    Deadline(Instant),
    /// Wait until a source is ready.
    Woken,
}

/// The sockets and connections of one transport.
pub struct Driver {
    /// At most one of each address family.
    sockets: Vec<UdpSocket>,
    faults: Vec<ReceiveFaults>,
    /// The error of a socket that can no longer receive.
    broken: Option<String>,
    /// The socket for v4 destinations, and for v6.
    by_family: (Option<usize>, Option<usize>),
    /// A link for each hub.
    links: Vec<(PublicKey, Link)>,
    resolved: (mpsc::Sender<Resolved>, mpsc::Receiver<Resolved>),
    watch: InterfaceWatch,
    buffer: Vec<u8>,
    metas: [RecvMeta; BUFFERS],
    /// The socket whose kernel buffer is full.
    blocked: Option<usize>,
    sent: bool,
    woke: Option<Woke>,
}

impl Driver {
    /// Binds the sockets and connects to the hubs. Must run on the network plane, where its tasks will run.
    ///
    /// # Errors
    /// The operating system's error for an explicitly configured address, or the last one if none could be bound.
    pub async fn open(config: &TransportConfig, core: &mut Transport) -> io::Result<Driver> {
        let sockets = bind(&config.listen).await?;
        let bound = sockets.iter().map(UdpSocket::local_addr).collect::<io::Result<Vec<_>>>()?;
        let of_family = |v4: bool| bound.iter().position(|addr| addr.is_ipv4() == v4);
        let by_family = (of_family(true), of_family(false));
        let links = config.ticket.hubs.iter().map(|hub| (hub.key, Link::default())).collect();
        let now = time::now();
        core.set_bound(now, by_family.0.map(|at| bound[at]), by_family.1.map(|at| bound[at]));
        let known = interfaces()?;
        core.set_interfaces(now, known.clone(), source);
        Ok(Driver {
            faults: sockets.iter().map(|_| ReceiveFaults::default()).collect(),
            broken: None,
            sockets,
            by_family,
            links,
            resolved: mpsc::channel(crate::mesh::MAX_HUBS),
            watch: InterfaceWatch::new(known),
            buffer: vec![0; BUFFER_BYTES * BUFFERS],
            metas: [RecvMeta::default(); BUFFERS],
            blocked: None,
            sent: false,
            woke: None,
        })
    }

    /// The bound addresses.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Waits until a source is ready, a socket can be written to again, or `until` is reached. Cancel safe: data
    /// taken from a source is kept for the next turn.
    pub async fn wait(&mut self, until: Until) {
        if self.woke.is_some() {
            return;
        }
        let Driver { sockets, links, resolved, watch, buffer, metas, blocked, .. } = self;
        let mut receives: Vec<_> = Vec::with_capacity(2);
        // The sockets are polled in a fixed order; the one that is ready uses the buffers.
        for socket in sockets.iter() {
            receives.push(Box::pin(socket.readable()));
        }
        let readable = poll_fn(|cx| {
            for (at, receive) in receives.iter_mut().enumerate() {
                if let Poll::Ready(ready) = receive.as_mut().poll(cx) {
                    return Poll::Ready((at, ready));
                }
            }
            Poll::Pending
        });
        let hubs = poll_fn(|cx| {
            // Each is polled, so that none starves behind a busy one.
            let ready = links.iter_mut().fold(false, |ready, (_, link)| link.ready(cx).is_ready() | ready);
            if ready { Poll::Ready(()) } else { Poll::Pending }
        });
        let writable = async {
            match *blocked {
                Some(at) => sockets[at].writable().await,
                None => std::future::pending().await,
            }
        };
        let timer = async {
            match until {
                Until::Now => {}
                Until::Deadline(deadline) => time::sleep_until(deadline).await,
                Until::Woken => std::future::pending().await,
            }
        };
        let mut readable = pin!(readable);
        let mut hubs = pin!(hubs);
        let mut writable = pin!(writable);
        let mut timer = pin!(timer);
        let woke = rt::select! {
            (at, ready) = &mut readable => match ready {
                Ok(()) => Woke::Udp(at, receive(&sockets[at], buffer, metas)),
                Err(error) => Woke::Udp(at, Err(error)),
            },
            () = &mut hubs => Woke::Work,
            Some((hub, addrs)) = resolved.1.recv() => Woke::Resolved(hub, addrs),
            list = watch.changed() => Woke::Interfaces(list),
            _ = &mut writable => Woke::Work,
            () = &mut timer => Woke::Work,
        };
        self.woke = Some(woke);
    }

    /// Takes a bounded amount of data from the sources, and sends the core's output. Returns whether data is left for
    /// the next turn.
    pub fn turn(&mut self, core: &mut Transport, now: Instant) -> bool {
        let mut more = false;
        self.sent = false;
        match self.woke.take() {
            Some(Woke::Udp(at, filled)) => self.take_datagrams(core, now, at, &filled),
            Some(Woke::Interfaces(list)) => self.take_interfaces(core, now, list),
            Some(Woke::Resolved(hub, addrs)) => core.set_hub_addrs(now, hub, &addrs, source),
            Some(Woke::Work) | None => {}
        }
        for at in 0..self.sockets.len() {
            more |= self.receive_from(core, now, at);
        }
        self.receive_from_hubs(core, now);
        core.handle_timeout(now);
        self.flush(core, now);
        more
    }

    /// The error of a socket whose every receive fails, if there is one: the node then receives nothing on it.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Whether a socket accepted a datagram since the last turn began.
    pub fn has_sent(&self) -> bool {
        self.sent
    }

    /// Sends the core's output, as far as the kernel accepts it.
    pub fn flush(&mut self, core: &mut Transport, now: Instant) {
        core.pump(now);
        self.blocked = None;
        loop {
            self.flush_udp(core);
            for (hub, link) in &mut self.links {
                if let Some(client) = core.hub_client(hub) {
                    link.flush(client);
                }
            }
            // Space in the outbox and in the hubs' queues lets reliable messages continue.
            if self.blocked.is_some() || !core.pump(now) {
                break;
            }
        }
    }

    /// Says goodbye to the hubs, and waits at most a second until their streams have accepted it. A hub that gets no
    /// goodbye goes on listing this node.
    pub async fn close(&mut self, core: &mut Transport) {
        let mut closing: Vec<_> = Vec::with_capacity(self.links.len());
        for (hub, link) in &mut self.links {
            closing.extend(core.hub_client(hub).map(|client| Box::pin(link.close(client))));
        }
        poll_fn(|cx| {
            closing.retain_mut(|closing| closing.as_mut().poll(cx).is_pending());
            if closing.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Receives until the socket is empty or the turn's share is used up. Returns whether the share was used up.
    fn receive_from(&mut self, core: &mut Transport, now: Instant, at: usize) -> bool {
        if buggify(Point::ReceiveLater) {
            return true;
        }
        for _ in 0..RECEIVES_PER_TURN {
            let filled = receive(&self.sockets[at], &mut self.buffer, &mut self.metas);
            self.take_datagrams(core, now, at, &filled);
            if filled.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return false;
            }
        }
        true
    }

    /// Passes received datagrams to the core. An error concerns one datagram, sent or received, unless it
    /// occurs at each receive.
    fn take_datagrams(&mut self, core: &mut Transport, now: Instant, at: usize, filled: &io::Result<usize>) {
        let broken = self.faults[at].note(filled);
        let count = match filled {
            Ok(count) => count,
            Err(error) => {
                if broken {
                    self.broken.get_or_insert_with(|| error.to_string());
                }
                return;
            }
        };
        let chunks = self.buffer.chunks_exact_mut(BUFFER_BYTES);
        for (meta, chunk) in self.metas[..*count].iter().zip(chunks) {
            rt::cost(Cost::Datagram, meta.len.div_ceil(meta.stride.max(1)));
            core.handle_udp(now, meta.addr, meta.stride, &mut chunk[..meta.len]);
        }
    }

    fn take_interfaces(&self, core: &mut Transport, now: Instant, list: Vec<Interface>) {
        if !core.set_interfaces(now, list.clone(), source) {
            return;
        }
        for (hub, link) in &self.links {
            if let Some(client) = core.hub_client(hub) {
                link.check(client, now, &list);
            }
        }
    }

    /// Passes what the hubs have sent to their clients, and resolves the name of each hub that is newly up.
    fn receive_from_hubs(&mut self, core: &mut Transport, now: Instant) {
        for (hub, link) in &mut self.links {
            let Some(client) = core.hub_client(hub) else { continue };
            let was_up = client.is_up();
            link.receive(client, now);
            if !was_up && client.is_up() {
                let (hub, name, resolved) = (*hub, client.hub().addr.clone(), self.resolved.0.clone());
                rt::task::spawn(async move {
                    let found = lookup_host(&name).await.unwrap_or_default();
                    // If the channel is full or closed, the next registration resolves again.
                    if !buggify(Point::ResolvedInVain) {
                        let _ = resolved.try_send((hub, found));
                    }
                });
            }
            // What has arrived counts before what is due.
            core.take_hub_events(now);
        }
    }

    fn flush_udp(&mut self, core: &mut Transport) {
        while let Some(batch) = core.outbox().front() {
            let (v4, v6) = self.by_family;
            let Some(at) = (if batch.destination.is_ipv4() { v4 } else { v6 }) else {
                core.outbox().pop();
                continue;
            };
            let socket = &self.sockets[at];
            let segments = if buggify(Point::SendOne) { 1 } else { socket.max_gso_segments().max(1) };
            let most = batch.segment * segments;
            let contents = &batch.bytes[..batch.bytes.len().min(most)];
            let transmit = Transmit {
                destination: batch.destination,
                contents,
                segment_size: (contents.len() > batch.segment).then_some(batch.segment),
                src_ip: None,
            };
            if buggify(Point::SendBlocked) {
                self.blocked = Some(at);
                return;
            }
            let sent = contents.len();
            rt::cost(Cost::Datagram, sent.div_ceil(batch.segment));
            match socket.try_send(&transmit) {
                Ok(()) => {
                    core.outbox().advance(sent);
                    self.sent = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = Some(at);
                    return;
                }
                // The kernel may refuse a batch (then each datagram is sent alone) or one datagram.
                Err(_) if transmit.segment_size.is_some() && socket.max_gso_segments() == 1 => {}
                Err(_) => {
                    core.count_send_error();
                    core.outbox().advance(sent);
                }
            }
        }
    }
}

/// The address from which this host writes to another one, if there is a route.
fn source(remote: IpAddr) -> Option<IpAddr> {
    source_towards(remote).ok()
}

/// Binds a socket of each family. If any port is allowed, the second socket takes the first one's port if it is free,
/// so that a firewall needs one rule.
async fn bind(listen: &Listen) -> io::Result<Vec<UdpSocket>> {
    let mut sockets: Vec<UdpSocket> = Vec::new();
    let mut lacking = None;
    for addr in listen.addrs() {
        let mut wanted = addr;
        if let (0, Some(first)) = (addr.port(), sockets.first()) {
            wanted.set_port(first.local_addr()?.port());
        }
        let bound = match UdpSocket::bind(wanted).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && wanted != addr => {
                UdpSocket::bind(addr).await
            }
            bound => bound,
        };
        match bound {
            Ok(socket) => sockets.push(socket),
            Err(error) if listen.may_lack(&error) => {
                tracing::debug!(target: "nurl::transport", %addr, %error, "not in this family");
                lacking = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match lacking {
        Some(error) if sockets.is_empty() => Err(error),
        _ => Ok(sockets),
    }
}

/// Fills the receive buffers without waiting.
fn receive(socket: &UdpSocket, buffer: &mut [u8], metas: &mut [RecvMeta; BUFFERS]) -> io::Result<usize> {
    let mut chunks = buffer.chunks_exact_mut(BUFFER_BYTES);
    let mut slices: [IoSliceMut<'_>; BUFFERS] =
        std::array::from_fn(|_| IoSliceMut::new(chunks.next().expect("the buffer has BUFFERS chunks")));
    let most = if buggify(Point::ReceiveOne) { 1 } else { BUFFERS };
    socket.try_recv(&mut slices[..most], &mut metas[..most])
}
