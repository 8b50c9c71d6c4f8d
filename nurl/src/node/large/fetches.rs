//! The fetches of a node: those under way, and those that wait for their turn.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::TICK;
use crate::compute::blob::Manifest;
use crate::compute::blob::desk::{DeskError, FetchOrder};
use crate::compute::blob::fetch::{Fetch, Received};
use crate::compute::blob::folder::{FolderError, Held, Partial};
use crate::compute::blob::message::{FileId, Message, Refusal, Side};
use crate::key::PublicKey;
use crate::rt::Rng;

/// Fetches under way: each has a window of chunks in memory.
const MAX_ACTIVE: usize = 8;

/// Of those, from one peer: one that has promised a file and doesn't send it keeps others waiting for two minutes.
const MAX_ACTIVE_OF_PEER: usize = 2;

/// Fetches that wait for their turn. Those of handlers are bounded by the handlers that run at once.
const MAX_QUEUED: usize = 4_096;

/// A file whose chunks on the disk are known.
pub(super) struct Opened {
    partial: Partial,
    manifest: Manifest,
}

impl Opened {
    pub(super) fn new(partial: Partial, manifest: Manifest) -> Opened {
        Opened { partial, manifest }
    }

    /// The bytes that were on the disk.
    pub(super) fn found_bytes(&self) -> u64 {
        let found = (0..self.manifest.count()).filter(|index| self.partial.has(*index));
        found.map(|index| self.manifest.place(index).1 as u64).sum()
    }
}

enum Phase {
    /// To be opened.
    New,
    /// The folder reads what is there.
    Opening,
    Running(Box<Fetch>, Arc<Partial>),
    /// Complete; the folder makes it durable.
    Finishing,
}

struct Active {
    order: FetchOrder,
    phase: Phase,
    told_at: Option<Instant>,
}

/// See the module.
pub(super) struct Fetches {
    active: BTreeMap<u64, Active>,
    /// Those of a file that another fetch has are looked at again after a time.
    queued: VecDeque<(Option<Instant>, FetchOrder)>,
    next: u64,
    rng: Rng,
}

impl Fetches {
    pub(super) fn new(rng: Rng) -> Fetches {
        Fetches { active: BTreeMap::new(), queued: VecDeque::new(), next: 0, rng }
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.active.is_empty() || !self.queued.is_empty()
    }

    /// Takes an order.
    pub(super) fn take(&mut self, order: FetchOrder) {
        if self.queued.len() >= MAX_QUEUED {
            let _ = order.reply.send(Err(FolderError::Busy.into()));
            return;
        }
        self.queued.push_back((None, order));
        self.begin_next(None);
    }

    /// Begins those that wait, as far as there are places.
    fn begin_next(&mut self, now: Option<Instant>) {
        self.queued.retain(|(_, order)| !order.reply.is_closed());
        let mut later = VecDeque::new();
        while let Some((at, order)) = self.queued.pop_front() {
            let of_peer = self.active.values().filter(|active| active.order.from == order.from).count();
            let waits = at.is_some_and(|at| now.is_none_or(|now| now < at));
            if waits || self.active.len() >= MAX_ACTIVE || of_peer >= MAX_ACTIVE_OF_PEER {
                later.push_back((at, order));
                continue;
            }
            self.active.insert(self.next, Active { order, phase: Phase::New, told_at: None });
            self.next += 1;
        }
        self.queued = later;
    }

    /// The next file to open.
    pub(super) fn poll_open(&mut self) -> Option<(u64, Manifest)> {
        let (number, active) =
            self.active.iter_mut().find(|(_, active)| matches!(active.phase, Phase::New))?;
        active.phase = Phase::Opening;
        Some((*number, active.order.manifest.clone()))
    }

    /// Takes a file that was opened.
    pub(super) fn handle_opened(&mut self, now: Instant, number: u64, opened: Result<Opened, FolderError>) {
        let Some(active) = self.active.get_mut(&number) else { return };
        match opened {
            Ok(Opened { partial, manifest }) => {
                let fetch = Fetch::new(now, &manifest, |index| partial.has(index));
                active.phase = Phase::Running(Box::new(fetch), Arc::new(partial));
            }
            Err(FolderError::Busy) => {
                if let Some(active) = self.active.remove(&number) {
                    self.queued.push_back((Some(now + TICK), active.order));
                }
            }
            Err(error) => self.fail(number, error.into()),
        }
    }

    fn running(&mut self, number: u64) -> Option<(&mut Fetch, &mut Rng)> {
        match &mut self.active.get_mut(&number)?.phase {
            Phase::Running(fetch, _) => Some((fetch, &mut self.rng)),
            _ => None,
        }
    }

    fn of(&self, from: PublicKey, file: FileId) -> Option<u64> {
        let is = |active: &Active| active.order.from == from && active.order.file == file;
        self.active.iter().find(|(_, active)| is(active)).map(|(number, _)| *number)
    }

    /// The chunk's fetch and file, if it is to be written.
    pub(super) fn handle_chunk(
        &mut self,
        now: Instant,
        from: PublicKey,
        file: FileId,
        index: u32,
    ) -> Option<(u64, Arc<Partial>)> {
        let number = self.of(from, file)?;
        let Phase::Running(fetch, partial) = &mut self.active.get_mut(&number)?.phase else { return None };
        fetch.handle_chunk(now, index).then(|| (number, partial.clone()))
    }

    /// Takes the answer that no chunks come.
    pub(super) fn handle_refused(&mut self, now: Instant, from: PublicKey, file: FileId, why: Refusal) {
        let number = self.of(from, file);
        if let Some((fetch, rng)) = number.and_then(|number| self.running(number)) {
            fetch.handle_refused(now, rng, why);
        }
        self.settle();
    }

    /// Takes what became of a chunk.
    pub(super) fn handle_written(
        &mut self,
        now: Instant,
        number: u64,
        index: u32,
        written: std::io::Result<Received>,
    ) {
        match written {
            Ok(received) => {
                if let Some((fetch, _)) = self.running(number) {
                    fetch.handle_received(now, index, received);
                }
                self.settle();
            }
            Err(error) => self.fail(number, FolderError::from(error).into()),
        }
    }

    /// Notes that a request wasn't delivered.
    pub(super) fn handle_lost(&mut self, now: Instant, number: u64) {
        if let Some((fetch, rng)) = self.running(number) {
            fetch.handle_lost(now, rng);
        }
    }

    /// Takes a file that is durable; whom to tell that it needn't be kept any more.
    pub(super) fn handle_finished(
        &mut self,
        number: u64,
        held: std::io::Result<Held>,
    ) -> Option<(PublicKey, FileId)> {
        let Active { order, .. } = self.active.remove(&number)?;
        self.begin_next(None);
        let done = held.is_ok() && order.file.side == Side::Result;
        let _ = order.reply.send(held.map_err(|error| FolderError::from(error).into()));
        done.then_some((order.from, order.file))
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for active in self.active.values_mut() {
            let Phase::Running(fetch, _) = &mut active.phase else { continue };
            fetch.handle_timeout(now, &mut self.rng);
            if active.told_at.is_none_or(|at| now >= at + TICK) {
                active.told_at = Some(now);
                let chunk_len = active.order.manifest.chunk_len();
                let there = u64::from(fetch.written()) * chunk_len;
                // The next one says more.
                let _ = active.order.progress.try_send(there.min(active.order.manifest.file_len()));
            }
        }
        let dropped = |active: &Active| active.order.reply.is_closed();
        let over: Vec<u64> =
            self.active.iter().filter(|(_, active)| dropped(active)).map(|(number, _)| *number).collect();
        over.into_iter().for_each(|number| drop(self.active.remove(&number)));
        self.settle();
        self.begin_next(Some(now));
    }

    /// Ends the fetches that have failed.
    fn settle(&mut self) {
        let failed = |active: &Active| match &active.phase {
            Phase::Running(fetch, _) => fetch.failed(),
            _ => None,
        };
        let over: Vec<_> =
            self.active.iter().filter_map(|(number, active)| Some((*number, failed(active)?))).collect();
        over.into_iter().for_each(|(number, error)| self.fail(number, error.into()));
    }

    fn fail(&mut self, number: u64, error: DeskError) {
        if let Some(active) = self.active.remove(&number) {
            // An error means that the caller gave up.
            let _ = active.order.reply.send(Err(error));
            self.begin_next(None);
        }
    }

    /// The next request to send.
    pub(super) fn poll_request(&mut self, now: Instant) -> Option<(u64, PublicKey, Message)> {
        self.active.iter_mut().find_map(|(number, active)| {
            let Phase::Running(fetch, _) = &mut active.phase else { return None };
            let indexes = fetch.poll_request(now)?;
            let FetchOrder { from, file, .. } = active.order;
            Some((*number, from, Message::Get { file, indexes }))
        })
    }

    /// The next file to make durable.
    pub(super) fn poll_finish(&mut self) -> Option<(u64, Partial)> {
        let complete = |active: &Active| match &active.phase {
            // A write that has just reported may still hold it for a moment.
            Phase::Running(fetch, partial) => fetch.is_complete() && Arc::strong_count(partial) == 1,
            _ => false,
        };
        let (number, active) = self.active.iter_mut().find(|(_, active)| complete(active))?;
        match std::mem::replace(&mut active.phase, Phase::Finishing) {
            Phase::Running(_, partial) => Arc::into_inner(partial).map(|partial| (*number, partial)),
            _ => None,
        }
    }

    /// When [`handle_timeout`](Fetches::handle_timeout) is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = |active: &Active| match &active.phase {
            Phase::Running(fetch, _) => Some(fetch.poll_timeout()),
            _ => None,
        };
        self.active.values().filter_map(due).min()
    }

    /// Tells all callers that the node has ended.
    pub(super) fn end(&mut self) {
        let orders = std::mem::take(&mut self.active).into_values().map(|active| active.order);
        let queued = std::mem::take(&mut self.queued).into_iter().map(|(_, order)| order);
        for order in orders.chain(queued) {
            let _ = order.reply.send(Err(DeskError::Closed));
        }
    }
}

#[cfg(all(test, not(feature = "sim")))]
mod tests {
    use rand_core::SeedableRng;

    use super::*;
    use crate::compute::blob::folder::Folder;
    use crate::compute::job::TaskId;
    use crate::rt::sync::{mpsc, oneshot};
    use crate::rt::test_now;

    type Answer = oneshot::Receiver<Result<Held, DeskError>>;

    fn order(task: u8, peer: u8) -> (FetchOrder, Answer) {
        let (reply, answer) = oneshot::channel();
        let manifest = Manifest::of(10, |buffer, _| {
            buffer.fill(peer);
            Ok(())
        });
        let order = FetchOrder {
            file: FileId { task: TaskId::from_bytes([task; 16]), side: Side::Result },
            from: PublicKey::from_bytes([peer; 32]),
            manifest: manifest.unwrap(),
            progress: mpsc::channel(1).0,
            reply,
        };
        (order, answer)
    }

    fn begun(fetches: &mut Fetches) -> Vec<u64> {
        std::iter::from_fn(|| fetches.poll_open()).map(|(number, _)| number).collect()
    }

    #[test]
    fn a_peer_that_promises_many_files_keeps_places_for_others_free() {
        let mut fetches = Fetches::new(Rng::seed_from_u64(1));
        let mut answers = Vec::new();
        for (task, peer) in [(1, 1), (2, 1), (3, 1), (4, 2)] {
            let (order, answer) = order(task, peer);
            fetches.take(order);
            answers.push(answer);
        }
        assert_eq!(begun(&mut fetches).len(), 3, "two of the first peer, and that of the second");
        // Nobody waits for the first one any more.
        drop(answers.remove(0));
        fetches.handle_timeout(test_now());
        assert_eq!(begun(&mut fetches).len(), 1);
    }

    #[test]
    fn a_fetch_of_a_file_that_another_one_has_waits_and_does_not_spin() {
        let now = test_now();
        let mut fetches = Fetches::new(Rng::seed_from_u64(1));
        let (order, _answer) = order(1, 1);
        fetches.take(order);
        let number = begun(&mut fetches)[0];
        fetches.handle_opened(now, number, Err(FolderError::Busy));
        fetches.handle_timeout(now);
        assert!(begun(&mut fetches).is_empty(), "not at once");
        fetches.handle_timeout(now + TICK);
        assert_eq!(begun(&mut fetches).len(), 1);
    }

    #[test]
    fn the_last_chunk_ends_a_fetch_and_its_provider_is_told() {
        let (now, dir) = (test_now(), tempfile::tempdir().unwrap());
        let folder = Folder::new(dir.path(), 1 << 20);
        let mut fetches = Fetches::new(Rng::seed_from_u64(1));
        let (order, mut answer) = order(1, 1);
        let (file, from) = (order.file, order.from);
        fetches.take(order);
        let (number, manifest) = fetches.poll_open().unwrap();
        let partial = folder.begin(&manifest).unwrap();
        fetches.handle_opened(now, number, Ok(Opened::new(partial, manifest)));
        let (_, to, request) = fetches.poll_request(now).unwrap();
        assert_eq!((to, request), (from, Message::Get { file, indexes: vec![0] }));
        let stranger = PublicKey::from_bytes([9; 32]);
        assert!(fetches.handle_chunk(now, stranger, file, 0).is_none(), "it comes from another peer");
        let (number, partial) = fetches.handle_chunk(now, from, file, 0).unwrap();
        let written = partial.write(0, &[1; 10]);
        drop(partial);
        fetches.handle_written(now, number, 0, written);
        let (number, partial) = fetches.poll_finish().unwrap();
        assert_eq!(fetches.handle_finished(number, partial.finish()), Some((from, file)));
        assert_eq!(answer.try_recv().unwrap().unwrap().file_len(), 10);
        assert!(!fetches.is_busy());
    }
}
