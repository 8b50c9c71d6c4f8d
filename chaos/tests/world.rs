//! The guarantees of the world, seen from a scenario.
#![cfg(madsim)]

use chaos::middlebox::Modem;
use chaos::rt::net::{InterfaceWatch, RecvMeta, Transmit, UdpSocket, interfaces};
use chaos::rt::{disk, task, time};
use chaos::{DropCause, Host, LinkConfig, Rate, RunOutcome, World, run};
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const PORT: u16 = 4000;

fn ok<T>(outcome: RunOutcome<T>) -> T {
    outcome.result.unwrap_or_else(|failure| panic!("{failure}"))
}

fn two(world: World) -> (Host, Host) {
    (world.host("a").addr("10.0.0.1"), world.host("b").addr("10.0.0.2"))
}

async fn bind(port: u16) -> UdpSocket {
    UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], port))).await.unwrap()
}

fn send(socket: &UdpSocket, to: Host, contents: &[u8]) {
    let destination = SocketAddr::new(to.ip(), PORT);
    socket.try_send(&Transmit { destination, contents, segment_size: None, src_ip: None }).unwrap();
}

async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 2048];
    let mut meta = [RecvMeta::default()];
    socket.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta).await.unwrap();
    buffer.truncate(meta[0].len);
    buffer
}

/// Sends numbered datagrams from a to b, and returns the numbers in order of arrival.
async fn flood(world: World, a: Host, b: Host, count: u32, gap: Duration) -> Vec<u32> {
    let receiver = b.run(async move {
        let socket = bind(PORT).await;
        let mut seen = Vec::new();
        while let Ok(bytes) = time::timeout(Duration::from_secs(2), receive(&socket)).await {
            seen.push(u32::from_le_bytes(bytes.try_into().unwrap()));
        }
        seen
    });
    world.sleep(Duration::from_millis(1)).await;
    a.run(async move {
        let socket = bind(0).await;
        for number in 0..count {
            send(&socket, b, &number.to_le_bytes());
            time::sleep(gap).await;
        }
    })
    .await
    .unwrap();
    receiver.await.unwrap()
}

fn busy(seed: u64) -> RunOutcome<Vec<u32>> {
    run(seed, |world| async move {
        world.link_default(LinkConfig {
            jitter: Duration::from_millis(30),
            udp_loss: Rate::percent(10),
            duplicate: Rate::percent(5),
            ..LinkConfig::default()
        });
        let (a, b) = two(world);
        flood(world, a, b, 300, Duration::from_millis(3)).await
    })
}

#[test]
fn one_seed_gives_one_digest_and_another_seed_another() {
    let (first, again, other) = (busy(5), busy(5), busy(6));
    assert_eq!(first.digest, again.digest);
    assert_eq!(first.stats, again.stats);
    assert_eq!(first.result, again.result);
    assert_ne!(first.digest, other.digest);
    assert_ne!(first.result, other.result);
}

#[test]
fn the_schedulers_seed_is_its_own() {
    let with = |scheduler_seed| {
        chaos::Run::new(5).scheduler_seed(scheduler_seed).run(|world| async move {
            let (a, b) = two(world);
            flood(world, a, b, 5, Duration::from_millis(3)).await
        })
    };
    assert_eq!(with(1).digest, with(1).digest);
    assert_ne!(with(1).digest, with(2).digest);
}

#[test]
fn loss_stays_near_its_rate() {
    let seen = ok(run(3, |world| async move {
        world.link_default(LinkConfig { udp_loss: Rate::percent(30), ..LinkConfig::default() });
        let (a, b) = two(world);
        flood(world, a, b, 4000, Duration::from_micros(100)).await
    }));
    // Four standard deviations of 4,000 draws at 70 % are 116.
    assert!((2684..=2916).contains(&seen.len()), "{} of 4000 arrived", seen.len());
}

#[test]
fn duplicates_arrive_twice() {
    let seen = ok(run(3, |world| async move {
        world.link_default(LinkConfig { duplicate: Rate::ALWAYS, ..LinkConfig::default() });
        let (a, b) = two(world);
        let seen = flood(world, a, b, 50, Duration::from_millis(1)).await;
        assert_eq!(world.stats().packets_duplicated, 50);
        seen
    }));
    assert_eq!(seen.len(), 100);
}

#[test]
fn jitter_lets_datagrams_overtake_each_other() {
    let order = |jitter_ms| {
        ok(run(3, move |world| async move {
            let jitter = Duration::from_millis(jitter_ms);
            world.link_default(LinkConfig { jitter, ..LinkConfig::default() });
            let (a, b) = two(world);
            flood(world, a, b, 100, Duration::from_millis(1)).await
        }))
    };
    assert!(order(0).is_sorted());
    let jittered = order(20);
    assert_eq!(jittered.len(), 100);
    assert!(!jittered.is_sorted());
}

#[test]
fn a_packet_over_the_mtu_is_dropped_and_counted() {
    ok(run(3, |world| async move {
        world.link_default(LinkConfig { mtu: 1280, ..LinkConfig::default() });
        let (a, b) = two(world);
        let got = b.run(async {
            let socket = bind(PORT).await;
            receive(&socket).await.len()
        });
        world.sleep(Duration::from_millis(1)).await;
        a.run(async move {
            let socket = bind(0).await;
            send(&socket, b, &[0; 1253]);
            send(&socket, b, &[0; 1252]);
        })
        .await
        .unwrap();
        assert_eq!(got.await.unwrap(), 1252);
        assert_eq!(world.stats().dropped(DropCause::Mtu), 1);
    }));
}

#[test]
fn half_of_the_damaged_datagrams_fail_their_checksum_and_the_others_arrive_damaged() {
    ok(run(3, |world| async move {
        world.link_default(LinkConfig { corrupt: Rate::ALWAYS, ..LinkConfig::default() });
        let (a, b) = two(world);
        let got = flood(world, a, b, 200, Duration::from_millis(1)).await;
        assert!((70..130).contains(&got.len()), "{}", got.len());
        assert_eq!(world.stats().dropped(DropCause::Checksum), 200 - got.len() as u64);
    }));
}

#[test]
fn a_one_way_partition_leaves_the_way_back_open() {
    ok(run(3, |world| async move {
        let (a, b) = two(world);
        world.partition_one_way(&[a], &[b]);
        assert!(flood(world, a, b, 5, Duration::from_millis(1)).await.is_empty());
        assert_eq!(world.stats().dropped(DropCause::Partition), 5);
        assert_eq!(flood(world, b, a, 5, Duration::from_millis(1)).await.len(), 5);
        world.heal();
        assert_eq!(flood(world, a, b, 5, Duration::from_millis(1)).await.len(), 5);
    }));
}

#[test]
fn a_host_is_audible_while_some_way_from_it_was_open_and_its_process_ran() {
    ok(run(3, |world| async move {
        let (a, b) = two(world);
        let between = world.host("between").addr("10.0.0.9");
        let second = Duration::from_secs(1);
        world.sleep(second).await;
        // A sleep may end a little late.
        let cut = world.elapsed();
        world.partition(&[a], &[b]);
        assert!(world.audible(a, Duration::ZERO).contains(&b), "it was until now");
        assert!(world.audible(a, cut).contains(&b), "through the one between them");
        assert_eq!(between.runs_since(), Some(Duration::ZERO));
        between.pause();
        assert_eq!(between.runs_since(), None);
        assert!(!world.audible(a, cut).contains(&b));
        world.sleep(second).await;
        let resumed = world.elapsed();
        between.resume();
        assert_eq!(between.runs_since(), Some(resumed));
        assert!(world.audible(a, cut).contains(&b));
        world.heal();
        b.crash();
        assert!(world.audible(a, cut).contains(&b) && !world.audible(a, resumed).contains(&b));
    }));
}

#[test]
fn what_is_under_way_does_not_cross_a_new_partition() {
    ok(run(3, |world| async move {
        let (a, b) = two(world);
        let got = b.run(async {
            let socket = bind(PORT).await;
            time::timeout(Duration::from_secs(1), receive(&socket)).await.is_ok()
        });
        world.sleep(Duration::from_millis(1)).await;
        a.run(async move { send(&bind(0).await, b, b"x") }).await.unwrap();
        world.partition(&[a], &[b]);
        assert!(!got.await.unwrap());
    }));
}

/// A killed process loses nothing that it wrote: the page cache is the kernel's. fsync(2) protects from the loss of the
/// power.
#[test]
fn a_crash_keeps_all_bytes_and_a_power_loss_takes_unsynced_ones_by_lot() {
    let mut outcomes = std::collections::BTreeSet::new();
    for (seed, power) in (0..16).flat_map(|seed| [(seed, false), (seed, true)]) {
        let after = ok(run(seed, move |world| async move {
            let a = world.host("a").addr("10.0.0.1");
            a.run(async {
                let file = disk::File::open(Path::new("/log")).unwrap();
                file.write_all_at(&[1; 512], 0).unwrap();
                file.sync().unwrap();
                file.write_all_at(&[2; 512], 0).unwrap();
                disk::atomic_replace(Path::new("/key"), b"key").unwrap();
                std::mem::forget(file);
            })
            .await
            .unwrap();
            a.crash();
            assert!(!a.is_running());
            if power {
                // Also of a host without a process: its page cache still has what was never synced.
                a.power_loss();
            }
            a.restart();
            a.run(async {
                assert_eq!(disk::read(Path::new("/key"), 9).unwrap(), b"key");
                disk::read(Path::new("/log"), 4096).unwrap()[0]
            })
            .await
            .unwrap()
        }));
        outcomes.insert((power, after));
    }
    assert_eq!(outcomes, [(false, 2), (true, 1), (true, 2)].into());
}

#[test]
fn an_old_boots_handles_have_no_effect() {
    struct WriteOnDrop(disk::File, UdpSocket, Host);
    impl Drop for WriteOnDrop {
        fn drop(&mut self) {
            assert!(self.0.write_all_at(b"late", 0).is_err());
            assert!(self.0.sync().is_err());
            assert!(disk::remove(Path::new("/f")).is_err());
            let destination = SocketAddr::new(self.2.ip(), PORT);
            let late = Transmit { destination, contents: b"late", segment_size: None, src_ip: None };
            assert!(self.1.try_send(&late).is_err());
            self.2.name();
        }
    }
    ok(run(3, |world| async move {
        let (a, b) = two(world);
        a.spawn(move || async move {
            if disk::exists(Path::new("/f")) {
                std::future::pending::<()>().await;
            }
            disk::create_new_private(Path::new("/f"), b"early").unwrap();
            let file = disk::File::open(Path::new("/f")).unwrap();
            let _held = WriteOnDrop(file, bind(PORT).await, b);
            std::future::pending::<()>().await;
        });
        world.sleep(Duration::from_secs(1)).await;
        a.restart();
        // The port is free for the new boot at once, and the end of the old socket doesn't free it again.
        a.run(async {
            let socket = bind(PORT).await;
            time::sleep(Duration::from_secs(1)).await;
            assert!(UdpSocket::bind(socket.local_addr().unwrap()).await.is_err());
            assert_eq!(disk::read(Path::new("/f"), 9).unwrap(), b"early");
        })
        .await
        .unwrap();
        assert_eq!(a.boot(), 2);
    }));
}

#[test]
fn a_paused_host_gets_no_cpu_and_a_pinned_one_only_for_its_network_plane() {
    ok(run(3, |world| async move {
        let a = world.host("a").addr("10.0.0.1");
        let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let kept = counts.clone();
        a.spawn(move || {
            let counts = kept.clone();
            async move {
                let planes = task::Planes::start("n", 1).unwrap();
                for (index, plane) in [task::Plane::Net, task::Plane::Work].into_iter().enumerate() {
                    let counts = counts.clone();
                    planes.spawn(plane, async move {
                        loop {
                            time::sleep(Duration::from_millis(10)).await;
                            counts[index].fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                std::future::pending::<()>().await;
            }
        });
        let during = async |what: &str| {
            let before = [0, 1].map(|index| counts[index].load(Ordering::Relaxed));
            world.sleep(Duration::from_secs(1)).await;
            let moved = [0, 1].map(|index| counts[index].load(Ordering::Relaxed) > before[index]);
            (what.to_owned(), moved)
        };
        assert_eq!(during("at first").await.1, [true, true]);
        a.pause();
        world.sleep(Duration::from_millis(1)).await;
        assert_eq!(during("paused").await.1, [false, false]);
        a.resume();
        a.pin_cpu();
        world.sleep(Duration::from_millis(1)).await;
        assert_eq!(during("pinned").await.1, [true, false]);
        a.unpin_cpu();
        assert_eq!(during("at last").await.1, [true, true]);
        a.pin_cpu();
        a.crash();
        world.sleep(Duration::from_millis(1)).await;
        assert_eq!(during("dead").await.1, [false, false]);
    }));
}

#[test]
fn a_suspended_host_neither_runs_nor_receives_and_finds_its_wall_clock_ahead() {
    ok(run(3, |world| async move {
        let (a, b) = two(world);
        let clocks = b.run(async {
            let begun = (time::now(), time::unix_now());
            time::sleep(Duration::from_secs(2)).await;
            (time::now() - begun.0, time::unix_now() - begun.1)
        });
        let got = b.run(async {
            let socket = bind(PORT).await;
            receive(&socket).await
        });
        world.sleep(Duration::from_secs(1)).await;
        b.suspend();
        a.run(async move { send(&bind(0).await, b, b"lost") }).await.unwrap();
        world.sleep(Duration::from_secs(100)).await;
        assert_eq!(world.stats().dropped(DropCause::HostDown), 1);
        b.wake();
        world.sleep(Duration::from_millis(500)).await;
        assert!(!clocks.is_finished());
        let (monotonic, wall) = clocks.await.unwrap();
        assert!(monotonic < Duration::from_millis(2100), "{monotonic:?}");
        assert!(wall > Duration::from_secs(100), "{wall:?}");
        a.run(async move { send(&bind(0).await, b, b"found") }).await.unwrap();
        assert_eq!(got.await.unwrap(), b"found");
    }));
}

#[test]
fn a_crash_lands_at_the_disk_operation_it_is_armed_for() {
    let survivors = |count| {
        ok(run(3, move |world| async move {
            let a = world.host("a").addr("10.0.0.1");
            a.crash_at_disk_op(count);
            let process = a.run(async {
                let mut done = Vec::new();
                for name in ["/1", "/2", "/3"] {
                    done.push(disk::create_new_private(Path::new(name), b"x").is_ok());
                }
                // The process is killed: nothing after an await runs.
                task::yield_now().await;
                unreachable!("{done:?}");
            });
            assert_eq!(process.await, Err::<(), _>(task::JoinError::Cancelled));
            assert!(!a.is_running());
            a.restart();
            a.run(async { ["/1", "/2", "/3"].map(|name| disk::exists(Path::new(name))) }).await.unwrap()
        }))
    };
    assert_eq!(survivors(1), [false, false, false]);
    assert_eq!(survivors(3), [true, true, false]);
}

#[test]
fn dropping_the_planes_ends_their_tasks_and_those_they_spawned() {
    ok(run(3, |world| async move {
        let a = world.host("a").addr("10.0.0.1");
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        a.run(async move {
            let planes = task::Planes::start("n", 1).unwrap();
            planes.spawn(task::Plane::Net, async move {
                task::spawn(async move {
                    loop {
                        counted.fetch_add(1, Ordering::Relaxed);
                        time::sleep(Duration::from_millis(10)).await;
                    }
                });
                std::future::pending::<()>().await;
            });
            time::sleep(Duration::from_secs(1)).await;
        })
        .await
        .unwrap();
        let at_drop = count.load(Ordering::Relaxed);
        assert!(at_drop > 50);
        world.sleep(Duration::from_secs(1)).await;
        assert_eq!(count.load(Ordering::Relaxed), at_drop);
    }));
}

#[test]
fn a_process_whose_main_future_returns_is_over() {
    ok(run(3, |world| async move {
        let a = world.host("a").addr("10.0.0.1");
        a.spawn(|| async {
            if disk::exists(Path::new("/f")) {
                std::future::pending::<()>().await;
            }
            let file = disk::File::open(Path::new("/f")).unwrap();
            file.write_all_at(b"unsynced", 0).unwrap();
            time::sleep(Duration::from_secs(1)).await;
        });
        world.sleep(Duration::from_millis(500)).await;
        assert!(a.is_running());
        world.sleep(Duration::from_secs(1)).await;
        assert!(!a.is_running());
        // An exit isn't a crash: the kernel still has the written bytes.
        a.restart();
        let kept = a.run(async { disk::read(Path::new("/f"), 99).unwrap() }).await.unwrap();
        assert_eq!(kept, b"unsynced");
    }));
}

#[test]
fn a_capture_holds_every_packet_sent_and_leaves_the_digest_alone() {
    let path = std::env::temp_dir().join(format!("chaos-capture-{}.pcap", std::process::id()));
    let scenario = |world: World| async move {
        let (a, b) = two(world);
        flood(world, a, b, 10, Duration::from_millis(1)).await;
    };
    let captured = chaos::Run::new(4).capture(&path).run(scenario);
    assert_eq!(captured.digest, run(4, scenario).digest);
    #[allow(clippy::disallowed_methods, reason = "a capture is a file of this machine, not of a host")]
    let bytes = {
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        bytes
    };
    // The section's and the interface's blocks, and for each datagram a block with IP's and UDP's headers and four bytes,
    // and with the comment "from a".
    assert_eq!(bytes.len(), 28 + 32 + 10 * (32 + 20 + 8 + 4 + 16));
    assert_eq!(bytes[28 + 32 + 28], 0x45);
    let nowhere = chaos::Run::new(4).capture("/dev/null/at/all").run(|_| async {});
    assert!(matches!(nowhere.result, Err(chaos::Failure::Capture(_))));
}

#[test]
fn a_loop_over_past_deadlines_does_not_stop_the_world() {
    ok(run(3, |world| async move {
        let a = world.host("a").addr("10.0.0.1");
        let spin = a.run(async {
            loop {
                time::sleep(Duration::ZERO).await;
            }
        });
        world.sleep(Duration::from_millis(1)).await;
        spin.abort();
        assert_eq!(spin.await, Err::<(), _>(task::JoinError::Cancelled));
    }));
}

#[test]
fn clocks_drift_apart_and_the_wall_clock_steps_alone() {
    ok(run(3, |world| async move {
        let (a, b) = two(world);
        b.set_clock_drift_ppb(100_000_000);
        let tick = |host: Host| {
            host.run(async {
                let begun = time::now();
                time::sleep(Duration::from_secs(11)).await;
                time::now() - begun
            })
        };
        let (slow, fast) = (tick(a), tick(b));
        world.sleep(Duration::from_millis(10_500)).await;
        assert!(!slow.is_finished());
        assert!(fast.is_finished());
        assert!(fast.await.unwrap() >= Duration::from_secs(11));
        let before = a.run(async { (time::now(), time::unix_now()) }).await.unwrap();
        a.step_wall_clock_ms(-60_000);
        let after = a.run(async { (time::now(), time::unix_now()) }).await.unwrap();
        assert!(after.0 >= before.0);
        assert!(after.1 < before.1);
    }));
}

#[test]
fn a_change_of_drift_moves_sleeps_that_have_begun() {
    ok(run(3, |world| async move {
        let a = world.host("a").addr("10.0.0.1");
        let sleeper = a.run(async { time::sleep(Duration::from_secs(10)).await });
        world.sleep(Duration::from_secs(1)).await;
        a.set_clock_drift_ppb(500_000_000);
        world.sleep(Duration::from_millis(6_100)).await;
        assert!(sleeper.is_finished());
    }));
}

#[test]
fn a_roaming_host_is_found_at_its_new_address_only() {
    ok(run(3, |world| async move {
        let (a, b) = two(world);
        let watch = b.run(async {
            let mut watch = InterfaceWatch::new(interfaces().unwrap());
            watch.changed().await.iter().any(|interface| interface.addr.to_string() == "10.7.0.2")
        });
        world.sleep(Duration::from_millis(1)).await;
        let old = b.ip();
        b.set_addrs("eth0", &["10.7.0.2"]);
        assert!(watch.await.unwrap());
        assert_eq!(flood(world, a, b, 3, Duration::from_millis(1)).await.len(), 3);
        a.run(async move {
            let lost = Transmit {
                destination: SocketAddr::new(old, PORT),
                contents: b"x",
                segment_size: None,
                src_ip: None,
            };
            bind(0).await.try_send(&lost).unwrap();
        })
        .await
        .unwrap();
        assert_eq!(world.stats().dropped(DropCause::NoHost), 1);
    }));
}

#[test]
fn streams_of_one_label_differ_by_host_call_and_boot() {
    use rand_core::Rng as _;
    ok(run(3, |world| async move {
        let (a, b) = two(world);
        let draw = |host: Host| host.run(async { chaos::rt::rng("keys").next_u64() });
        let mut seen = vec![draw(a).await.unwrap(), draw(a).await.unwrap(), draw(b).await.unwrap()];
        a.restart();
        seen.push(draw(a).await.unwrap());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 4);
    }));
}

#[test]
fn a_panic_of_a_process_fails_the_run() {
    let outcome = run(3, |world| async move {
        world.host("a").spawn(|| async { panic!("a broken promise") });
        world.sleep(Duration::from_secs(1)).await;
    });
    let failure = outcome.result.unwrap_err().to_string();
    let expected = "the process of host a panicked: a broken promise, at chaos/tests/world.rs:";
    assert!(failure.starts_with(expected), "{failure}");
}

#[test]
fn a_panic_of_a_task_that_nobody_awaits_fails_the_run() {
    let expected = "a task of host a panicked: a plane is gone, at chaos/tests/world.rs:";
    let dies = || async { panic!("a plane is gone") };
    let detached = run(3, move |world| async move {
        world.host("a").spawn(move || async move {
            drop(task::spawn(dies()));
            std::future::pending().await
        });
        world.sleep(Duration::from_secs(1)).await;
    });
    let kept = run(3, move |world| async move {
        world.host("a").spawn(move || async move {
            let _kept: task::JoinHandle<()> = task::spawn(dies());
            std::future::pending().await
        });
        world.sleep(Duration::from_secs(1)).await;
    });
    let given_up = run(3, move |world| async move {
        let late = async move {
            time::sleep(Duration::from_secs(1)).await;
            dies().await
        };
        let task = world.host("a").run(late);
        assert!(time::timeout(Duration::from_millis(10), task).await.is_err());
        world.sleep(Duration::from_secs(2)).await;
    });
    for outcome in [detached, kept, given_up] {
        let failure = outcome.result.unwrap_err().to_string();
        assert!(failure.starts_with(expected), "{failure}");
    }
}

#[test]
fn a_panic_that_is_heard_or_comes_after_the_end_fails_nothing() {
    let outcome = run(3, |world| async move {
        let a = world.host("a").addr("10.0.0.1");
        let heard = a.run(async { panic!("on purpose") }).await;
        assert_eq!(heard, Err::<(), _>(task::JoinError::Panicked("on purpose".to_owned())));
        // The process is killed in the middle of a poll; a panic in the rest of this poll is ignored.
        a.crash_at_disk_op(1);
        drop(a.run(async { disk::create_new_private(Path::new("/1"), b"x").unwrap() }));
        world.sleep(Duration::from_secs(1)).await;
        a.is_running()
    });
    assert_eq!((outcome.result, outcome.stats.task_panics), (Ok(false), 2));
}

#[test]
fn a_map_shows_networks_boxes_hosts_and_what_is_wrong_with_them() {
    let outcome = run(1, |world| async move {
        world.internet().host("server", "198.51.100.7").addr("2001:db8::7");
        let line = world.internet().nat("line", &[], Modem);
        let home = line.nat("home", &["203.0.113.1", "203.0.113.2"], Modem);
        home.host("laptop", "192.168.1.2").nic_addr("cell0", "203.0.113.77").set_nic_up("eth0", false);
        home.host("nas", "192.168.1.9").crash();
        line.host("lamp", "203.0.113.3").power_loss();
        world.host("spare");
        let before = world.map();
        home.set_power(false);
        (before, world.map())
    });
    let (map, later) = outcome.result.unwrap();
    insta::assert_snapshot!(map, @"
    internet
      server: eth0 198.51.100.7 2001:db8::7
      laptop: cell0 203.0.113.77
      line, behind a modem
        lamp (no power): eth0 203.0.113.3
        home, behind a modem at 203.0.113.1 203.0.113.2
          laptop: eth0 down 192.168.1.2
          nas (no process): eth0 192.168.1.9
    nowhere: spare
    ");
    assert_eq!(later, map.replace("a modem at", "a modem (off) at"));
}
