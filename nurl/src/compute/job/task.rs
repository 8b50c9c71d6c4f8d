//! A task's id and its priority.

use std::fmt;
use std::str::FromStr;

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Write};
use minicbor::{Decode, Encode};
use rand_core::Rng as _;

use super::wire::Encoded;
use crate::rt::Rng;

/// The length of a task id in bytes.
pub const TASK_ID_LEN: usize = 16;

/// A task: 128 random bits, drawn once by the submitter and the same on every retry.
///
/// The id is also the capability to send messages about the task: only nodes that received the submit, its outcome or
/// a question about it know the id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct TaskId(#[cbor(n(0), with = "minicbor::bytes")] [u8; TASK_ID_LEN]);

impl TaskId {
    /// Draws an id.
    pub fn random(rng: &mut Rng) -> TaskId {
        let mut bytes = [0; TASK_ID_LEN];
        rng.fill_bytes(&mut bytes);
        TaskId(bytes)
    }

    /// A task id of these 16 bytes.
    pub const fn from_bytes(bytes: [u8; TASK_ID_LEN]) -> TaskId {
        TaskId(bytes)
    }

    /// The id's 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; TASK_ID_LEN] {
        &self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The text is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task id is 32 hexadecimal digits")]
pub struct NotATaskId;

impl FromStr for TaskId {
    type Err = NotATaskId;

    fn from_str(text: &str) -> Result<TaskId, NotATaskId> {
        let digits = text.as_bytes();
        if digits.len() != 2 * TASK_ID_LEN {
            return Err(NotATaskId);
        }
        let mut bytes = [0; TASK_ID_LEN];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let high = (pair[0] as char).to_digit(16).ok_or(NotATaskId)?;
            let low = (pair[1] as char).to_digit(16).ok_or(NotATaskId)?;
            *byte = (high << 4 | low) as u8;
        }
        Ok(TaskId(bytes))
    }
}

/// The order in which the waiting tasks of one pass start at an executor. One that has waited for a minute counts as one of
/// the next higher priority. The variants are declared in ascending order, which is their
/// `Ord`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Work that may wait for all other work, for two minutes.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before the rest of the queue. It never displaces a running task.
    High,
}

impl Priority {
    /// The priority's number on the wire.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// A number of a later version counts as the highest that this version knows.
    pub const fn from_wire(number: u8) -> Priority {
        match number {
            0 => Priority::Low,
            1 => Priority::Normal,
            _ => Priority::High,
        }
    }
}

impl<C> Encode<C> for Priority {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        e.u8(self.to_wire())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Priority {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Priority, DecodeError> {
        d.u8().map(Priority::from_wire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_text() {
        let id = TaskId::from_bytes(*b"0123456789abcdef");
        assert_eq!(id.to_string(), "30313233343536373839616263646566");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("3031".parse::<TaskId>(), Err(NotATaskId));
        assert_eq!("zz313233343536373839616263646566".parse::<TaskId>(), Err(NotATaskId));
    }
}
