//! Outcomes, which a worker keeps for the submitter and as a replica.

use chaos::property::Violation;
use nurl::internals::transport::kind;
use nurl::rt::Table;

use super::{
    AGAIN, Act, COUNTED, OTHER, OUTCOME, REFUSED, ROOMY, ROUND_TRIP, SETTLED, UNHURT, WORKERS, exactly,
    heard, id,
};
use crate::cluster::secret;
use crate::insider::{Insider, wire};

/// The further outcomes that each worker keeps.
const KEPT: usize = 10;

/// The greedy one's tasks.
const TRIES: usize = 2 * KEPT;

/// The modest member's tasks before that.
const BEFORE: usize = 2;

const COUNTS: [&str; 3] = ["job.records", "job.records_refused", "job.records_evicted"];

pub(super) async fn act(act: &Act<'_>, state: &mut String) -> Result<(), Violation> {
    act.bound_workers(Table::Records, KEPT);
    let counts = async || {
        let mut now = Vec::new();
        for worker in act.workers() {
            now.push(act.counts(worker, COUNTS).await);
        }
        now
    };
    submit(act, act.patron, 4, 0);
    for number in 0..BEFORE {
        modest(act, &format!("a modest outcome {number}")).await?;
    }
    act.world.sleep(SETTLED).await;
    let few = 1 + BEFORE as u64;
    exactly(COUNTED, "records of modest ones alone", counts().await, vec![[few, 0, 0]; WORKERS])?;

    for number in 0..TRIES as u8 {
        submit(act, act.glutton, 3, number);
        act.world.sleep(ROUND_TRIP / 3).await;
    }
    act.world.sleep(SETTLED).await;
    let all = few + TRIES as u64;
    // At the worker that ran them they are on their submitters' accounts, of whom the greedy one has most, and makes room for
    // nobody of its own. What that worker doesn't keep, it doesn't pass on.
    let (kept, over) = (KEPT as u64, all - KEPT as u64);
    let expected = vec![[kept, 0, 0], [kept, over, 0], [kept, 0, 0]];
    exactly(COUNTED, "records, refused, evicted", counts().await, expected)?;

    // The modest one's next takes the place of the oldest of the greedy one's. At the other workers all are on the account of
    // the one that told them.
    modest(act, "a modest outcome later").await?;
    act.world.sleep(SETTLED).await;
    let expected = vec![[kept, 1, 0], [kept, over, 1], [kept, 1, 0]];
    exactly(COUNTED, "records, refused, evicted", counts().await, expected)?;

    // Submitted again, those that are kept aren't run again, and their submitters are told.
    let told = |by| heard(by, OUTCOME).len() + heard(by, REFUSED).len();
    let before = told(act.patron);
    let again = [(act.patron, 4, 0, 1), (act.glutton, 3, 1, 1), (act.glutton, 3, 0, 2)];
    for (by, whose, number, runs) in again {
        submit(act, by, whose, number);
        act.world.sleep(SETTLED).await;
        exactly(UNHURT, &format!("runs of {}", name(whose, number)), act.runs(&name(whose, number)), runs)?;
    }
    exactly(UNHURT, "answers to a modest one", told(act.patron) > before, true)?;

    act.bound_workers(Table::Records, ROOMY);
    let before = act.counts(act.other, COUNTS).await;
    submit(act, act.glutton, 3, TRIES as u8);
    act.world.sleep(SETTLED).await;
    let expected = [before[0] + 1, before[1], before[2]];
    exactly(AGAIN, "records with more room", act.counts(act.other, COUNTS).await, expected)?;
    *state += &format!("outcomes: of {all} a worker keeps {KEPT}, the modest ones' among them\n");
    Ok(())
}

async fn modest(act: &Act<'_>, name: &str) -> Result<(), Violation> {
    let task = act.submit(act.modest, OTHER, name).await.expect("there is room");
    act.done(act.modest, name, task, 2 * ROUND_TRIP).await
}

fn name(whose: u8, number: u8) -> String {
    format!("an outcome {whose} {number}")
}

fn submit(act: &Act<'_>, by: &Insider, whose: u8, number: u8) {
    let name = name(whose, number);
    let task = wire::submit(id(whose, number), by.key, 0, OTHER, name.as_bytes(), &secret(&name));
    by.send_message(act.other.key, kind::JOB, task);
}
