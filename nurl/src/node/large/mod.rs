//! The node's large files: the driver of the machines of [`crate::compute::blob`], beside the work plane.
//!
//! Messages of this kind have a queue of their own, so that chunks never take the room of jobs and state. What reads or
//! writes the disk, or hashes, runs beside the planes, a few at a time: each of them holds a chunk.

mod fetches;
mod stats;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::fetches::{Fetches, Opened};
pub use self::stats::LargeStats;
use super::command::{Bytewise, NetCommand};
use crate::compute::blob::desk::Order;
use crate::compute::blob::fetch::Received;
use crate::compute::blob::folder::{Folder, FolderError, Held, Source};
use crate::compute::blob::message::Message;
use crate::compute::blob::provider::{Provider, Read};
use crate::key::PublicKey;
use crate::rt::sync::{Semaphore, mpsc, oneshot};
use crate::rt::task::{self, Planes};
use crate::rt::{self, time};
use crate::transport::Priority;

/// Messages that wait for this driver. A flood of requests beyond it is dropped; an honest peer asks again.
pub(super) const INPUTS: usize = 1_024;

/// Their bytes: the windows of all fetches that may be under way.
pub(super) const WAITING_BYTES: usize = 32 << 20;

/// Disk operations at a time. More gain nothing on one disk, and each has a thread and a chunk.
const AT_ONCE: usize = 4;

/// What the disk and the network report at a time; then they wait.
const REPORTS: usize = 64;

/// How often files that nobody needs are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(600);

/// How often ends of callers are looked for while something is fetched, and progress is told.
const TICK: Duration = Duration::from_millis(500);

/// What became of something that this driver began.
enum Done {
    Opened(u64, Result<Opened, FolderError>),
    Written(u64, u32, std::io::Result<Received>),
    Finished(u64, std::io::Result<Held>),
    Asked(u64, bool),
    Read(Box<Read<Arc<Source>>>, Option<Bytes>),
    Delivered(u64),
}

/// Everything that the driver needs from the builder.
pub(super) struct LargeParts {
    pub(super) local: PublicKey,
    pub(super) folder: Option<Folder>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) inputs: mpsc::Receiver<(PublicKey, Bytes)>,
    pub(super) waiting: Bytewise,
    pub(super) net: mpsc::WeakSender<NetCommand>,
    pub(super) planes: Planes,
    pub(super) stats: Arc<LargeStats>,
}

/// What runs away from the plane, and how its end comes back.
struct Aside {
    planes: Planes,
    slots: Arc<Semaphore>,
    done: mpsc::Sender<Done>,
}

impl Aside {
    /// Does `work` on a thread beside the planes.
    fn run(&self, work: impl FnOnce() -> Option<Done> + Send + 'static) {
        let (planes, slots, done) = (self.planes.clone(), self.slots.clone(), self.done.clone());
        task::spawn(async move {
            let Ok(_slot) = slots.acquire_owned().await else { return };
            if let Ok(Some(ended)) = planes.blocking(work).await {
                // An error means that the driver is gone.
                let _ = done.send(ended).await;
            }
        });
    }

    /// Reports when a message was delivered or lost.
    fn await_end(
        &self,
        answer: oneshot::Receiver<Result<(), crate::Error>>,
        end: impl FnOnce(bool) -> Done + Send + 'static,
    ) {
        let done = self.done.clone();
        task::spawn(async move {
            let delivered = matches!(answer.await, Ok(Ok(())));
            let _ = done.send(end(delivered)).await;
        });
    }
}

/// See the module.
pub(super) struct LargeFiles {
    local: PublicKey,
    provider: Provider<Arc<Source>>,
    fetches: Fetches,
    folder: Option<Folder>,
    orders: mpsc::Receiver<Order>,
    inputs: mpsc::Receiver<(PublicKey, Bytes)>,
    waiting: Bytewise,
    /// Messages of this node to itself.
    own: VecDeque<Message>,
    net: mpsc::WeakSender<NetCommand>,
    aside: Aside,
    ended: mpsc::Receiver<Done>,
    tidy_at: Instant,
    stats: Arc<LargeStats>,
}

impl LargeFiles {
    pub(super) fn new(parts: LargeParts) -> LargeFiles {
        let (done, ended) = mpsc::channel(REPORTS);
        let leftovers = parts.folder.as_ref().is_some_and(Folder::has_leftovers);
        let tidy_at = if leftovers { time::now() } else { time::now() + TIDY_EVERY };
        LargeFiles {
            local: parts.local,
            provider: Provider::default(),
            fetches: Fetches::new(rt::rng("large files")),
            folder: parts.folder,
            orders: parts.orders,
            inputs: parts.inputs,
            waiting: parts.waiting,
            own: VecDeque::new(),
            net: parts.net,
            aside: Aside { planes: parts.planes, slots: Arc::new(Semaphore::new(AT_ONCE)), done },
            ended,
            tidy_at,
            stats: parts.stats,
        }
    }

    /// Runs until the node has ended.
    pub(super) async fn run(mut self) {
        while self.turn().await.is_some() {}
        self.fetches.end();
    }

    /// One turn; none when the node has ended.
    async fn turn(&mut self) -> Option<()> {
        self.pass_on(time::now()).await?;
        let tick = self.fetches.is_busy().then(|| time::now() + TICK);
        let due = [tick, self.fetches.poll_timeout(), self.provider.poll_timeout(), Some(self.tidy_at)];
        let deadline = due.into_iter().flatten().min().expect("tidying is due some time");
        rt::select! {
            order = self.orders.recv() => self.on_order(order?),
            Some(done) = self.ended.recv() => self.on_done(time::now(), done),
            input = self.inputs.recv() => {
                let (from, body) = input?;
                self.waiting.give(body.len());
                match Message::decode(&body) {
                    Ok(message) => self.on_message(time::now(), from, message),
                    Err(_) => self.stats.malformed.add(1),
                }
            }
            () = time::sleep_until(deadline) => {}
        }
        let now = time::now();
        self.fetches.handle_timeout(now);
        let over = self.provider.handle_timeout(now);
        if !over.is_empty() || now >= self.tidy_at {
            drop(over);
            self.tidy(now);
        }
        Some(())
    }

    fn tidy(&mut self, now: Instant) {
        self.tidy_at = now + TIDY_EVERY;
        if let Some(folder) = self.folder.clone() {
            self.aside.run(move || {
                folder.tidy();
                None
            });
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Fetch(order) => self.fetches.take(*order),
            Order::Offer { file, manifest, source, until, readers } => {
                self.provider.offer(file, manifest, source, until);
                readers.into_iter().for_each(|reader| self.provider.grant(file, reader));
            }
            Order::Grant { file, peer } => self.provider.grant(file, peer),
            Order::Withdraw { file } => drop(self.provider.withdraw(file)),
        }
    }

    fn on_message(&mut self, now: Instant, from: PublicKey, message: Message) {
        match message {
            Message::Get { file, indexes } => self.provider.handle_get(from, file, &indexes),
            Message::Done { file } => {
                if self.provider.handle_done(from, file).is_some() {
                    self.tidy(now);
                }
            }
            Message::Refused { file, why } => self.fetches.handle_refused(now, from, file, why),
            Message::Chunk { file, index, bytes } => {
                let Some((number, partial)) = self.fetches.handle_chunk(now, from, file, index) else {
                    self.stats.unasked.add(1);
                    return;
                };
                self.stats.received_bytes.add(bytes.len() as u64);
                self.aside.run(move || {
                    let written = partial.write(index, &bytes);
                    drop(partial);
                    Some(Done::Written(number, index, written))
                });
            }
        }
    }

    fn on_done(&mut self, now: Instant, done: Done) {
        match done {
            Done::Opened(number, opened) => {
                if let Ok(opened) = &opened {
                    self.stats.found_bytes.add(opened.found_bytes());
                }
                self.fetches.handle_opened(now, number, opened);
            }
            Done::Written(number, index, written) => {
                if matches!(written, Ok(Received::Wrong)) {
                    self.stats.wrong.add(1);
                }
                self.fetches.handle_written(now, number, index, written);
            }
            Done::Finished(number, held) => {
                if let Some((from, file)) = self.fetches.handle_finished(number, held) {
                    self.send(from, &Message::Done { file }, Priority::Job);
                }
            }
            Done::Asked(number, delivered) => {
                if !delivered {
                    self.fetches.handle_lost(now, number);
                }
            }
            Done::Read(read, bytes) => {
                let number = read.number;
                if let Some((to, message)) = self.provider.handle_read(&read, bytes) {
                    let answer = self.send(to, &message, Priority::Bulk);
                    self.aside.await_end(answer, move |_| Done::Delivered(number));
                }
            }
            Done::Delivered(number) => self.provider.handle_delivered(number),
        }
    }

    /// Sends a message; the answer tells whether it was delivered.
    fn send(
        &mut self,
        to: PublicKey,
        message: &Message,
        priority: Priority,
    ) -> oneshot::Receiver<Result<(), crate::Error>> {
        let (reply, answer) = oneshot::channel();
        if to == self.local {
            self.own.push_back(message.clone());
            let _ = reply.send(Ok(()));
        } else if let Some(net) = self.net.upgrade() {
            let command = NetCommand::LargeFile { to, priority, body: message.encode(), reply };
            // The queue is as long as a turn of the network plane lasts at the most.
            task::spawn(async move {
                let _ = net.send(command).await;
            });
        }
        answer
    }

    /// Passes on the outputs. None when the network plane has ended.
    async fn pass_on(&mut self, now: Instant) -> Option<()> {
        drop(self.net.upgrade()?);
        loop {
            while let Some(message) = self.own.pop_front() {
                self.on_message(now, self.local, message);
            }
            while let Some((number, manifest)) = self.fetches.poll_open() {
                let Some(folder) = self.folder.clone() else { continue };
                self.aside.run(move || {
                    Some(Done::Opened(
                        number,
                        folder.begin(&manifest).map(|partial| Opened::new(partial, manifest)),
                    ))
                });
            }
            while let Some((number, to, message)) = self.fetches.poll_request(now) {
                let answer = self.send(to, &message, Priority::Job);
                self.aside.await_end(answer, move |delivered| Done::Asked(number, delivered));
            }
            while let Some((number, partial)) = self.fetches.poll_finish() {
                self.aside.run(move || Some(Done::Finished(number, partial.finish())));
            }
            while let Some(read) = self.provider.poll_read() {
                self.aside.run(move || {
                    let bytes = read.source.chunk(&read.manifest, read.index);
                    Some(Done::Read(Box::new(read), bytes))
                });
            }
            while let Some((to, message)) = self.provider.poll_transmit() {
                drop(self.send(to, &message, Priority::Job));
            }
            if self.own.is_empty() {
                break;
            }
        }
        self.stats.set_provider(self.provider.stats());
        Some(())
    }
}
