//! A worker's tasks, and the queue of one kind.

use std::time::Duration;

use chaos::property::Violation;
use nurl::internals::transport::kind;
use nurl::rt::Table;

use super::{
    AGAIN, Act, BOUNDED, COUNTED, NARROW, OUTCOME, QUEUE, REFUSED, ROOMY, ROUND_TRIP, SETTLED, SINGLE, TAKES,
    TOLD, UNHURT, exactly, heard, id,
};
use crate::cluster::secret;
use crate::insider::{Insider, wire};

/// The tasks that the worker takes.
const TASKS: usize = 8;

/// The greedy member's tasks.
const TRIES: usize = 3 * TASKS;

/// All of them are done within this: busy workers are asked again after ten seconds at most, often more than once.
const DONE: Duration = Duration::from_secs(90);

const COUNTS: [&str; 3] = ["job.executing", "job.busy", "job.gave_way"];

pub(super) async fn act(act: &Act<'_>, state: &mut String) -> Result<(), Violation> {
    tasks(act, state).await?;
    queue(act, state).await
}

/// All tasks of the worker.
async fn tasks(act: &Act<'_>, state: &mut String) -> Result<(), Violation> {
    act.worker.host.set_bound(Table::Executions.name(), TASKS);
    let [_, busy, gave_way] = act.counts(act.worker, COUNTS).await;
    let since = async || {
        let now = act.counts(act.worker, COUNTS).await;
        [now[0], now[1] - busy, now[2] - gave_way]
    };
    let [seen, unseen] = [act.greedy, act.modest].map(|peer| act.counts(peer, ["job.busy_seen"]));
    let ([seen], [unseen]) = (seen.await, unseen.await);
    let alone = act.submit(act.modest, SINGLE, "a task alone").await.expect("there is room");
    act.done(act.modest, "a task alone", alone, TAKES + ROUND_TRIP).await?;
    exactly(COUNTED, "refusals to one alone", since().await, [0, 0, 0])?;

    let mut open = Vec::new();
    for number in 0..TRIES {
        let name = format!("a greedy task {number}");
        open.push((act.submit(act.greedy, SINGLE, &name).await.expect("there is room"), name));
    }
    act.world.sleep(SETTLED).await;
    let over = (TRIES - TASKS) as u64;
    exactly(BOUNDED, "tasks, refused, displaced", since().await, [TASKS as u64, over, 0])?;
    exactly(TOLD, "refusals heard", act.counts(act.greedy, ["job.busy_seen"]).await, [seen + over])?;

    // The task that runs is over before, and no other one is.
    let name = "a modest task";
    let modest = act.submit(act.modest, SINGLE, name).await.expect("there is room");
    act.world.sleep(ROUND_TRIP).await;
    let [tasks, _, gave_way] = since().await;
    exactly(UNHURT, "tasks displaced for a modest one's", gave_way, 1)?;
    exactly(BOUNDED, "tasks", tasks <= TASKS as u64, true)?;
    act.done(act.modest, name, modest, 2 * TAKES).await?;
    exactly(UNHURT, "refusals to the modest one", act.counts(act.modest, ["job.busy_seen"]).await, [unseen])?;

    let count = open.len();
    let until = act.world.elapsed() + DONE;
    for (task, name) in open {
        act.done(act.greedy, &name, task, until.saturating_sub(act.world.elapsed())).await?;
        exactly(UNHURT, "runs of a task that was refused", act.runs(&name), 1)?;
    }
    act.until(act.worker, "job.executing", 0, SETTLED).await?;
    let [_, before, _] = since().await;
    let mut open = Vec::new();
    for number in 0..TASKS {
        let name = format!("a later task {number}");
        open.push((act.submit(act.greedy, SINGLE, &name).await.expect("there is room"), name));
    }
    act.world.sleep(SETTLED).await;
    let [_, after, _] = since().await;
    exactly(AGAIN, "refusals of as many as fit", after - before, 0)?;
    for (task, name) in open {
        act.done(act.greedy, &name, task, TASKS as u32 * TAKES).await?;
    }
    act.worker.host.set_bound(Table::Executions.name(), ROOMY);
    *state += &format!("executors: {count} tasks went through a table of {TASKS}, a modest one at once\n");
    Ok(())
}

/// The queue of a kind.
async fn queue(act: &Act<'_>, state: &mut String) -> Result<(), Violation> {
    let begun = act.counts(act.worker, COUNTS).await;
    submit(act, act.glutton, 1, 0);
    act.world.sleep(ROUND_TRIP).await;
    let last = QUEUE as u8;
    for number in 1..=last + 2 {
        submit(act, act.glutton, 1, number);
    }
    act.world.sleep(ROUND_TRIP).await;
    exactly(TOLD, "tasks refused", heard(act.glutton, REFUSED), vec![id(1, last + 1), id(1, last + 2)])?;
    submit(act, act.patron, 2, 0);
    act.world.sleep(ROUND_TRIP).await;
    // The last one of whoever has most.
    let refused = vec![id(1, last + 1), id(1, last + 2), id(1, last)];
    exactly(TOLD, "tasks refused and displaced", heard(act.glutton, REFUSED), refused)?;
    exactly(UNHURT, "tasks of the modest one refused", heard(act.patron, REFUSED), Vec::new())?;
    act.world.sleep(2 * TAKES).await;
    exactly(UNHURT, "a result of the modest one", heard(act.patron, OUTCOME).contains(&id(2, 0)), true)?;
    act.until(act.worker, "job.executing", 0, (QUEUE as u32 + 1) * TAKES).await?;
    let now = act.counts(act.worker, COUNTS).await;
    exactly(COUNTED, "refused and displaced", [now[1] - begun[1], now[2] - begun[2]], [2, 1])?;
    *state += &format!("queue: of {} tasks {QUEUE} waited, the last one gave way\n", last + 3);
    Ok(())
}

fn submit(act: &Act<'_>, by: &Insider, whose: u8, number: u8) {
    let name = format!("a queued task {whose} {number}");
    let task = wire::submit(id(whose, number), by.key, 0, NARROW, name.as_bytes(), &secret(&name));
    by.send_message(act.worker.key, kind::JOB, task);
}
