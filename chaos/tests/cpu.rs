//! Computation takes time on hosts with a processor.
#![cfg(madsim)]

use chaos::rt::net::{RecvMeta, Transmit, UdpSocket};
use chaos::rt::task::{self, Plane, Planes};
use chaos::rt::time;
use chaos::scenario::{Options, Passed, Scenario};
use chaos::{Host, Targets, World};
use std::io::IoSliceMut;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SEED: u64 = 7;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The moments at which something happened, since the world began.
#[derive(Clone, Default)]
struct Moments(Arc<Mutex<Vec<(&'static str, Duration)>>>);

impl Moments {
    fn note(&self, world: World, what: &'static str) {
        self.0.lock().unwrap().push((what, world.elapsed()));
    }

    /// What happened, sorted by time and name, in milliseconds.
    fn sorted(&self) -> Vec<(&'static str, u128)> {
        let mut all: Vec<_> =
            self.0.lock().unwrap().iter().map(|(what, at)| (*what, at.as_millis())).collect();
        all.sort_by_key(|(what, at)| (*at, *what));
        all
    }
}

/// Runs `body` on a host as the scenario has made it, then waits a minute; returns what happened.
fn on_a_host<F, Fut>(make: impl Fn(Host) -> Host + Send + 'static, body: F) -> Vec<(&'static str, u128)>
where
    F: FnOnce(World, Moments) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let outcome = chaos::run(SEED, move |world| async move {
        let moments = Moments::default();
        let host = make(world.host("a").addr("10.0.0.1"));
        let seen = moments.clone();
        host.run(async move { body(world, seen).await }).await.unwrap();
        world.sleep(Duration::from_secs(60)).await;
        moments.sorted()
    });
    outcome.result.unwrap()
}

#[test]
fn a_task_waits_behind_another_one_and_a_timer_is_late_on_the_same_plane_alone() {
    let body = async |world: World, moments: Moments| {
        let planes = Planes::start("node", 1).unwrap();
        let (busy, waiting, elsewhere) = (moments.clone(), moments.clone(), moments.clone());
        let first = planes.spawn(Plane::Net, async move {
            task::spend(ms(500));
            busy.note(world, "a poll is at one instant");
        });
        let second = planes.spawn(Plane::Net, async move {
            time::sleep(ms(100)).await;
            waiting.note(world, "the timer of the same plane");
        });
        let third = planes.spawn(Plane::Work, async move {
            time::sleep(ms(100)).await;
            elsewhere.note(world, "the timer of another plane");
        });
        first.await.unwrap();
        moments.note(world, "the end of the task");
        second.await.unwrap();
        third.await.unwrap();
    };
    let free = on_a_host(|host| host, body);
    assert!(free.iter().all(|(_, at)| *at <= 100), "without a processor it takes no time: {free:?}");
    let seen = on_a_host(|host| host.cpu(1), body);
    // Whichever of the two tasks came first, both need the one thread.
    assert_eq!(
        seen,
        [
            ("a poll is at one instant", 0),
            ("the timer of another plane", 100),
            ("the end of the task", 500),
            ("the timer of the same plane", if seen.last().unwrap().1 == 600 { 600 } else { 500 }),
        ]
    );
}

#[test]
fn a_pool_runs_as_many_handlers_at_once_as_it_has_threads() {
    let seen = on_a_host(
        |host| host.cpu(8),
        async |world, moments| {
            let planes = Planes::start("node", 2).unwrap();
            let handlers: Vec<_> = (0..4)
                .map(|_| {
                    let handler = planes.blocking(|| task::spend(Duration::from_secs(1)));
                    let moments = moments.clone();
                    task::spawn(async move {
                        handler.await.unwrap();
                        moments.note(world, "done");
                    })
                })
                .collect();
            for handler in handlers {
                handler.await.unwrap();
            }
        },
    );
    assert_eq!(seen, [("done", 8_000), ("done", 8_000), ("done", 16_000), ("done", 16_000)]);
}

#[test]
fn what_must_not_be_early_waits_until_the_work_is_done() {
    let seen = on_a_host(
        |host| host.cpu(2),
        async |world, moments| {
            let planes = Planes::start("node", 1).unwrap();
            let work = planes.spawn(Plane::Work, async move {
                task::spend(ms(40));
                moments.note(world, "before");
                task::caught_up().await;
                moments.note(world, "after");
                task::caught_up().await;
                moments.note(world, "nothing more was spent");
            });
            work.await.unwrap();
        },
    );
    assert_eq!(seen, [("before", 0), ("after", 80), ("nothing more was spent", 80)]);
}

#[test]
fn a_slow_cpu_is_a_fault_that_ends() {
    let outcome = chaos::run(SEED, |world| async move {
        let host = world.host("a").addr("10.0.0.1");
        let one = async move || {
            let begun = world.elapsed();
            host.run(async { task::spawn(async { task::spend(ms(10)) }).await }).await.unwrap().unwrap();
            (world.elapsed() - begun).as_millis()
        };
        let before = one().await;
        host.slow_cpu(Some(30));
        let during = one().await;
        host.slow_cpu(None);
        [before, during, one().await]
    });
    assert_eq!(outcome.result.unwrap(), [0, 300, 0]);
}

#[test]
fn packets_wait_in_their_socket_while_the_server_computes() {
    let outcome = chaos::run(SEED, |world| async move {
        let (moments, client) = (Moments::default(), world.host("client").addr("10.0.0.2"));
        let server = world.host("server").addr("10.0.0.1").cpu(1);
        let seen = moments.clone();
        server.spawn(move || {
            let seen = seen.clone();
            async move {
                let socket = UdpSocket::bind("10.0.0.1:9".parse().unwrap()).await.unwrap();
                let (mut buffer, mut meta) = (vec![0; 100], [RecvMeta::default()]);
                loop {
                    socket.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta).await.unwrap();
                    task::spend(ms(50));
                    task::caught_up().await;
                    seen.note(world, "answered");
                }
            }
        });
        world.sleep(ms(100)).await;
        let sent = client.run(async {
            let socket = UdpSocket::bind("10.0.0.2:9".parse().unwrap()).await.unwrap();
            let destination = "10.0.0.1:9".parse().unwrap();
            let one = Transmit { destination, contents: b"!", segment_size: None, src_ip: None };
            (0..4).for_each(|_| socket.try_send(&one).unwrap());
        });
        sent.await.unwrap();
        world.sleep(Duration::from_secs(1)).await;
        moments.sorted()
    });
    let answered = outcome.result.unwrap().into_iter().map(|(_, at)| at).collect::<Vec<_>>();
    assert_eq!(answered, [160, 210, 260, 310], "the way takes 10 ms");
}

#[test]
fn a_plan_slows_a_cpu_down_and_the_map_says_so() {
    const COMPUTE: Scenario = Scenario::new("compute", "one host computes", |trial| {
        Box::pin(async move {
            let (world, moments) = (trial.world, Moments::default());
            let host = world.host("a").addr("10.0.0.1");
            let seen = moments.clone();
            let work = host.run(async move {
                for _ in 0..4 {
                    task::spend(ms(10));
                    task::caught_up().await;
                    seen.note(world, "done");
                    time::sleep(ms(100)).await;
                }
            });
            trial.start_faults(&Targets::default(), Duration::from_secs(1));
            world.sleep(ms(150)).await;
            let map = world.map();
            work.await.unwrap();
            trial.heal().await;
            Ok(Passed { state: format!("{:?}", moments.sorted()), notes: map })
        })
    });
    let plan = Some("50ms slow-cpu a times=5 for=150ms".parse().unwrap());
    let passed = COMPUTE.run(&Options { plan, ..Options::seed(SEED) }).verdict.unwrap();
    assert_eq!(passed.state, r#"[("done", 0), ("done", 150), ("done", 250), ("done", 350)]"#);
    assert!(passed.notes.contains("a (cpu 5 times as slow): eth0 10.0.0.1"), "{}", passed.notes);
}

#[test]
fn work_that_is_under_way_when_the_cpu_is_free_again_ends_in_its_usual_time() {
    let outcome = chaos::run(SEED, |world| async move {
        let host = world.host("a").addr("10.0.0.1").cpu(1);
        host.slow_cpu(Some(1_000_000));
        let work = host.run(async { task::spawn(async { task::spend(ms(100)) }).await });
        world.sleep(ms(500)).await;
        host.slow_cpu(None);
        work.await.unwrap().unwrap();
        world.elapsed().as_millis()
    });
    assert_eq!(outcome.result.unwrap(), 599);
}

#[test]
fn a_killed_process_leaves_its_processors_free() {
    let outcome = chaos::run(SEED, |world| async move {
        let moments = Moments::default();
        let host = world.host("a").addr("10.0.0.1").cpu(1);
        let seen = moments.clone();
        host.spawn(move || {
            let seen = seen.clone();
            async move {
                seen.note(world, "begun");
                task::spend(Duration::from_secs(3600));
                task::caught_up().await;
                seen.note(world, "never");
            }
        });
        world.sleep(ms(10)).await;
        host.crash();
        world.sleep(ms(10)).await;
        host.restart();
        world.sleep(ms(10)).await;
        moments.sorted()
    });
    assert_eq!(outcome.result.unwrap(), [("begun", 0), ("begun", 20)]);
}
