//! An executor's answers to submitters: an outcome, a refusal, or where the task went.

use super::message::{Message, Reason, Refused, Submit};
use super::options::MAX_HOPS;
use super::record::Record;
use super::replica::Waiter;
use super::shared::SharedContext;
use super::task::TaskId;
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
            let task = submit.task;
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
    shared.send(waiter.who, Message::Refused(Refused { task, attempt: waiter.attempt, reason }));
}

/// Tells a submitter an outcome, or that it was told before.
pub(super) fn tell(shared: &mut SharedContext, task: TaskId, waiter: Waiter, record: &Record) {
    if record.is_settled() {
        refuse(shared, task, waiter, Reason::Settled { hash: record.hash });
    } else {
        shared.send(waiter.who, Message::Outcome { task, attempt: waiter.attempt, record: record.clone() });
    }
}
