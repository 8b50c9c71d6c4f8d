//! Payloads and results of tasks that may be [large](crate::compute::blob): fetched before the handler, offered after it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::JobContext;
use crate::compute::blob::desk::{Desk, DeskError, Order};
use crate::compute::blob::fetch::FetchError;
use crate::compute::blob::folder::{FolderError, Held};
use crate::compute::blob::message::{FileId, Side};
use crate::compute::blob::{Envelope, Manifest};
use crate::compute::job::options::MAX_PAYLOAD_LEN;
use crate::compute::job::{JobError, Run};
use crate::rt::sync::mpsc;
use crate::rt::{disk, time};

/// How long a worker keeps a large result for its submitter, unless that has fetched it sooner.
const RESULT_KEPT: Duration = Duration::from_secs(3_600);

/// A payload or a result.
#[derive(Debug)]
pub enum Content {
    /// Its bytes.
    Bytes(Bytes),
    /// A file with its bytes.
    File(LargeFile),
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Content {
        Content::Bytes(bytes)
    }
}

impl From<Held> for Content {
    fn from(held: Held) -> Content {
        Content::File(LargeFile(Arc::new(held)))
    }
}

/// A file of the node's folder for large files. It stays until the last clone is dropped, and must not be changed: other
/// tasks may have the same payload.
#[derive(Debug, Clone)]
pub struct LargeFile(Arc<Held>);

impl PartialEq for LargeFile {
    fn eq(&self, other: &LargeFile) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for LargeFile {}

impl LargeFile {
    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.0.path()
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.0.file_len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn of(held: Held) -> LargeFile {
        LargeFile(Arc::new(held))
    }
}

/// The payload of a run, fetched if it is a file.
pub(super) async fn payload(context: &JobContext, run: &Run) -> Result<Content, JobError> {
    if !run.large {
        return Ok(Content::Bytes(run.payload.clone()));
    }
    match Envelope::decode(&run.payload) {
        Ok(Envelope::Inline(bytes)) => Ok(Content::Bytes(bytes)),
        Ok(Envelope::File(manifest)) => {
            let desk = context.desk.as_ref().ok_or_else(|| elsewhere(&DeskError::NoFolder))?;
            fetch(context, desk, manifest).await.map(Content::from)
        }
        Err(error) => Err(JobError::permanent(format!("the payload is {error}"))),
    }
}

async fn fetch(context: &JobContext, desk: &Desk, manifest: Manifest) -> Result<Held, JobError> {
    let file = FileId { task: context.task, side: Side::Payload };
    let len = manifest.file_len();
    let (progress, mut told) = mpsc::channel(1);
    let fetched = desk.fetch(file, context.submitter.key(), manifest, progress);
    tokio::pin!(fetched);
    loop {
        crate::rt::select! {
            ended = &mut fetched => return ended.map_err(|error| task_error(&error)),
            Some(there) = told.recv() => {
                context.progress(format!("fetching the payload: {} of {} MiB", there >> 20, len >> 20));
            }
        }
    }
}

/// A result as the task's outcome.
pub(super) async fn result(context: &JobContext, run: &Run, result: Content) -> Result<Bytes, JobError> {
    match result {
        Content::Bytes(bytes) if run.large => Ok(Envelope::Inline(bytes).encode()),
        Content::Bytes(bytes) => Ok(bytes),
        Content::File(file) if !run.large => small(context, file).await,
        Content::File(LargeFile(held)) => {
            let desk = context.desk.as_ref().ok_or_else(|| elsewhere(&DeskError::NoFolder))?;
            let held = Arc::try_unwrap(held)
                .map_err(|_| JobError::permanent("the handler has kept the file of its result"))?;
            let (source, manifest) = desk.read_held(held).await.map_err(|error| elsewhere(&error))?;
            let file = FileId { task: context.task, side: Side::Result };
            let (until, readers) = (time::now() + RESULT_KEPT, vec![context.submitter.key()]);
            let outcome = Envelope::File(manifest.clone()).encode();
            let offer = Order::Offer { file, manifest, source, until, readers };
            desk.order(offer).await.map_err(|error| elsewhere(&error))?;
            Ok(outcome)
        }
    }
}

/// The bytes of a file, for a submitter that takes no files.
async fn small(context: &JobContext, file: LargeFile) -> Result<Bytes, JobError> {
    let len = file.len();
    if len > MAX_PAYLOAD_LEN as u64 {
        return Err(JobError::TooLarge { len });
    }
    let read = move || {
        let bytes = disk::read(&file.path(), MAX_PAYLOAD_LEN as u64);
        bytes.map(Bytes::from).map_err(|error| elsewhere(&FolderError::from(error).into()))
    };
    context.blocking(read).await
}

/// The task's error for a file that can't be had here.
pub(super) fn elsewhere(error: &DeskError) -> JobError {
    JobError::retriable(format!("this worker can't take the task: {error}"))
}

fn task_error(error: &DeskError) -> JobError {
    match error {
        // It will be the same for every worker.
        DeskError::Fetch(FetchError::Changed) => JobError::permanent(format!("the payload: {error}")),
        DeskError::Fetch(_) => JobError::retriable(format!("the payload: {error}")),
        _ => elsewhere(error),
    }
}
