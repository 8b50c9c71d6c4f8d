//! Listening ports, their backlog, and accepting from it.

use super::Tcp;
use super::connection::Holder;
use super::outbox::Outbox;
use crate::kernel::process::dead;
use crate::kernel::slab::Key;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::{Poll, Waker};

/// A listening port.
pub(super) struct Listener {
    local: SocketAddr,
    /// Connections to be accepted.
    ready: VecDeque<Key>,
    half_open: usize,
    acceptors: Vec<Waker>,
}

impl Listener {
    /// A half-open connection of its own can be accepted.
    pub(super) fn is_ready(&mut self, connection: Key, out: &mut Outbox) {
        self.half_open -= 1;
        self.ready.push_back(connection);
        out.wake(self.acceptors.drain(..));
    }

    /// A connection of its own has ended; `was_ready` if it could be accepted.
    pub(super) fn forget(&mut self, connection: Key, was_ready: bool) {
        if was_ready {
            self.ready.retain(|ready| *ready != connection);
        } else {
            self.half_open -= 1;
        }
    }
}

impl Tcp {
    /// Listens at `local`, which [`choose_port`](Tcp::choose_port) gave.
    pub(crate) fn listen(&mut self, local: SocketAddr) -> Key {
        let key = self.listeners.insert(Listener {
            local,
            ready: VecDeque::new(),
            half_open: 0,
            acceptors: Vec::new(),
        });
        self.ports.insert(local, key);
        key
    }

    /// Closes a listener; connections that weren't accepted are reset.
    pub(crate) fn unlisten(&mut self, now_ns: u64, key: Key, out: &mut Outbox) {
        let Some(listener) = self.listeners.remove(key) else { return };
        self.ports.release(listener.local.port(), key);
        out.wake(listener.acceptors);
        let held: Vec<Key> = self
            .tuples
            .values()
            .copied()
            .filter(|connection| {
                let holder = self.connections.get(*connection).map(|connection| connection.holder);
                matches!(holder, Some(Holder::Listener(of, _)) if of == key)
            })
            .collect();
        for connection in held {
            self.abort(now_ns, connection, out);
        }
    }

    /// The next connection to be accepted, with its local and its remote address.
    pub(crate) fn accept(
        &mut self,
        key: Key,
        waker: &Waker,
    ) -> Poll<io::Result<(Key, SocketAddr, SocketAddr)>> {
        let Some(listener) = self.listeners.get_mut(key) else { return Poll::Ready(Err(dead())) };
        match listener.ready.pop_front() {
            Some(connection) => {
                let accepted = self.connections.get_mut(connection).expect("those ready exist");
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

    /// Whether a listener has room for a further connection, half-open and then accepted. Linux too drops the SYN otherwise
    /// (`tcp_conn_request`), so that the client tries again.
    pub(crate) fn admits(&self, listener: Key) -> bool {
        let listener = self.listeners.get(listener);
        listener.is_some_and(|listener| {
            listener.ready.len() < self.backlog && listener.half_open < self.backlog && self.has_room()
        })
    }

    /// Whether a segment for a connection must be dropped, because it would complete it and its listener has no room to have
    /// it accepted. The client takes the connection for complete, as on Linux without `tcp_abort_on_overflow` (tcp(7)).
    pub(crate) fn overflows(&self, connection: Key, resets: bool) -> bool {
        let holder = self.connections.get(connection).map(|connection| connection.holder);
        let Some(Holder::Listener(listener, false)) = holder else { return false };
        !resets && self.listeners.get(listener).is_some_and(|listener| listener.ready.len() >= self.backlog)
    }

    /// A SYN has come in for a listener that [admits](Tcp::admits) it.
    pub(crate) fn open(
        &mut self,
        now_ns: u64,
        listener: Key,
        (local, remote): (SocketAddr, SocketAddr),
        syn: Vec<u8>,
        mtu: usize,
        out: &mut Outbox,
    ) {
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.half_open += 1;
        }
        let mut connection = self.make(now_ns, local, remote, mtu, Holder::Listener(listener, false));
        connection.socket().listen(local).expect("a fresh socket listens");
        connection.push(now_ns, syn);
        let key = self.insert(connection);
        self.poll(now_ns, key, out);
    }
}
