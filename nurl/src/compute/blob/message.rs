//! The messages between the node that has a file and the one that fetches it.
//!
//! Each is one reliable message: `type:1 ‖ task:16 ‖ side:1 ‖ …`. A request and an answer to it are small and have the
//! priority of jobs; chunks are bulk. A GET has the numbers of the chunks (4 bytes each, LE), a CHUNK its number and its
//! bytes, a REFUSED its reason. What follows in a REFUSED or in a DONE is of a later version, and ignored.

use bytes::{BufMut, Bytes, BytesMut};

use super::manifest::MAX_CHUNK_LEN;
use crate::compute::job::{TASK_ID_LEN, TaskId};

/// The most chunks that one GET asks for: the window of a fetch, in the shortest chunks.
pub const MAX_ASKED: usize = 64;

const GET: u8 = 1;
const CHUNK: u8 = 2;
const REFUSED: u8 = 3;
const DONE: u8 = 4;

const HEADER_BYTES: usize = 1 + TASK_ID_LEN + 1;

/// Which of a task's two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The submitter has it.
    Payload = 0,
    /// The executor has it.
    Result = 1,
}

/// A file of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// The task.
    pub task: TaskId,
    /// Its payload or its result.
    pub side: Side,
}

/// Why no chunk comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such file for this peer: not yet, or no more.
    Unknown = 0,
    /// The file is no longer what it was.
    Changed = 1,
    /// The peer has asked for more chunks than a fetch needs.
    TooOften = 2,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Asks for chunks.
    Get {
        /// Of which file.
        file: FileId,
        /// Their numbers, at most [`MAX_ASKED`].
        indexes: Vec<u32>,
    },
    /// A chunk.
    Chunk {
        /// Of which file.
        file: FileId,
        /// Its number.
        index: u32,
        /// Its bytes.
        bytes: Bytes,
    },
    /// No chunks come.
    Refused {
        /// Of which file.
        file: FileId,
        /// Why.
        why: Refusal,
    },
    /// The file has been fetched: it needn't be kept.
    Done {
        /// Which file.
        file: FileId,
    },
}

/// Why bytes aren't a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Shorter or longer than its type says, or with an unknown side.
    #[error("malformed")]
    Malformed,
    /// A type of a later version.
    #[error("unknown message type {0}")]
    UnknownType(u8),
}

impl Message {
    /// The encoded message.
    pub fn encode(&self) -> Bytes {
        let begin = |kind: u8, file: &FileId, more: usize| {
            let mut out = BytesMut::with_capacity(HEADER_BYTES + more);
            out.put_u8(kind);
            out.put_slice(file.task.as_bytes());
            out.put_u8(file.side as u8);
            out
        };
        let out = match self {
            Message::Get { file, indexes } => {
                let mut out = begin(GET, file, 4 * indexes.len());
                indexes.iter().for_each(|index| out.put_u32_le(*index));
                out
            }
            Message::Chunk { file, index, bytes } => {
                let mut out = begin(CHUNK, file, 4 + bytes.len());
                out.put_u32_le(*index);
                out.put_slice(bytes);
                out
            }
            Message::Refused { file, why } => {
                let mut out = begin(REFUSED, file, 1);
                out.put_u8(*why as u8);
                out
            }
            Message::Done { file } => begin(DONE, file, 0),
        };
        out.freeze()
    }

    /// Decodes a message; a chunk's bytes are a slice of `bytes`.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(bytes: &Bytes) -> Result<Message, MessageError> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(MessageError::Malformed)?;
        let mut task = [0; TASK_ID_LEN];
        task.copy_from_slice(&header[1..1 + TASK_ID_LEN]);
        let side = match header[HEADER_BYTES - 1] {
            0 => Side::Payload,
            1 => Side::Result,
            _ => return Err(MessageError::Malformed),
        };
        let file = FileId { task: TaskId::from_bytes(task), side };
        match header[0] {
            GET => {
                let (indexes, tail) = rest.as_chunks::<4>();
                if indexes.is_empty() || indexes.len() > MAX_ASKED || !tail.is_empty() {
                    return Err(MessageError::Malformed);
                }
                Ok(Message::Get {
                    file,
                    indexes: indexes.iter().map(|index| u32::from_le_bytes(*index)).collect(),
                })
            }
            CHUNK => {
                let (index, chunk) = rest.split_first_chunk::<4>().ok_or(MessageError::Malformed)?;
                if chunk.is_empty() || chunk.len() > MAX_CHUNK_LEN {
                    return Err(MessageError::Malformed);
                }
                let index = u32::from_le_bytes(*index);
                Ok(Message::Chunk { file, index, bytes: bytes.slice(HEADER_BYTES + 4..) })
            }
            REFUSED => {
                let why = match rest.first() {
                    Some(1) => Refusal::Changed,
                    Some(2) => Refusal::TooOften,
                    // A reason of a later version may pass, like that of a file which isn't known yet.
                    Some(_) => Refusal::Unknown,
                    None => return Err(MessageError::Malformed),
                };
                Ok(Message::Refused { file, why })
            }
            DONE => Ok(Message::Done { file }),
            kind => Err(MessageError::UnknownType(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(side: Side) -> FileId {
        FileId { task: TaskId::from_bytes([7; 16]), side }
    }

    #[test]
    fn messages_read_back() {
        let messages = [
            Message::Get { file: file(Side::Payload), indexes: vec![0, 4_095] },
            Message::Chunk { file: file(Side::Result), index: 3, bytes: Bytes::from_static(b"abc") },
            Message::Refused { file: file(Side::Result), why: Refusal::Changed },
            Message::Refused { file: file(Side::Result), why: Refusal::TooOften },
            Message::Refused { file: file(Side::Payload), why: Refusal::Unknown },
            Message::Done { file: file(Side::Result) },
        ];
        for message in messages {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn what_is_over_a_limit_is_refused() {
        let get = |count: usize| Message::Get { file: file(Side::Payload), indexes: vec![1; count] }.encode();
        assert!(Message::decode(&get(MAX_ASKED)).is_ok());
        assert_eq!(Message::decode(&get(MAX_ASKED + 1)), Err(MessageError::Malformed));
        assert_eq!(Message::decode(&get(0)), Err(MessageError::Malformed));
        let chunk = |len: usize| {
            let bytes = Bytes::from(vec![0; len]);
            Message::Chunk { file: file(Side::Payload), index: 0, bytes }.encode()
        };
        assert!(Message::decode(&chunk(MAX_CHUNK_LEN)).is_ok());
        assert_eq!(Message::decode(&chunk(MAX_CHUNK_LEN + 1)), Err(MessageError::Malformed));
        assert_eq!(Message::decode(&chunk(0)), Err(MessageError::Malformed));
        let mut later = get(1).to_vec();
        later[0] = 9;
        assert_eq!(Message::decode(&later.clone().into()), Err(MessageError::UnknownType(9)));
        later[17] = 2;
        assert_eq!(Message::decode(&later.into()), Err(MessageError::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(message) = Message::decode(&bytes.into()) {
                prop_assert!(Message::decode(&message.encode()).is_ok());
            }
        }
    }
}
