//! A worker joins, so that keys move, and their new owners restart before a former owner has dropped its copy.

use std::time::Duration;

use chaos::property::Violation;
use chaos::sometimes;
use nurl::internals::node::Role;

use super::play::{Play, objects};
use super::{HANDED, KEPT, MET};
use crate::cluster::Peer;

/// A former owner drops its copy after a minute; what it dropped is repaired, or lost, by then.
const DROPPED: Duration = Duration::from_secs(80);

/// The longest time from a restart to the next one.
const PAUSE_MS: usize = 5_000;

/// How long a node that restarts is away.
const AWAY: Duration = Duration::from_millis(500);

/// A former owner has sent its copy to the new ones, and they have acknowledged it.
const OFFERED: Duration = Duration::from_secs(3);

/// See the module.
pub(super) async fn hand_off(play: &mut Play) -> Result<(), Violation> {
    let mut before = Vec::new();
    for object in objects() {
        before.push((object, play.owners(object).await));
    }
    let newcomer = play.cluster.add("newcomer", play.world.internet(), Role::Worker);
    newcomer.node(&play.world).await;
    let begun = play.world.elapsed();
    play.cluster.converge(MET).await?;
    play.world.sleep(OFFERED).await;
    let mut moved = Vec::new();
    for (object, former) in before {
        let owners = play.owners(object).await;
        if owners.iter().any(|owner| owner.key == newcomer.key) {
            moved.push((former, owners));
        }
    }
    if !moved.is_empty() {
        let (former, mut owners) = play.one_of(&moved);
        let is_left = |peer: &Peer| owners.iter().any(|owner| owner.key == peer.key);
        // Whoever hands over is none of those that restart.
        assert!(former.iter().any(|peer| !is_left(peer)), "a former owner made room");
        while !owners.is_empty() {
            let owner = owners.remove(play.draw(owners.len()));
            owner.host.crash();
            play.world.sleep(AWAY).await;
            owner.host.restart();
            owner.node(&play.world).await;
            let pause = Duration::from_millis(play.draw(PAUSE_MS) as u64);
            play.world.sleep(pause).await;
        }
        sometimes!(true, "all new owners of a key restarted within the minute");
    }
    let dropped = (begun + DROPPED).saturating_sub(play.world.elapsed());
    play.world.sleep(dropped).await;
    play.agree().await.map_err(|broken| {
        if broken.property == KEPT { Violation::safety(HANDED, broken.seen) } else { broken }
    })
}
