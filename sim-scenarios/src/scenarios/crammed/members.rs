//! The members that a node remembers.

use std::time::Duration;

use chaos::property::Violation;
use chaos::world::World;
use nurl::internals::membership::State;
use nurl::internals::node::Role;
use nurl::rt::Table;

use super::{AGAIN, BOUNDED, COUNTED, ROOMY, TOLD, UNHURT, exactly};
use crate::cluster::{Cluster, Deadline, Peer};

/// Members that come beyond those of the other acts: so many have room.
const ROOM: usize = 3;

/// Gossip reaches each node only with high probability, and tables are exchanged every half minute.
const KNOWN: Duration = Duration::from_secs(70);

pub(super) async fn act(world: World, cluster: &mut Cluster, state: &mut String) -> Result<(), Violation> {
    let node = cluster.peers[0].clone();
    let before = cluster.members(&node).await.len();
    node.host.set_bound(Table::Members.name(), before + ROOM);
    let mut guests = Vec::new();
    let mut add = |cluster: &mut Cluster| {
        let guest = cluster.add(&format!("guest {}", guests.len()), world.internet(), Role::Member);
        guests.push(guest.clone());
        guest
    };
    let refused = async |cluster: &Cluster| cluster.metric(&node, "membership.table_full").await;
    // One leaves, one dies, one stays: the table is full.
    let (leaves, dies, stays) = (add(cluster), add(cluster), add(cluster));
    for guest in [&leaves, &dies, &stays] {
        sees(cluster, &node, guest, Some(State::Alive), KNOWN, TOLD).await?;
    }
    leaves.node(&world).await.shutdown().await;
    dies.host.crash();
    sees(cluster, &node, &leaves, Some(State::Left), KNOWN, TOLD).await?;
    sees(cluster, &node, &dies, Some(State::Dead), KNOWN, TOLD).await?;
    exactly(COUNTED, "refused before the table is full", refused(cluster).await, 0)?;

    let first = add(cluster);
    sees(cluster, &node, &first, Some(State::Alive), KNOWN, UNHURT).await?;
    sees(cluster, &node, &leaves, None, Duration::ZERO, BOUNDED).await?;
    sees(cluster, &node, &dies, Some(State::Dead), Duration::ZERO, BOUNDED).await?;
    let second = add(cluster);
    sees(cluster, &node, &second, Some(State::Alive), KNOWN, UNHURT).await?;
    sees(cluster, &node, &dies, None, Duration::ZERO, BOUNDED).await?;
    exactly(COUNTED, "refused while some are gone", refused(cluster).await, 0)?;

    // All that are there live.
    let other = cluster.peers[1].clone();
    let third = add(cluster);
    sees(cluster, &other, &third, Some(State::Alive), KNOWN, UNHURT).await?;
    let deadline = Deadline::new(world, COUNTED, KNOWN);
    loop {
        let missing = if refused(cluster).await > 0 { Vec::new() } else { vec!["a refusal".to_owned()] };
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    let members = cluster.members(&node).await;
    exactly(BOUNDED, "members", members.len(), before + ROOM)?;
    sees(cluster, &node, &third, None, Duration::ZERO, BOUNDED).await?;
    for guest in [&stays, &first, &second] {
        sees(cluster, &node, guest, Some(State::Alive), Duration::ZERO, UNHURT).await?;
    }
    // A place comes free.
    stays.node(&world).await.shutdown().await;
    sees(cluster, &node, &third, Some(State::Alive), KNOWN, AGAIN).await?;
    sees(cluster, &node, &stays, None, Duration::ZERO, BOUNDED).await?;
    node.host.set_bound(Table::Members.name(), ROOMY);
    for guest in [first, second, third] {
        guest.node(&world).await.shutdown().await;
    }
    *state += &format!("members: {ROOM} guests at a time had room, left ones gave theirs before dead ones\n");
    Ok(())
}

/// Waits until a node sees another one in this state; none: it doesn't know it.
async fn sees(
    cluster: &Cluster,
    by: &Peer,
    about: &Peer,
    state: Option<State>,
    within: Duration,
    property: &'static str,
) -> Result<(), Violation> {
    let deadline = Deadline::new(cluster.world(), property, within);
    loop {
        let seen = cluster.view(by).await.get(&about.key).copied();
        let wrong =
            (seen != state).then(|| format!("{} sees {} {seen:?}, not {state:?}", by.name, about.name));
        if !deadline.still_missing(wrong.into_iter().collect()).await? {
            return Ok(());
        }
    }
}
