//! One connection: its holder, and the conditions on which it is given up.

use super::endpoint::Endpoint;
use super::outbox::{Outbox, Request};
use super::reminder::Reminder;
use crate::kernel::slab::Key;
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::Duration as SmolDuration;
use std::io;
use std::net::SocketAddr;
use std::task::Waker;

/// How long a peer may be silent while it owes an acknowledgement. Linux gives up after about 15 minutes, but that
/// would make scenarios wait too long, and the stack has its own keepalives. smoltcp's own timeout isn't used,
/// because it also ends idle connections.
const GIVE_UP_NS: u64 = 30_000_000_000;

/// The time from a first probe of a closed window to a second one, if nothing is heard. smoltcp 0.12 sends none by itself, so
/// a lost window update would stall a transfer for ever; it answers probes once a second at most.
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

/// What a poll of a connection changed.
pub(super) struct Polled {
    /// The connection's state.
    pub(super) state: State,
    /// Whether the handshake is still to be done.
    pub(super) is_opening: bool,
}

pub(super) struct Connection {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) endpoint: Endpoint,
    pub(super) holder: Holder,
    /// The time for which its timer is set, and the timer.
    pub(super) timer: Option<(u64, Key)>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// An RST has arrived.
    pub(super) reset: bool,
    /// Why it ended, until a call has returned this.
    pub(super) error: Option<io::ErrorKind>,
    pub(super) silence: Silence,
    reminder: Reminder,
}

/// How long the peer has been silent while it owes an acknowledgement.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// When the last segment came in.
    pub(super) heard_ns: u64,
    /// When the peer began to owe an acknowledgement.
    pub(super) owed_ns: Option<u64>,
}

impl Silence {
    /// Notes whether the peer owes an acknowledgement now.
    fn note(&mut self, now_ns: u64, owes: bool) {
        match (owes, self.owed_ns) {
            (true, None) => self.owed_ns = Some(now_ns),
            (false, _) => self.owed_ns = None,
            (true, Some(_)) => {}
        }
    }

    /// The time begins anew, because the host has slept.
    pub(super) fn begin_anew(&mut self, now_ns: u64) {
        self.owed_ns = self.owed_ns.map(|_| now_ns);
    }

    /// When a silent peer is given up.
    fn gives_up_ns(&self) -> Option<u64> {
        self.owed_ns.map(|since_ns| since_ns.max(self.heard_ns) + GIVE_UP_NS)
    }
}

impl Connection {
    pub(super) fn new(
        local: SocketAddr,
        remote: SocketAddr,
        endpoint: Endpoint,
        holder: Holder,
    ) -> Connection {
        Connection {
            local,
            remote,
            endpoint,
            holder,
            timer: None,
            reader: None,
            writer: None,
            reset: false,
            error: None,
            silence: Silence::default(),
            reminder: Reminder::default(),
        }
    }

    pub(super) fn socket(&mut self) -> &mut Socket<'static> {
        self.endpoint.socket()
    }

    pub(super) fn state(&self) -> State {
        self.endpoint.state()
    }

    /// Handles arrived segments, sends further ones, wakes waiting tasks.
    pub(super) fn poll(&mut self, now_ns: u64, out: &mut Outbox) -> Polled {
        let before = self.state();
        self.endpoint.poll(now_ns);
        if self.is_hopeless(now_ns) {
            self.socket().abort();
            self.endpoint.poll(now_ns);
        }
        self.remind(now_ns);
        let state = self.state();
        if state == State::Closed && before != State::Closed {
            self.error = match before {
                _ if self.reset && before == State::SynSent => Some(io::ErrorKind::ConnectionRefused),
                _ if self.reset => Some(io::ErrorKind::ConnectionReset),
                State::LastAck | State::Closing | State::TimeWait => None,
                _ => Some(io::ErrorKind::TimedOut),
            };
        }
        for packet in self.endpoint.outgoing() {
            out.push(Request::Send { local: self.local, remote: self.remote, packet });
        }
        let is_opening = matches!(state, State::SynSent | State::SynReceived | State::Listen);
        let socket = self.endpoint.socket();
        if !is_opening && (socket.can_recv() || !socket.may_recv()) {
            out.wake(self.reader.take());
        }
        if !is_opening && (socket.can_send() || !socket.may_send()) {
            out.wake(self.writer.take());
        }
        Polled { state, is_opening }
    }

    /// Sets the timer to the first of smoltcp's next poll, the end of an orphan and the time to give up.
    pub(super) fn schedule(&mut self, key: Key, now_ns: u64, out: &mut Outbox) {
        let poll_at = self.endpoint.poll_at(now_ns);
        let orphaned = match self.holder {
            Holder::Nobody(until_ns) => Some(until_ns),
            Holder::Listener(..) | Holder::Process => None,
        };
        let polled = poll_at.map(|at| (at.total_micros().max(0) as u64) * 1000);
        let due = [polled, orphaned, self.silence.gives_up_ns(), self.reminder.due_ns()];
        let wanted = due.into_iter().flatten().min();
        // At least a microsecond ahead, smoltcp's own resolution, so that time passes between two polls.
        let wanted = wanted.map(|at_ns| at_ns.max(now_ns + 1000));
        if self.timer.map(|(at_ns, _)| at_ns) == wanted {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            out.push(Request::CancelTimer(timer));
        }
        if let Some(at_ns) = wanted {
            out.push(Request::SetTimer { connection: key, at_ns });
        }
    }

    /// Whether the peer owes an acknowledgement.
    fn is_owed(&mut self) -> bool {
        self.socket().send_queue() > 0
            || matches!(
                self.state(),
                State::SynSent | State::SynReceived | State::FinWait1 | State::LastAck | State::Closing
            )
    }

    /// Whether the connection must be reset: unread bytes without a holder, a peer that never ends, or a peer that
    /// is silent while it owes an acknowledgement.
    fn is_hopeless(&mut self, now_ns: u64) -> bool {
        let owes = self.is_owed();
        self.silence.note(now_ns, owes);
        let forlorn = match self.holder {
            Holder::Nobody(until_ns) => self.socket().recv_queue() > 0 || now_ns >= until_ns,
            Holder::Listener(..) | Holder::Process => false,
        };
        forlorn || self.silence.gives_up_ns().is_some_and(|at_ns| now_ns >= at_ns)
    }

    /// Has smoltcp go on where it has no timer running though an acknowledgement is owed: it forgot to retransmit, or the
    /// window is closed, which a keepalive probes. That repeats the byte before the first that was never sent, so it is
    /// turned off at once: nothing may be under way when another one leaves.
    fn remind(&mut self, now_ns: u64) {
        let is_forgotten = self.is_owed() && self.endpoint.poll_at(now_ns).is_none();
        if !self.reminder.note(now_ns, is_forgotten) || self.endpoint.retransmit(now_ns) {
            return;
        }
        if self.socket().send_queue() > 0 {
            self.socket().set_keep_alive(Some(PROBE));
            self.endpoint.poll(now_ns);
            self.socket().set_keep_alive(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_given_up_after_a_time_of_silence_in_which_it_owed() {
        let mut silence = Silence::default();
        assert_eq!(silence.gives_up_ns(), None);
        silence.note(10, true);
        silence.note(20, true);
        assert_eq!(silence.gives_up_ns(), Some(10 + GIVE_UP_NS));
        silence.heard_ns = 30;
        assert_eq!(silence.gives_up_ns(), Some(30 + GIVE_UP_NS));
        silence.begin_anew(40);
        assert_eq!(silence.gives_up_ns(), Some(40 + GIVE_UP_NS));
        silence.note(50, false);
        silence.begin_anew(60);
        assert_eq!(silence.gives_up_ns(), None);
    }
}
