//! What this node asks of keepers for its own callers: to take a task, to tell of one, to cancel one, to list its own.
//!
//! Each call ends within its limit. A deposit goes to all keepers at once; any other call goes to one keeper after the
//! other, until one knows the task.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::entry::{Mark, Terms};
use super::message::{Message, Refusal, TaskStatus, Want};
use super::shared::Shared;
use super::{CustodyError, MAX_CALLS, MAX_LIST_TOTAL, Told};
use crate::compute::job::TaskId;
use crate::compute::job::record::Record;
use crate::key::PublicKey;

/// How long a deposit may take, beside the transfer of its payload.
const DEPOSIT_WITHIN: Duration = Duration::from_secs(15);
/// After this time a keeper that hasn't answered a deposit is sent it again.
const DEPOSIT_AGAIN: Duration = Duration::from_secs(2);
/// How long a keeper may take to answer, beside the time for which it was asked to wait, before the next one is asked.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The same for an answer with a result.
const RESULT_WITHIN: Duration = Duration::from_secs(20);
/// How long the keepers together may take.
const ALL_WITHIN: Duration = Duration::from_secs(8);
/// How long the workers may take to list.
const LIST_WITHIN: Duration = Duration::from_secs(3);
/// The transfer speed in bytes per second below which a keeper counts as silent.
const UPLOAD_FLOOR: u64 = 1024 * 1024;

/// What one keeper at a time is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Question {
    Status { seen: Option<Mark>, wait: Duration, want: Want },
    Cancel,
}

impl Question {
    fn message(self, call: u64, task: TaskId) -> Message {
        match self {
            Question::Status { seen, wait, want } => {
                let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
                Message::Ask { call, task, seen, wait_ms, want }
            }
            Question::Cancel => Message::Cancel { call, task },
        }
    }

    fn patience(self) -> Duration {
        match self {
            Question::Status { wait, want: Want::Nothing, .. } => wait + ANSWER_WITHIN,
            Question::Status { wait, .. } => wait + RESULT_WITHIN,
            Question::Cancel => ANSWER_WITHIN,
        }
    }
}

#[derive(Debug)]
enum Sought {
    Deposit {
        task: TaskId,
        terms: Box<Terms>,
        payload: Bytes,
        stored: BTreeMap<PublicKey, (u64, bool)>,
        refused: BTreeMap<PublicKey, Refusal>,
    },
    One {
        task: TaskId,
        question: Question,
        asked: BTreeSet<PublicKey>,
        /// Keepers that don't know the task.
        unknown: BTreeSet<PublicKey>,
        /// An answer without the bytes that were wanted.
        fallback: Option<Box<Told>>,
    },
    List {
        silent: BTreeSet<PublicKey>,
        found: BTreeMap<TaskId, TaskStatus>,
    },
}

#[derive(Debug)]
struct Call {
    sought: Sought,
    until: Instant,
    next: Instant,
}

/// The calls under way.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: BTreeMap<u64, Call>,
    last: u64,
}

impl Calls {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    fn begin(&mut self, now: Instant, sought: Sought, within: Duration) -> Result<u64, CustodyError> {
        if self.open.len() >= MAX_CALLS {
            return Err(CustodyError::Busy);
        }
        self.last += 1;
        self.open.insert(self.last, Call { sought, until: now + within, next: now });
        Ok(self.last)
    }

    pub(super) fn deposit(
        &mut self,
        now: Instant,
        task: TaskId,
        terms: Terms,
        payload: Bytes,
    ) -> Result<u64, CustodyError> {
        let within = DEPOSIT_WITHIN + 3 * way(&payload);
        let (terms, stored, refused) = (Box::new(terms), BTreeMap::new(), BTreeMap::new());
        self.begin(now, Sought::Deposit { task, terms, payload, stored, refused }, within)
    }

    pub(super) fn ask(
        &mut self,
        now: Instant,
        task: TaskId,
        question: Question,
    ) -> Result<u64, CustodyError> {
        let (asked, unknown, fallback) = (BTreeSet::new(), BTreeSet::new(), None);
        let within = question.patience() + ALL_WITHIN;
        self.begin(now, Sought::One { task, question, asked, unknown, fallback }, within)
    }

    pub(super) fn list(&mut self, now: Instant, sh: &mut Shared) -> Result<u64, CustodyError> {
        let workers = sh.keepers.live();
        if workers.is_empty() {
            return Err(CustodyError::NoKeepers);
        }
        let silent = workers.iter().copied().collect();
        let call = self.begin(now, Sought::List { silent, found: BTreeMap::new() }, LIST_WITHIN)?;
        for worker in workers {
            sh.send(worker, &Message::List { call, after: None });
        }
        Ok(call)
    }

    /// Goes on with the calls that are due.
    pub(super) fn handle_timeout(&mut self, now: Instant, sh: &mut Shared) {
        let due: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, call)| call.next.min(call.until) <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.go_on(now, sh, id);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.open.values().map(|call| call.next.min(call.until)).min()
    }

    /// Takes a new view: the keepers may be others.
    pub(super) fn on_view(&mut self, now: Instant) {
        for call in self.open.values_mut() {
            if matches!(call.sought, Sought::Deposit { .. }) {
                call.next = now;
            }
        }
    }

    fn go_on(&mut self, now: Instant, sh: &mut Shared, id: u64) {
        let Some(call) = self.open.get_mut(&id) else { return };
        if now >= call.until {
            let outcome = expired(call, sh);
            self.end(sh, id, outcome);
            return;
        }
        match &mut call.sought {
            Sought::Deposit { task, terms, payload, stored, refused } => {
                call.next = now + DEPOSIT_AGAIN + way(payload);
                // Without a disk, another process of a keeper doesn't have it.
                stored.retain(|keeper, (boot, durable)| *durable || sh.is_present(keeper, *boot));
                if is_confirmed(stored, task, sh) {
                    return self.end(sh, id, Ok(Told::Done));
                }
                for keeper in sh.keepers.of(task) {
                    if !stored.contains_key(&keeper) && !refused.contains_key(&keeper) {
                        let (task, terms, payload) = (*task, (**terms).clone(), payload.clone());
                        sh.send(keeper, &Message::Deposit { call: id, task, terms, payload });
                    }
                }
                // A keeper whose view differs may take it later.
                refused.retain(|_, why| *why != Refusal::NotAKeeper);
            }
            Sought::One { task, question, asked, unknown, fallback } => {
                let keepers = sh.keepers.of(task);
                let all_deny = !keepers.is_empty() && keepers.iter().all(|keeper| unknown.contains(keeper));
                let next =
                    keepers.into_iter().find(|keeper| !asked.contains(keeper) && !unknown.contains(keeper));
                match next {
                    Some(keeper) => {
                        asked.insert(keeper);
                        call.next = now + question.patience().min(ALL_WITHIN);
                        let message = question.message(id, *task);
                        if let Question::Status { wait, .. } = question {
                            call.next = now + *wait + ANSWER_WITHIN;
                        }
                        sh.send(keeper, &message);
                    }
                    None if fallback.is_some() => {
                        let told = fallback.take().expect("it is there");
                        self.end(sh, id, Ok(*told));
                    }
                    None if all_deny => self.end(sh, id, Err(CustodyError::Refused(Refusal::Unknown))),
                    None => {
                        // Once more from the first one: it may have been restarting.
                        asked.clear();
                        call.next = now + ANSWER_WITHIN;
                    }
                }
            }
            Sought::List { .. } => call.next = call.until,
        }
    }

    fn end(&mut self, sh: &mut Shared, id: u64, outcome: Result<Told, CustodyError>) {
        if self.open.remove(&id).is_some() {
            sh.events.push_back((id, outcome));
        }
    }

    pub(super) fn on_stored(&mut self, sh: &mut Shared, from: PublicKey, id: u64, held: (u64, bool)) {
        let Some(call) = self.open.get_mut(&id) else { return };
        match &mut call.sought {
            Sought::Deposit { task, stored, .. } => {
                if !sh.keepers.of(task).contains(&from) {
                    sh.stats.unexpected += 1;
                    return;
                }
                stored.insert(from, held);
                if is_confirmed(stored, task, sh) {
                    self.end(sh, id, Ok(Told::Done));
                }
            }
            Sought::One { question: Question::Cancel, asked, .. } if asked.contains(&from) => {
                self.end(sh, id, Ok(Told::Done));
            }
            _ => sh.stats.unexpected += 1,
        }
    }

    pub(super) fn on_refused(
        &mut self,
        now: Instant,
        sh: &mut Shared,
        from: PublicKey,
        id: u64,
        why: Refusal,
    ) {
        let Some(call) = self.open.get_mut(&id) else { return };
        match &mut call.sought {
            Sought::Deposit { task, stored, refused, .. } => {
                let keepers = sh.keepers.of(task);
                if !keepers.contains(&from) {
                    sh.stats.unexpected += 1;
                    return;
                }
                refused.insert(from, why);
                // Another keeper may have taken it: only the word of all is the last one.
                let all = keepers.iter().all(|keeper| refused.contains_key(keeper));
                if all && stored.is_empty() && why != Refusal::NotAKeeper {
                    self.end(sh, id, Err(CustodyError::Refused(why)));
                }
            }
            Sought::One { asked, unknown, .. } if asked.contains(&from) => match why {
                Refusal::Unknown | Refusal::NotAKeeper => {
                    unknown.insert(from);
                    call.next = now;
                    self.go_on(now, sh, id);
                }
                why => self.end(sh, id, Err(CustodyError::Refused(why))),
            },
            _ => sh.stats.unexpected += 1,
        }
    }

    pub(super) fn on_answer(
        &mut self,
        now: Instant,
        sh: &mut Shared,
        from: PublicKey,
        id: u64,
        (mark, status): (Mark, TaskStatus),
        bytes: (Option<Record>, Option<(Terms, Bytes)>),
    ) {
        let Some(call) = self.open.get_mut(&id) else { return };
        let Sought::One { task, question: Question::Status { want, .. }, asked, unknown, fallback } =
            &mut call.sought
        else {
            sh.stats.unexpected += 1;
            return;
        };
        let (record, terms) = bytes;
        // The terms are for a new task of one's own: they have to be those of the task that was asked for.
        let fits = terms.as_ref().is_none_or(|(terms, payload)| terms.are_of(payload));
        if status.task != *task || !asked.contains(&from) || !fits {
            sh.stats.unexpected += 1;
            return;
        }
        let outcome = record.and_then(|record| record.outcome).map(|outcome| *outcome);
        let lacks = match want {
            Want::Nothing => false,
            Want::Outcome => status.end.is_some() && outcome.is_none(),
            Want::Terms => terms.is_none(),
        };
        let content = terms.map(|(terms, payload)| Box::new(terms.content(payload)));
        let told = Told::Status { mark, status: Box::new(status), outcome, content };
        if lacks {
            unknown.insert(from);
            *fallback = Some(Box::new(told));
            call.next = now;
            self.go_on(now, sh, id);
        } else {
            self.end(sh, id, Ok(told));
        }
    }

    pub(super) fn on_listed(
        &mut self,
        sh: &mut Shared,
        from: PublicKey,
        id: u64,
        (tasks, more): (Vec<TaskStatus>, bool),
    ) {
        let Some(Call { sought: Sought::List { silent, found }, .. }) = self.open.get_mut(&id) else {
            return;
        };
        if !silent.contains(&from) {
            sh.stats.unexpected += 1;
            return;
        }
        let last = tasks.last().map(|status| status.task);
        for status in tasks {
            if found.len() >= MAX_LIST_TOTAL {
                break;
            }
            // One that has ended is newer than one that hasn't.
            let known =
                found.get(&status.task).is_some_and(|known| known.end.is_some() || status.end.is_none());
            if !known {
                found.insert(status.task, status);
            }
        }
        let full = found.len() >= MAX_LIST_TOTAL;
        match last {
            Some(after) if more && !full => sh.send(from, &Message::List { call: id, after: Some(after) }),
            _ => {
                silent.remove(&from);
            }
        }
        if silent.is_empty() || full {
            let (tasks, silent) = (std::mem::take(found), std::mem::take(silent));
            self.end(sh, id, Ok(listed(tasks, silent)));
        }
    }
}

fn listed(tasks: BTreeMap<TaskId, TaskStatus>, silent: BTreeSet<PublicKey>) -> Told {
    Told::List { tasks: tasks.into_values().collect(), silent: silent.into_iter().collect() }
}

/// What a call's caller is told at its limit.
fn expired(call: &mut Call, sh: &Shared) -> Result<Told, CustodyError> {
    match &mut call.sought {
        // One disk has it, and those that could confirm it are silent: it isn't lost.
        Sought::Deposit { stored, .. } if stored.values().any(|(_, durable)| *durable) => Ok(Told::Done),
        Sought::Deposit { stored, refused, .. } => Err(match refused.values().next() {
            _ if !sh.keepers.are_known() => CustodyError::NoKeepers,
            Some(why) if stored.is_empty() => CustodyError::Refused(*why),
            _ => CustodyError::Unconfirmed,
        }),
        Sought::One { fallback, .. } => fallback.take().map(|told| *told).ok_or(CustodyError::NoAnswer),
        Sought::List { silent, found } => Ok(listed(std::mem::take(found), std::mem::take(silent))),
    }
}

/// Whether enough keepers have a task that it goes on though one of them dies: two that live, or all that there are. What a
/// keeper without a disk said counts while its process lives.
fn is_confirmed(stored: &BTreeMap<PublicKey, (u64, bool)>, task: &TaskId, sh: &Shared) -> bool {
    let present = stored.iter().filter(|(keeper, (boot, durable))| *durable || sh.is_present(keeper, *boot));
    let present = present.count();
    present > 0 && present >= sh.keepers.of(task).len().min(2)
}

/// The time that a payload's transfer may take.
fn way(payload: &Bytes) -> Duration {
    Duration::from_millis(payload.len() as u64 * 1000 / UPLOAD_FLOOR)
}
