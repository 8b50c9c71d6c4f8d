//! The node as a keeper of tasks: it takes deposits, keeps its copies as the other keepers', and answers askers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::{JobError, Submitter, TaskId};
use super::entry::{Course, End, Entry, Mark, Note, Step, Terms};
use super::ledger::{Ledger, Offered};
use super::message::{Ended, Has, Message, Refusal, TaskStatus, Want};
use super::shared::Shared;
use super::waiters::{Asker, Waiters};
use super::{MAX_LISTED, MAX_NOTE_LEN, MAX_OFFERED, Order};
use crate::key::PublicKey;
use crate::ring::Epoch;

mod custodian;

/// The other keepers of a new task have it from its submitter by then.
const FIRST_OFFER_AFTER: Duration = Duration::from_millis(300);
/// An unanswered offer is repeated after this time, and then after twice the time before.
const OFFER_AGAIN: Duration = Duration::from_secs(3);
const MAX_OFFER_DOUBLINGS: u32 = 4;
/// For so long a restarted keeper waits for the others' news of an open task, before it has the task submitted.
const UNSURE_FOR: Duration = Duration::from_secs(5);

/// A task that this node has submitted.
#[derive(Debug, Default)]
struct Driving {
    bytes: usize,
    token: Option<Epoch>,
    progress: Option<Bytes>,
    cancelled: bool,
    /// It had ended before, and another custodian has its outcome.
    settled: Option<JobError>,
}

#[derive(Debug, Default)]
pub(super) struct Keeper {
    pub(super) ledger: Ledger,
    waiters: Waiters,
    driven: BTreeMap<TaskId, Driving>,
    driven_bytes: usize,
    /// Outcomes that their workers keep until the log has them safely.
    unreleased: BTreeSet<TaskId>,
    offers: BTreeMap<PublicKey, Vec<Has>>,
}

impl Keeper {
    pub(super) fn driving(&self) -> usize {
        self.driven.len()
    }

    // ---- What others ask.

    pub(super) fn on_deposit(
        &mut self,
        now: Instant,
        sh: &mut Shared,
        from: &Submitter,
        call: u64,
        (task, terms, payload): (TaskId, Terms, Bytes),
    ) {
        let why = match self.take(now, sh, from, task, terms, payload) {
            Ok(()) => {
                let (boot, durable) = (sh.boot, sh.durable);
                return sh.send(from.key(), &Message::Stored { call, boot, durable });
            }
            Err(why) => why,
        };
        sh.stats.refused += 1;
        sh.send(from.key(), &Message::Refused { call, why });
    }

    fn take(
        &mut self,
        now: Instant,
        sh: &mut Shared,
        from: &Submitter,
        task: TaskId,
        terms: Terms,
        payload: Bytes,
    ) -> Result<(), Refusal> {
        if !sh.keepers.of(&task).contains(&sh.local) {
            return Err(Refusal::NotAKeeper);
        }
        if !terms.are_of(&payload) {
            return Err(Refusal::Conflict);
        }
        let standing = sh.warrants.check(now, terms.named(task), &terms.warrant).map_err(|why| {
            tracing::debug!(target: "nurl::job", %task, %why, "a deposit is refused");
            Refusal::BadWarrant
        })?;
        if from.holder() != standing.grant.key {
            return Err(Refusal::NotYours);
        }
        if let Some(kept) = self.ledger.get(&task) {
            let same =
                kept.entry.terms.digest == terms.digest && kept.standing.grant.key == standing.grant.key;
            return if same { Ok(()) } else { Err(Refusal::Conflict) };
        }
        let mut course = Course::default();
        course.note(note(sh, Step::Deposited, None, ""));
        let entry = Entry { terms, payload: Some(payload), course };
        if !self.ledger.insert(now, task, entry, standing) {
            return Err(Refusal::Full);
        }
        sh.stats.deposited += 1;
        let offered = Some(Offered { at: now, times: 0, copied: false });
        if let Some(kept) = self.ledger.get_mut(&task) {
            for other in sh.keepers.of(&task) {
                kept.peer(other).offered = offered;
            }
        }
        Ok(())
    }

    pub(super) fn on_ask(
        &mut self,
        now: Instant,
        sh: &mut Shared,
        from: &Submitter,
        (asker, task): (Asker, TaskId),
        (seen, want): (Option<Mark>, Want),
        wait: Duration,
    ) {
        let refusal = match self.ledger.get(&task) {
            None => Some(Refusal::Unknown),
            Some(kept) if want == Want::Terms && kept.standing.grant.key != from.holder() => {
                Some(Refusal::NotYours)
            }
            Some(_) => None,
        };
        if let Some(why) = refusal {
            sh.stats.refused += u64::from(why == Refusal::NotYours);
            return sh.send(asker.who, &Message::Refused { call: asker.call, why });
        }
        let news = self.is_told(sh, &task)
            || self.ledger.get(&task).is_some_and(|kept| kept.entry.is_open() && seen != Some(kept.mark));
        if news || !self.waiters.wait(now, task, asker, (seen, want), wait) {
            self.answer(sh, task, asker, want);
        }
    }

    pub(super) fn on_cancel(
        &mut self,
        now: Instant,
        sh: &mut Shared,
        from: &Submitter,
        call: u64,
        task: TaskId,
    ) {
        let why = match self.ledger.get(&task) {
            None => Some(Refusal::Unknown),
            Some(kept) if kept.standing.grant.key != from.holder() => Some(Refusal::NotYours),
            Some(_) => None,
        };
        if let Some(why) = why {
            sh.stats.refused += u64::from(why == Refusal::NotYours);
            return sh.send(from.key(), &Message::Refused { call, why });
        }
        let (at_ms, line) = (sh.wall_ms(), note(sh, Step::CancelAsked, None, ""));
        let changed = self.ledger.change(now, task, |entry| {
            if entry.is_open() && entry.course.cancel_ms.is_none() {
                entry.course.cancel_ms = Some(at_ms);
                entry.course.note(line);
            }
        });
        if changed {
            self.after_change(sh, task);
        }
        let (boot, durable) = (sh.boot, sh.durable);
        sh.send(from.key(), &Message::Stored { call, boot, durable });
    }

    pub(super) fn on_list(&self, sh: &mut Shared, from: &Submitter, call: u64, after: Option<TaskId>) {
        let theirs = self.ledger.after(after).filter(|(_, kept)| kept.standing.grant.key == from.holder());
        let mut tasks: Vec<TaskStatus> = theirs
            .take(MAX_LISTED + 1)
            .filter_map(|(task, _)| self.status(sh, *task))
            .map(|status| TaskStatus { history: Vec::new(), progress: None, ..status })
            .collect();
        let more = tasks.len() > MAX_LISTED;
        tasks.truncate(MAX_LISTED);
        sh.send(from.key(), &Message::Listed { call, tasks, more });
    }

    // ---- What is told of a task.

    /// Whether the task has ended, and its end is safe to tell: another keeper has it, or there is no other. An end that one
    /// keeper alone knows, even on its disk, becomes another one if that keeper is away for long.
    fn is_told(&self, sh: &Shared, task: &TaskId) -> bool {
        let Some(kept) = self.ledger.get(task).filter(|kept| !kept.entry.is_open()) else { return false };
        let alone = || sh.keepers.of(task).iter().all(|keeper| *keeper == sh.local);
        let another = || {
            let has = |told: &(Mark, u64, bool), key| told.0 == kept.mark && sh.is_present(&key, told.1);
            kept.peers.iter().any(|peer| peer.told.is_some_and(|told| has(&told, peer.key)))
        };
        alone() || another()
    }

    fn status(&self, sh: &Shared, task: TaskId) -> Option<TaskStatus> {
        let kept = self.ledger.get(&task)?;
        let (terms, course) = (&kept.entry.terms, &kept.entry.course);
        let end = course.end.as_ref().filter(|_| self.is_told(sh, &task));
        let progress = self.driven.get(&task).and_then(|driving| driving.progress.as_ref());
        let hidden = course.end.is_some() && end.is_none();
        Some(TaskStatus {
            task,
            kind: terms.kind.clone(),
            key: terms.key.clone(),
            holder: kept.standing.grant.key,
            made_ms: terms.warrant.made_ms,
            until_ms: terms.warrant.until_ms,
            keep_s: terms.warrant.keep_s,
            parent: terms.warrant.parent,
            cancelling: course.cancel_ms.is_some() && end.is_none(),
            end: end.map(|End { record, at_ms }| Ended::of(record, *at_ms)),
            progress: progress.map(|note| note.to_vec()),
            history: course
                .history
                .iter()
                .filter(|note| !hidden || note.step != Step::Ended)
                .cloned()
                .collect(),
        })
    }

    fn answer(&mut self, sh: &mut Shared, task: TaskId, Asker { who, call }: Asker, want: Want) {
        let Some((status, kept)) = self.status(sh, task).zip(self.ledger.get(&task)) else {
            return sh.send(who, &Message::Refused { call, why: Refusal::Unknown });
        };
        let entry = &kept.entry;
        let end = entry.course.end.as_ref().filter(|_| want == Want::Outcome && status.end.is_some());
        let record = end.map(|end| end.record.clone());
        let terms = (want == Want::Terms && entry.payload.is_some()).then(|| entry.terms.clone());
        let body = match (&terms, &record) {
            (Some(_), _) => entry.payload.clone().unwrap_or_default(),
            (None, Some(_)) => entry.course.result().cloned().unwrap_or_default(),
            (None, None) => Bytes::new(),
        };
        let mark = kept.mark;
        sh.send(who, &Message::Answer { call, mark, status, record, terms, body });
    }

    /// Answers those who wait for news of a task, and lets its worker forget an outcome that is safe here.
    fn after_change(&mut self, sh: &mut Shared, task: TaskId) {
        let told = self.is_told(sh, &task);
        if told && self.unreleased.remove(&task) {
            sh.orders.push_back(Order::Release(task));
        }
        let Some((mark, open)) = self.ledger.get(&task).map(|kept| (kept.mark, kept.entry.is_open())) else {
            return;
        };
        for (asker, want) in self.waiters.take(&task, |seen| told || (open && seen != Some(mark))) {
            self.answer(sh, task, asker, want);
        }
    }

    // ---- Keepers keep the same.

    pub(super) fn on_offer(&mut self, now: Instant, sh: &mut Shared, from: PublicKey, items: Vec<Has>) {
        let mut ours = Vec::new();
        for Has { task, mark } in items {
            if !sh.keepers.may_tell(now, &from, &task) || !sh.keepers.may_tell(now, &sh.local, &task) {
                sh.stats.forged += 1;
                continue;
            }
            let kept = self.ledger.get(&task).map(|kept| kept.mark);
            if kept.is_some() && kept != mark {
                self.ledger.look_at(task, now);
            }
            ours.push(Has { task, mark: kept });
        }
        if !ours.is_empty() {
            let (boot, durable) = (sh.boot, sh.durable);
            sh.send(from, &Message::Held { boot, durable, items: ours });
        }
    }

    pub(super) fn on_held(
        &mut self,
        now: Instant,
        sh: &mut Shared,
        from: PublicKey,
        (boot, durable): (u64, bool),
        items: Vec<Has>,
    ) {
        for Has { task, mark } in items {
            let may = sh.keepers.may_tell(now, &from, &task);
            let Some(kept) = self.ledger.get_mut(&task).filter(|_| may) else {
                sh.stats.forged += u64::from(!may);
                continue;
            };
            let ours = kept.mark;
            let peer = kept.peer(from);
            peer.told = mark.map(|mark| (mark, boot, durable));
            if mark == Some(ours) {
                // A process that this node's view doesn't know yet counts later: until then it is asked as rarely as a
                // silent one.
                if sh.is_present(&from, boot) {
                    peer.offered = None;
                }
                self.ledger.look_at(task, now);
                self.after_change(sh, task);
                continue;
            }
            // Nobody gets a copy that wasn't offered one, and one copy for an offer.
            if let Some(offered) = peer.offered.as_mut().filter(|offered| !offered.copied) {
                offered.copied = true;
                let entry = &kept.entry;
                // The other one may have been told a warrant of another time.
                let terms = Some(entry.terms.clone());
                let payload = entry.payload.clone().filter(|_| mark.is_none());
                let body = entry.course.result().cloned().or(payload).unwrap_or_default();
                sh.send(from, &Message::Copy { task, terms, course: entry.course.clone(), body });
            }
        }
    }

    pub(super) fn on_copy(
        &mut self,
        now: Instant,
        sh: &mut Shared,
        from: PublicKey,
        task: TaskId,
        (terms, course, body): (Option<Terms>, Course, Bytes),
    ) {
        if !sh.keepers.may_tell(now, &from, &task) || !sh.keepers.may_tell(now, &sh.local, &task) {
            sh.stats.forged += 1;
            return;
        }
        let held = self.ledger.get(&task);
        let (known, holder) =
            (held.map(|kept| kept.entry.terms.clone()), held.map(|kept| kept.standing.grant.key));
        let new = known.as_ref().is_none_or(|known| terms.as_ref().is_some_and(|terms| terms != known));
        let checked = match &terms {
            Some(terms) if new => match sh.warrants.check(now, terms.named(task), &terms.warrant) {
                Ok(standing) => Some(standing),
                Err(_) => {
                    sh.stats.refused += 1;
                    return;
                }
            },
            _ => None,
        };
        let Some(terms) = terms.or_else(|| known.clone()) else { return self.tell_held(sh, from, task) };
        let others =
            checked.as_ref().zip(holder).is_some_and(|(checked, holder)| checked.grant.key != holder);
        if others
            || known.as_ref().is_some_and(|known| known.digest != terms.digest || known.kind != terms.kind)
        {
            sh.stats.conflicts += 1;
            return;
        }
        let payload = Some(body).filter(|body| course.result().is_none() && terms.are_of(body));
        let mut entry = Entry { terms, payload, course };
        entry.trim();
        let theirs = entry.mark();
        let taken = match checked {
            checked if known.is_some() => self.ledger.merge(now, task, entry, checked).is_some(),
            None => false,
            // Nobody could run it, or it is over.
            Some(_)
                if (entry.is_open() && entry.payload.is_none()) || entry.known_until_ms() < sh.wall_ms() =>
            {
                false
            }
            Some(standing) => self.ledger.insert(now, task, entry, standing),
        };
        if !taken {
            sh.stats.refused += 1;
            return;
        }
        self.stop_if_ended(sh, task);
        self.after_change(sh, task);
        self.tell_held(sh, from, task);
        // A keeper of old drops its copy when it knows that the present ones have the same.
        if !sh.keepers.of(&task).contains(&from)
            && let Some(kept) = self.ledger.get(&task).filter(|kept| kept.mark != theirs)
        {
            let (terms, course) = (Some(kept.entry.terms.clone()), kept.entry.course.clone());
            let body = course.result().cloned().unwrap_or_default();
            sh.send(from, &Message::Copy { task, terms, course, body });
        }
    }

    fn tell_held(&self, sh: &mut Shared, to: PublicKey, task: TaskId) {
        let mark = self.ledger.get(&task).map(|kept| kept.mark);
        let (boot, durable) = (sh.boot, sh.durable);
        sh.send(to, &Message::Held { boot, durable, items: vec![Has { task, mark }] });
    }

    /// Offers a task to the other keepers that may lack it as it is. Returns whether none does, and when to go on.
    fn sync(
        &mut self,
        now: Instant,
        sh: &Shared,
        task: TaskId,
        keepers: &[PublicKey],
    ) -> (bool, Option<Instant>) {
        let Some(kept) = self.ledger.get_mut(&task) else { return (true, None) };
        let mark = kept.mark;
        kept.peers.retain(|peer| keepers.contains(&peer.key));
        let (mut all, mut next) = (true, None::<Instant>);
        for keeper in keepers.iter().filter(|keeper| **keeper != sh.local) {
            let peer = kept.peer(*keeper);
            if peer.told.is_some_and(|(told, boot, _)| told == mark && sh.is_present(keeper, boot)) {
                continue;
            }
            all = false;
            let mut again = peer.offered.map_or(now, |offered| offered.at + offer_after(offered.times));
            if again <= now {
                let times = peer.offered.map_or(0, |offered| offered.times) + 1;
                peer.offered = Some(Offered { at: now, times, copied: false });
                self.offers.entry(*keeper).or_default().push(Has { task, mark: Some(mark) });
                again = now + offer_after(times);
            }
            next = Some(next.map_or(again, |next| next.min(again)));
        }
        (all, next)
    }

    /// Sends the offers that have gathered.
    pub(super) fn flush(&mut self, sh: &mut Shared) {
        for (to, items) in std::mem::take(&mut self.offers) {
            for items in items.chunks(MAX_OFFERED) {
                sh.send(to, &Message::Offer { items: items.to_vec() });
            }
        }
    }

    // ---- Time.

    /// Notes that what earlier processes stored was given back, and that there is a view now.
    pub(super) fn on_first_view(&mut self, now: Instant) {
        let all: Vec<TaskId> = self.ledger.iter().map(|(task, _)| *task).collect();
        for task in all {
            if let Some(kept) = self.ledger.get_mut(&task) {
                kept.unsure_until = Some(now + UNSURE_FOR);
            }
        }
    }

    pub(super) fn answer_those_who_waited(&mut self, now: Instant, sh: &mut Shared) {
        while let Some((task, asker, want)) = self.waiters.pop_due(now) {
            self.answer(sh, task, asker, want);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.ledger.next_due(), self.waiters.next_due()].into_iter().flatten().min()
    }
}

fn offer_after(times: u32) -> Duration {
    match times {
        0 => FIRST_OFFER_AFTER,
        times => OFFER_AGAIN * (1 << (times - 1).min(MAX_OFFER_DOUBLINGS)),
    }
}

fn note(sh: &Shared, step: Step, worker: Option<PublicKey>, text: &str) -> Note {
    let mut text = text.to_owned();
    text.truncate(text.floor_char_boundary(MAX_NOTE_LEN));
    Note { at_ms: sh.wall_ms(), step, by: sh.local, worker, text }
}
