//! Faults of a plan at a host's disk and clock, as its process meets them, and that healing ends them.
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, reason = "tests of the world behind the door")]

use chaos::rt::{disk, time};
use chaos::scenario::{Options, Passed, RunResult, Scenario, Trial};
use chaos::{Host, Targets};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const WATCH: Scenario = Scenario::new("watch", "one host's disk and clock", |trial| Box::pin(watch(trial)));

/// How a call on the disk ended: `.`, `F` for a full disk, `E` for EIO.
fn letter(done: io::Result<()>) -> char {
    match done {
        Ok(()) => '.',
        Err(error) if error.kind() == io::ErrorKind::StorageFull => 'F',
        Err(error) if error.raw_os_error() == Some(5) => 'E',
        Err(error) => panic!("{error}"),
    }
}

/// A host appends a page, syncs it, reads it and looks at its clock, each 100 ms; after 550 ms all is healed.
///
/// The state is a line for writes, one for syncs, one for reads, the years on its clock, and the map's line.
async fn watch(trial: Trial) -> RunResult {
    let host: Host = trial.world.host("a").addr("10.0.0.1");
    let seen = Arc::new(Mutex::new([const { String::new() }; 4]));
    let record = seen.clone();
    host.spawn(move || {
        let record = record.clone();
        async move {
            disk::create_new_private(Path::new("/log"), b"").unwrap();
            let log = disk::File::open(Path::new("/log")).unwrap();
            loop {
                time::sleep(Duration::from_millis(100)).await;
                let wrote = letter(log.write_all_at(&[1; 4096], log.len().unwrap()));
                let synced = letter(log.sync());
                let read = letter(disk::read(Path::new("/log"), 1 << 20).map(drop));
                let years = time::unix_now().as_secs() / (365 * 24 * 60 * 60);
                let mut record = record.lock().unwrap();
                record[0].push(wrote);
                record[1].push(synced);
                record[2].push(read);
                record[3] += &format!(" {years}");
            }
        }
    });
    trial.start_faults(&Targets::default(), Duration::from_secs(1));
    trial.world.sleep(Duration::from_millis(250)).await;
    let map = trial.world.map();
    trial.world.sleep(Duration::from_millis(300)).await;
    trial.heal().await;
    trial.world.sleep(Duration::from_millis(200)).await;
    let [wrote, synced, read, years] = seen.lock().unwrap().clone();
    let line = map.lines().find(|line| line.contains("10.0.0.1")).unwrap_or_default().trim().to_owned();
    Ok(Passed { state: format!("{wrote} {synced} {read}{years}"), notes: line })
}

/// The state and the map's line under a plan.
fn under(plan: &str) -> (String, String) {
    let report = WATCH.run(&Options { plan: Some(plan.parse().unwrap()), ..Options::seed(1) });
    let passed = report.verdict.unwrap();
    assert_eq!(report.plan.unwrap().skipped, Vec::<String>::new());
    (passed.state, passed.notes)
}

#[test]
fn a_full_disk_takes_what_fits_and_has_room_again_when_healed() {
    let (state, map) = under("150ms disk-full a left=5000");
    assert_eq!(state, "..FFF.. ....... ....... 56 56 56 56 56 56 56");
    assert_eq!(map, "a (disk full at 9096 bytes): eth0 10.0.0.1");
    assert_eq!(under("150ms disk-full a left=0 for=200ms").0, ".FF.... ....... ....... 56 56 56 56 56 56 56");
}

#[test]
fn an_error_comes_once_at_its_call_and_not_after_the_end_of_its_fault() {
    assert_eq!(under("150ms disk-error a call=write op=2").0, "..E.... ....... ....... 56 56 56 56 56 56 56");
    let (state, map) = under("150ms disk-error a call=sync op=2");
    assert_eq!(state, "....... ..E.... ....... 56 56 56 56 56 56 56");
    assert_eq!(map, "a (disk fails sync 1): eth0 10.0.0.1");
    assert_eq!(under("150ms disk-error a call=read op=1").0, "....... ....... .E..... 56 56 56 56 56 56 56");
    assert_eq!(under("150ms disk-error a call=sync op=5").0, "....... ....... ....... 56 56 56 56 56 56 56");
}

/// fsync(2) waits for the device, and with it the whole thread: a timer of that time is late.
#[test]
fn a_slow_disk_blocks_the_thread_that_waits_for_it() {
    let (state, map) = under("150ms disk-slow a read=1ms write=1ms sync=300ms");
    assert_eq!(state, "... ... ... 56 56 56", "at 100, at 200, and at 502 ms");
    assert_eq!(map, "a (disk slow: a sync takes 300ms): eth0 10.0.0.1");
}

/// A board without a battery boots in 1970, or before it if its clock chip holds nonsense, until a time server answers.
/// `SystemTime::duration_since(UNIX_EPOCH)` is an error before 1970, which `rt` shows as zero.
#[test]
fn a_host_that_does_not_know_the_time_is_near_1970_until_its_clock_is_corrected() {
    assert_eq!(under("150ms clock-unset a reads=-10s").0, "....... ....... ....... 56 0 0 0 0 56 56");
    let (state, _) = under("150ms clock-unset a reads=70000000s for=200ms");
    assert_eq!(state, "....... ....... ....... 56 2 2 56 56 56 56");
}

#[test]
fn a_bit_of_what_is_durable_flips_at_once_and_no_bit_of_nothing() {
    under("150ms disk-flip a bit=77");
    let plan = "0ms disk-flip a bit=77".parse().unwrap();
    let report = WATCH.run(&Options { plan: Some(plan), ..Options::seed(1) });
    assert_eq!(
        report.plan.unwrap().skipped,
        ["fault 1 (0s disk-flip a bit=77) was skipped: nothing on its disk is durable"]
    );
}
