//! Keys that owners hold, a node's writes and reads.

use std::time::Duration;

use chaos::property::Violation;
use nurl::Error;
use nurl::internals::replication::crdt::{Kind, OrSet, Value};
use nurl::internals::replication::identity::ReplicaId;
use nurl::internals::replication::replicator::{UpdateError, state_key};
use nurl::internals::transport::kind;
use nurl::rt::{Table, task};
use nurl::state::{Decline, StateError};

use super::{AGAIN, Act, BOUNDED, COUNTED, LEFT, ROOMY, ROUND_TRIP, TOLD, UNHURT, at_once, exactly};
use crate::insider::wire;

/// The keys of earlier acts and of the modest one.
const BEFORE: usize = 2;

/// The further keys that the owners hold.
const HELD: usize = 5;

/// The keys for which they have no room.
const MORE: usize = 3;

/// The writes that wait for an owner.
const WAIT: usize = 3;

/// A caller waits so long for an owner, which is looked at each second.
const OWNER_WAIT: Duration = Duration::from_secs(5);
const LOOKS_EVERY: Duration = Duration::from_secs(1);

/// A write that waits is sent again after 2, 6 and 14 s, and when members are seen again.
const SENT_AGAIN: Duration = Duration::from_secs(12);

/// The reads under way.
const READS: usize = 4;

const OWN: &str = "the modest one's";

pub(super) async fn act(act: &Act<'_>, state: &mut String) -> Result<(), Violation> {
    held(act).await?;
    pending(act).await?;
    own(act).await?;
    reads(act).await?;
    flood(act).await?;
    *state += &format!(
        "state: {HELD} keys had room, {MORE} were refused until they had, {WAIT} writes waited, and each counts once\n"
    );
    Ok(())
}

/// The owners hold so many keys.
async fn held(act: &Act<'_>) -> Result<(), Violation> {
    act.bound_workers(Table::HeldKeys, BEFORE + HELD);
    add(act, OWN).await.map_err(|error| Violation::safety(UNHURT, error.to_string()))?;
    let mut full = Vec::new();
    for worker in act.workers() {
        full.push(act.counts(worker, ["state.full"]).await[0]);
    }
    for number in 0..HELD {
        exactly(BOUNDED, "a write with room", write(act, number).await.is_ok(), true)?;
        // Each owner has it.
        act.world.sleep(ROUND_TRIP).await;
    }
    for number in HELD..HELD + MORE {
        let begun = act.world.elapsed();
        let over = write(act, number).await;
        let refused = Some(UpdateError::Declined(Decline::NoRoom));
        exactly(TOLD, "a write without room", refusal(over), refused)?;
        at_once_told(act, begun)?;
    }
    exactly(LEFT, "writes that wait", act.counts(act.greedy, ["state.unacknowledged"]).await, [0])?;
    for (worker, before) in act.workers().zip(full) {
        let [now] = act.counts(worker, ["state.full"]).await;
        exactly(COUNTED, "writes refused", now - before, MORE as u64)?;
    }
    // What is there goes on.
    add(act, OWN).await.map_err(|error| Violation::safety(UNHURT, error.to_string()))?;
    exactly(
        UNHURT,
        "the modest one's sum",
        act.node(act.modest).await.counter(OWN).get().await.ok(),
        Some(2),
    )?;
    act.bound_workers(Table::HeldKeys, ROOMY);
    for number in HELD..HELD + MORE {
        exactly(AGAIN, "a write with room again", write(act, number).await.is_ok(), true)?;
    }
    counted_once(act, 0..HELD + MORE).await
}

/// Each of these keys has been written once, whatever was refused before.
async fn counted_once(act: &Act<'_>, keys: std::ops::Range<usize>) -> Result<(), Violation> {
    for number in keys {
        let sum = act.node(act.modest).await.counter(&name(number)).get().await.ok();
        exactly(AGAIN, "the sum of a key", sum, Some(1))?;
    }
    Ok(())
}

/// A refusal doesn't wait for anything.
fn at_once_told(act: &Act<'_>, begun: Duration) -> Result<(), Violation> {
    let took = act.world.elapsed() - begun;
    let late = || Violation::liveness(TOLD, format!("a write over the bound waited {took:?}"));
    if took > 2 * ROUND_TRIP { Err(late()) } else { Ok(()) }
}

/// A node keeps so many writes that nobody has acknowledged.
async fn pending(act: &Act<'_>) -> Result<(), Violation> {
    let node = act.node(act.greedy).await;
    act.greedy.host.set_bound(Table::PendingWrites.name(), WAIT);
    let others = act.cluster.peers.iter().map(|peer| peer.host).chain([act.cluster.hubs[0].host]);
    let others: Vec<_> = others.filter(|host| *host != act.greedy.host).collect();
    act.world.partition(&[act.greedy.host], &others);
    let begun = act.world.elapsed();
    let first = HELD + MORE;
    let calls = (first..first + WAIT).map(|number| {
        let counter = node.counter(&name(number));
        async move { counter.add(1).await }
    });
    let waiting = task::spawn(at_once(calls.collect::<Vec<_>>()));
    act.world.sleep(ROUND_TRIP).await;
    let begun_over = act.world.elapsed();
    let over = write(act, first + WAIT).await;
    exactly(TOLD, "one write too many", refusal(over), Some(UpdateError::Full("unacknowledged writes")))?;
    at_once_told(act, begun_over)?;
    for answer in waiting.await.expect("it doesn't panic") {
        let unconfirmed = matches!(&answer, Err(Error::Unconfirmed { by }) if by.is_empty());
        exactly(TOLD, "a write that nobody has", unconfirmed, true)?;
    }
    let took = act.world.elapsed() - begun;
    if took > OWNER_WAIT + LOOKS_EVERY + ROUND_TRIP {
        return Err(Violation::liveness(TOLD, format!("the answers took {took:?}")));
    }
    let [waits] = act.counts(act.greedy, ["state.unacknowledged"]).await;
    exactly(BOUNDED, "writes that wait", waits, WAIT as u64)?;
    act.world.heal();
    act.until(act.greedy, "state.unacknowledged", 0, SENT_AGAIN).await?;
    counted_once(act, first..first + WAIT).await?;
    act.greedy.host.set_bound(Table::PendingWrites.name(), ROOMY);
    Ok(())
}

/// A node remembers its sums of the keys of others that it has written. When there is no room for more, it writes on under
/// another id.
async fn own(act: &Act<'_>) -> Result<(), Violation> {
    let written = HELD + MORE + WAIT;
    act.greedy.host.set_bound(Table::OwnKeys.name(), written + 1);
    let [before] = act.counts(act.greedy, ["state.renewed"]).await;
    exactly(BOUNDED, "the last key with room", write(act, written).await.is_ok(), true)?;
    exactly(BOUNDED, "ids taken", act.counts(act.greedy, ["state.renewed"]).await, [before])?;
    exactly(UNHURT, "one key more", write(act, written + 1).await.is_ok(), true)?;
    exactly(BOUNDED, "ids taken", act.counts(act.greedy, ["state.renewed"]).await, [before + 1])?;
    act.greedy.host.set_bound(Table::OwnKeys.name(), 1);
    for number in 0..=written + 1 {
        exactly(UNHURT, "a key that was written", write(act, number).await.is_ok(), true)?;
        let sum = act.node(act.modest).await.counter(&name(number)).get().await.ok();
        exactly(COUNTED, "the sum of a key", sum, Some(2))?;
    }
    act.greedy.host.set_bound(Table::OwnKeys.name(), ROOMY);
    Ok(())
}

/// A node's reads under way.
async fn reads(act: &Act<'_>) -> Result<(), Violation> {
    act.greedy.host.set_bound(Table::Reads.name(), READS);
    let node = act.node(act.greedy).await;
    // Twice: those that have ended make room.
    for _ in 0..2 {
        let calls = (0..2 * READS).map(|_| {
            let counter = node.counter(OWN);
            async move { counter.get().await }
        });
        let answers = at_once(calls).await;
        let read = answers.iter().filter(|answer| matches!(answer, Ok(2))).count();
        let full = answers.into_iter().filter_map(|answer| refusal(answer.map(drop)));
        let full = full.filter(|error| *error == UpdateError::Full("reads")).count();
        exactly(BOUNDED, "reads and refusals", (read, full), (READS, READS))?;
    }
    act.greedy.host.set_bound(Table::Reads.name(), ROOMY);
    Ok(())
}

/// An insider removes elements without end that an owner hasn't seen, and so asks the others for. Its own callers read and
/// remove all the same.
async fn flood(act: &Act<'_>) -> Result<(), Violation> {
    const BURSTS: usize = 40;
    const BURST: usize = 8;
    const EVERY: Duration = Duration::from_millis(10);
    act.worker.host.set_bound(Table::Reads.name(), READS);
    let mut set = OrSet::default();
    let author = ReplicaId { key: act.modest.key, incarnation: 1 };
    set.add(author, b"what nobody wrote").expect("it has room");
    let state = Value::Set(set.removing(b"what nobody wrote")).encode();
    let refused = ["state.full", "state.foreign"];
    let before = act.counts(act.worker, refused).await;
    let node = act.node(act.worker).await;
    for burst in 0..BURSTS {
        for number in 0..BURST {
            let key = state_key(Kind::Set, format!("flood {burst} {number}").as_bytes());
            let id = (burst * BURST + number) as u64;
            act.glutton.send_message(act.worker.key, kind::STATE, wire::delta(&key, Some(id), &state));
        }
        act.world.sleep(EVERY).await;
        if burst % 8 == 7 {
            let fresh = node.set(&format!("the owner's own {burst}"));
            let calls = (0..READS - 1).map(|_| {
                let fresh = fresh.clone();
                async move { fresh.remove(b"nothing").await }
            });
            for answer in at_once(calls).await {
                answer.map_err(|error| Violation::safety(UNHURT, format!("beside a flood: {error}")))?;
            }
        }
    }
    act.world.sleep(2 * ROUND_TRIP).await;
    let [full, foreign] = act.counts(act.worker, refused).await;
    exactly(COUNTED, "removals of the flood that weren't asked about", full > before[0], true)?;
    let sum = full - before[0] + foreign - before[1];
    exactly(COUNTED, "removals of the flood", sum, (BURSTS * BURST) as u64)?;
    act.worker.host.set_bound(Table::Reads.name(), ROOMY);
    let last = node.counter("the owner's last").add(1).await;
    exactly(AGAIN, "a write after the flood", last.is_ok(), true)
}

fn name(number: usize) -> String {
    format!("the greedy one's {number}")
}

async fn write(act: &Act<'_>, number: usize) -> Result<(), Error> {
    act.node(act.greedy).await.counter(&name(number)).add(1).await
}

async fn add(act: &Act<'_>, key: &str) -> Result<(), Error> {
    act.node(act.modest).await.counter(key).add(1).await
}

fn refusal(answer: Result<(), Error>) -> Option<UpdateError> {
    if let Err(Error::State(StateError::Write(error))) = answer { Some(error) } else { None }
}
