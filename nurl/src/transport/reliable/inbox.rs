//! Received messages of one connection, until they are complete.
//!
//! A message's buffer grows with what has arrived and is never of the announced length before: what a peer
//! announces costs nothing, only what it sends does. A message of one chunk is handed on without a copy.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quinn_proto::{Connection, ReadError, StreamId};

use super::limits::{MAX_INCOMPLETE_BYTES, MAX_MESSAGE_BYTES};
use super::wire::{HEADER_BYTES, parse_header};

/// What a peer did that no honest one does. The connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    /// It announced a message above [`MAX_MESSAGE_BYTES`].
    TooLong,
    /// A stream carried more than it announced, or ended early.
    WrongLength,
    /// Its incomplete messages announce more than [`MAX_INCOMPLETE_BYTES`].
    TooMuch,
}

/// One message on its way in.
#[derive(Default)]
struct Incoming {
    header: [u8; HEADER_BYTES],
    header_len: usize,
    /// What has arrived; its capacity grows with it and is never more than twice that.
    body: Vec<u8>,
    /// The body, if it came as one chunk.
    whole: Option<Bytes>,
    received: usize,
    /// Whether its length is in the inbox's `announced`.
    counted: bool,
}

impl Incoming {
    /// The announced length, once the header is here.
    fn length(&self) -> Option<usize> {
        (self.header_len == HEADER_BYTES).then(|| parse_header(&self.header).1)
    }

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

/// The incomplete messages of one connection.
#[derive(Default)]
pub(super) struct Inbox {
    streams: BTreeMap<StreamId, Incoming>,
    /// The sum of the announced lengths.
    announced: usize,
    /// The sum of the received bytes.
    held: usize,
    /// Streams that have something to read, while reading is paused.
    pub(super) unread: BTreeSet<StreamId>,
}

impl Inbox {
    /// Bytes of incomplete messages.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Reads what a stream has. A message that became complete is returned.
    pub(super) fn read(
        &mut self,
        conn: &mut Connection,
        id: StreamId,
    ) -> Result<Option<(u8, Bytes)>, Violation> {
        self.unread.remove(&id);
        let mut stream = conn.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else {
            self.drop_stream(id);
            return Ok(None);
        };
        let mut incoming = self.streams.remove(&id).unwrap_or_default();
        let before = incoming.received;
        let outcome = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => incoming.push(chunk.bytes)?,
                Ok(None) => break Some(true),
                Err(ReadError::Blocked) => break None,
                Err(ReadError::Reset(_)) => break Some(false),
            }
        };
        let _ = chunks.finalize();
        match outcome {
            Some(whole) => {
                if incoming.counted {
                    self.announced -= incoming.length().unwrap_or(0);
                    self.held -= before;
                }
                if whole { incoming.finish().map(Some) } else { Ok(None) }
            }
            None => {
                if !incoming.counted
                    && let Some(length) = incoming.length()
                {
                    incoming.counted = true;
                    self.announced += length;
                    self.held += incoming.received;
                } else if incoming.counted {
                    self.held += incoming.received - before;
                }
                self.streams.insert(id, incoming);
                if self.announced > MAX_INCOMPLETE_BYTES { Err(Violation::TooMuch) } else { Ok(None) }
            }
        }
    }

    fn drop_stream(&mut self, id: StreamId) {
        if let Some(incoming) = self.streams.remove(&id)
            && incoming.counted
        {
            self.announced -= incoming.length().unwrap_or(0);
            self.held -= incoming.received;
        }
    }
}
