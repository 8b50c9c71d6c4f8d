//! The durable record of a task: what is to be done with its payload, and its course with its result.
//!
//! Both parts are CBOR with the bytes behind it. The payload is stored once; the course changes with each step.

use bytes::Bytes;
use minicbor::Decoder;

use super::entry::{Course, Entry, Terms};
use super::ledger::Changed;

/// A stored record that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored task can't be read")]
pub struct RestoreError;

/// The record of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The task and its payload; none: as it was stored before.
    pub task: Option<Vec<u8>>,
    /// Its course and its result.
    pub course: Vec<u8>,
}

impl Stored {
    pub(super) fn of(entry: &Entry, how: Changed) -> Stored {
        let task = (how == Changed::Whole).then(|| {
            let mut bytes =
                minicbor::to_vec((&entry.terms, entry.payload.is_some())).expect("a Vec takes it");
            bytes.extend_from_slice(entry.payload.as_deref().unwrap_or_default());
            bytes
        });
        let mut course = minicbor::to_vec(&entry.course).expect("a Vec takes every write");
        course.extend_from_slice(entry.course.result().map_or(&[], |result| result));
        Stored { task, course }
    }

    pub(super) fn entry(self) -> Result<Entry, RestoreError> {
        let task = Bytes::from(self.task.ok_or(RestoreError)?);
        let mut decoder = Decoder::new(&task);
        let (terms, has_payload): (Terms, bool) = decoder.decode().map_err(|_| RestoreError)?;
        let payload = has_payload.then(|| task.slice(decoder.position()..));
        let bytes = Bytes::from(self.course);
        let mut decoder = Decoder::new(&bytes);
        let mut course: Course = decoder.decode().map_err(|_| RestoreError)?;
        if let Some(end) = &mut course.end {
            end.record.complete(bytes.slice(decoder.position()..)).map_err(|_| RestoreError)?;
        }
        Ok(Entry { terms, payload, course })
    }
}
