//! Listening ports, their backlog, and accepting from it.

use super::connection::Holder;
use crate::ids::HostId;
use crate::kernel::host::release;
use crate::kernel::slab::Key;
use crate::wire::link::DropCause;
use crate::wire::packet::Headers;
use crate::world::sim::{Flight, Place, Sim, dead};
use smoltcp::socket::tcp::State;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::{Poll, Waker};

/// A listening port.
pub(super) struct Listener {
    pub(super) host: HostId,
    pub(super) local: SocketAddr,
    pub(super) ready: VecDeque<Key>,
    /// Connections held by this listener, including half-open ones.
    pub(super) pending: usize,
    pub(super) acceptors: Vec<Waker>,
}

impl Sim {
    pub(crate) fn tcp_listen(&mut self, place: Place, addr: SocketAddr) -> io::Result<(Key, SocketAddr)> {
        let host = self.host_mut(place.host);
        let local = host.choose_port(true, addr)?;
        let key = self.tcp.listeners.insert(Listener {
            host: place.host,
            local,
            ready: VecDeque::new(),
            pending: 0,
            acceptors: Vec::new(),
        });
        self.host_mut(place.host).tcp_ports.entry(local.port()).or_default().push((local.ip(), key));
        Ok((key, local))
    }

    /// Closes a listener; connections that weren't accepted are reset.
    pub(crate) fn tcp_unlisten(&mut self, key: Key) {
        let Some(listener) = self.tcp.listeners.remove(key) else { return };
        release(&mut self.host_mut(listener.host).tcp_ports, listener.local.port(), key);
        for waker in listener.acceptors {
            waker.wake();
        }
        let held: Vec<Key> = self
            .host(listener.host)
            .connections
            .values()
            .copied()
            .filter(|connection| {
                let holder = self.tcp.connections.get(*connection).map(|connection| connection.holder);
                matches!(holder, Some(Holder::Listener(of, _)) if of == key)
            })
            .collect();
        for connection in held {
            self.tcp_abort(connection);
        }
    }

    pub(crate) fn tcp_accept(
        &mut self,
        key: Key,
        waker: &Waker,
    ) -> Poll<io::Result<(Key, SocketAddr, SocketAddr)>> {
        let Some(listener) = self.tcp.listeners.get_mut(key) else { return Poll::Ready(Err(dead())) };
        match listener.ready.pop_front() {
            Some(connection) => {
                listener.pending -= 1;
                let accepted = self.tcp.connections.get_mut(connection).expect("those ready exist");
                accepted.holder = Holder::Process;
                Poll::Ready(Ok((connection, accepted.local, accepted.remote)))
            }
            None => {
                if !listener.acceptors.iter().any(|acceptor| acceptor.will_wake(waker)) {
                    listener.acceptors.push(waker.clone());
                }
                Poll::Pending
            }
        }
    }

    /// A SYN for a listener.
    pub(super) fn tcp_opened(
        &mut self,
        now_ns: u64,
        flight: Flight,
        host: HostId,
        headers: &Headers,
        listener: Key,
    ) {
        let (backlog, has_room) = (self.host(host).caps.backlog, self.host(host).takes_connection());
        match self.tcp.listeners.get_mut(listener) {
            Some(listener) if listener.pending < backlog && has_room => listener.pending += 1,
            _ => {
                self.end(now_ns, flight, DropCause::Backlog);
                return;
            }
        }
        self.received(now_ns, &flight);
        let holder = Holder::Listener(listener, false);
        let mut connection = self.tcp_new(host, headers.dst, headers.src, holder);
        connection.socket().listen(headers.dst).expect("a fresh socket listens");
        connection.wire.incoming.push_back(flight.bytes);
        let key = self.tcp_insert(connection);
        self.tcp_poll(key);
        if self.tcp.connections.get(key).is_some_and(|connection| connection.state() == State::Listen) {
            // The SYN was damaged.
            self.tcp_forget(key);
        }
    }
}
