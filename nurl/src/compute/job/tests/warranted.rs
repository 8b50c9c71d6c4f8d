//! Tasks of the log of detached tasks: submitted by one custodian after the other, in the name of a holder.

use rand_core::SeedableRng;

use super::super::warrant::{Detached, Named, Warrant, Warrants};
use super::harness::*;
use crate::authority::key::AuthorityKey;
use crate::authority::level::Level;
use crate::authority::pass::{Grant, Pass};
use crate::compute::job::custody::Drive;
use crate::compute::job::*;
use crate::key::SecretKey;
use crate::kit::wall_clock::WallClock;
use crate::rt::Rng;

/// 2026-11-01.
const NOW_S: u32 = 1_793_000_000;
const WALL: Duration = Duration::from_secs(NOW_S as u64);
const TASK: TaskId = TaskId::from_bytes([5; 16]);

/// A world whose nodes believe the warrants of one holder.
struct Mesh {
    world: World,
    authority: AuthorityKey,
    holder: SecretKey,
    pass: Pass,
}

impl Mesh {
    fn new(n: u8, takes: Duration) -> Mesh {
        let mut world = World::new(7, n);
        world.behaviour = Box::new(move |_, _, run| (takes, Ok(Bytes::from(format!("run {run}")))));
        let mut rng = Rng::from_seed([3; 32]);
        let (authority, holder) = (AuthorityKey::generate(&mut rng), SecretKey::generate(&mut rng));
        let grant = Grant::new(holder.public(), Level::Submit, NOW_S, NOW_S + 30 * 86_400);
        let pass = grant.sign(&authority).unwrap();
        let mut mesh = Mesh { world, authority, holder, pass };
        (1..=n).for_each(|n| mesh.believe(n));
        mesh
    }

    fn believe(&mut self, n: u8) {
        let warrants = Warrants::new(self.authority.mesh(), WallClock::new(self.world.start, WALL), &[]);
        self.world.jobs(n).set_warrants(warrants);
    }

    fn warrant(&self, payload: &[u8]) -> Warrant {
        let options = SubmitOptions { life: secs(3_600), ..SubmitOptions::default() };
        let job = Detached { options, keep: secs(60), parent: None };
        let named = Named { task: TASK, digest: digest("work", b"key", payload) };
        Warrant::sign(named, &job, WALL, (&self.holder, &self.pass, &self.authority.mesh()))
    }

    /// Has the task submitted by node `n` as its custodian.
    fn drive(&mut self, n: u8) {
        let warrant = self.warrant(b"payload");
        self.drive_by(n, warrant);
    }

    fn drive_by(&mut self, n: u8, warrant: Warrant) {
        let (kind, key, payload) = ("work".to_owned(), Bytes::from("key"), Bytes::from("payload"));
        let options = warrant.options(WALL);
        let now = self.world.now;
        self.world
            .jobs(n)
            .submit_for(now, Drive { task: TASK, warrant, kind, key, payload, options })
            .unwrap();
        self.world.drain();
    }

    /// How often node `n` told that its custodian is gone.
    fn orphaned(&self, n: u8) -> usize {
        let events = &self.world.nodes[&key(n)].events;
        events.iter().filter(|event| matches!(event, JobEvent::Orphaned { task } if *task == TASK)).count()
    }
}

#[test]
fn an_executor_runs_what_its_holder_has_signed_and_nothing_else() {
    let mut mesh = Mesh::new(3, ms(50));
    let other = mesh.warrant(b"another payload");
    mesh.drive_by(3, other);
    mesh.world.run(secs(5));
    assert!(mesh.world.started.is_empty(), "{:?}", mesh.world.started);
    assert!(mesh.world.jobs_ref(1).stats().bad_warrants > 0);

    let mut mesh = Mesh::new(3, ms(50));
    mesh.drive(3);
    let outcome = mesh.world.run_to_done(3, TASK, secs(5));
    assert_eq!(outcome.as_deref(), Ok(&b"run 0"[..]));
    let admitted = mesh.world.nodes[&key(1)].events.iter().find_map(|event| match event {
        JobEvent::Admitted { by, .. } => Some(by.holder()),
        _ => None,
    });
    assert_eq!(admitted, Some(mesh.holder.public()), "it is the holder's, not the custodian's");
}

#[test]
fn a_later_process_of_a_custodian_does_not_drop_the_outcome_that_it_never_had() {
    let mut mesh = Mesh::new(3, secs(4));
    mesh.drive(3);
    mesh.world.run(secs(2));
    // The run ends while the new process knows nothing of the task yet.
    mesh.world.restart(3, ms(500));
    mesh.believe(3);
    mesh.world.run(secs(10));
    mesh.drive(3);
    let outcome = mesh.world.run_to_done(3, TASK, secs(10));
    assert_eq!(outcome.as_deref(), Ok(&b"run 0"[..]));
    assert_eq!(mesh.world.runs_of(TASK).len(), 1);
}

#[test]
fn a_submitter_that_asks_again_after_its_restart_under_its_own_id_has_the_outcome() {
    let mut mesh = Mesh::new(3, secs(4));
    let payload = Bytes::from("payload");
    let submit = |world: &mut World| {
        let (now, options) = (world.now, SubmitOptions::default());
        world.jobs(3).submit_with_id(now, TASK, "work", b"key", payload.clone(), options).unwrap();
        world.drain();
    };
    submit(&mut mesh.world);
    mesh.world.run(secs(2));
    mesh.world.restart(3, ms(500));
    mesh.world.run(secs(10));
    let messages = mesh.world.messages;
    mesh.world.run(secs(30));
    assert!(mesh.world.messages - messages < 10, "who doesn't wait gets no beats");
    submit(&mut mesh.world);
    let outcome = mesh.world.run_to_done(3, TASK, secs(10));
    assert_eq!(outcome.as_deref(), Ok(&b"run 0"[..]));
    assert_eq!(mesh.world.runs_of(TASK).len(), 1);
}

#[test]
fn the_second_custodian_stops_the_run_that_the_first_one_began() {
    let mut mesh = Mesh::new(3, secs(1_000));
    mesh.drive(3);
    mesh.world.run(secs(2));
    mesh.world.kill(3, Some(secs(1)));
    mesh.world.run(secs(5));
    assert!(mesh.orphaned(1) > 0);
    mesh.drive(2);
    mesh.world.run(secs(2));
    let asked = mesh.orphaned(1);
    mesh.world.run(secs(30));
    assert_eq!(mesh.orphaned(1), asked, "it has a custodian again");
    assert_eq!(mesh.world.jobs_ref(1).gauges().running, 1);
    let now = mesh.world.now;
    assert!(mesh.world.jobs(2).cancel(now, TASK));
    mesh.world.run(secs(2));
    assert_eq!(mesh.world.jobs_ref(1).gauges().running, 0);
    assert_eq!(mesh.world.runs_of(TASK).len(), 1);
}

#[test]
fn a_run_whose_custodian_is_gone_is_asked_about_until_the_log_ends_it() {
    for restarts in [false, true] {
        let mut mesh = Mesh::new(3, secs(1_000));
        mesh.drive(3);
        mesh.world.run(secs(2));
        assert_eq!(mesh.orphaned(1), 0);
        match restarts {
            true => mesh.world.restart(3, ms(500)),
            false => mesh.world.kill(3, Some(ms(500))),
        }
        mesh.world.run(secs(30));
        assert!((5..=7).contains(&mesh.orphaned(1)), "every 5 s: {}", mesh.orphaned(1));
        assert_eq!(mesh.world.jobs_ref(1).gauges().running, 1);
        let now = mesh.world.now;
        mesh.world.jobs(1).end_for_log(now, TASK);
        mesh.world.run(secs(1));
        assert_eq!(mesh.world.jobs_ref(1).gauges().running, 0);
        assert!(mesh.world.jobs_ref(1).gauges().executing == 0, "nothing waits for it");
    }
}

#[test]
fn a_custodian_that_is_sent_to_the_runner_of_another_joins_it() {
    let mut mesh = Mesh::new(4, secs(20));
    mesh.drive(4);
    mesh.world.run(secs(2));
    // In the view of the other one, and in its own, the task is node 2's.
    mesh.world.set_view(2, View::of(&[2, 1, 3, 4]));
    mesh.world.set_view(3, View::of(&[2, 1, 3, 4]));
    mesh.drive(3);
    let outcome = mesh.world.run_to_done(3, TASK, secs(60));
    assert_eq!(outcome.as_deref(), Ok(&b"run 0"[..]));
    assert_eq!(mesh.world.jobs_ref(2).stats().elsewhere, 1, "it was asked first");
    mesh.world.run(secs(60));
    assert_eq!(mesh.world.runs_of(TASK), [key(1)]);
}

#[test]
fn the_log_ends_no_run_of_anothers() {
    let mut mesh = Mesh::new(3, secs(1_000));
    let task = mesh.world.submit(3, b"payload", SubmitOptions::default());
    mesh.world.run(secs(2));
    let now = mesh.world.now;
    mesh.world.jobs(1).end_for_log(now, task);
    mesh.world.run(secs(2));
    assert_eq!(mesh.world.jobs_ref(1).gauges().running, 1);
    mesh.world.kill(3, Some(ms(500)));
    mesh.world.run(secs(20));
    assert!(mesh.world.nodes[&key(1)].events.iter().all(|e| !matches!(e, JobEvent::Orphaned { .. })));
}
