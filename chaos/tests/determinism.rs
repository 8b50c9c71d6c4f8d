//! A seed has one digest: in one process, in two, and whatever ran before.
#![cfg(madsim)]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "ambient order and threads are the subject"
)]

use chaos::rt::net::{RecvMeta, TcpListener, TcpStream, Transmit, UdpSocket};
use chaos::rt::{disk, rng, task, time};
use chaos::{Host, LinkConfig, Rate, run};
use rand_core::Rng as _;
use std::collections::HashMap;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HOSTS: u8 = 8;

/// A peer that gossips over UDP in the order of a `HashMap`, copies over TCP, and logs to its disk.
async fn peer() {
    let socket = std::sync::Arc::new(UdpSocket::bind("0.0.0.0:4000".parse().unwrap()).await.unwrap());
    let listener = TcpListener::bind("0.0.0.0:80".parse().unwrap()).await.unwrap();
    task::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            task::spawn(async move {
                let mut got = Vec::new();
                if stream.read_to_end(&mut got).await.is_ok() {
                    let _ = stream.write_all(&got).await;
                }
            });
        }
    });
    let receiver = socket.clone();
    task::spawn(async move {
        let log = disk::File::open(Path::new("/log")).unwrap();
        let mut buffer = [0; 2048];
        let mut at = log.len().unwrap();
        loop {
            let mut meta = [RecvMeta::default()];
            receiver.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta).await.unwrap();
            log.write_all_at(&buffer[..meta[0].len], at).unwrap();
            at += meta[0].len as u64;
            if at.is_multiple_of(7) {
                log.sync().unwrap();
            }
        }
    });
    let mut draws = rng("peer");
    let peers: HashMap<u8, SocketAddr> =
        (1..=HOSTS).map(|n| (n, SocketAddr::from(([10, 0, 0, n], 4000)))).collect();
    loop {
        for (n, destination) in &peers {
            let contents = vec![*n; draws.next_u32() as usize % 900 + 1];
            let transmit =
                Transmit { destination: *destination, contents: &contents, segment_size: None, src_ip: None };
            // Its interface may be down.
            let _ = socket.try_send(&transmit);
        }
        let mut server = peers[&((draws.next_u32() % u32::from(HOSTS)) as u8 + 1)];
        server.set_port(80);
        let copy = time::timeout(Duration::from_millis(400), async {
            let mut stream = TcpStream::connect(server).await?;
            stream.write_all(&[1; 5000]).await?;
            stream.shutdown().await?;
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await
        });
        let _ = copy.await;
        time::sleep(Duration::from_millis(u64::from(draws.next_u32() % 100))).await;
    }
}

fn digest(seed: u64) -> String {
    let outcome = run(seed, |world| async move {
        world.link_default(LinkConfig {
            jitter: Duration::from_millis(15),
            udp_loss: Rate::percent(20),
            tcp_loss: Rate::percent(5),
            duplicate: Rate::percent(3),
            corrupt: Rate::percent(1),
            reorder: Rate::percent(2),
            ..LinkConfig::default()
        });
        let hosts: Vec<Host> = (1..=HOSTS)
            .map(|n| world.host(&format!("h{n}")).addr(&format!("10.0.0.{n}")).spawn(peer))
            .collect();
        let mut draws = world.rng("faults");
        for _ in 0..20 {
            world.sleep(Duration::from_millis(500)).await;
            let host = hosts[draws.next_u32() as usize % hosts.len()];
            match draws.next_u32() % 13 {
                0 => host.restart(),
                1 => host.pause(),
                2 => host.resume(),
                3 => host.power_loss(),
                4 => world.partition(&hosts[..3], &hosts[3..]),
                5 => host.suspend(),
                6 => host.wake(),
                7 => host.pin_cpu(),
                8 => host.set_nic_up("eth0", false),
                9 => host.set_nic_up("eth0", true),
                10 => host.crash_at_disk_op(u64::from(draws.next_u32() % 40) + 1),
                11 => host.set_clock_drift_ppb(i64::from(draws.next_u32() % 200_000) - 100_000),
                _ => world.heal(),
            }
        }
        world.stats().packets_delivered
    });
    let delivered = outcome.result.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    assert!(delivered > 500, "seed {seed}: {:?}", outcome.stats);
    outcome.digest
}

/// The variable that makes the child process print the digest of a seed.
const CHILD: &str = "CHAOS_DETERMINISM_SEED";

#[test]
fn a_seed_has_one_digest_in_this_process_and_in_another() {
    if let Ok(seed) = std::env::var(CHILD) {
        println!("digest {}", digest(seed.parse().unwrap()));
        return;
    }
    let here: Vec<String> = [11, 12, 11].map(digest).into();
    assert_eq!(here[0], here[2]);
    assert_ne!(here[0], here[1]);
    for (seed, expected) in [("11", &here[0]), ("12", &here[1])] {
        let test = "a_seed_has_one_digest_in_this_process_and_in_another";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, seed)
            .output()
            .unwrap();
        let printed = String::from_utf8(child.stdout).unwrap();
        assert!(printed.contains(&format!("digest {expected}")), "{printed}");
    }
}

#[test]
fn forty_worlds_full_of_faults_come_to_their_end() {
    let digests: std::collections::BTreeSet<String> = (100..140).map(digest).collect();
    assert_eq!(digests.len(), 40);
}

#[test]
fn worlds_that_run_side_by_side_do_not_disturb_each_other() {
    let alone = digest(21);
    let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(|| digest(21))).collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), alone);
    }
}

/// The host that draws one word more when [`MORE`] is set, and the instant from which on its packets differ.
const DRAWER: &str = "node 3";

thread_local! {
    /// Whether [`DRAWER`] draws once more than it needs, which no packet shows for a while: an ambient switch, such as no
    /// program may have.
    static MORE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Sends a byte every 10 ms; the fourth depends on the stream.
async fn drawer() {
    let socket = UdpSocket::bind("0.0.0.0:0".parse().unwrap()).await.unwrap();
    let mut draws = rng("four");
    for n in 0..6 {
        let drawn = draws.next_u32() as u8;
        let contents = [if n < 3 { n } else { drawn }];
        let destination = "10.0.0.9:4000".parse().unwrap();
        let sent = Transmit { destination, contents: &contents, segment_size: None, src_ip: None };
        socket.try_send(&sent).unwrap();
        if n == 1 && MORE.get() {
            let _ = draws.next_u32();
        }
        time::sleep(Duration::from_millis(10)).await;
    }
}

/// A run whose hosts draw; its digest, and its trace in `path`.
fn drawn(more: bool, path: &Path) -> String {
    let run = chaos::Run::new(5).write_trace(path);
    let outcome = run.run(move |world| async move {
        MORE.set(more);
        for n in 1..=3 {
            world.host(&format!("node {n}")).addr(&format!("10.0.0.{n}")).spawn(move || async move {
                // Only the last host reads the switch.
                if n == 3 {
                    drawer().await
                } else {
                    std::future::pending::<()>().await;
                }
            });
        }
        world.host("sink").addr("10.0.0.9");
        world.sleep(Duration::from_millis(100)).await;
        world.find("node 1").unwrap().crash();
    });
    outcome.result.unwrap();
    outcome.digest
}

#[test]
fn the_diff_of_two_runs_names_the_stream_that_left_before_any_packet_did() {
    let folder = tempfile::tempdir().unwrap();
    let [left, right, third] = ["left", "right", "third"].map(|name| folder.path().join(name));
    let (fewer, more) = (drawn(false, &left), drawn(true, &right));
    assert_ne!(fewer, more);
    assert_eq!(fewer, drawn(false, &third));
    assert_eq!(chaos::diff::diff(&left, &third).unwrap(), None);
    let trace = std::fs::read_to_string(&left).unwrap();
    for line in
        [" drawn     node 3         stream `port/node 3` at word ", " survived  node 1         a disk with "]
    {
        assert!(trace.contains(line), "{line} is missing in\n{trace}");
    }
    let found = chaos::diff::diff(&left, &right).unwrap().unwrap();
    let (stream, event) = (found.stream.clone().unwrap(), found.event.clone().unwrap());
    assert_eq!((stream.place.as_str(), stream.stream.as_str()), (DRAWER, "rt/host/node 3/four/1"), "{found}");
    assert_eq!((stream.left, stream.right), (Some(2), Some(3)), "{found}");
    // Two packets later: the third is the same in both runs.
    assert!(event.at - stream.at >= Duration::from_millis(19), "{found}");
    assert!(event.line.contains(" sent "), "{found}");
    assert!(found.to_string().contains("the first difference is a draw of host `node 3` (stream"), "{found}");
}

/// What two runs of one seed may differ in without a packet that shows it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Silent {
    Nothing,
    Draw,
    SeededDraw,
    DroppedDraw,
    Entropy,
    Mark,
}

fn silently(what: Silent) -> String {
    let outcome = run(9, move |world| async move {
        world.host("a").addr("10.0.0.1").spawn(move || async move {
            let (mut kept, mut dropped) = (rng("kept"), rng("dropped"));
            let mut seeded = <chaos::rt::Rng as rand_core::SeedableRng>::from_seed([1; 32]);
            match what {
                Silent::Draw => {
                    kept.next_u32();
                }
                Silent::SeededDraw => {
                    seeded.next_u32();
                }
                Silent::DroppedDraw => {
                    dropped.next_u32();
                }
                Silent::Entropy => entropy(),
                Silent::Mark => chaos::sometimes!("a path that is rare"),
                Silent::Nothing => {}
            }
            drop(dropped);
            std::future::pending::<()>().await;
            drop((kept, seeded));
        });
        world.sleep(Duration::from_secs(1)).await;
    });
    outcome.result.unwrap();
    outcome.digest
}

/// A byte from the operating system, which is the scheduler's generator here.
fn entropy() {
    getrandom::fill(&mut [0; 8]).unwrap();
}

#[test]
fn what_no_packet_shows_is_another_digest_all_the_same() {
    let usual = silently(Silent::Nothing);
    assert_eq!(silently(Silent::Nothing), usual);
    let all = [Silent::Draw, Silent::SeededDraw, Silent::DroppedDraw, Silent::Entropy, Silent::Mark];
    let unseen: Vec<_> = all.into_iter().filter(|what| silently(*what) == usual).collect();
    assert_eq!(unseen, []);
}

#[test]
fn what_a_scenario_returns_is_in_the_digest() {
    use chaos::scenario::{Options, Passed, Scenario};
    let one = Scenario::new("one", "", |_| {
        Box::pin(async { Ok(Passed { state: "1".to_owned(), ..Passed::default() }) })
    });
    let two = Scenario::new("one", "", |_| {
        Box::pin(async { Ok(Passed { state: "2".to_owned(), ..Passed::default() }) })
    });
    let [first, second] = [one, two].map(|scenario| scenario.run(&Options::seed(1)).digest);
    assert_ne!(first, second);
}
