//! A peer below a policy has its tasks run neither by itself, nor in another's name, nor through a worker that helps it.
//!
//! Three workers and a hub. All three permit the kind *guarded* to members alone; the kind *uneven* is permitted to all that
//! may submit by one of them, and to members by the other two. A member submits both, and so does an observer, at level
//! *submit*: its *guarded* jobs end at once with an error that says what they would need, its *uneven* ones are done by the
//! one worker that permits them.
//!
//! All the while an [insider](crate::insider) at level *submit* sends SUBMITs of the guarded kind to each worker, in its own
//! name, and in the member's, also as if they were forwarded. A second insider, which is a worker, forwards tasks in the
//! first one's name, and the first claims them. No handler ever sees one of these.
//!
//! Negative control: the insider's SUBMITs and claims are well-formed, since those of the uneven kind are run.

use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::SecretKey;
use nurl::internals::authority::level::Level;
use nurl::internals::compute::job::policy::Policy;
use nurl::internals::compute::job::{JobError, digest};
use nurl::internals::node::Role;
use nurl::internals::transport::kind;

use crate::cluster::{Cluster, Deadline, Jobs, Peer, secret};
use crate::insider::{Insider, wire};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("an insider's own task of a permitted kind was run"),
        Mark::new("an insider's forwarded task of a permitted kind was run"),
        Mark::new("an observer's task went on to the worker that permits it"),
    ],
    ..Scenario::new(
        "policies",
        "a peer below a policy has no task run, by itself, in another's name, or with a worker's help",
        |trial| Box::pin(run(trial)),
    )
};

const GUARDED: &str = "guarded";
const UNEVEN: &str = "uneven";

const MEET: Duration = Duration::from_secs(60);

/// For how long the insiders try, and how often.
const TRIES: u32 = 40;
const EVERY: Duration = Duration::from_millis(500);

/// From a submit to its end: three round trips, and the time of a first session.
const AT_ONCE: Duration = Duration::from_secs(5);

const KEPT_OUT: &str = "no handler sees a task that the worker's policy doesn't permit";
const TOLD: &str = "a submitter that all workers refuse has an error that says what it would need";
const SERVED: &str = "a submitter that a worker permits has its result, whatever the others say";
const CONTROL: &str = "the insider's tasks of a permitted kind are run";

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stage = Stage::new(world).links(link_ms(15, 5)).hub("hub").workers(3);
    let stage = stage.member("member").observer("observer").configure(|builder, setup| {
        if setup.role != Role::Worker {
            return builder;
        }
        let permitted = |number| if number == 2 { Level::Submit } else { Level::Member };
        let kinds = [(GUARDED, Level::Member), (UNEVEN, permitted(setup.number))];
        kinds.into_iter().fold(builder, |builder, (kind, level)| {
            let (by, witness) = (setup.name.clone(), setup.witness.clone());
            let handler = move |_, payload: Bytes| {
                witness.record_run(&by, &payload);
                async move { Ok(payload) }
            };
            builder.handler(kind, handler).allow_submit(kind, Policy::Level(level))
        })
    });
    let cluster = stage.meet(MEET).await?;
    let (member, observer) = (cluster.peers[3].clone(), cluster.peers[4].clone());

    let key = SecretKey::generate(&mut world.rng("eve"));
    let standing = cluster.credential(&key.public(), Role::Observer);
    let eve = Insider::with_credential(world, &cluster, "eve", (key, standing), &cluster.ticket);
    let mallory = Insider::start(world, &cluster, "mallory");
    for insider in [&eve, &mallory] {
        insider.meet(&cluster, MEET).await?;
    }
    let attack = Attack { world, cluster: &cluster, eve, mallory, member: member.clone() };
    for number in 0..TRIES {
        attack.strike(number).await;
        let served = match number % 8 {
            0 => honest(&cluster, &member, &observer, number).await,
            _ => Ok(()),
        };
        // What a handler saw comes before what anybody was told of it.
        kept_out(&cluster)?;
        served?;
    }
    attack.control().await?;
    kept_out(&cluster)?;
    let state = "the guarded kind ran for the member alone, the uneven one for the observer too\n".to_owned();
    Ok(Passed { state, notes: String::new() })
}

/// The names of the insider's guarded jobs begin so.
const FORBIDDEN: &str = "forbidden";

/// The jobs of the uneven kind that the observer submits begin so; one worker permits them.
const UNEVEN_OF_THE_OBSERVER: &str = "uneven of the observer";

fn kept_out(cluster: &Cluster) -> Result<(), Violation> {
    let (runs, permits) = (cluster.witness.runs(), &cluster.peers[2].name);
    let wrong = |job: &str, by: &String| {
        job.starts_with(FORBIDDEN) || (job.starts_with(UNEVEN_OF_THE_OBSERVER) && by != permits)
    };
    match runs.iter().find(|run| wrong(&run.job, &run.by)) {
        None => Ok(()),
        Some(run) => Err(Violation::safety(KEPT_OUT, format!("{} ran {}", run.by, run.job))),
    }
}

/// The member has both results; the observer one, and an error.
async fn honest(cluster: &Cluster, member: &Peer, observer: &Peer, number: u32) -> Result<(), Violation> {
    for (from, kind) in [(member, GUARDED), (member, UNEVEN), (observer, UNEVEN)] {
        let mut jobs = Jobs::new(cluster);
        jobs.submit(from, kind, &format!("{kind} of the {} {number}", from.name)).await?;
        let done = jobs.settle(AT_ONCE).await;
        done.map_err(|broken| Violation::liveness(SERVED, format!("{}: {broken:?}", from.name)))?;
    }
    sometimes!(true, "an observer's task went on to the worker that permits it");
    let mut jobs = Jobs::new(cluster);
    jobs.submit(observer, GUARDED, &format!("{FORBIDDEN}: the observer's {number}")).await?;
    let ends = jobs.outcomes(AT_ONCE).await;
    let ends = ends.map_err(|broken| Violation::liveness(TOLD, format!("{broken:?}")))?;
    let expected =
        JobError::NotAllowed { kind: GUARDED.to_owned(), needs: Policy::Level(Level::Member).to_string() };
    match ends.iter().find(|(_, outcome)| *outcome != Err(expected.clone())) {
        None => Ok(()),
        Some((name, outcome)) => Err(Violation::safety(TOLD, format!("{name} came back as {outcome:?}"))),
    }
}

struct Attack<'a> {
    world: World,
    cluster: &'a Cluster,
    /// At level *submit*.
    eve: Insider,
    /// A worker.
    mallory: Insider,
    member: Peer,
}

impl Attack<'_> {
    /// Sends tasks of the guarded kind in all ways to all workers.
    async fn strike(&self, number: u32) {
        for (at, worker) in self.cluster.peers[..3].iter().enumerate() {
            let (number, at) = (number as u8, at as u8);
            let id = |way: u8| {
                let mut id = [0xee; 16];
                (id[0], id[1], id[2]) = (number, at, way);
                id
            };
            let job = |way: u8| secret(&format!("{FORBIDDEN} {number} {at} {way}"));
            let (eve, member) = (self.eve.key, self.member.key);
            let ways = [(0, eve, 0), (1, member, 0), (2, member, 1), (3, eve, 1)];
            for (way, name, hops) in ways {
                let submit = wire::submit(id(way), name, hops, GUARDED, b"key", &job(way));
                self.eve.send_message(worker.key, kind::JOB, submit);
            }
            self.forward(worker, id(4), GUARDED, &job(4));
        }
        self.world.sleep(EVERY).await;
    }

    /// A worker forwards a task in the insider's name, which the insider claims.
    fn forward(&self, to: &Peer, id: [u8; 16], kind: &str, payload: &[u8]) {
        let submit = wire::submit(id, self.eve.key, 1, kind, b"key", payload);
        self.mallory.send_message(to.key, kind::JOB, submit);
        let claim = wire::job(
            15,
            |e| e.array(3)?.bytes(&id)?.u32(0)?.bytes(&digest(kind, b"key", payload))?.ok(),
            &[],
        );
        self.eve.send_message(to.key, kind::JOB, claim);
    }

    /// The same messages, of a kind that a worker permits.
    async fn control(&self) -> Result<(), Violation> {
        let worker = &self.cluster.peers[2];
        let (own, forwarded) = ("eve's own", "eve's, forwarded");
        let submit = wire::submit([1; 16], self.eve.key, 0, UNEVEN, b"key", &secret(own));
        self.eve.send_message(worker.key, kind::JOB, submit);
        self.forward(worker, [2; 16], UNEVEN, &secret(forwarded));
        let deadline = Deadline::new(self.world, CONTROL, AT_ONCE);
        let missing = || {
            let runs = self.cluster.witness.runs();
            let jobs = [own, forwarded].into_iter();
            jobs.filter(|job| runs.iter().all(|run| run.job != *job)).map(str::to_owned).collect()
        };
        while deadline.still_missing(missing()).await? {}
        sometimes!(true, "an insider's own task of a permitted kind was run");
        sometimes!(true, "an insider's forwarded task of a permitted kind was run");
        Ok(())
    }
}
