//! Each worker in turn is restarted without its copies: after all agreed, and in the middle of writes.

use std::time::Duration;

use chaos::property::Violation;
use chaos::sometimes;
use nurl::internals::replication::crdt::Kind;
use nurl::rt::task;

use super::books::Write;
use super::play::{Play, objects};
use super::reader::read_until;
use super::{EMPTY, KEPT, READDED};
use crate::cluster::Peer;

/// How long a node that restarts at once is away, and one that is held dead meanwhile: a death is certain within 35 s.
const SHORT_MS: usize = 2_000;
const LONG: Duration = Duration::from_secs(40);

/// Of so many restarts one takes long.
const SELDOM: usize = 4;

/// How long a node is read at that came back.
const FRESH: Duration = Duration::from_secs(10);

/// Tasks that read at it.
const READERS: usize = 4;

/// Between two writes of the others, of which each is to another object.
const PACE: Duration = Duration::from_millis(100);

/// Writes right before a kill.
const SUDDEN: usize = 10;

/// Each worker restarts after all agreed; while it is away, and when it is back, the others write, and so does it.
pub(super) async fn rolling(play: &mut Play) -> Result<(), Violation> {
    let (mut left, mut empty) = (play.workers(), None);
    while !left.is_empty() {
        let victim = left.remove(play.draw(left.len()));
        let long = play.draw(SELDOM) == 0;
        let away = if long { LONG } else { Duration::from_millis(play.draw(SHORT_MS) as u64) };
        victim.host.crash();
        let mut writes = write_for(play, &victim, away).await;
        sometimes!(long, "a node was away for so long that others owned its keys");
        victim.host.restart();
        victim.node(&play.world).await;
        let readers = read_at(play, &victim);
        let removes = remove_at(play, &victim).await;
        writes.extend(write_for(play, &victim, FRESH / 2).await);
        for object in objects() {
            let write = play.addition(object);
            writes.push(play.spawn_write(&victim, object, write));
        }
        writes.extend(write_for(play, &victim, FRESH / 2).await);
        let mut wrong = Vec::new();
        for reader in readers {
            let read =
                reader.await.map_err(|error| Violation::safety("nothing panics", error.to_string()))?;
            wrong.extend(read.err());
        }
        let mut acknowledged = 0;
        for write in writes.into_iter().chain(removes) {
            acknowledged += usize::from(matches!(write.await, Ok(true)));
        }
        sometimes!(acknowledged > 0, "a write was acknowledged around a restart");
        // A loss is worse than a wrong reading, and a part is worse than nothing: it can't be told from the whole.
        play.agree().await?;
        match wrong.into_iter().min_by_key(|broken| broken.property == EMPTY) {
            Some(broken) if broken.property == EMPTY => empty = empty.or(Some(broken)),
            Some(broken) => return Err(broken),
            None => {}
        }
    }
    empty.map_or(Ok(()), Err)
}

/// The others write to the objects in turn for so long.
async fn write_for(play: &mut Play, victim: &Peer, time: Duration) -> Vec<task::JoinHandle<bool>> {
    let (others, objects) = (play.others(victim), objects());
    let end = play.world.elapsed() + time;
    let mut writes = Vec::new();
    while play.world.elapsed() < end {
        let (other, object) = (play.one_of(&others), play.one_of(&objects));
        let write = play.addition(object);
        writes.push(play.spawn_write(&other, object, write));
        play.world.sleep(PACE).await;
    }
    writes
}

/// Several tasks read at the node.
fn read_at(play: &Play, victim: &Peer) -> Vec<task::JoinHandle<Result<(), Violation>>> {
    let end = play.world.elapsed() + FRESH;
    let mut shares = vec![Vec::new(); READERS];
    for (number, object) in objects().into_iter().enumerate() {
        shares[number % READERS].push(object);
    }
    let read = |share| {
        let known = (play.agreed.clone(), play.books.clone());
        task::spawn(read_until(play.world, victim.clone(), known, share, end))
    };
    shares.into_iter().map(read).collect()
}

/// The node removes an old element from each set, some of which are inserted again afterwards, here or elsewhere.
async fn remove_at(play: &mut Play, victim: &Peer) -> Vec<task::JoinHandle<bool>> {
    let mut removes = Vec::new();
    let others = play.others(victim);
    for object in objects().into_iter().filter(|object| object.0 == Kind::Set) {
        let Some(element) = play.books().there(object).into_iter().next() else { continue };
        let again = match play.draw(3) {
            0 => None,
            1 => Some(victim.clone()),
            _ => Some(play.one_of(&others)),
        };
        let remove = play.spawn_write(victim, object, Write::Remove(element.clone()));
        let (world, books) = (play.world, play.books.clone());
        removes.push(task::spawn(async move {
            let removed = remove.await.unwrap_or(false);
            sometimes!(removed, "a remove at a node that had just come back was acknowledged");
            let Some(by) = again.filter(|_| removed) else { return removed };
            let write = Write::Insert(element, READDED);
            let inserted = super::play::make(world, &books, &by, object, write).await;
            sometimes!(inserted, "an element was there again after its remove");
            inserted
        }));
        // One after the other, so that some come while the node asks, and some later.
        play.world.sleep(PACE).await;
    }
    removes
}

/// A write is acknowledged, and at once the writer is killed, or an owner.
pub(super) async fn sudden(play: &mut Play) -> Result<(), Violation> {
    for _ in 0..SUDDEN {
        let object = play.one_of(&objects());
        let owners = play.owners(object).await;
        let at_owner = play.draw(2) == 0;
        let all = play.cluster.peers.clone();
        let elsewhere: Vec<_> =
            all.into_iter().filter(|peer| owners.iter().all(|owner| owner.key != peer.key)).collect();
        let writer = play.one_of(if at_owner { &owners } else { &elsewhere });
        let victim = if play.draw(2) == 0 { writer.clone() } else { play.one_of(&owners) };
        let write = play.addition(object);
        let acknowledged = play.write(&writer, object, write).await;
        victim.host.crash();
        let is_writer = victim.key == writer.key;
        sometimes!(acknowledged && at_owner && is_writer, "an owner was killed right after its own write");
        sometimes!(acknowledged && !at_owner && is_writer, "a writer was killed right after its write");
        sometimes!(acknowledged && !is_writer, "an owner was killed right after another node's write");
        let away = Duration::from_millis(play.draw(SHORT_MS) as u64);
        play.world.sleep(away).await;
        victim.host.restart();
        victim.node(&play.world).await;
        play.agree().await.map_err(|broken| at_kill(broken, &writer, &victim))?;
    }
    Ok(())
}

/// Says who was killed.
fn at_kill(broken: Violation, writer: &Peer, victim: &Peer) -> Violation {
    if broken.property != KEPT {
        return broken;
    }
    let seen = format!("{}; {} wrote, and {} was killed", broken.seen, writer.name, victim.name);
    Violation::safety(KEPT, seen)
}
