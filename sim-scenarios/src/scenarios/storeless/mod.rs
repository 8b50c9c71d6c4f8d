//! Workers without stores restart one after the other, and nothing that was acknowledged is lost.
//!
//! Eight workers and a member, none with a store, have written to twenty objects of all kinds: counters at 1,000, sets of
//! 20 and of 100 elements, registers. All comparisons are between the copies that owners hold. The acts:
//!
//! **Rolling** (1). Each worker is killed when all owners hold the same, and starts again under its key, without a copy; some
//! so late that it was held dead. Meanwhile the others write. As soon as it is back it writes to each object too, and for 10 s
//! it is read at, while its peers' writes reach it. Whatever it reads has all that the owners had agreed on, and all that it
//! has read before; or it is an error. From each set it removes an element that was there long before. Some of these are
//! inserted again afterwards.
//!
//! **Sudden** (2). A write is acknowledged, and at this instant the writer, or one of the owners, is killed.
//!
//! **Hand-off** (3). A worker joins. The new owners of a key that moved to it restart one after the other, within the minute
//! in which a former owner keeps its copy.
//!
//! **Away** (4). All three owners of an object are paused or cut off, and another node writes. If the write is acknowledged,
//! the writer is killed. Then the owners are back.
//!
//! Between two restarts all meet, and the owners of each object come to hold the same bytes, with each acknowledged write once.
//!
//! Negative control: the mutants that name this scenario.

mod away;
mod books;
mod moves;
mod play;
mod reader;
mod restarts;

use std::time::Duration;

use chaos::scenario::{Knob, KnobKind, Mark, Passed, RunResult, Scenario, Trial};

use self::play::{Play, objects};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[Knob {
        name: "act",
        about: "the only act, 1 to 4, or 0 for all of them",
        default: 0,
        least: 0,
        turns: KnobKind::Work,
    }],
    marks: &[
        Mark::new("a node was away for so long that others owned its keys"),
        Mark::new("a node that came back was read at"),
        Mark::new("a write was acknowledged around a restart"),
        Mark::new("a remove at a node that had just come back was acknowledged"),
        Mark::new("an element was there again after its remove"),
        Mark::new("an owner was killed right after its own write"),
        Mark::new("a writer was killed right after its write"),
        Mark::new("an owner was killed right after another node's write"),
        Mark::new("all new owners of a key restarted within the minute"),
        Mark::new("a write without owners was not acknowledged"),
        Mark::new("a write was acknowledged by those that followed the owners"),
    ],
    time_limit: Duration::from_secs(20 * 60),
    ..Scenario::new(
        "storeless",
        "workers without stores restart one after the other: nothing acknowledged is lost, and no read is a part",
        |trial| Box::pin(run(trial)),
    )
};

const AGREED: &str = "the owners of each object come to hold the same, though nobody reads";
const KEPT: &str = "what was acknowledged is kept";
const ONCE: &str = "nothing is held that nobody wrote, and nothing twice";
const WHOLE: &str = "a node that came back never reads a part of what all owners held before";
const EMPTY: &str = "a node that came back doesn't take what all owners held for empty";
const BACKWARDS: &str = "a node that came back never reads less than it has read before";
const REMOVED: &str = "a remove that was acknowledged takes effect";
const READDED: &str = "an element that is inserted again after its remove is there";
const HANDED: &str = "what a former owner hands over outlives the restarts of those who took it";
const STOOD_IN: &str = "what was acknowledged while all owners were away is there when they are back";

const WORKERS: usize = 8;

/// All see each other within this: a process starts, and a member that was held dead is probed every 30 s.
const MET: Duration = Duration::from_secs(60);

/// The owners hold the same within this: two rounds of summaries, which come every 10 s, and what they lead to.
const AGREES: Duration = Duration::from_secs(30);

/// Runs the scenario.
async fn run(trial: Trial) -> RunResult {
    let stage = Stage::new(trial.world).links(link_ms(15, 10)).hub("hub").workers(WORKERS).member("office");
    let mut play = Play::new(stage.meet(MET).await?);
    play.fill().await?;
    let act = trial.knob("act");
    if act == 0 || act == 1 {
        restarts::rolling(&mut play).await?;
    }
    if act == 0 || act == 2 {
        restarts::sudden(&mut play).await?;
    }
    if act == 0 || act == 3 {
        moves::hand_off(&mut play).await?;
    }
    if act == 0 || act == 4 {
        away::owners_away(&mut play).await?;
    }
    play.cluster.inspect().await?;
    let state = format!(
        "{}the owners of {} objects hold what was acknowledged\n",
        play.cluster.views().await,
        objects().len()
    );
    Ok(Passed { state, notes: String::new() })
}
