//! Received messages of one connection, until they are complete.
//!
//! A message's buffer grows with the received bytes and never has the announced length in advance: a peer uses
//! memory only with the bytes that it sends, not with those that it announces. A message of one chunk is passed on
//! without a copy. Bytes beyond a gap are kept here too, and counted.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quinn_proto::{Connection, ReadError, StreamId};

use super::limits::{MAX_INCOMPLETE_BYTES, MAX_MESSAGE_BYTES, PART_OVERHEAD_BYTES};
use super::wire::{HEADER_BYTES, parse_header};

/// A protocol violation, which no honest peer commits. The connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    /// It announced a message above [`MAX_MESSAGE_BYTES`].
    TooLong,
    /// A stream carried more bytes than announced, or ended early.
    WrongLength,
    /// Its incomplete messages announce or occupy more than [`MAX_INCOMPLETE_BYTES`].
    TooMuch,
}

/// What reading a stream came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A message is complete: its kind and its body.
    Message(u8, Bytes),
    /// Nothing is left to be read now.
    Nothing,
    /// There was no room for more.
    More,
}

/// An incomplete message.
#[derive(Default)]
struct Incoming {
    header: [u8; HEADER_BYTES],
    header_len: usize,
    /// The body's start, up to the first gap. Its capacity grows with it, to at most twice its length.
    body: Vec<u8>,
    /// The body, if it arrived as one chunk.
    whole: Option<Bytes>,
    received: usize,
    /// Bytes beyond a gap, by their offset in the stream. They are copied, so that a small chunk never keeps its
    /// datagram alive; QUIC returns each byte once, so they don't overlap.
    parts: BTreeMap<u64, Vec<u8>>,
    part_bytes: usize,
    /// The end of the furthest byte received, as an offset in the stream.
    end: u64,
}

impl Incoming {
    /// The announced length, once the header has arrived.
    fn length(&self) -> Option<usize> {
        (self.header_len == HEADER_BYTES).then(|| parse_header(&self.header).1)
    }

    /// The announced length, or, without the header, the length known so far.
    fn announced(&self) -> usize {
        self.length().unwrap_or_else(|| usize::try_from(self.end).unwrap_or(usize::MAX))
    }

    /// The bytes that it occupies here.
    fn held(&self) -> usize {
        self.received + self.part_bytes + self.parts.len() * PART_OVERHEAD_BYTES
    }

    /// Takes bytes at any offset of the stream.
    fn take(&mut self, offset: u64, chunk: Bytes) -> Result<(), Violation> {
        self.end = self.end.max(offset + chunk.len() as u64);
        if offset == next(self.header_len, self.received) {
            self.push(chunk)?;
            while let Some(part) = self.parts.first_entry()
                && *part.key() == next(self.header_len, self.received)
            {
                let part = part.remove();
                self.part_bytes -= part.len();
                self.push(Bytes::from(part))?;
            }
        } else {
            self.part_bytes += chunk.len();
            self.parts.insert(offset, chunk.to_vec());
        }
        let bound = HEADER_BYTES + self.length().unwrap_or(MAX_MESSAGE_BYTES);
        if self.end > bound as u64 {
            return Err(if self.length().is_some() { Violation::WrongLength } else { Violation::TooLong });
        }
        Ok(())
    }

    /// Takes the next bytes of the contiguous part.
    fn push(&mut self, mut chunk: Bytes) -> Result<(), Violation> {
        let take = chunk.len().min(HEADER_BYTES - self.header_len);
        self.header[self.header_len..self.header_len + take].copy_from_slice(&chunk.split_to(take));
        self.header_len += take;
        let Some(length) = self.length() else { return Ok(()) };
        if length > MAX_MESSAGE_BYTES {
            return Err(Violation::TooLong);
        }
        if chunk.len() > length - self.received {
            return Err(Violation::WrongLength);
        }
        self.received += chunk.len();
        if chunk.len() == length {
            self.whole = Some(chunk);
            return Ok(());
        }
        let wanted = self.body.len() + chunk.len();
        if wanted > self.body.capacity() {
            // Doubling, but never beyond the announced length: the body is passed on as it is.
            let capacity = wanted.max(2 * self.body.len()).min(length);
            self.body.reserve_exact(capacity - self.body.len());
        }
        self.body.extend_from_slice(&chunk);
        Ok(())
    }

    fn finish(self) -> Result<(u8, Bytes), Violation> {
        if self.length() != Some(self.received) {
            return Err(Violation::WrongLength);
        }
        let kind = parse_header(&self.header).0;
        Ok((kind, self.whole.unwrap_or_else(|| Bytes::from(self.body))))
    }
}

/// The end of the contiguous part, as an offset in the stream.
fn next(header_len: usize, received: usize) -> u64 {
    (header_len + received) as u64
}

/// The incomplete messages of one connection.
#[derive(Default)]
pub(super) struct Inbox {
    streams: BTreeMap<StreamId, Incoming>,
    /// The sum of the announced lengths.
    announced: usize,
    /// The sum of the occupied bytes.
    held: usize,
    /// All bytes that have arrived, ever.
    arrived: u64,
    /// Streams with unread data while reading is paused.
    pub(super) unread: BTreeSet<StreamId>,
}

impl Inbox {
    /// Bytes occupied by incomplete messages.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// All bytes that have arrived, of complete messages too.
    pub(super) fn arrived(&self) -> u64 {
        self.arrived
    }

    /// Reads up to `room` bytes of a stream, in any order. What is left stays in QUIC's buffers, which its window bounds.
    pub(super) fn read(
        &mut self,
        conn: &mut Connection,
        id: StreamId,
        mut room: usize,
    ) -> Result<Outcome, Violation> {
        self.unread.remove(&id);
        let mut stream = conn.recv_stream(id);
        let mut incoming = self.remove(id);
        let Ok(mut chunks) = stream.read(false) else { return Ok(Outcome::Nothing) };
        let outcome = loop {
            if room == 0 {
                break Some(Outcome::More);
            }
            match chunks.next(room) {
                Ok(Some(chunk)) => {
                    self.arrived += chunk.bytes.len() as u64;
                    room = room.saturating_sub(chunk.bytes.len());
                    incoming.take(chunk.offset, chunk.bytes)?;
                }
                Ok(None) => break None,
                Err(ReadError::Blocked) => break Some(Outcome::Nothing),
                Err(ReadError::Reset(_)) => return Ok(Outcome::Nothing),
            }
        };
        let _ = chunks.finalize();
        let Some(outcome) = outcome else {
            return incoming.finish().map(|(kind, body)| Outcome::Message(kind, body));
        };
        self.keep(id, incoming);
        let too_much = self.announced.max(self.held) > MAX_INCOMPLETE_BYTES;
        if too_much { Err(Violation::TooMuch) } else { Ok(outcome) }
    }

    fn keep(&mut self, id: StreamId, incoming: Incoming) {
        self.announced += incoming.announced();
        self.held += incoming.held();
        self.streams.insert(id, incoming);
    }

    /// Removes a stream's message, or creates one.
    fn remove(&mut self, id: StreamId) -> Incoming {
        let incoming = self.streams.remove(&id).unwrap_or_default();
        self.announced -= incoming.announced();
        self.held -= incoming.held();
        incoming
    }
}

#[cfg(test)]
impl Inbox {
    /// Takes one byte of a stream, as if QUIC had returned it.
    pub(super) fn insert(&mut self, id: StreamId, offset: u64) {
        let mut incoming = self.remove(id);
        incoming.take(offset, Bytes::from_static(b"x")).expect("within bounds");
        self.keep(id, incoming);
    }
}
