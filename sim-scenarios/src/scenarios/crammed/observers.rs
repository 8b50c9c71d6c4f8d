//! Observers' writes, which a member remembers for ten minutes.

use std::time::Duration;

use chaos::property::Violation;
use nurl::Error;
use nurl::rt::Table;
use nurl::state::StateError;

use super::{AGAIN, Act, BOUNDED, COUNTED, ROOMY, ROUND_TRIP, TOLD, UNHURT, at_once, exactly};
use crate::cluster::{Cluster, Peer};

/// The writes that a member remembers.
const REMEMBERED: usize = 16;

/// An observer that takes all it can has half of what the others leave; the next one may have half of the rest.
const ALONE: usize = REMEMBERED / 2;
const FIRST: usize = (REMEMBERED - 1) / 2;
const SECOND: usize = (REMEMBERED - FIRST) / 2;

/// A member forgets them after so long, and looks each second.
const FORGOTTEN: Duration = Duration::from_secs(601);

const TALLY: &str = "tally";

/// What has to be so later.
pub(super) struct Remembered {
    at: Duration,
    sum: usize,
    hungry: Peer,
}

/// One observer writes all it can, another one a little.
pub(super) async fn fill(
    act: &Act<'_>,
    hungry: &Peer,
    shy: &Peer,
    state: &mut String,
) -> Result<Remembered, Violation> {
    act.bound_workers(Table::Operations, REMEMBERED);
    let full = async || {
        let mut sum = 0;
        for worker in act.workers() {
            sum += act.counts(worker, ["state.full"]).await[0];
        }
        sum
    };
    let before = full().await;
    // The first write makes the key.
    exactly(UNHURT, "a write alone", answers(act, shy, 1).await, (1, 0))?;
    exactly(COUNTED, "writes refused to one alone", full().await, before)?;
    let tries = 3 * REMEMBERED;
    let begun = act.world.elapsed();
    exactly(BOUNDED, "writes taken and refused", answers(act, hungry, tries).await, (FIRST, tries - FIRST))?;
    // One of them is there.
    exactly(UNHURT, "writes of the second", answers(act, shy, SECOND + 1).await, (SECOND - 1, 2))?;
    let took = act.world.elapsed() - begun;
    if took > 2 * ROUND_TRIP {
        return Err(Violation::liveness(TOLD, format!("the answers took {took:?}")));
    }
    let refused = (tries - FIRST + 2) as u64;
    exactly(COUNTED, "observers' writes refused", full().await, before + refused)?;
    let sum = FIRST + SECOND;
    read(act.cluster, hungry, sum).await?;
    *state += &format!("observers: {FIRST} and {SECOND} writes are remembered\n");
    Ok(Remembered { at: act.world.elapsed(), sum, hungry: hungry.clone() })
}

/// After ten minutes there is as much room as before.
pub(super) async fn again(cluster: &Cluster, since: Remembered) -> Result<(), Violation> {
    let world = cluster.world();
    world.sleep((since.at + FORGOTTEN).saturating_sub(world.elapsed())).await;
    let node = since.hungry.node(&world).await;
    let (taken, refused) = write(&node, ALONE + 1).await;
    exactly(AGAIN, "writes after ten minutes", (taken, refused), (ALONE, 1))?;
    cluster.peers.iter().for_each(|peer| peer.host.set_bound(Table::Operations.name(), ROOMY));
    read(cluster, &since.hungry, since.sum + ALONE).await
}

async fn answers(act: &Act<'_>, from: &Peer, tries: usize) -> (usize, usize) {
    write(&act.node(from).await, tries).await
}

/// Adds one so often at once; the number of writes that were made, and of those that a busy owner refused.
async fn write(node: &nurl::Node, tries: usize) -> (usize, usize) {
    let calls = (0..tries).map(|_| {
        let counter = node.counter(TALLY);
        async move { counter.add(1).await }
    });
    let answers = at_once(calls).await;
    let busy = |answer: &&Result<(), Error>| matches!(answer, Err(Error::State(StateError::Busy)));
    (answers.iter().filter(|answer| answer.is_ok()).count(), answers.iter().filter(busy).count())
}

/// Each write that was made counts once, and none that was refused.
async fn read(cluster: &Cluster, by: &Peer, sum: usize) -> Result<(), Violation> {
    let read = by.node(&cluster.world()).await.counter(TALLY).get().await;
    exactly(BOUNDED, "the sum of the writes", read.ok(), Some(sum as i128))
}
