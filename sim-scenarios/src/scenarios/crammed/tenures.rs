//! The keys for which a worker holds a tenure.

use std::time::Duration;

use chaos::property::Violation;
use nurl::internals::compute::job::SubmitOptions;
use nurl::rt::Table;

use super::{Act, BOUNDED, COUNTED, QUICK, ROOMY, ROUND_TRIP, UNHURT, WIDE, exactly};
use crate::cluster::secret;

/// The keys that the worker acts for.
const KEYS: usize = 4;

/// Keys that are used one after the other.
const IN_TURN: usize = 3 * KEYS;

/// Keys with a task at the same time.
const AT_ONCE: usize = KEYS + 2;

/// For so long a worker without a tenure for a task is busy, at least.
const BUSY: Duration = Duration::from_millis(100);

/// The tasks that were refused are asked for again, after up to ten seconds if it is the fourth time.
const DONE: Duration = Duration::from_secs(15);

const COUNTS: [&str; 4] = ["job.tenures", "ring.tenures.full", "ring.tenures.evicted", "job.busy"];

pub(super) async fn act(act: &Act<'_>, state: &mut String) -> Result<(), Violation> {
    act.worker.host.set_bound(Table::Tenures.name(), KEYS);
    exactly(COUNTED, "before", act.counts(act.worker, COUNTS).await, [0; 4])?;
    let mut open = Vec::new();
    for number in 0..AT_ONCE {
        let name = format!("a key at once {number}");
        open.push((act.submit(act.greedy, WIDE, &name).await.expect("there is room"), name));
    }
    act.world.sleep(BUSY / 2).await;
    let over = (AT_ONCE - KEYS) as u64;
    let expected = [KEYS as u64, over, 0, over];
    exactly(COUNTED, "tenures, refused, evicted, busy", act.counts(act.worker, COUNTS).await, expected)?;
    for (task, name) in open {
        act.done(act.greedy, &name, task, DONE).await?;
        exactly(UNHURT, "runs", act.runs(&name), 1)?;
    }
    let [tenures, full, evicted, busy] = act.counts(act.worker, COUNTS).await;
    exactly(BOUNDED, "tenures, evicted", [tenures, evicted], [KEYS as u64, over])?;
    exactly(COUNTED, "refusals of the table and of the worker", full, busy)?;

    // One key after the other: the one that was idle for longest makes room, and the one that is used again stays.
    const OFTEN: &str = "a key that is used often";
    for number in 0..IN_TURN {
        for name in [OFTEN.to_owned(), format!("a key in turn {number}")] {
            let node = act.node(act.modest).await;
            let options = SubmitOptions::default();
            let task = node.submit(QUICK, name.as_bytes(), secret(&name), options).await;
            act.done(act.modest, &name, task.expect("there is room"), 2 * ROUND_TRIP).await?;
        }
    }
    let expected = [KEYS as u64, full, evicted + 1 + IN_TURN as u64, busy];
    exactly(BOUNDED, "tenures, refused, evicted, busy", act.counts(act.worker, COUNTS).await, expected)?;
    act.worker.host.set_bound(Table::Tenures.name(), ROOMY);
    *state +=
        &format!("tenures: {AT_ONCE} keys at once and {IN_TURN} in turn went through a table of {KEYS}\n");
    Ok(())
}
