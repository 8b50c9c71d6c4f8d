//! Jobs that fail: by an error, a panic, the kind's limit, their life, or the crash of a worker between two attempts.

use std::time::Duration;

use chaos::link::{LinkConfig, Rate};
use chaos::property::Violation;
use chaos::sometimes;
use nurl::internals::compute::job::options::{MAX_ERROR_TEXT_LEN, MAX_PAYLOAD_LEN};
use nurl::internals::compute::job::{JobError, SubmitOptions};
use rand_core::Rng as _;

use super::handlers::{Course, FAILS, LIMIT, LIMITED, TRIES};
use super::submitted::{End, Submitted};
use super::{Act, LEARN, ROUND_TRIP, WORKERS, links};
use crate::cluster::{Deadline, secret};

const RESULT: &str = "a job that fails fewer times than it may has its result";
const LETTER: &str = "a job that fails as often as it may is a dead letter that says how often and why";
const FINAL: &str = "a job that fails for good has its handler's error after one run";
const ELSEWHERE: &str =
    "a job that fails goes to every other worker before it is tried again where it failed";
const SOON: &str = "after a failure the next attempt is made within the back-off";
const OVER: &str = "a run is over when its time is";
const LIFE_ENDS: &str = "a job has its end when its life is over, and no sooner";
const TEXT: &str = "an error's text arrives, cut at a character to what a message may have";
const CRASHED: &str = "a job whose worker crashes between two attempts has its result from another one";

/// The back-off after a failure is drawn from 0 to this.
const BACK_OFF: Duration = Duration::from_millis(200);

/// From the end of a failed run to the beginning of the next: the refusal, the back-off, the submit, and the question to
/// the owners of the key, whether they have its outcome.
const NEXT: Duration = Duration::from_millis(200 + 3 * ROUND_TRIP.as_millis() as u64);

/// The longest of these jobs takes its failures, each with its back-off.
const DONE: Duration = Duration::from_secs(20);

/// The life of the job that outlives it.
const LIFE: Duration = Duration::from_millis(2_500);

/// A job among losses, whose worker crashes, ends within this: the verdict on the dead, and a round over the others.
const AMONG_LOSSES: Duration = Duration::from_secs(60);

/// A text that is too long, of characters of two bytes, the first of which is at an odd place.
fn long_text() -> String {
    format!("x{}", "ä".repeat(MAX_ERROR_TEXT_LEN))
}

/// All sorts of failures at once, on links that lose nothing.
pub(super) async fn act(act: &Act<'_>) -> Result<String, Violation> {
    let mut draws = act.world.rng("failures");
    let may_fail = 2 + draws.next_u32() % 6;
    let fails = 1 + draws.next_u32() % (may_fail - 1);
    let options = SubmitOptions { max_failures: may_fail, ..SubmitOptions::default() };
    let short = SubmitOptions { life: LIFE, ..SubmitOptions::default() };
    let twice = SubmitOptions { max_failures: 2, ..SubmitOptions::default() };
    let plan = [
        ("fails and is done", TRIES, &options, Course::Fail(fails as usize)),
        ("fails always", TRIES, &options, Course::Fail(usize::MAX)),
        ("gives up", TRIES, &options, Course::GiveUp),
        ("takes too long", LIMITED, &twice, Course::Take(LIMIT * 4)),
        ("is refused", TRIES, &options, Course::Refuse(long_text())),
        ("panics", TRIES, &options, Course::Panic { beside: false }),
        ("panics beside the pool", TRIES, &options, Course::Panic { beside: true }),
        ("grows", TRIES, &options, Course::Grow),
        ("outlives its life", TRIES, &short, Course::Take(LIFE * 4)),
    ];
    let mut open = Vec::new();
    for (name, kind, options, course) in plan {
        act.script.set(name, course);
        open.push(Submitted::new(act.world, act.from, kind, name, options.clone()).await);
    }
    for job in open {
        let name = job.name.clone();
        let begun = job.begun;
        let end = job.end(act.world, LETTER, DONE).await?;
        let letter = |failures: u32, last: &str| {
            Err(JobError::DeadLetter { failures, last: format!("the handler failed: {last}") })
        };
        let gave_up = "the handler waited for something that was cancelled";
        match name.as_str() {
            "fails and is done" => {
                expect(act, RESULT, &name, &end, Ok(secret(&name)), fails as usize + 1)?;
            }
            "fails always" => {
                expect(act, LETTER, &name, &end, letter(may_fail, FAILS), may_fail as usize)?;
            }
            "gives up" => expect(act, LETTER, &name, &end, letter(may_fail, gave_up), may_fail as usize)?,
            "takes too long" => {
                let late = JobError::DeadLetter { failures: 2, last: JobError::TimedOut.to_string() };
                expect(act, LETTER, &name, &end, Err(late), 2)?;
                over_in_time(act, &name, LIMIT)?;
            }
            "is refused" => is_refused(act, &name, &end)?,
            "grows" => {
                let error = JobError::TooLarge { len: MAX_PAYLOAD_LEN as u64 + 1 };
                expect(act, FINAL, &name, &end, Err(error), 1)?;
            }
            "outlives its life" => {
                expect(act, LIFE_ENDS, &name, &end, Err(JobError::Deadline), 1)?;
                if end.took < LIFE || end.took > LIFE + ROUND_TRIP {
                    return Err(Violation::safety(
                        LIFE_ENDS,
                        format!("{name}: after {:?} of {LIFE:?}", end.took),
                    ));
                }
                act.world.sleep(ROUND_TRIP).await;
                let began = act.script.runs(&name)[0].began;
                over_in_time(act, &name, begun + LIFE + ROUND_TRIP - began)?;
            }
            _ => {
                let error = JobError::Panicked(format!("as asked: {name}"));
                expect(act, FINAL, &name, &end, Err(error), 1)?;
            }
        }
        elsewhere(act, &name)?;
    }
    Ok(format!(
        "{fails} of {may_fail} failures ended with a result, {may_fail} with a dead letter; what failed for good ran once\n"
    ))
}

/// A job came to this end, after so many runs, each of them its own attempt.
fn expect(
    act: &Act<'_>,
    property: &str,
    name: &str,
    end: &End,
    outcome: Result<bytes::Bytes, JobError>,
    runs: usize,
) -> Result<(), Violation> {
    let ran = act.script.runs(name).len();
    if end.outcome == outcome && ran == runs && end.attempts as usize == runs {
        return Ok(());
    }
    let got = end.outcome.as_ref().map(|bytes| format!("{} bytes", bytes.len()));
    let seen = format!("{name}: {got:?} after {ran} runs in {} attempts, not {runs}", end.attempts);
    Err(Violation::safety(property, seen))
}

fn is_refused(act: &Act<'_>, name: &str, end: &End) -> Result<(), Violation> {
    let Err(JobError::Failed { retriable: false, message }) = &end.outcome else {
        return Err(Violation::safety(FINAL, format!("{name} came back as {:?}", end.outcome)));
    };
    // One byte is missing to the limit: the next character has two.
    if !long_text().starts_with(message.as_str()) || message.len() != MAX_ERROR_TEXT_LEN - 1 {
        let seen = format!("{} bytes of a text of {}", message.len(), long_text().len());
        return Err(Violation::safety(TEXT, seen));
    }
    match act.script.runs(name).len() {
        1 => Ok(()),
        runs => Err(Violation::safety(FINAL, format!("{name} ran {runs} times"))),
    }
}

/// All workers are alive, so each round over them has each once, and the next begins with another than the last.
fn elsewhere(act: &Act<'_>, name: &str) -> Result<(), Violation> {
    let runs = act.script.runs(name);
    for round in runs.chunks(WORKERS) {
        let twice = round.iter().enumerate().any(|(at, run)| round[..at].iter().any(|of| of.by == run.by));
        if twice {
            let by: Vec<_> = runs.iter().map(|run| run.by.as_str()).collect();
            return Err(Violation::safety(ELSEWHERE, format!("{name} ran at {}", by.join(", "))));
        }
    }
    for pair in runs.windows(2) {
        if pair[0].by == pair[1].by {
            return Err(Violation::safety(ELSEWHERE, format!("{name} ran twice in a row at {}", pair[0].by)));
        }
        let gap = pair[1].began.saturating_sub(pair[0].ended.unwrap_or(pair[0].began));
        if gap > NEXT {
            let seen =
                format!("{name} began {gap:?} after its failure, the back-off is {BACK_OFF:?} at most");
            return Err(Violation::liveness(SOON, seen));
        }
    }
    sometimes!(
        runs.len() > WORKERS,
        "a job failed at each worker, and was tried again where it had failed first"
    );
    Ok(())
}

/// Each run of a job was over after so long.
fn over_in_time(act: &Act<'_>, name: &str, limit: Duration) -> Result<(), Violation> {
    let took = |run: &super::handlers::Run| run.ended.map(|ended| ended - run.began);
    // Its supervisor hears of the end of the time, and drops it at its next await.
    let late = |run: &super::handlers::Run| took(run).is_none_or(|took| took > limit + ROUND_TRIP / 10);
    match act.script.runs(name).iter().find(|run| late(run)) {
        None => Ok(()),
        Some(run) => {
            Err(Violation::safety(OVER, format!("{name} at {}: {:?} of {limit:?}", run.by, took(run))))
        }
    }
}

/// Jobs fail and are tried again on links that lose packets, and the first worker that fails one crashes.
pub(super) async fn among_losses(act: &Act<'_>) -> Result<String, Violation> {
    const JOBS: usize = 6;
    let mut draws = act.world.rng("losses");
    act.world.link_default(LinkConfig { udp_loss: Rate::percent(10), ..links() });
    let mut open = Vec::new();
    for number in 0..JOBS {
        let name = format!("among losses {number}");
        // The last one fails for good: no crash and no loss make that a retriable failure.
        let last = number == JOBS - 1;
        act.script.set(&name, if last { Course::Refuse(FAILS.to_owned()) } else { Course::Fail(2) });
        open.push(Submitted::new(act.world, act.from, TRIES, &name, SubmitOptions::default()).await);
    }
    let failed = || act.script.runs("among losses 0").first().filter(|run| run.ended.is_some()).cloned();
    let deadline = Deadline::new(act.world, CRASHED, AMONG_LOSSES);
    let first = loop {
        if let Some(run) = failed() {
            break run;
        }
        deadline.still_missing(vec!["the first failure".to_owned()]).await?;
    };
    // Its refusal is on the way, or has arrived, or is lost with the worker.
    act.world.sleep(Duration::from_millis(draws.next_u64() % 200)).await;
    let victim = act.cluster.peers.iter().find(|peer| peer.name == first.by).expect("a worker ran it");
    let between = act.script.runs("among losses 0").len() == 1;
    sometimes!(between, "a worker crashed between two attempts of a job that had failed there");
    if draws.next_u32().is_multiple_of(2) {
        victim.host.crash();
    } else {
        victim.host.power_loss();
    }
    for job in open {
        let name = job.name.clone();
        let end = job.end(act.world, CRASHED, AMONG_LOSSES).await?;
        let runs = act.script.runs(&name).len();
        let expected = if matches!(end.outcome, Err(JobError::Failed { retriable: false, .. })) {
            name.ends_with(&(JOBS - 1).to_string())
        } else {
            end.outcome == Ok(secret(&name)) && runs >= 3
        };
        if !expected {
            let seen = format!("{name}: {:?} after {runs} runs", end.outcome);
            return Err(Violation::safety(CRASHED, seen));
        }
    }
    act.world.link_default(links());
    victim.host.restart();
    act.cluster.converge(LEARN).await?;
    Ok(format!("{JOBS} jobs that failed among losses had their ends, though a worker crashed\n"))
}
