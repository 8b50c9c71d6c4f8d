//! An executor's answers to submitters: an outcome, a refusal, or where the task went.

use super::message::{Message, Reason, Refused, Submit};
use super::options::MAX_HOPS;
use super::record::Record;
use super::replica::Waiter;
use super::shared::SharedContext;
use super::task::TaskId;
use super::told;
use crate::key::PublicKey;

/// Forwards a submit to the node that is responsible in this view, but never back to its sender, and tells the
/// submitter.
pub(super) fn forward(shared: &mut SharedContext, from: PublicKey, list: &[PublicKey], mut submit: Submit) {
    let waiter = Waiter { who: submit.submitter, attempt: submit.attempt };
    let last = usize::from(submit.reach).min(list.len().saturating_sub(1));
    // The n-th of the list, or the nearest one before it that isn't the sender or this node.
    let next = list.iter().take(last + 1).rev().find(|member| **member != from && **member != shared.local);
    match next {
        Some(next) if submit.hops < MAX_HOPS => {
            submit.hops += 1;
            shared.stats.forwarded += 1;
            let next = *next;
            let (task, attempt, hops) = (submit.task, submit.attempt, submit.hops);
            tracing::debug!(target: "nurl::job", %task, attempt, to = %next.short(), hops, "a task is forwarded");
            shared.send(next, Message::Submit(submit));
            // The next node waits until the submitter has said itself that the task is its own.
            refuse(shared, task, waiter, Reason::Forwarded { runner: next });
        }
        _ => {
            shared.stats.misrouted += 1;
            refuse(shared, submit.task, waiter, Reason::Misrouted);
        }
    }
}

/// Ends a submitter's attempt without an outcome.
pub(super) fn refuse(shared: &mut SharedContext, task: TaskId, waiter: Waiter, reason: Reason) {
    let Waiter { who, attempt } = waiter;
    let why = told::reason(&reason);
    tracing::debug!(target: "nurl::job", %task, attempt, submitter = %who.short(), why, "an attempt of a task is refused");
    shared.send(who, Message::Refused(Refused { task, attempt, reason }));
}

/// Tells a submitter an outcome, or that it was told before.
pub(super) fn tell(shared: &mut SharedContext, task: TaskId, waiter: Waiter, record: &Record) {
    if record.is_settled() {
        refuse(shared, task, waiter, Reason::Settled { hash: record.hash });
    } else {
        shared.send(waiter.who, Message::Outcome { task, attempt: waiter.attempt, record: record.clone() });
    }
}
