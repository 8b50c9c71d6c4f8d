//! Forwarded tasks, which wait at a worker for their submitters' word.

use std::time::Duration;

use chaos::property::Violation;
use nurl::internals::transport::kind;
use nurl::rt::Table;

use super::{AGAIN, Act, COUNTED, OUTCOME, QUICK, ROOMY, ROUND_TRIP, UNHURT, exactly, heard, id};
use crate::cluster::secret;
use crate::insider::{Insider, wire};

/// The tasks that wait.
const WAIT: usize = 6;

/// Those of one forwarder.
const TRIES: usize = 3 * WAIT;

/// A worker drops what nobody claimed within 5 s.
const DROPPED: Duration = Duration::from_millis(5_100);

pub(super) async fn act(act: &Act<'_>, state: &mut String) -> Result<(), Violation> {
    act.worker.host.set_bound(Table::Forwarded.name(), WAIT);
    // Twice, with the forwarders' parts exchanged: what the first one had is given back.
    for (whose, greedy, modest) in [(5, act.glutton, act.patron), (6, act.patron, act.glutton)] {
        let [before] = act.counts(act.worker, ["job.unclaimed"]).await;
        let dropped = async || act.counts(act.worker, ["job.unclaimed"]).await[0] - before;
        // The modest one alone.
        round(act, modest, whose + 10, 0).await?;
        exactly(COUNTED, "dropped of one alone", dropped().await, 0)?;
        for number in 0..TRIES as u8 {
            forward(act, greedy, act.modest.key, whose, number);
        }
        act.world.sleep(ROUND_TRIP).await;
        exactly(COUNTED, "dropped at once", dropped().await, (TRIES - WAIT) as u64)?;
        round(act, modest, whose + 10, 1).await?;
        exactly(COUNTED, "dropped for a modest one's", dropped().await, (TRIES - WAIT + 1) as u64)?;
        act.world.sleep(DROPPED).await;
        exactly(AGAIN, "dropped in time", dropped().await, TRIES as u64)?;
        exactly(UNHURT, "runs of tasks without a word", act.runs(&name(whose, 0)), 0)?;
    }
    act.worker.host.set_bound(Table::Forwarded.name(), ROOMY);
    *state +=
        &format!("forwarded: {WAIT} of {TRIES} waited, and a modest forwarder's was claimed beside them\n");
    Ok(())
}

/// A task is forwarded in the client's name, which claims it, and has its result.
async fn round(act: &Act<'_>, by: &Insider, whose: u8, number: u8) -> Result<(), Violation> {
    forward(act, by, act.client.key, whose, number);
    act.world.sleep(ROUND_TRIP / 3).await;
    let name = name(whose, number);
    let claim = wire::claim_task(id(whose, number), QUICK, name.as_bytes(), &secret(&name));
    act.client.send_message(act.worker.key, kind::JOB, claim);
    act.world.sleep(ROUND_TRIP).await;
    exactly(UNHURT, "runs of a claimed task", act.runs(&name), 1)?;
    exactly(UNHURT, "its result", heard(act.client, OUTCOME).contains(&id(whose, number)), true)
}

fn name(whose: u8, number: u8) -> String {
    format!("a forwarded task {whose} {number}")
}

fn forward(act: &Act<'_>, by: &Insider, of: nurl::PublicKey, whose: u8, number: u8) {
    let name = name(whose, number);
    let task = wire::submit(id(whose, number), of, 1, QUICK, name.as_bytes(), &secret(&name));
    by.send_message(act.worker.key, kind::JOB, task);
}
