//! A record is damaged on the disk, and repaired.

use std::path::Path;
use std::sync::Arc;

use chaos::property::Violation;
use nurl::internals::compute::lease::{LeaseError, Moment, Recovered, Resource};
use nurl::internals::store::Store;
use nurl::rt::{self, disk};

use super::model::{Model, Task};
use super::{FILE, LIMITS, differs};

const DAMAGED: &str = "a resource with a damaged record doesn't open, and does once it is repaired";

/// Larger than the file.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The status of a task's record is damaged on the disk, and repaired.
pub(super) fn act(model: &Model) -> Option<Result<(), Violation>> {
    let broken = |seen: String| Some(Err(Violation::safety(DAMAGED, seen)));
    let path = Path::new(FILE);
    let sound = disk::read(path, MAX_FILE_BYTES).ok()?;
    let mut damaged = sound.clone();
    let records: Vec<_> = model.tasks.values().map(Task::record).collect();
    let mut hits = 0;
    for at in 0..damaged.len().saturating_sub(1) {
        if records.iter().any(|record| sound[at + 1..].starts_with(record)) {
            damaged[at] = 0x77;
            hits += 1;
        }
    }
    if hits == 0 {
        return broken(format!("none of {} records is on the disk", records.len()));
    }
    let file = disk::File::open(path).ok()?;
    let reopen = |model: &Model| {
        let store = Arc::new(Store::open(path, &mut rt::rng("store"))?);
        // A second look at what the model has in progress.
        let resource = Resource::open(store, LIMITS, Moment::now(), |_, _| Recovered::RolledBack)?;
        Ok::<_, LeaseError>(differs(&resource, model))
    };
    file.write_all_at(&damaged, 0).ok()?;
    match reopen(model) {
        Err(LeaseError::Store(_)) => {}
        other => return broken(format!("with {hits} damaged records it was opened: {other:?}")),
    }
    file.set_len(sound.len() as u64).ok()?;
    file.write_all_at(&sound, 0).ok()?;
    let mut recovered = model.clone();
    for name in model.in_progress() {
        recovered.recover(name, &Recovered::RolledBack);
    }
    match reopen(&recovered) {
        Ok(None) => Some(Ok(())),
        other => broken(format!("it was repaired, and then: {other:?}")),
    }
}
