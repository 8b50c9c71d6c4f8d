//! Computation takes time: what is slow, and what somebody makes slow on purpose.
//!
//! Three workers on desktops, one on a phone that computes sixteen times as slowly, a hub, a member that submits jobs, and an
//! [insider](crate::insider).
//!
//! **Work.** Two handlers at once compute for one second on a desktop, and for sixteen on the phone. They have threads of
//! their own, so the phone's probes are on time all the while: nobody suspects it.
//!
//! **Forgeries.** The insider tells the phone a thousand times a second what others have said, with their passes and
//! with its own signature. To check all of it would take the phone twice the
//! time that it has. A teller of forged words
//! has few of them checked, so the phone is suspected by nobody, and does its jobs.
//!
//! **A thread that is too slow.** Something else takes the phone's processor. Now its probes are late and it is suspected:
//! the negative control of all that was said before. Once the processor is free, it is held alive.

use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::membership::{Roles, State};
use nurl::internals::node::Role;
use nurl::internals::transport::channel;
use nurl::rt::{self, Cost};

use crate::cluster::{Cluster, Deadline, Jobs, Peer};
use crate::insider::{Insider, wire};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[Mark::new("the phone ran a handler that computes"), Mark::new("a busy thread was suspected")],
    time_limit: Duration::from_secs(600),
    ..Scenario::new(
        "overload",
        "handlers that compute and an insider's forgeries keep a phone busy: its probes are on time and its jobs are done",
        |trial| Box::pin(run(trial)),
    )
};

const DESKTOPS: usize = 3;
const PHONE: &str = "phone";

/// How many times as slowly as a desktop it computes.
const SLOWNESS: u32 = 16;

/// Threads for handlers on each node.
const THREADS: usize = 2;

/// What a handler reads: a second of a desktop.
const READ_BYTES: usize = 500_000_000;

/// Jobs at once; and the time in which they are done: if the phone owns them all, it runs six rounds of 16 s.
const JOBS: u32 = 12;
const DONE: Duration = Duration::from_secs(6 * 16 + 4);

/// A datagram has three forged facts, and the phone checks one in 0.68 ms: a thousand in a second are two seconds.
const FORGERIES: u64 = 6_000;
const FORGED_IN_EACH: usize = 3;
const AT_ONCE: u64 = 4;
const PAUSE: Duration = Duration::from_millis(4);

/// Most of them arrive.
const HEARD: u64 = FORGERIES * 2;

/// How much slower the phone is when something else takes its processor: a datagram costs 80 ms, a probe more than half a
/// second.
const TAKEN: u32 = 2_500;

const MEET: Duration = Duration::from_secs(60);

/// A busy thread is suspected within this time, and held alive this long after it is free.
const SUSPECTED: Duration = Duration::from_secs(60);
const BACK: Duration = Duration::from_secs(120);

const ON_TIME: &str = "who computes answers its probes on time";
const CHECKED: &str = "a forger has few of its forgeries checked";
const LATE: &str = "whose thread is busy all the time is suspected";
const HEALTHY: &str = "whose thread is free again is held alive";

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stage = Stage::new(world).links(link_ms(15, 10)).hub("hub");
    let stage = stage.workers(DESKTOPS).worker(PHONE).member("customer");
    let stage = stage.configure(|builder, setup| {
        setup.host.cpu(if setup.name == PHONE { SLOWNESS } else { 1 });
        let (by, witness) = (setup.name.clone(), setup.witness.clone());
        builder.pool(THREADS).handler("compute", move |context, payload: Bytes| {
            let (by, witness) = (by.clone(), witness.clone());
            async move {
                let read = move || {
                    rt::cost(Cost::HandledByte, READ_BYTES);
                    Ok(payload)
                };
                let result: Bytes = context.blocking(read).await?;
                witness.record_run(&by, &result);
                Ok(result)
            }
        })
    });
    let cluster = stage.start();
    cluster.hubs[0].host.cpu(1);
    cluster.converge(MEET).await?;
    let phone = cluster.peers.iter().find(|peer| peer.name == PHONE).expect("it was staged");
    let customer = cluster.peers.last().expect("it was staged");

    let mut jobs = Jobs::new(&cluster);
    for number in 0..JOBS {
        jobs.submit(customer, "compute", &format!("work {number}")).await?;
    }
    jobs.settle(DONE).await?;
    sometimes!(
        cluster.witness.runs().iter().any(|run| run.by == PHONE),
        "the phone ran a handler that computes"
    );
    unsuspected(&cluster, phone, "while handlers compute")?;

    let eve = Insider::start(world, &cluster, "eve");
    eve.meet(&cluster, MEET).await?;
    for number in 0..JOBS {
        jobs.submit(customer, "slow", &format!("among forgeries {number}")).await?;
    }
    forge(world, &cluster, &eve, phone).await;
    jobs.settle(DONE).await?;
    unsuspected(&cluster, phone, "while an insider forges")?;
    let unchecked = cluster.metric(phone, "membership.facts_of_forgers").await;
    if unchecked < HEARD {
        let seen = format!("{unchecked} were refused unchecked, {HEARD} at least");
        return Err(Violation::safety(CHECKED, seen));
    }

    phone.host.slow_cpu(Some(TAKEN));
    let deadline = Deadline::new(world, LATE, SUSPECTED);
    let accused = |state| cluster.witness.verdicts_on(phone).any(|verdict| verdict == state);
    while deadline
        .still_missing((!accused(State::Suspect)).then(|| PHONE.to_owned()).into_iter().collect())
        .await?
    {}
    sometimes!(true, "a busy thread was suspected");
    let late = deadline.waited();
    phone.host.slow_cpu(None);
    let deadline = Deadline::new(world, HEALTHY, BACK);
    while deadline.still_missing(cluster.missing().await).await? {}
    cluster.inspect().await?;
    let state = format!("{} jobs were done, nobody was suspected who computes\n", 2 * JOBS);
    let notes = format!(
        "a busy thread was suspected after {late:?}, and held alive {:?} after it was free\n",
        deadline.waited()
    );
    Ok(Passed { state, notes })
}

/// Nobody has suspected the phone.
fn unsuspected(cluster: &Cluster, phone: &Peer, during: &str) -> Result<(), Violation> {
    match cluster.witness.verdicts_on(phone).find(|state| *state != State::Alive) {
        None => Ok(()),
        Some(state) => {
            Err(Violation::safety(ON_TIME, format!("{during}: {PHONE} was held {}", state.as_str())))
        }
    }
}

/// The insider tells the phone of words that the desktops never said.
async fn forge(world: World, cluster: &Cluster, eve: &Insider, phone: &Peer) {
    let desktops: Vec<_> = cluster.peers.iter().take(DESKTOPS).collect();
    let credentials: Vec<_> =
        desktops.iter().map(|peer| cluster.credential(&peer.key, Role::Worker)).collect();
    for number in 0..FORGERIES / AT_ONCE {
        for copy in 0..AT_ONCE {
            let incarnation = number * AT_ONCE + copy + 10;
            let forged = desktops.iter().zip(&credentials).take(FORGED_IN_EACH).map(|(peer, credential)| {
                let by = wire::Signer { pass: credential.pass(), ..eve.signer() };
                wire::said(peer.key, &by, incarnation, false, (Roles::WORKER, 1))
            });
            let message = wire::gossip(0, forged.collect());
            eve.send(phone.key, channel::MEMBERSHIP, message.encode());
        }
        world.sleep(PAUSE).await;
    }
}
