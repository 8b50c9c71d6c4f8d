//! All owners of a key are away while another node writes.

use std::time::Duration;

use chaos::property::Violation;
use chaos::sometimes;

use super::play::{Play, objects};
use super::{KEPT, STOOD_IN};

/// Rounds: the owners are paused, or cut off.
const ROUNDS: usize = 4;

/// The write comes at once, or when the owners have been held dead, and others own the key: a death is certain within 35 s.
const DEAD: Duration = Duration::from_secs(40);

/// How long after the answer the owners come back.
const BACK_MS: usize = 5_000;

/// How long the writer is away.
const DOWN: Duration = Duration::from_secs(3);

/// See the module.
pub(super) async fn owners_away(play: &mut Play) -> Result<(), Violation> {
    for round in 0..ROUNDS {
        let object = play.one_of(&objects());
        let owners = play.owners(object).await;
        let others: Vec<_> = play
            .cluster
            .peers
            .iter()
            .filter(|peer| owners.iter().all(|owner| owner.key != peer.key))
            .cloned()
            .collect();
        let writer = play.one_of(&others);
        let pauses = round % 2 == 0;
        let left: Vec<_> = owners.iter().map(|owner| owner.host).collect();
        let hubs = play.cluster.hubs.iter().map(|hub| hub.host);
        let right: Vec<_> = others.iter().map(|other| other.host).chain(hubs).collect();
        if pauses {
            left.iter().for_each(|host| host.pause());
        } else {
            play.world.partition(&left, &right);
        }
        let late = play.draw(2) == 0;
        if late {
            play.world.sleep(DEAD).await;
        }
        let write = play.addition(object);
        let acknowledged = play.write(&writer, object, write).await;
        sometimes!(!acknowledged, "a write without owners was not acknowledged");
        sometimes!(acknowledged && late, "a write was acknowledged by those that followed the owners");
        if acknowledged {
            writer.host.crash();
        }
        let back = Duration::from_millis(play.draw(BACK_MS) as u64);
        play.world.sleep(back).await;
        if pauses {
            left.iter().for_each(|host| host.resume());
        } else {
            play.world.mend(&left, &right);
        }
        if acknowledged {
            play.world.sleep(DOWN).await;
            writer.host.restart();
            writer.node(&play.world).await;
        }
        play.agree().await.map_err(|broken| {
            if broken.property == KEPT { Violation::safety(STOOD_IN, broken.seen) } else { broken }
        })?;
    }
    Ok(())
}
