//! Messages to one peer, from acceptance to the peer's acknowledgement.
//!
//! Each priority has its own budget, its own share of streams and its own queue, so lower traffic
//! delays a higher message by at most the packet being sent.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quinn_proto::{Connection, Dir, StreamId, WriteError};

use super::limits::CLASS_STREAMS;
use super::wire::{HEADER_BYTES, header};
use super::{MessageId, Priority, ReliableConfig};

const CLASSES: usize = CLASS_STREAMS.len();

struct Waiting {
    id: MessageId,
    kind: u8,
    body: Bytes,
}

/// A message that has a stream.
struct Sending {
    id: MessageId,
    class: usize,
    length: usize,
    /// Header and body bytes that QUIC hasn't accepted yet, emptied from the front.
    rest: [Bytes; 2],
}

/// One priority's share.
#[derive(Default)]
struct Class {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    messages: usize,
    streams: usize,
}

/// A message that left the outbox.
pub(super) struct Gone {
    pub(super) id: MessageId,
    pub(super) length: usize,
}

#[derive(Default)]
pub(super) struct Outbox {
    classes: [Class; CLASSES],
    sending: BTreeMap<StreamId, Sending>,
}

impl Outbox {
    /// Whether a body of this length fits the peer's budget.
    pub(super) fn fits(&self, priority: Priority, length: usize, config: &ReliableConfig) -> bool {
        let class = &self.classes[priority.index()];
        class.messages == 0
            || (class.messages < config.class_messages
                && class.bytes.saturating_add(length) <= config.class_budget_bytes)
    }

    pub(super) fn push(&mut self, id: MessageId, priority: Priority, kind: u8, body: Bytes) {
        let class = &mut self.classes[priority.index()];
        class.bytes += body.len();
        class.messages += 1;
        class.waiting.push_back(Waiting { id, kind, body });
    }

    /// Whether no message waits or is unacknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.classes.iter().all(|class| class.messages == 0)
    }

    /// Bytes waiting or unacknowledged.
    pub(super) fn bytes(&self) -> usize {
        self.classes.iter().map(|class| class.bytes).sum()
    }

    /// Opens streams for waiting messages, highest priority first. With a `limit`, messages under way have together at most
    /// so many bytes; a longer one waits until there is none.
    pub(super) fn pump(&mut self, conn: &mut Connection, limit: Option<usize>) {
        let mut room = limit.map(|limit| {
            limit.saturating_sub(self.sending.values().map(|message| message.length + HEADER_BYTES).sum())
        });
        for (index, &streams) in CLASS_STREAMS.iter().enumerate() {
            while self.classes[index].streams < streams {
                let Some(next) = self.classes[index].waiting.front() else { break };
                if let Some(room) = &mut room {
                    match room.checked_sub(next.body.len() + HEADER_BYTES) {
                        Some(rest) => *room = rest,
                        None => return,
                    }
                }
                let Some(stream) = conn.streams().open(Dir::Uni) else { return };
                let class = &mut self.classes[index];
                let Some(Waiting { id, kind, body }) = class.waiting.pop_front() else { return };
                class.streams += 1;
                // quinn sends the greater number first; the order of `Priority` is the other way round.
                let rank = i32::try_from(CLASSES - index).expect("a handful of classes");
                let _ = conn.send_stream(stream).set_priority(rank);
                let length = body.len();
                let rest = [Bytes::copy_from_slice(&header(kind, length)), body];
                self.sending.insert(stream, Sending { id, class: index, length, rest });
                self.write(conn, stream);
            }
        }
    }

    /// Passes as much of a message to QUIC as it accepts. Returns `true` if the peer refuses the stream.
    pub(super) fn write(&mut self, conn: &mut Connection, stream: StreamId) -> bool {
        let Some(sending) = self.sending.get_mut(&stream) else { return false };
        let mut out = conn.send_stream(stream);
        while sending.rest.iter().any(|part| !part.is_empty()) {
            match out.write_chunks(&mut sending.rest) {
                Ok(_) => {}
                Err(WriteError::Blocked) => return false,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return true,
            }
        }
        // A second `finish`, after a repeated Writable, is an error without effect.
        let _ = out.finish();
        false
    }

    /// Removes the message of a stream that was acknowledged or given up.
    pub(super) fn remove(&mut self, stream: StreamId) -> Option<Gone> {
        let Sending { id, class, length, .. } = self.sending.remove(&stream)?;
        let class = &mut self.classes[class];
        class.streams -= 1;
        class.messages -= 1;
        class.bytes -= length;
        Some(Gone { id, length })
    }

    /// Removes every message, in the order in which they were accepted.
    pub(super) fn take_all(&mut self) -> Vec<Gone> {
        let Outbox { classes, sending } = std::mem::take(self);
        let mut all: Vec<Gone> = sending
            .into_values()
            .map(|message| Gone { id: message.id, length: message.length })
            .chain(
                classes
                    .into_iter()
                    .flat_map(|class| class.waiting)
                    .map(|message| Gone { id: message.id, length: message.body.len() }),
            )
            .collect();
        all.sort_by_key(|message| message.id);
        all
    }

    /// Removes the messages that have a stream; the others wait for the next connection.
    pub(super) fn take_sending(&mut self) -> Vec<Gone> {
        let streams: Vec<StreamId> = self.sending.keys().copied().collect();
        let mut gone: Vec<Gone> = streams.into_iter().filter_map(|stream| self.remove(stream)).collect();
        gone.sort_by_key(|message| message.id);
        gone
    }
}
