//! The custodian: the first live keeper of a task has it submitted, and notes what becomes of it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Driving, Keeper, note};
use crate::compute::job::custody::entry::{Course, End, Step, Terms};
use crate::compute::job::custody::shared::Shared;
use crate::compute::job::custody::{Drive, MAX_DRIVEN, MAX_DRIVEN_BYTES, Order};
use crate::compute::job::event::JobEvent;
use crate::compute::job::{JobError, Record, SubmitError, TaskId};
use crate::key::PublicKey;
use crate::ring::Epoch;

/// When a task is submitted after this node had no room for it.
const DRIVE_AGAIN: Duration = Duration::from_secs(1);
/// How long after a task's deadline its custodian ends it without the word of its jobs.
const DEADLINE_SLACK: Duration = Duration::from_secs(5);

impl Keeper {
    /// Looks at a task: whether it is over, whether the others have it, and whether this node has to do something for it.
    pub(in super::super) fn look(&mut self, now: Instant, sh: &mut Shared, task: TaskId) {
        let Some(kept) = self.ledger.get(&task) else { return };
        let (wall_ms, keepers) = (sh.wall_ms(), sh.keepers.of(&task));
        if wall_ms > kept.entry.known_until_ms() {
            sh.stats.expired += 1;
            return self.forget(sh, task);
        }
        if !kept.entry.is_open() && wall_ms > kept.entry.kept_until_ms() && kept.entry.bytes() > 0 {
            self.ledger.drop_bytes(task);
        }
        if keepers.is_empty() {
            return;
        }
        let (all_have_it, again) = self.sync(now, sh, task, &keepers);
        if !keepers.contains(&sh.local) && all_have_it && !self.driven.contains_key(&task) {
            // It is kept by others now.
            return self.forget(sh, task);
        }
        let next = self.attend(now, sh, task, keepers.first() == Some(&sh.local), all_have_it);
        let Some(kept) = self.ledger.get(&task) else { return };
        let over_ms = if kept.entry.is_open() || kept.entry.bytes() == 0 {
            kept.entry.known_until_ms()
        } else {
            kept.entry.kept_until_ms()
        };
        let over = now + Duration::from_millis(over_ms.saturating_sub(wall_ms) + 1);
        let next = [again, next, Some(over)].into_iter().flatten().min().unwrap_or(over);
        self.ledger.look_at(task, next.max(now + Duration::from_millis(1)));
    }

    fn forget(&mut self, sh: &mut Shared, task: TaskId) {
        self.stop(sh, task);
        self.unreleased.remove(&task);
        self.ledger.remove(&task);
        for (asker, want) in self.waiters.take(&task, |_| true) {
            self.answer(sh, task, asker, want);
        }
    }

    /// Does what an open task needs. Returns when to go on.
    fn attend(
        &mut self,
        now: Instant,
        sh: &mut Shared,
        task: TaskId,
        first: bool,
        sure: bool,
    ) -> Option<Instant> {
        let kept = self.ledger.get(&task).filter(|kept| kept.entry.is_open())?;
        let deadline = kept.entry.terms.warrant.until_ms;
        let cancelling = kept.entry.course.cancel_ms.is_some();
        if let Some(driving) = self.driven.get_mut(&task)
            && cancelling
            && !std::mem::replace(&mut driving.cancelled, true)
        {
            sh.orders.push_back(Order::Cancel(task));
        }
        if !first {
            return None;
        }
        let driving = self.driven.get(&task);
        let (runs, settled) = (driving.is_some(), driving.and_then(|driving| driving.settled.clone()));
        let late = deadline.saturating_sub(sh.wall_ms());
        let slack_ms = if runs { DEADLINE_SLACK.as_millis() as u64 } else { 0 };
        let error = if sh.warrants.is_over(now, &kept.standing) {
            Some(JobError::permanent("the pass of the task's submitter has ended or was revoked"))
        } else if cancelling && !runs {
            Some(JobError::Cancelled)
        } else if sh.wall_ms() >= deadline.saturating_add(slack_ms) {
            // Whoever had its outcome lost it, or never came back.
            Some(settled.unwrap_or(JobError::Deadline))
        } else {
            None
        };
        if let Some(error) = error {
            self.conclude(now, sh, task, Err(error), None);
            return None;
        }
        let over = now + Duration::from_millis(late + slack_ms + 1);
        if runs {
            return Some(over);
        }
        if let Some(until) = kept.unsure_until.filter(|until| !sure && *until > now) {
            return Some(over.min(until));
        }
        let bytes = kept.entry.bytes();
        if self.driven.len() >= MAX_DRIVEN || self.driven_bytes + bytes > MAX_DRIVEN_BYTES {
            return Some(over.min(now + DRIVE_AGAIN));
        }
        let Some(payload) = kept.entry.payload.clone() else { return Some(over) };
        let Terms { warrant, kind, key, .. } = kept.entry.terms.clone();
        let options = warrant.options(sh.wall);
        self.driven.insert(task, Driving { bytes, ..Driving::default() });
        self.driven_bytes += bytes;
        sh.stats.driven += 1;
        sh.orders.push_back(Order::Drive(Box::new(Drive { task, warrant, kind, key, payload, options })));
        self.add_note(now, sh, task, Step::Taken, None, "");
        Some(over)
    }

    /// Notes that a task could not be submitted.
    pub(in super::super) fn on_drive_failed(
        &mut self,
        now: Instant,
        sh: &mut Shared,
        task: TaskId,
        why: &SubmitError,
    ) {
        self.leave(task);
        match why {
            SubmitError::Busy { .. } => self.ledger.look_at(task, now + DRIVE_AGAIN),
            SubmitError::BadLife => self.conclude(now, sh, task, Err(JobError::Deadline), None),
            other => self.conclude(now, sh, task, Err(JobError::permanent(other.to_string())), None),
        }
    }

    /// Takes what the jobs tell of a task, if this node has submitted it for the log. Returns whether it has.
    pub(in super::super) fn on_job(&mut self, now: Instant, sh: &mut Shared, event: &JobEvent) -> bool {
        let task = match event {
            JobEvent::Accepted { task, .. }
            | JobEvent::Waiting { task, .. }
            | JobEvent::Progress { task, .. }
            | JobEvent::Reassigned { task, .. }
            | JobEvent::Done { task, .. } => *task,
            _ => return false,
        };
        let Some(driving) = self.driven.get_mut(&task) else {
            if matches!(event, JobEvent::Done { by: Some(_), .. }) && self.ledger.get(&task).is_some() {
                // It was stopped at the same time, since another keeper knows its end.
                self.unreleased.insert(task);
                self.after_change(sh, task);
            }
            return false;
        };
        match event {
            JobEvent::Accepted { by, token, .. } => {
                driving.token = driving.token.max(Some(*token));
                self.add_note(now, sh, task, Step::Accepted, Some(*by), "");
            }
            JobEvent::Waiting { why, .. } => {
                self.add_note(now, sh, task, Step::Waits, None, &why.to_string());
            }
            JobEvent::Reassigned { from, why, .. } => {
                self.add_note(now, sh, task, Step::Moved, Some(*from), why.as_str());
            }
            JobEvent::Progress { note, .. } => {
                driving.progress = Some(note.clone());
                for (asker, want) in self.waiters.take(&task, |_| true) {
                    self.answer(sh, task, asker, want);
                }
            }
            JobEvent::Done { outcome: Err(error @ JobError::Settled { .. }), .. } => {
                // Its outcome was acknowledged by another custodian, from whom it comes.
                driving.settled = Some(error.clone());
                driving.progress = None;
            }
            JobEvent::Done { outcome, by, .. } => {
                if by.is_some() {
                    self.unreleased.insert(task);
                }
                self.conclude(now, sh, task, outcome.clone(), *by);
            }
            _ => {}
        }
        true
    }

    fn conclude(
        &mut self,
        now: Instant,
        sh: &mut Shared,
        task: TaskId,
        outcome: Result<Bytes, JobError>,
        by: Option<PublicKey>,
    ) {
        let token = self.driven.get(&task).and_then(|driving| driving.token);
        let token = token.unwrap_or(Epoch { counter: 0, owner: sh.local });
        let text = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let line = note(sh, Step::Ended, by, &text);
        let record = Record::new(outcome, token, by.unwrap_or(sh.local));
        let mut course = Course { end: Some(End { record, at_ms: sh.wall_ms() }), ..Course::default() };
        course.note(line);
        sh.stats.concluded += 1;
        if by.is_some() {
            // The jobs have ended it; nothing is left to stop.
            self.leave(task);
        } else {
            self.stop(sh, task);
        }
        self.ledger.change(now, task, |entry| {
            entry.course.merge(course);
            entry.trim();
        });
        self.after_change(sh, task);
    }

    /// Stops a task that this node has submitted and that another keeper knows to have ended.
    pub(super) fn stop_if_ended(&mut self, sh: &mut Shared, task: TaskId) {
        if self.ledger.get(&task).is_some_and(|kept| !kept.entry.is_open()) {
            self.stop(sh, task);
        }
    }

    fn stop(&mut self, sh: &mut Shared, task: TaskId) {
        if self.leave(task) {
            sh.orders.push_back(Order::Cancel(task));
        }
    }

    fn leave(&mut self, task: TaskId) -> bool {
        let left = self.driven.remove(&task);
        self.driven_bytes -= left.as_ref().map_or(0, |driving| driving.bytes);
        left.is_some_and(|driving| driving.settled.is_none())
    }

    fn add_note(
        &mut self,
        now: Instant,
        sh: &mut Shared,
        task: TaskId,
        step: Step,
        worker: Option<PublicKey>,
        text: &str,
    ) {
        let line = note(sh, step, worker, text);
        if self.ledger.change(now, task, |entry| entry.course.note(line)) {
            self.after_change(sh, task);
        }
    }
}
