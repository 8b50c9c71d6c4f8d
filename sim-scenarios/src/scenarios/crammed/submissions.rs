//! A submitter's tasks without an outcome.

use std::time::Duration;

use chaos::property::Violation;
use nurl::Error;
use nurl::internals::compute::job::SubmitError;
use nurl::rt::Table;

use super::{AGAIN, Act, BOUNDED, COUNTED, ROOMY, ROUND_TRIP, TAKES, TOLD, WIDE, exactly};

/// The tasks that a node takes from its application.
const OPEN: usize = 3;

/// When the application is told to try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const COUNTS: [&str; 2] = ["job.open", "job.refused_submits"];

pub(super) async fn act(act: &Act<'_>, state: &mut String) -> Result<(), Violation> {
    act.modest.host.set_bound(Table::Submissions.name(), OPEN);
    let [_, before] = act.counts(act.modest, COUNTS).await;
    let mut open = Vec::new();
    for number in 0..OPEN {
        let name = format!("an open task {number}");
        open.push((act.submit(act.modest, WIDE, &name).await.expect("there is room"), name));
    }
    exactly(BOUNDED, "open, refused", act.counts(act.modest, COUNTS).await, [OPEN as u64, before])?;
    let refused = async |name: &str| match act.submit(act.modest, WIDE, name).await {
        Err(Error::Submit(SubmitError::Busy { retry_after })) => Ok(retry_after),
        other => Err(Violation::safety(TOLD, format!("{name}: {:?}", other.map(|task| task.id())))),
    };
    exactly(TOLD, "when to try again", refused("one too many").await?, RETRY_AFTER)?;
    exactly(COUNTED, "open, refused", act.counts(act.modest, COUNTS).await, [OPEN as u64, before + 1])?;

    // A cancelled one gives its place to the next at once.
    let (cancelled, _) = open.pop().expect("there are some");
    exactly(AGAIN, "cancelled", act.node(act.modest).await.cancel(cancelled.id()).await.ok(), Some(true))?;
    let name = "instead of the cancelled one".to_owned();
    let next = act.submit(act.modest, WIDE, &name).await;
    open.push((next.map_err(|error| Violation::safety(AGAIN, format!("{name}: {error}")))?, name));
    refused("one too many again").await?;
    for (task, name) in open {
        act.done(act.modest, &name, task, TAKES + 2 * ROUND_TRIP).await?;
    }
    for number in 0..OPEN {
        let name = format!("a next task {number}");
        let next = act.submit(act.modest, WIDE, &name).await;
        let next = next.map_err(|error| Violation::safety(AGAIN, format!("{name}: {error}")))?;
        act.done(act.modest, &name, next, TAKES + 2 * ROUND_TRIP).await?;
    }
    exactly(COUNTED, "open, refused", act.counts(act.modest, COUNTS).await, [0, before + 2])?;
    act.modest.host.set_bound(Table::Submissions.name(), ROOMY);
    *state += &format!("submissions: {OPEN} were open at a time, 2 refused\n");
    Ok(())
}
