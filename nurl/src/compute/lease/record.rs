//! The bytes of the lease table.
//!
//! A task's name is `key length:2 (big-endian) ‖ key ‖ task:16`; its record is
//! `status:1 ‖ expires_ms:8 (little-endian) ‖ token:40 ‖ outcome`.

use super::{Outcome, TaskId};
use crate::ring::{EPOCH_LEN, Epoch};
use crate::store::StoreError;

/// The progress of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    InProgress = 0,
    Done = 1,
    Unknown = 2,
}

/// A task without its outcome's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) status: Status,
    /// Milliseconds on the resource's clock.
    pub(super) expires_ms: u64,
    pub(super) token: Epoch,
}

const HEADER_BYTES: usize = 9 + EPOCH_LEN;

impl Task {
    pub(super) fn encode(&self, outcome: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + outcome.len());
        bytes.push(self.status as u8);
        bytes.extend_from_slice(&self.expires_ms.to_le_bytes());
        bytes.extend_from_slice(&self.token.to_bytes());
        bytes.extend_from_slice(outcome);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<(Task, &[u8]), StoreError> {
        let damaged = || StoreError::Damaged("a task");
        let (header, outcome) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(damaged)?;
        let status = match header[0] {
            0 => Status::InProgress,
            1 => Status::Done,
            2 => Status::Unknown,
            _ => return Err(damaged()),
        };
        let expires_ms = u64::from_le_bytes(header[1..9].try_into().map_err(|_| damaged())?);
        let token = Epoch::from_slice(&header[9..]).ok_or_else(damaged)?;
        Ok((Task { status, expires_ms, token }, outcome))
    }

    /// The outcome in the record of a task that has ended.
    pub(super) fn outcome(&self, bytes: &[u8]) -> Outcome {
        match self.status {
            Status::Done => Outcome::Done(bytes.to_vec()),
            Status::InProgress | Status::Unknown => Outcome::Unknown,
        }
    }
}

pub(super) fn name(key: &[u8], task: &TaskId) -> Vec<u8> {
    let mut name = (key.len() as u16).to_be_bytes().to_vec();
    name.extend_from_slice(key);
    name.extend_from_slice(task);
    name
}

pub(super) fn split_name(name: &[u8]) -> Option<(Vec<u8>, TaskId)> {
    let (length, rest) = name.split_first_chunk::<2>()?;
    let (key, task) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((key.to_vec(), task.try_into().ok()?))
}
