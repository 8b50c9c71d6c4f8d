//! Pictures of whole runs: what their pages hold, and that the runs don't notice.
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, reason = "a page and a trace are files of this machine, not of a host")]

use chaos::link::{LinkConfig, Rate};
use chaos::middlebox::Modem;
use chaos::picture::Picture;
use chaos::rt::net::{Transmit, UdpSocket};
use chaos::scenario::{Options, Passed, Scenario, Trial};
use chaos::{FaultKind, RecordingOptions, Targets, sometimes};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// The kinds of entry, as the page numbers them.
const PACKET: i64 = 0;
const EVENT: i64 = 1;
const FAULT: i64 = 2;
const NOTE: i64 = 3;
const MARK: i64 = 4;

/// Ends of packets, as the page numbers them; up to `DAMAGED` the packet arrived.
const ARRIVED: i64 = 0;
const DAMAGED: i64 = 1;
const LOST: i64 = 2;
const DROPPED_BY_BOX: i64 = 4;

/// What a program may say.
const EVIL: &str = "</script><img src=x onerror=alert(1)>\u{2028}\u{1F600} & \"quoted\"";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Three hosts, one of them behind a box, on links that lose and duplicate. They send until the world ends, so that packets are
/// under way then.
async fn scene(trial: Trial) -> Passed {
    let world = trial.world;
    let bad =
        LinkConfig { udp_loss: Rate::percent(20), duplicate: Rate::percent(20), ..LinkConfig::default() };
    world.link_default(bad);
    let a = world.host("a").addr("10.0.0.1");
    let b = world.host(EVIL).addr("10.0.0.2");
    let home = world.internet().nat("home", &[], Modem);
    let c = home.host("c", "10.0.1.3");
    let targets = Targets { hosts: vec![a, b], nets: vec![home], ..Targets::default() };
    trial.start_faults(&targets, Duration::from_secs(4));
    world.note(EVIL);
    for (host, to) in [(a, "10.0.0.2:4000"), (b, "10.0.1.3:4000"), (c, "10.0.0.1:4000"), (c, "10.0.0.9:4000")]
    {
        host.spawn(move || async move {
            let socket = UdpSocket::bind(addr("0.0.0.0:0")).await.unwrap();
            let _open = UdpSocket::bind(addr("0.0.0.0:4000")).await;
            for number in 0u8.. {
                tracing::info!(number, evil = EVIL, "a number is sent");
                let contents = [number];
                let send =
                    Transmit { destination: addr(to), contents: &contents, segment_size: None, src_ip: None };
                let _ = socket.try_send(&send);
                chaos::rt::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    world.sleep(Duration::from_secs(1)).await;
    home.set_power(false);
    world.sleep(Duration::from_secs(1)).await;
    home.set_power(true);
    b.suspend();
    world.sleep(Duration::from_secs(1)).await;
    b.wake();
    a.restart();
    sometimes!(true, "a mark");
    world.sleep(Duration::from_millis(1_001)).await;
    Passed::default()
}

const SCENE: Scenario = Scenario {
    faults: &[FaultKind::Partition, FaultKind::Pause, FaultKind::Restart, FaultKind::Latency],
    ..Scenario::new("scene", "all that can be seen", |trial| Box::pin(async { Ok(scene(trial).await) }))
};

fn seed_with_faults() -> Options {
    let plan =
        "100ms partition a / nobody for=300ms\n200ms latency * add=90ms jitter=1ms for=2s\n500ms restart a\n";
    let plan = format!("{plan}900ms pause a for=20ms\n1s latency a add=1ms jitter=1ms for=900s\n");
    Options { plan: Some(plan.parse().unwrap()), ..Options::seed(3) }
}

struct Seen {
    page: String,
    /// Its data, and all besides.
    picture: Value,
    frame: String,
    trace: String,
}

/// Makes the run with a picture and a trace, and reads the data of the page.
fn seen() -> Seen {
    let folder = tempfile::tempdir().unwrap();
    let [trace, file] = ["trace", "pages/picture.html"].map(|name| folder.path().join(name));
    let watching = RecordingOptions {
        history: true,
        trace: Some(trace.clone()),
        decoder: Some(|_, bytes, _| format!("NUMBER {bytes:?} {EVIL}")),
        logs: &["picture"],
        ..RecordingOptions::default()
    };
    let (watched, recordings) = SCENE.run_watched(&seed_with_faults(), &watching).unwrap();
    assert_eq!(watched, SCENE.run(&seed_with_faults()), "a picture changes nothing in the run");
    Picture::of(&watched, &recordings).unwrap().write(&file).unwrap();
    let page = std::fs::read_to_string(file).unwrap();
    let (before, rest) = page.split_once("<script id=\"data\" type=\"application/json\">").unwrap();
    let (data, after) = rest.split_once("</script>").unwrap();
    let (picture, frame) = (serde_json::from_str(data).unwrap(), before.to_owned() + after);
    Seen { picture, frame, trace: std::fs::read_to_string(trace).unwrap(), page }
}

fn column(picture: &Value, table: &str, name: &str) -> Vec<i64> {
    picture[table][name].as_array().unwrap().iter().map(|value| value.as_i64().unwrap()).collect()
}

/// The entries of a kind, by their places.
fn of_kind(picture: &Value, wanted: i64) -> Vec<usize> {
    let kinds = column(picture, "entries", "kind");
    (0..kinds.len()).filter(|place| kinds[*place] == wanted).collect()
}

fn texts(picture: &Value, kind: i64) -> Vec<&str> {
    let texts = column(picture, "entries", "text");
    of_kind(picture, kind)
        .into_iter()
        .map(|place| picture["texts"][texts[place] as usize].as_str().unwrap())
        .collect()
}

#[test]
fn each_packet_is_there_once_with_each_of_its_fates() {
    let Seen { picture, trace, .. } = seen();
    let numbers = column(&picture, "entries", "number");
    let mut drawn: Vec<String> = Vec::new();
    for place in of_kind(&picture, PACKET) {
        drawn.push(format!("#{} sent", numbers[place]));
    }
    let (kinds, entries) = (column(&picture, "ends", "kind"), column(&picture, "ends", "entry"));
    for (entry, kind) in entries.iter().zip(kinds) {
        let how = if kind <= DAMAGED { "delivered" } else { "dropped" };
        drawn.push(format!("#{} {how}", numbers[*entry as usize]));
    }
    let mut traced: Vec<String> = Vec::new();
    let mut ended = 0;
    for line in trace.lines() {
        let mut words = line.split_whitespace();
        let what = words.nth(1).unwrap();
        if ["sent", "delivered", "dropped"].contains(&what) {
            let number = words.find(|word| word.starts_with('#')).unwrap();
            traced.push(format!("{number} {what}"));
            ended += usize::from(what != "sent");
        }
    }
    drawn.sort();
    traced.sort();
    assert_eq!(drawn, traced);
    // The run has all that a picture distinguishes: two ends, none, and drops of several kinds.
    let of = |number: i64| entries.iter().filter(|entry| numbers[**entry as usize] == number).count();
    let counts: BTreeSet<usize> = numbers.iter().filter(|n| **n > 0).map(|n| of(*n)).collect();
    assert!(counts.is_superset(&[0, 1, 2].into()) && ended > 50, "{counts:?}");
    let kinds: BTreeSet<i64> = column(&picture, "ends", "kind").into_iter().collect();
    assert!(kinds.is_superset(&[ARRIVED, LOST, DROPPED_BY_BOX].into()), "{kinds:?}");
}

#[test]
fn lanes_are_the_hosts_in_the_order_of_their_creation() {
    let Seen { picture, .. } = seen();
    assert_eq!(picture["lanes"], serde_json::json!(["scenario", "a", EVIL, "c"]));
}

#[test]
fn happenings_have_ranks_in_the_order_of_the_trace() {
    let Seen { picture, .. } = seen();
    let ranks = column(&picture, "entries", "rank");
    assert!(ranks.is_sorted_by(|a, b| a < b));
    let ends = column(&picture, "ends", "rank");
    let all: BTreeSet<i64> = ranks.iter().chain(&ends).copied().collect();
    assert_eq!(all.len(), ranks.len() + ends.len(), "no two have one rank");
    let entries = column(&picture, "ends", "entry");
    assert!(entries.iter().zip(&ends).all(|(entry, end)| ranks[*entry as usize] < *end));
}

#[test]
fn events_notes_marks_and_faults_are_there() {
    let Seen { picture, .. } = seen();
    let events = texts(&picture, EVENT);
    assert!(events.len() > 100, "{}", events.len());
    assert!(events[0].starts_with(&format!("a number is sent number=0 evil={EVIL}")), "{}", events[0]);
    assert!(texts(&picture, NOTE).contains(&EVIL));
    assert_eq!(texts(&picture, MARK), ["a mark"]);
    let faults = texts(&picture, FAULT);
    for fault in ["suspend", "wake", "restart"] {
        assert!(faults.contains(&fault), "{faults:?}");
    }
}

#[test]
fn a_planned_fault_is_a_band_from_its_beginning_to_its_end() {
    let Seen { picture, .. } = seen();
    let faults = picture["faults"].as_array().unwrap();
    let bands: Vec<(&str, i64, &Value)> = faults
        .iter()
        .map(|fault| {
            let millis = |at: usize| fault["times"][at].as_i64().unwrap() / 1_000_000;
            (fault["text"].as_str().unwrap(), millis(1) - millis(0), &fault["lanes"])
        })
        .collect();
    // The partition has one side only, so it is skipped, and a restart is over at once.
    assert_eq!(bands.len(), 5, "{bands:?}");
    let lengths: Vec<i64> = bands.iter().map(|(_, length, _)| *length).collect();
    assert_eq!(lengths, [0, 2_000, 0, 20, 3_001], "{bands:?}");
    assert_eq!(bands[3].0, "fault 4: 900ms pause a for=20ms");
    assert_eq!((bands[1].2, bands[3].2), (&serde_json::json!([]), &serde_json::json!([1])));
}

#[test]
fn a_host_that_does_not_run_has_a_gap() {
    let Seen { picture, .. } = seen();
    let gaps = picture["gaps"].as_array().unwrap().iter().map(|gap| {
        let millis = |at: usize| gap["times"][at].as_i64().unwrap() / 1_000_000;
        (gap["text"].as_str().unwrap(), gap["lanes"][0].as_i64().unwrap(), millis(1) - millis(0))
    });
    let gaps: Vec<_> = gaps.collect();
    assert_eq!(
        gaps,
        [("no process", 1, 0), ("paused", 1, 20), ("suspended", 2, 1_000), ("no process", 1, 0)],
        "{gaps:?}"
    );
}

#[test]
fn no_text_of_a_program_leaves_its_place() {
    let Seen { page, frame, .. } = seen();
    assert_eq!(page.matches("</script").count(), 2, "the data's and the program's own");
    assert!(!page.contains("<img"));
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!frame.contains(outside), "{outside} would need a network");
    }
}

#[test]
fn without_a_history_there_is_no_picture() {
    let (report, seen) = SCENE.run_watched(&Options::seed(1), &RecordingOptions::default()).unwrap();
    assert!(Picture::of(&report, &seen).is_none());
}
