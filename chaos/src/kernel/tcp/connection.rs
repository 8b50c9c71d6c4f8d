//! One connection: its holder, and the conditions on which it is given up.

use super::endpoint::Endpoint;
use super::outbox::{Outbox, Request};
use super::patience::Patience;
use super::rto::RetransmissionTimer;
use super::segment::Segment;
use crate::kernel::slab::Key;
use smoltcp::socket::tcp::{Socket, State};
use std::io;
use std::net::SocketAddr;
use std::task::Waker;

/// How often a SYN is sent again: Linux's `tcp_syn_retries`. The connect fails after 127 s.
const SYN_RETRIES: u32 = 6;

/// How often a SYN-ACK is sent again: Linux's `tcp_synack_retries`. The connection is forgotten after 63 s.
const SYN_ACK_RETRIES: u32 = 5;

/// How often a connection without a holder sends again, or probes a closed window: Linux's `tcp_orphan_retries`, if that is 0.
const ORPHAN_RETRIES: u32 = 8;

/// How long a connection without a holder waits for the peer's FIN: Linux's `tcp_fin_timeout`.
const FIN_WAIT_NS: u64 = 60_000_000_000;

/// The holder of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// A listener: the connection isn't accepted yet; `true` once it is in the accept queue.
    Listener(Key, bool),
    /// A process.
    Process,
    /// No holder: kept for an orderly end, until this instant if only the peer's FIN is awaited.
    Nobody(Option<u64>),
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
    pub(super) patience: Patience,
    retransmission: RetransmissionTimer,
}

impl Connection {
    pub(super) fn new(
        local: SocketAddr,
        remote: SocketAddr,
        endpoint: Endpoint,
        holder: Holder,
        patience: Patience,
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
            patience,
            retransmission: RetransmissionTimer::default(),
        }
    }

    pub(super) fn socket(&mut self) -> &mut Socket<'static> {
        self.endpoint.socket()
    }

    pub(super) fn state(&self) -> State {
        self.endpoint.state()
    }

    /// A packet has come in; the next poll handles it.
    pub(super) fn push(&mut self, now_ns: u64, packet: Vec<u8>) {
        let segment = Segment::received(&packet);
        if let Some(segment) = &segment {
            let is_progress = segment.ack.is_some_and(|ack| self.retransmission.acknowledged(now_ns, ack));
            // An answer to a probe is all that can be had of a peer whose window is closed.
            if is_progress || !self.retransmission.is_under_way() {
                self.patience.begin_anew(now_ns);
            }
        }
        self.endpoint.push(packet, segment.as_ref());
    }

    /// Handles arrived segments, sends further ones, wakes waiting tasks.
    pub(super) fn poll(&mut self, now_ns: u64, out: &mut Outbox) -> Polled {
        let before = self.state();
        self.endpoint.poll(now_ns);
        self.take_outgoing(now_ns, out);
        let owes = self.is_owed();
        self.retransmission.note(now_ns, owes);
        self.patience.note(now_ns, owes && before != State::SynSent && before != State::SynReceived);
        if self.retransmission.runs_out(now_ns) {
            self.send_again(now_ns, out);
        }
        self.await_fin(now_ns);
        if self.must_reset() {
            self.socket().abort();
            self.endpoint.poll(now_ns);
            self.take_outgoing(now_ns, out);
        } else if self.is_given_up(now_ns) {
            // Linux tells the peer nothing (`tcp_write_err`): what it would send doesn't arrive.
            self.socket().abort();
            self.endpoint.poll(now_ns);
            self.endpoint.outgoing().for_each(drop);
        }
        let state = self.state();
        if state != State::Closed {
            // The RST wasn't acceptable.
            self.reset = false;
        } else if before != State::Closed {
            self.error = match before {
                _ if self.reset && before == State::SynSent => Some(io::ErrorKind::ConnectionRefused),
                _ if self.reset => Some(io::ErrorKind::ConnectionReset),
                State::LastAck | State::Closing | State::TimeWait => None,
                _ => Some(io::ErrorKind::TimedOut),
            };
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

    /// Hands over the packets that smoltcp made. Returns whether one is more than a bare ACK.
    fn take_outgoing(&mut self, now_ns: u64, out: &mut Outbox) -> bool {
        let mut carries = false;
        for packet in self.endpoint.outgoing() {
            if let Some(segment) = Segment::sent(&packet) {
                self.retransmission.sent(now_ns, segment.begin, segment.end);
                carries |= segment.begin != segment.end;
            }
            out.push(Request::Send { local: self.local, remote: self.remote, packet });
        }
        carries
    }

    /// The timer has run out: sends again what isn't acknowledged, or probes a closed window.
    fn send_again(&mut self, now_ns: u64, out: &mut Outbox) {
        self.endpoint.retransmit();
        if self.take_outgoing(now_ns, out) {
            return;
        }
        self.endpoint.remind(now_ns);
        if self.take_outgoing(now_ns, out) || self.socket().send_queue() == 0 {
            return;
        }
        self.endpoint.probe();
        self.take_outgoing(now_ns, out);
    }

    /// Sets the timer to the first of smoltcp's next poll, the retransmission, and the times to give up.
    pub(super) fn schedule(&mut self, key: Key, now_ns: u64, out: &mut Outbox) {
        let fin_wait = match self.holder {
            Holder::Nobody(until_ns) => until_ns,
            Holder::Listener(..) | Holder::Process => None,
        };
        let polled = self.endpoint.poll_at_ns(now_ns);
        let due = [polled, fin_wait, self.patience.ends_ns(), self.retransmission.due_ns()];
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
        match self.state() {
            State::SynSent | State::SynReceived | State::FinWait1 | State::LastAck | State::Closing => true,
            // What was left when it ended stays in the buffer.
            State::Closed => false,
            _ => self.socket().send_queue() > 0,
        }
    }

    /// Without a holder, the time for the peer's FIN begins when this side's is acknowledged.
    fn await_fin(&mut self, now_ns: u64) {
        if self.holder == Holder::Nobody(None) && self.state() == State::FinWait2 {
            self.holder = Holder::Nobody(Some(now_ns + FIN_WAIT_NS));
        }
    }

    /// Whether the connection must be reset, because bytes have come in for which there is no holder (RFC 1122, 4.2.2.13).
    fn must_reset(&mut self) -> bool {
        matches!(self.holder, Holder::Nobody(_)) && self.socket().recv_queue() > 0
    }

    /// Whether this side gives the connection up: too many retries, no progress for too long, or a peer that never ends.
    fn is_given_up(&self, now_ns: u64) -> bool {
        let has_come = |at_ns: Option<u64>| at_ns.is_some_and(|at_ns| now_ns >= at_ns);
        let most_retries = match (self.state(), self.holder) {
            (State::SynSent, _) => SYN_RETRIES,
            (State::SynReceived, _) => SYN_ACK_RETRIES,
            (_, Holder::Nobody(_)) => ORPHAN_RETRIES,
            (_, Holder::Listener(..) | Holder::Process) => u32::MAX,
        };
        let awaits_fin = match self.holder {
            Holder::Nobody(until_ns) => has_come(until_ns) && self.state() == State::FinWait2,
            Holder::Listener(..) | Holder::Process => false,
        };
        self.retransmission.backoffs() > most_retries || has_come(self.patience.ends_ns()) || awaits_fin
    }
}
