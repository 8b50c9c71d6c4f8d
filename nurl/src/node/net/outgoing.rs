//! Reliable messages from their senders to the transport: those that wait for room, and those under way.
//!
//! A peer's budget in the transport may be full. A message then waits here, behind earlier ones of its kind to the
//! same peer, until the transport reports room. Each message has one end: an acknowledgement, or a [`Loss`] that names
//! whom to tell. Pure: the caller passes in the transport's `send`, and acts on the losses.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::Error;
use crate::key::PublicKey;
use crate::kit::fifo::Fifo;
use crate::transport::reliable::{FailReason, SendError};
use crate::transport::{MessageId, Priority, kind};

/// Messages that wait for room, over all peers; further ones fail, and their senders are told.
pub(super) const DEFERRED: usize = 4_096;

/// A message to be sent, with the reply to its caller if a caller waits.
#[derive(Debug)]
pub(super) struct Message<R> {
    pub(super) to: PublicKey,
    pub(super) priority: Priority,
    pub(super) kind: u8,
    pub(super) body: Bytes,
    pub(super) reply: Option<R>,
}

/// The transport's refusal of a message.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The peer's budget is used up: there will be room again.
    Full,
    /// The peer can't be sent this message.
    Failed(Error),
}

/// A message that won't be acknowledged, by whom to tell.
#[derive(Debug)]
pub(super) enum Loss<R> {
    /// The call that sent it.
    Caller { reply: R, error: Error },
    /// Jobs and replicated state.
    Work { peer: PublicKey },
    /// The failure detector.
    Membership { peer: PublicKey },
}

/// A message that the transport has accepted.
#[derive(Debug)]
struct UnderWay<R> {
    kind: u8,
    reply: Option<R>,
}

/// The messages of one node.
#[derive(Debug)]
pub(super) struct Outgoing<R> {
    under_way: BTreeMap<(PublicKey, MessageId), UnderWay<R>>,
    deferred: Fifo<PublicKey, Message<R>>,
    /// Messages lost because too many waited.
    pub(super) given_up: u64,
}

impl<R> Outgoing<R> {
    pub(super) fn new() -> Outgoing<R> {
        Outgoing { under_way: BTreeMap::new(), deferred: Fifo::new(DEFERRED), given_up: 0 }
    }

    /// Messages that wait for room.
    pub(super) fn waiting(&self) -> usize {
        self.deferred.total()
    }

    /// Sends a message now, or keeps it until the peer's budget has room.
    pub(super) fn send(
        &mut self,
        message: Message<R>,
        mut carry: impl FnMut(&Message<R>) -> Result<MessageId, Refusal>,
    ) -> Option<Loss<R>> {
        // From the back, because a flood of one kind is the long queue.
        let waits = self.deferred.queue(&message.to).rev().any(|other| other.kind == message.kind);
        if waits {
            return self.defer(message);
        }
        match self.attempt(message, &mut carry) {
            Attempt::Sent => None,
            Attempt::Full(message) => self.defer(message),
            Attempt::Lost(loss) => loss,
        }
    }

    /// The peer's budget has room: sends what waits for it, as far as it fits.
    pub(super) fn retry(
        &mut self,
        peer: PublicKey,
        mut carry: impl FnMut(&Message<R>) -> Result<MessageId, Refusal>,
    ) -> Vec<Loss<R>> {
        let mut lost = Vec::new();
        for message in self.deferred.take(&peer) {
            match self.attempt(message, &mut carry) {
                Attempt::Sent => {}
                Attempt::Full(message) => lost.extend(self.defer(message)),
                Attempt::Lost(loss) => lost.extend(loss),
            }
        }
        lost
    }

    /// Fails what waits for a peer: the transport has forgotten the peer, so it never reports room for it.
    pub(super) fn forget(&mut self, peer: PublicKey) -> Vec<Loss<R>> {
        let waiting = self.deferred.take(&peer).into_iter();
        waiting.filter_map(|message| message.lost(Error::MessageLost(FailReason::Forgotten))).collect()
    }

    /// Notes a message that was given to the transport directly and has no caller.
    pub(super) fn sent(&mut self, to: PublicKey, id: MessageId, kind: u8) {
        self.under_way.insert((to, id), UnderWay { kind, reply: None });
    }

    /// A message was acknowledged. Returns the caller's reply.
    pub(super) fn acked(&mut self, peer: PublicKey, id: MessageId) -> Option<R> {
        self.under_way.remove(&(peer, id))?.reply
    }

    /// A message was given up by the transport.
    pub(super) fn failed(&mut self, peer: PublicKey, id: MessageId, reason: FailReason) -> Option<Loss<R>> {
        let UnderWay { kind, reply } = self.under_way.remove(&(peer, id))?;
        loss(peer, kind, reply, Error::MessageLost(reason))
    }

    fn attempt(
        &mut self,
        message: Message<R>,
        carry: &mut impl FnMut(&Message<R>) -> Result<MessageId, Refusal>,
    ) -> Attempt<R> {
        match carry(&message) {
            Ok(id) => {
                let Message { to, kind, reply, .. } = message;
                self.under_way.insert((to, id), UnderWay { kind, reply });
                Attempt::Sent
            }
            Err(Refusal::Full) => Attempt::Full(message),
            Err(Refusal::Failed(error)) => Attempt::Lost(message.lost(error)),
        }
    }

    fn defer(&mut self, message: Message<R>) -> Option<Loss<R>> {
        let message = self.deferred.push(message.to, message).err()?;
        self.given_up += 1;
        let error = SendError::Full { queued_bytes: message.body.len() };
        message.lost(error.into())
    }
}

enum Attempt<R> {
    Sent,
    Full(Message<R>),
    Lost(Option<Loss<R>>),
}

impl<R> Message<R> {
    fn lost(self, error: Error) -> Option<Loss<R>> {
        loss(self.to, self.kind, self.reply, error)
    }
}

fn loss<R>(peer: PublicKey, kind: u8, reply: Option<R>, error: Error) -> Option<Loss<R>> {
    match reply {
        Some(reply) => Some(Loss::Caller { reply, error }),
        None if matches!(kind, kind::JOB | kind::STATE) => Some(Loss::Work { peer }),
        None if kind == kind::MEMBERSHIP => Some(Loss::Membership { peer }),
        None => None,
    }
}

#[cfg(test)]
mod tests;
