//! Many keys that one pass or one invitation lends hold all that they can of two workers, and keep nobody out.
//!
//! Two workers, and a hub. An observer with a pass of its own submits jobs all the time. Then forty-eight insiders
//! come, eight more than each worker has room for, one after the other: slips of one pass, or keys that one invitation
//! enrolled (by the seed). Each opens a session with both workers, says something twice a second, so that it is never
//! idle, and comes again when it was evicted. A newcomer with another pass then comes, with a job, and has its result
//! within 5 s. So have the observer's jobs, whose sessions last.
//!
//! Negative control: the insiders had all places that were left, and made room for the newcomers.

use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Knob, KnobKind, Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::SecretKey;
use nurl::internals::authority::invitation::InvitationId;
use nurl::internals::node::Role;
use nurl::internals::transport::{Limits, channel};

use crate::cluster::{Cluster, Deadline, Jobs, Peer, secret};
use crate::insider::Insider;
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[Knob {
        name: "insiders",
        about: "keys of one pass, or of one invitation; a worker has room for eight less",
        default: 48,
        least: 16,
        turns: KnobKind::Work,
    }],
    marks: &[
        Mark::new("slips of one pass held all places"),
        Mark::new("keys of one invitation held all places"),
    ],
    ..Scenario::new(
        "shares",
        "many keys of one pass, or of one invitation, hold all they can: a newcomer has its result at once",
        |trial| Box::pin(run(trial)),
    )
};

/// The insiders for which a worker has no room.
const TOO_MANY: usize = 8;
const NEWCOMERS: usize = 3;

const MEET: Duration = Duration::from_secs(60);

/// The time in which the insiders come, and the least between two of them.
const COME_WITHIN: Duration = Duration::from_secs(12);
const COMES_AFTER: Duration = Duration::from_millis(9);

/// A peer that was heard within 2 s isn't idle.
const SAYS_EVERY: Duration = Duration::from_millis(500);

/// How long the insiders have to fill the tables.
const FILLED: Duration = Duration::from_secs(30);

/// From a newcomer's first packet to its result. Alone it takes two seconds, one of which is the job's.
const SERVED: Duration = Duration::from_secs(5);

const FULL: &str = "the insiders hold all places";
const NEWCOMER: &str = "a newcomer with another pass has a session and its result at once";
const KEPT: &str = "a peer with a pass of its own keeps its session, and has its results";

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let insiders = usize::try_from(trial.knob("insiders")).expect("a small number");
    let room = insiders - TOO_MANY;
    let stage = Stage::new(world).links(link_ms(15, 5)).hub("hub").workers(2).observer("honest");
    let stage = stage.configure(move |builder, setup| match setup.role {
        Role::Worker => builder.limits(Limits { peers: room }),
        Role::Member | Role::Observer => builder,
    });
    let mut cluster = stage.meet(MEET).await?;
    let honest = cluster.peers[2].clone();
    job(&cluster, &honest, "before".to_owned(), KEPT).await?;
    // It has met both workers; without that, its first job for the other one would begin a session later.
    for worker in &cluster.peers[..2] {
        let met = honest.node(&world).await.ping(worker.key, SERVED).await;
        met.map_err(|error| Violation::liveness(KEPT, format!("{}: {error}", worker.name)))?;
    }
    let sessions = sessions_begun(&cluster, &honest).await;

    let slips = world.seed().is_multiple_of(2);
    let insiders = start_insiders(world, &cluster, insiders, slips).await;
    let deadline = Deadline::new(world, FULL, FILLED);
    loop {
        talk(world, &cluster, &insiders).await;
        let mut missing = Vec::new();
        for worker in &cluster.peers[..2] {
            let now = worker.node(&world).await.status().await.map(|status| status.transport_now.peers.now);
            if now.is_ok_and(|now| now < room) {
                missing.push(format!("{} has places left", worker.name));
            }
        }
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    sometimes!(slips, "slips of one pass held all places");
    sometimes!(!slips, "keys of one invitation held all places");

    let mut slowest = Duration::ZERO;
    for number in 0..NEWCOMERS {
        let begun = world.elapsed();
        let newcomer = cluster.add(&format!("newcomer {number}"), world.internet(), Role::Observer);
        let served = job(&cluster, &newcomer, format!("job of newcomer {number}"), NEWCOMER);
        beside(world, &cluster, &insiders, served).await?;
        slowest = slowest.max(world.elapsed() - begun);
        if slowest > SERVED {
            return Err(Violation::liveness(NEWCOMER, format!("{} took {slowest:?}", newcomer.name)));
        }
        let kept = job(&cluster, &honest, format!("honest job {number}"), KEPT);
        beside(world, &cluster, &insiders, kept).await?;
    }
    let again = sessions_begun(&cluster, &honest).await;
    if again != sessions {
        return Err(Violation::safety(
            KEPT,
            format!("it had begun {sessions}, and began {} more", again - sessions),
        ));
    }
    let state = format!(
        "{NEWCOMERS} newcomers were served beside {} insiders; others kept their sessions\n",
        insiders.len()
    );
    Ok(Passed { state, notes: format!("the slowest newcomer took {slowest:?}\n") })
}

/// Handshakes that a node has begun, or answered, with success.
async fn sessions_begun(cluster: &Cluster, peer: &Peer) -> u64 {
    cluster.metric(peer, "session.established").await
}

/// A job's result, within the time in which each has to be served.
async fn job(cluster: &Cluster, from: &Peer, name: String, property: &'static str) -> Result<(), Violation> {
    let mut jobs = Jobs::new(cluster);
    jobs.submit(from, "slow", &name).await?;
    jobs.settle(SERVED).await.map(drop).map_err(|broken| Violation::liveness(property, format!("{broken:?}")))
}

/// The insiders talk while something else goes on, which takes at most twice the time in which newcomers are served.
async fn beside<T>(
    world: World,
    cluster: &Cluster,
    insiders: &[Insider],
    act: impl Future<Output = Result<T, Violation>>,
) -> Result<T, Violation> {
    let talking = async {
        for _ in 0..2 * SERVED.as_millis() / SAYS_EVERY.as_millis() {
            talk(world, cluster, insiders).await;
        }
    };
    let mut act = std::pin::pin!(act);
    nurl::rt::select! {
        done = &mut act => done,
        () = talking => Err(Violation::liveness(NEWCOMER, "nothing was done".to_owned())),
    }
}

/// All keys of one pass's slips, or of one invitation.
async fn start_insiders(world: World, cluster: &Cluster, many: usize, slips: bool) -> Vec<Insider> {
    let mut rng = world.rng("insiders");
    let holder = SecretKey::generate(&mut rng);
    let invitation = InvitationId::draw(&mut rng);
    let pass = cluster.enrolled(&holder.public(), Role::Worker, invitation);
    let mut insiders = Vec::new();
    let comes_after = COMES_AFTER.max(COME_WITHIN / u32::try_from(many).expect("a small number"));
    for number in 0..many {
        let key = SecretKey::generate(&mut rng);
        let shown = match slips {
            true => cluster.slip(&holder, &pass, key.public()),
            false => cluster.enrolled(&key.public(), Role::Worker, invitation),
        };
        let name = format!("insider {number}");
        insiders.push(Insider::with_credential(world, cluster, &name, (key, shown), &cluster.ticket));
        world.sleep(comes_after).await;
    }
    insiders
}

/// Each insider says something to each worker; one that was evicted opens another session with that.
async fn talk(world: World, cluster: &Cluster, insiders: &[Insider]) {
    for insider in insiders {
        for worker in &cluster.peers[..2] {
            insider.send(worker.key, channel::APPLICATION, secret("here I am"));
        }
    }
    world.sleep(SAYS_EVERY).await;
}
