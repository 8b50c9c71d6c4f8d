//! A bug between a write and its sync.

use super::kit::{Shared, Socket, hosts, lossy, ms, pause};
use chaos::Targets;
use chaos::property::Violation;
use chaos::rt::{self, disk, time};
use chaos::scenario::{Passed, RunResult, Trial};
use rand_core::Rng as _;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

const PUT: u64 = 1;
const HELD: u64 = 2;

/// Numbers for which a backup's file has room.
const ROOM: u64 = 200;

/// A backup that writes a number, acknowledges it, and syncs a moment later.
async fn backup(held: Shared<BTreeSet<u64>>) {
    let path = Path::new("/held");
    if !disk::exists(path) {
        disk::create_new_private(path, &[0; ROOM as usize]).unwrap();
    }
    let written = disk::read(path, ROOM).unwrap();
    *held.lock().unwrap() = (1..ROOM).filter(|number| written[*number as usize] == 1).collect();
    tracing::info!(numbers = held.lock().unwrap().len(), "started");
    let file = disk::File::open(path).unwrap();
    let socket = Socket::bound().await;
    loop {
        let ([_, number, _], from) = socket.next().await;
        let is_new = number > 0 && !held.lock().unwrap().contains(&number);
        if is_new {
            file.write_all_at(&[1], number).unwrap();
            tracing::debug!(number, "written");
            held.lock().unwrap().insert(number);
        }
        socket.send(from, [HELD, number, 0]);
        if is_new {
            time::sleep(ms(60)).await;
            file.sync().unwrap();
            tracing::debug!(number, "synced");
        }
    }
}

/// A primary sends each number to a backup until that has acknowledged it. When the backup has been silent for three
/// seconds, it may have forgotten something, so it gets all numbers again. The planted bug: the backup acknowledges before
/// its sync, and the primary doesn't notice a power loss in between if the backup is back early.
pub(super) async fn unsynced(trial: Trial) -> RunResult {
    let [(primary, _), (backup_host, at)] = hosts(&trial, ["primary", "backup"]);
    trial.world.set_link_both(primary, backup_host, &lossy(2));
    let (held, acknowledged): (Shared<BTreeSet<u64>>, Shared<BTreeSet<u64>>) = Default::default();
    let holding = held.clone();
    backup_host.spawn(move || backup(holding.clone()));
    let noted = acknowledged.clone();
    drop(primary.run(async move {
        let socket = Socket::bound().await;
        let mut rng = rt::rng("numbers");
        let (mut newest, mut heard) = (0, time::now());
        loop {
            newest = (newest + u64::from(rng.next_u64().is_multiple_of(4))).min(ROOM - 1);
            let missing = (1..=newest).find(|number| !noted.lock().unwrap().contains(number));
            // Without a missing number it is a beat.
            socket.send(at, [PUT, missing.unwrap_or(0), 0]);
            if let Some(([_, number, _], _)) = socket.next_within(ms(200)).await {
                if time::now().duration_since(heard) > Duration::from_secs(3) {
                    tracing::warn!("the backup was away");
                    noted.lock().unwrap().clear();
                }
                heard = time::now();
                noted.lock().unwrap().insert(number);
            }
            pause(&mut rng, ms(100), ms(400)).await;
        }
    }));
    let span = Duration::from_secs(30);
    trial.start_faults(
        &Targets { hosts: vec![backup_host], spared: vec![primary], ..Targets::default() },
        span,
    );
    trial.world.sleep(span).await;
    trial.heal().await;
    trial.world.sleep(Duration::from_secs(5)).await;
    let held = held.lock().unwrap();
    let lost =
        acknowledged.lock().unwrap().iter().find(|number| **number > 0 && !held.contains(number)).copied();
    match lost {
        None => Ok(Passed::default()),
        Some(number) => Err(Violation::safety("what is acknowledged is held", format!("{number} isn't"))),
    }
}
