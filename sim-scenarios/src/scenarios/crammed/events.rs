//! User events, of which a member's queue holds 64, and a modest one's a few.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use nurl::internals::membership::MembershipError;
use nurl::internals::membership::gossip::MAX_QUEUED_EVENTS;
use nurl::internals::node::NodeEvent;
use nurl::rt::Table;
use nurl::{Error, Node};

use super::{AGAIN, Act, BOUNDED, TOLD, UNHURT, at_once, exactly};
use crate::cluster::{Deadline, secret};
use crate::lock::lock;

/// The events over the bound.
const OVER: usize = 6;

/// What the modest one's queue holds.
const FEW: usize = 8;

/// A queue is told in ticks of 200 ms, four times or eight each event.
const TOLD_ALL: Duration = Duration::from_secs(10);

pub(super) async fn act(act: &Act<'_>, state: &mut String) -> Result<(), Violation> {
    let (greedy, modest) = (act.node(act.greedy).await, act.node(act.modest).await);
    let heard: Arc<Mutex<BTreeSet<Bytes>>> = Arc::default();
    for worker in act.workers() {
        let (mut events, from, heard) = (act.node(worker).await.events(), act.modest.key, heard.clone());
        worker.host.run(async move {
            while let Some(event) = events.next().await {
                if let NodeEvent::Gossip { claimed, body } = event
                    && claimed == from
                {
                    lock(&heard).insert(body);
                }
            }
        });
    }
    modest.gossip(secret("a modest event alone")).await.expect("there is room");
    act.world.sleep(TOLD_ALL).await;
    exactly(
        BOUNDED,
        "taken and refused",
        gossip(&greedy, "first", MAX_QUEUED_EVENTS + OVER).await,
        (MAX_QUEUED_EVENTS, OVER),
    )?;
    // The modest one's queue is full of them a moment later.
    act.modest.host.set_bound(Table::UserEvents.name(), FEW);
    let deadline = Deadline::new(act.world, TOLD, TOLD_ALL);
    let [before] = act.counts(act.modest, ["membership.gossip_full"]).await;
    loop {
        let [now] = act.counts(act.modest, ["membership.gossip_full"]).await;
        let missing = if now > before { Vec::new() } else { vec!["a full queue".to_owned()] };
        if !deadline.still_missing(missing).await? {
            break;
        }
        gossip(&greedy, "more", MAX_QUEUED_EVENTS).await;
    }
    let answer = modest.gossip(secret("a modest event")).await;
    answer.map_err(|error| Violation::safety(UNHURT, format!("a modest event: {error}")))?;
    let own = gossip(&modest, "own", FEW).await;
    exactly(BOUNDED, "own events taken and refused", own, (FEW - 1, 1))?;

    // Each is told to four of the others, so a worker is among them; it passes on only what its own queue has room for.
    act.world.sleep(TOLD_ALL).await;
    for event in ["a modest event alone", "a modest event"] {
        if !lock(&heard).contains(&secret(event)) {
            return Err(Violation::liveness(UNHURT, format!("no worker heard {event:?}")));
        }
    }
    act.modest.host.set_bound(Table::UserEvents.name(), MAX_QUEUED_EVENTS);
    let last = gossip(&modest, "last", MAX_QUEUED_EVENTS).await;
    exactly(AGAIN, "taken and refused later", last, (MAX_QUEUED_EVENTS, 0))?;
    *state += "events: a greedy member's 64 were taken, and a modest one's beside them\n";
    Ok(())
}

/// Gossips so many at once; the numbers of those that were taken, and of those for which there was no room.
async fn gossip(node: &Node, about: &str, count: usize) -> (usize, usize) {
    let calls = (0..count).map(|number| {
        let (node, body) = (node.clone(), secret(&format!("{about} {number}")));
        async move { node.gossip(body).await }
    });
    let answers = at_once(calls).await;
    let full =
        |answer: &&Result<(), Error>| matches!(answer, Err(Error::Membership(MembershipError::EventsFull)));
    (answers.iter().filter(|answer| answer.is_ok()).count(), answers.iter().filter(full).count())
}
