//! What this node sends: the application's datagrams, and the reliable messages of all layers.

use std::time::Instant;

use bytes::Bytes;

use super::outgoing::{Loss, Message, Outgoing, Refusal};
use super::outlets::Outlets;
use crate::compute::job::Submitter;
use crate::error::Error;
use crate::key::PublicKey;
use crate::membership::{self, Detector, Via};
use crate::node::command::Reply;
use crate::transport::core::Sent;
use crate::transport::reliable::{FailReason, ReliableEvent, SendError};
use crate::transport::{MessageId, Priority, Transport, channel, kind};

/// The reply to a caller that sent a message.
pub(super) type Answer = Reply<Result<(), Error>>;

/// The parts of the plane between which messages pass.
pub(super) struct Ends<'a> {
    pub(super) transport: &'a mut Transport,
    pub(super) detector: &'a mut Detector,
    pub(super) outlets: &'a mut Outlets,
}

impl Ends<'_> {
    /// Hands over a message of the membership protocol, with what its sender may say in it.
    pub(super) fn membership(&mut self, now: Instant, from: PublicKey, via: Via, body: &[u8]) {
        if self.transport.level(&from).may_be_member() {
            self.detector.handle_message(now, from, via, body);
        } else {
            self.detector.handle_message_of_observer(now, from, via, body);
        }
    }
}

/// The messages on their way out.
pub(super) struct Mail {
    outgoing: Outgoing<Answer>,
    /// Application datagrams that could not be sent.
    pub(super) refused_datagrams: u64,
    /// Messages of jobs and state from peers whose pass permits only to look.
    pub(super) beyond_level: u64,
}

impl Mail {
    pub(super) fn new() -> Mail {
        Mail { outgoing: Outgoing::new(), refused_datagrams: 0, beyond_level: 0 }
    }

    /// Reliable messages lost because too many waited.
    pub(super) fn given_up(&self) -> u64 {
        self.outgoing.given_up
    }

    /// Reliable messages that wait for room.
    pub(super) fn waiting(&self) -> usize {
        self.outgoing.waiting()
    }

    /// Sends the application's datagrams.
    pub(super) fn send_datagrams(
        &mut self,
        now: Instant,
        to: PublicKey,
        bodies: &[Bytes],
        transport: &mut Transport,
    ) {
        for body in bodies {
            if transport.send(now, to, channel::APPLICATION, body).is_err() {
                self.refused_datagrams += 1;
            }
        }
    }

    /// Sends a reliable message now, or later when the peer's budget has room.
    pub(super) fn send(&mut self, now: Instant, message: Message<Answer>, ends: &mut Ends<'_>) {
        let lost = self.outgoing.send(message, |message| carry(now, ends.transport, message));
        self.tell(now, lost, ends);
    }

    /// Sends a message of the detector. One that can't be sent is lost, not deferred: the next probe says more.
    pub(super) fn send_membership(&mut self, now: Instant, out: &membership::Transmit, ends: &mut Ends<'_>) {
        match out.via {
            Via::Datagram => {
                // If the transport refuses the send, the probe fails.
                if let Ok(Sent::Waiting) = ends.transport.send(now, out.to, channel::MEMBERSHIP, &out.body) {
                    ends.detector.on_session_pending(now, out.to);
                }
            }
            Via::Reliable => {
                let body = Bytes::copy_from_slice(&out.body);
                match ends.transport.send_message(now, out.to, Priority::Control, kind::MEMBERSHIP, body) {
                    Ok(id) => self.outgoing.sent(out.to, id, kind::MEMBERSHIP),
                    Err(_) => ends.detector.on_message_lost(now, out.to),
                }
            }
        }
    }

    /// Handles an event of the reliable messages.
    pub(super) fn on_event(&mut self, now: Instant, event: ReliableEvent, ends: &mut Ends<'_>) {
        match event {
            ReliableEvent::Message { peer, kind: kind::MEMBERSHIP, body } => {
                ends.membership(now, peer, Via::Reliable, &body);
            }
            ReliableEvent::Message { peer, kind: kind::APPLICATION, body } => {
                ends.outlets.message(peer, body)
            }
            ReliableEvent::Message { peer, kind, body } => {
                if ends.transport.level(&peer).may_submit() {
                    let from = Submitter::new(peer, ends.transport.standing(&peer).cloned());
                    ends.outlets.work_message(from, kind, body);
                } else {
                    self.beyond_level += 1;
                }
            }
            ReliableEvent::Acked { peer, id } => {
                if let Some(reply) = self.outgoing.acked(peer, id) {
                    let _ = reply.send(Ok(()));
                }
            }
            ReliableEvent::Failed { peer, id, reason } => self.on_failed(now, peer, id, reason, ends),
            ReliableEvent::Writable { peer } => {
                let lost = self.outgoing.retry(peer, |message| carry(now, ends.transport, message));
                self.tell(now, lost, ends);
            }
        }
    }

    /// The transport has forgotten a peer.
    pub(super) fn on_forgotten(&mut self, now: Instant, peer: PublicKey, ends: &mut Ends<'_>) {
        let lost = self.outgoing.forget(peer);
        self.tell(now, lost, ends);
    }

    fn on_failed(
        &mut self,
        now: Instant,
        peer: PublicKey,
        id: MessageId,
        reason: FailReason,
        ends: &mut Ends<'_>,
    ) {
        let lost = self.outgoing.failed(peer, id, reason);
        self.tell(now, lost, ends);
    }

    fn tell(&self, now: Instant, losses: impl IntoIterator<Item = Loss<Answer>>, ends: &mut Ends<'_>) {
        for loss in losses {
            match loss {
                Loss::Caller { reply, error } => {
                    // An error means that the caller gave up.
                    let _ = reply.send(Err(error));
                }
                Loss::Work { peer } => ends.outlets.send_failed(peer),
                Loss::Membership { peer } => ends.detector.on_message_lost(now, peer),
            }
        }
    }
}

/// Gives a message to the transport.
fn carry(now: Instant, transport: &mut Transport, message: &Message<Answer>) -> Result<MessageId, Refusal> {
    let Message { to, priority, kind, body, .. } = message;
    transport.connect(now, *to).map_err(|error| Refusal::Failed(error.into()))?;
    transport.send_message(now, *to, *priority, *kind, body.clone()).map_err(|error| match error {
        SendError::Full { .. } => Refusal::Full,
        error => Refusal::Failed(error.into()),
    })
}
