//! User events, of which a member's queue holds 64.

use std::time::Duration;

use chaos::property::Violation;
use nurl::internals::membership::MembershipError;
use nurl::internals::membership::gossip::MAX_QUEUED_EVENTS;
use nurl::internals::node::NodeEvent;
use nurl::{Error, Node};

use super::{AGAIN, Act, BOUNDED, ROUND_TRIP, TOLD, UNHURT, at_once, exactly};
use crate::cluster::{Deadline, secret};

/// The events over the bound.
const OVER: usize = 6;

/// A queue is told in ticks of 200 ms, four times or eight each event.
const TOLD_ALL: Duration = Duration::from_secs(10);

pub(super) async fn act(act: &Act<'_>, state: &mut String) -> Result<(), Violation> {
    let (greedy, modest) = (act.node(act.greedy).await, act.node(act.modest).await);
    let mut ears = act.node(act.worker).await.events();
    modest.gossip(secret("a modest event alone")).await.expect("there is room");
    act.world.sleep(TOLD_ALL).await;
    exactly(
        BOUNDED,
        "taken and refused",
        gossip(&greedy, "first", MAX_QUEUED_EVENTS + OVER).await,
        (64, OVER),
    )?;
    // The modest one's queue is full of them a moment later.
    let deadline = Deadline::new(act.world, TOLD, TOLD_ALL);
    let [before] = act.counts(act.modest, ["membership.gossip_full"]).await;
    loop {
        gossip(&greedy, "more", MAX_QUEUED_EVENTS).await;
        let [now] = act.counts(act.modest, ["membership.gossip_full"]).await;
        let missing = if now > before { Vec::new() } else { vec!["a full queue".to_owned()] };
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    gossip(&greedy, "even more", MAX_QUEUED_EVENTS).await;
    act.world.sleep(ROUND_TRIP).await;
    let answer = modest.gossip(secret("a modest event")).await;
    answer.map_err(|error| Violation::safety(UNHURT, format!("a modest event: {error}")))?;
    let own = gossip(&modest, "own", MAX_QUEUED_EVENTS).await;
    exactly(BOUNDED, "own events taken and refused", own, (MAX_QUEUED_EVENTS - 1, 1))?;

    let (mut alone, mut beside) = (0, 0);
    let deadline = Deadline::new(act.world, UNHURT, TOLD_ALL);
    while alone + beside < 2 {
        let heard = nurl::rt::time::timeout(TOLD_ALL, ears.next()).await;
        if let Ok(Some(NodeEvent::Gossip { claimed, body })) = heard
            && claimed == act.modest.key
        {
            alone += usize::from(body == secret("a modest event alone"));
            beside += usize::from(body == secret("a modest event"));
        }
        if deadline.waited() > TOLD_ALL {
            return Err(Violation::liveness(UNHURT, format!("heard {alone} and {beside} modest events")));
        }
    }
    act.world.sleep(TOLD_ALL).await;
    exactly(AGAIN, "taken and refused later", gossip(&modest, "last", MAX_QUEUED_EVENTS).await, (64, 0))?;
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
