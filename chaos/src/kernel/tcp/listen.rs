//! Listening ports, their backlog, and accepting from it.

use super::Tcp;
use super::connection::Holder;
use super::outbox::Outbox;
use crate::kernel::process::dead;
use crate::kernel::slab::Key;
use smoltcp::socket::tcp::State;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::{Poll, Waker};

/// A listening port.
pub(super) struct Listener {
    local: SocketAddr,
    /// Connections to be accepted.
    ready: VecDeque<Key>,
    /// Connections held by this listener, including half-open ones.
    pending: usize,
    acceptors: Vec<Waker>,
}

impl Listener {
    /// A connection of its own can be accepted.
    pub(super) fn is_ready(&mut self, connection: Key, out: &mut Outbox) {
        self.ready.push_back(connection);
        out.wake(self.acceptors.drain(..));
    }

    /// A connection of its own has ended.
    pub(super) fn forget(&mut self, connection: Key) {
        self.pending -= 1;
        self.ready.retain(|ready| *ready != connection);
    }
}

impl Tcp {
    /// Listens at `local`, which [`choose_port`](Tcp::choose_port) gave.
    pub(crate) fn listen(&mut self, local: SocketAddr) -> Key {
        let key = self.listeners.insert(Listener {
            local,
            ready: VecDeque::new(),
            pending: 0,
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
                listener.pending -= 1;
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

    /// Whether a listener has room for a further connection.
    pub(crate) fn admits(&self, listener: Key) -> bool {
        let pending = self.listeners.get(listener).map(|listener| listener.pending);
        pending.is_some_and(|pending| pending < self.backlog) && self.has_room()
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
            listener.pending += 1;
        }
        let mut connection = self.make(now_ns, local, remote, mtu, Holder::Listener(listener, false));
        connection.socket().listen(local).expect("a fresh socket listens");
        connection.endpoint.push(syn);
        let key = self.insert(connection);
        self.poll(now_ns, key, out);
        if self.connections.get(key).is_some_and(|connection| connection.state() == State::Listen) {
            // The SYN was damaged.
            self.forget(key, out);
        }
    }
}
