//! Received messages of one connection, until they are complete.
//!
//! A message's buffer grows with what has arrived and is never of the announced length before: what a peer
//! announces costs nothing, only what it sends does. A message of one chunk is handed on without a copy. Bytes
//! beyond a gap are kept here too, and counted.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quinn_proto::{Connection, ReadError, StreamId};

use super::limits::{MAX_INCOMPLETE_BYTES, MAX_MESSAGE_BYTES, PART_OVERHEAD_BYTES};
use super::wire::{HEADER_BYTES, parse_header};

/// What a peer did that no honest one does. The connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    /// It announced a message above [`MAX_MESSAGE_BYTES`].
    TooLong,
    /// A stream carried more than it announced, or ended early.
    WrongLength,
    /// Its incomplete messages announce or occupy more than [`MAX_INCOMPLETE_BYTES`].
    TooMuch,
}

/// One message on its way in.
#[derive(Default)]
struct Incoming {
    header: [u8; HEADER_BYTES],
    header_len: usize,
    /// The body's beginning, as far as it came without a gap; its capacity grows with it and is never more than
    /// twice that.
    body: Vec<u8>,
    /// The body, if it came as one chunk.
    whole: Option<Bytes>,
    received: usize,
    /// What came beyond a gap, by its offset in the stream. Copies, so that a small chunk never keeps its datagram
    /// alive; QUIC hands out each byte once, so they don't overlap.
    parts: BTreeMap<u64, Vec<u8>>,
    part_bytes: usize,
    /// The end of the furthest byte that came, as an offset in the stream.
    end: u64,
}

impl Incoming {
    /// The announced length, once the header is here.
    fn length(&self) -> Option<usize> {
        (self.header_len == HEADER_BYTES).then(|| parse_header(&self.header).1)
    }

    /// What the message announces: its length, or, without its header, as much as is certain.
    fn announced(&self) -> usize {
        self.length().unwrap_or_else(|| usize::try_from(self.end).unwrap_or(usize::MAX))
    }

    /// What it occupies here.
    fn held(&self) -> usize {
        self.received + self.part_bytes + self.parts.len() * PART_OVERHEAD_BYTES
    }

    /// Takes bytes from anywhere in the stream.
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

    /// Takes the next bytes of the part without a gap.
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
            // Doubling, but not beyond the announced end: the body is handed on as it is.
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

/// Where the part without a gap ends, as an offset in the stream.
fn next(header_len: usize, received: usize) -> u64 {
    (header_len + received) as u64
}

/// The incomplete messages of one connection.
#[derive(Default)]
pub(super) struct Inbox {
    streams: BTreeMap<StreamId, Incoming>,
    /// The sum of what the messages announce.
    announced: usize,
    /// The sum of what they occupy.
    held: usize,
    /// Streams that have something to read, while reading is paused.
    pub(super) unread: BTreeSet<StreamId>,
}

impl Inbox {
    /// What incomplete messages occupy, in bytes.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Reads what a stream has, in whatever order it came: nothing is left to QUIC, whose buffers nobody counts.
    /// A message that became complete is returned.
    pub(super) fn read(
        &mut self,
        conn: &mut Connection,
        id: StreamId,
    ) -> Result<Option<(u8, Bytes)>, Violation> {
        self.unread.remove(&id);
        let mut stream = conn.recv_stream(id);
        let mut incoming = self.remove(id);
        let Ok(mut chunks) = stream.read(false) else { return Ok(None) };
        let outcome = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => incoming.take(chunk.offset, chunk.bytes)?,
                Ok(None) => break Some(true),
                Err(ReadError::Blocked) => break None,
                Err(ReadError::Reset(_)) => break Some(false),
            }
        };
        let _ = chunks.finalize();
        match outcome {
            Some(true) => incoming.finish().map(Some),
            Some(false) => Ok(None),
            None => {
                self.keep(id, incoming);
                let too_much = self.announced.max(self.held) > MAX_INCOMPLETE_BYTES;
                if too_much { Err(Violation::TooMuch) } else { Ok(None) }
            }
        }
    }

    fn keep(&mut self, id: StreamId, incoming: Incoming) {
        self.announced += incoming.announced();
        self.held += incoming.held();
        self.streams.insert(id, incoming);
    }

    /// Takes a stream's message out, or a new one.
    fn remove(&mut self, id: StreamId) -> Incoming {
        let incoming = self.streams.remove(&id).unwrap_or_default();
        self.announced -= incoming.announced();
        self.held -= incoming.held();
        incoming
    }
}

#[cfg(test)]
impl Inbox {
    /// Takes one byte of a stream, as if QUIC had handed it out.
    pub(super) fn insert(&mut self, id: StreamId, offset: u64) {
        let mut incoming = self.remove(id);
        incoming.take(offset, Bytes::from_static(b"x")).expect("within bounds");
        self.keep(id, incoming);
    }
}
