//! The requests of a kernel's TCP to the world.

use crate::kernel::slab::Key;
use std::net::SocketAddr;
use std::task::Waker;

/// A request to the world.
pub(crate) enum Request {
    /// Send a packet, by the route that the host has now.
    Send { local: SocketAddr, remote: SocketAddr, packet: Vec<u8> },
    /// Wake a task.
    Wake(Waker),
    /// Call [`Tcp::due`](super::Tcp::due) for the connection at this time, and tell it the timer's key by
    /// [`Tcp::timer_is_set`](super::Tcp::timer_is_set).
    SetTimer { connection: Key, at_ns: u64 },
    /// Cancel a timer.
    CancelTimer(Key),
}

/// Requests in the order in which the world must carry them out. A call advances a connection once at most, so it
/// makes at most one request to set the connection's timer.
#[derive(Default)]
#[must_use]
pub(crate) struct Outbox(Vec<Request>);

impl Outbox {
    pub(super) fn push(&mut self, request: Request) {
        self.0.push(request);
    }

    pub(super) fn wake(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        self.0.extend(wakers.into_iter().map(Request::Wake));
    }
}

impl IntoIterator for Outbox {
    type Item = Request;
    type IntoIter = std::vec::IntoIter<Request>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
