//! Messages about tasks in words: for log lines, and for the reader of a simulated world.

use super::message::{Known, Message, Reason, RecordCopy, Refused, Submit};

/// A refusal's reason, in a word.
pub(super) fn reason(reason: &Reason) -> &'static str {
    match reason {
        Reason::Busy { .. } => "busy",
        Reason::UnknownKind => "unknown-kind",
        Reason::Misrouted => "misrouted",
        Reason::Elsewhere { .. } => "elsewhere",
        Reason::Forwarded { .. } => "forwarded",
        Reason::Conflict => "conflict",
        Reason::Settled { .. } => "settled",
        Reason::Failed { .. } => "failed",
        Reason::Unknown => "unknown",
        Reason::HandedBack => "handed-back",
        Reason::NotAllowed { .. } => "not-allowed",
    }
}

/// What a message says.
pub(super) fn message(message: &Message) -> String {
    match message {
        Message::Submit(Submit { task, attempt, hops, submitter, kind, .. }) => {
            format!("SUBMIT task {task} attempt {attempt} hops {hops} kind {kind} of {}", submitter.short())
        }
        Message::Accepted { task, attempt, token, .. } => {
            format!("ACCEPTED task {task} attempt {attempt} epoch {}", token.counter)
        }
        Message::Beats { beats, .. } => match beats.first() {
            Some(beat) => format!("BEATS of {} tasks, the first {}", beats.len(), beat.task),
            None => "BEATS of no tasks".to_owned(),
        },
        Message::Progress { task, .. } => format!("PROGRESS task {task}"),
        Message::Refused(Refused { task, attempt, reason: why }) => {
            format!("REFUSED task {task} attempt {attempt} reason {}", reason(why))
        }
        Message::Outcome { task, attempt, record } => {
            format!("OUTCOME task {task} attempt {attempt} {:?} by {}", record.class, record.by.short())
        }
        Message::Replica(RecordCopy { task, record, .. }) => {
            format!("REPLICA task {task} {:?} by {}", record.class, record.by.short())
        }
        Message::Ack { task, .. } => format!("ACK task {task}"),
        Message::Fetch { task, attempt } => format!("FETCH task {task} attempt {attempt}"),
        Message::Cancel { task } => format!("CANCEL task {task}"),
        Message::Withdraw { task, attempt } => format!("WITHDRAW task {task} attempt {attempt}"),
        Message::Ask { task, .. } => format!("ASK task {task}"),
        Message::Known(Known { task, running, record }) => {
            let record = record.as_ref().map(|record| record.class);
            format!("KNOWN task {task} running {running} record {record:?}")
        }
        Message::Listening {} => "LISTENING".to_owned(),
        Message::Claim { task, attempt, .. } => format!("CLAIM task {task} attempt {attempt}"),
    }
}
