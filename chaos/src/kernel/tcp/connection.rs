//! One connection: its holder, and the conditions on which it is given up.

use super::wire::Wire;
use crate::ids::HostId;
use crate::kernel::slab::Key;
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::{Duration as SmolDuration, Instant as SmolInstant};
use std::io;
use std::net::SocketAddr;
use std::task::Waker;

/// How long a peer may be silent while it owes an acknowledgement. Linux gives up after about 15 minutes, but that
/// would make scenarios wait too long, and the stack has its own keepalives. smoltcp's own timeout isn't used,
/// because it also ends idle connections.
const GIVE_UP_NS: u64 = 30_000_000_000;

/// The interval of probes of a closed window. smoltcp 0.12 sends none by itself, so a lost window update would stall
/// a transfer for ever; it answers probes once a second at most.
const PROBE: SmolDuration = SmolDuration::from_secs(2);

/// The holder of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// A listener: the connection isn't accepted yet; `true` once it is in the accept queue.
    Listener(Key, bool),
    /// A process.
    Process,
    /// No holder: kept until this instant, for an orderly end.
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
    /// Why it ended, until a call has returned this.
    pub(super) error: Option<io::ErrorKind>,
    /// When the last segment came in.
    pub(super) heard_ns: u64,
    /// When the peer began to owe an acknowledgement.
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

    /// Whether the connection must be reset: unread bytes without a holder, a peer that never ends, or a peer that
    /// is silent while it owes an acknowledgement.
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

    /// When a silent peer is given up.
    pub(super) fn gives_up_ns(&self) -> Option<u64> {
        self.owed_ns.map(|since_ns| since_ns.max(self.heard_ns) + GIVE_UP_NS)
    }

    /// Probes a closed window by keepalives, when there are bytes to send and smoltcp has no timer running.
    /// `poll_at` is the time at which smoltcp wants to be polled.
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
