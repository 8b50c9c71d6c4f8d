//! One connection: who holds it, and when there is no hope left for it.

use super::wire::Wire;
use crate::host::HostId;
use crate::slab::Key;
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::{Duration as SmolDuration, Instant as SmolInstant};
use std::io;
use std::net::SocketAddr;
use std::task::Waker;

/// How long a peer may be silent while it owes an acknowledgement. Linux gives up after about 15 minutes; a world in which
/// that matters would wait for it in every scenario, and the stack has its own keepalives.
/// (smoltcp's own timeout isn't used: it also ends connections that are merely idle.)
const GIVE_UP_NS: u64 = 30_000_000_000;

/// How often a closed window is probed. smoltcp 0.12 doesn't by itself, so a lost window update would end a
/// transfer for ever; it answers probes once a second at most.
const PROBE: SmolDuration = SmolDuration::from_secs(2);

/// Who holds a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// A listener: not accepted yet; `true` once it is in the queue of those to be accepted.
    Listener(Key, bool),
    /// A process.
    Process,
    /// Nobody: kept until this instant to end in order.
    Nobody(u64),
}

pub(super) struct Connection {
    pub(super) host: HostId,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    pub(super) socket: SocketHandle,
    pub(super) wire: Wire,
    pub(super) holder: Holder,
    pub(super) timer: Option<(u64, Key)>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// An RST has arrived.
    pub(super) reset: bool,
    /// Why it ended, until a call has told it.
    pub(super) error: Option<io::ErrorKind>,
    /// When the last segment came in.
    pub(super) heard_ns: u64,
    /// Since when the peer has owed an acknowledgement.
    pub(super) owed_ns: Option<u64>,
    /// Whether a closed window is being probed.
    pub(super) probing: bool,
}

impl Connection {
    pub(super) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    pub(super) fn state(&self) -> State {
        self.sockets.get::<Socket<'_>>(self.socket).state()
    }

    /// Whether the connection must be reset: bytes for nobody, a peer that never ends, or one that is silent
    /// while it owes an acknowledgement.
    pub(super) fn is_hopeless(&mut self, now_ns: u64) -> bool {
        let owes = self.socket().send_queue() > 0
            || matches!(
                self.state(),
                State::SynSent | State::SynReceived | State::FinWait1 | State::LastAck | State::Closing
            );
        match (owes, self.owed_ns) {
            (true, None) => self.owed_ns = Some(now_ns),
            (false, _) => self.owed_ns = None,
            (true, Some(_)) => {}
        }
        let forlorn = match self.holder {
            Holder::Nobody(until_ns) => self.socket().recv_queue() > 0 || now_ns >= until_ns,
            Holder::Listener(..) | Holder::Process => false,
        };
        forlorn || self.gives_up_ns().is_some_and(|at_ns| now_ns >= at_ns)
    }

    /// When the peer's silence becomes too long.
    pub(super) fn gives_up_ns(&self) -> Option<u64> {
        self.owed_ns.map(|since_ns| since_ns.max(self.heard_ns) + GIVE_UP_NS)
    }

    /// Probes a window that is closed, by keepalives: there is something to send, and smoltcp waits for nothing
    /// but a segment. `poll_at` is when it wants to be polled.
    pub(super) fn probe(&mut self, poll_at: Option<SmolInstant>) {
        let queued = self.socket().send_queue() > 0;
        if queued && !self.probing && poll_at.is_none() {
            self.probing = true;
            self.socket().set_keep_alive(Some(PROBE));
        } else if self.probing && !queued {
            self.probing = false;
            self.socket().set_keep_alive(None);
        }
    }
}
