//! A mesh whose hub can read nothing: two machines behind NATs have the authority's key, and the hub asks them for passes.
//!
//! Two workers with passes, a hub without the key, an issuer with a store ("office"), and one without ("cabin"), which is
//! after each restart what an old copy would be.
//!
//! **Silent.** Each of the issuers in turn hangs, with its connection open. A newcomer has its pass all the same: from the
//! other one, when the hub has waited for five seconds.
//!
//! **Lost.** The issuer with a store dies. A newcomer that came before is revoked, and the other issuer, which may have
//! never heard of it, closes the invitation by which it came. It dies too, and comes back without its memory: nobody gets in
//! by that invitation, the revoked one gets no new pass, and who comes by another ticket does. When all are back they know
//! the same revocations.
//!
//! **Rotated.** A worker is away while the mesh gets its next secret. It comes back with its old ticket, a newcomer comes with
//! one too, and both have the new secret, which the hub never had.

use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::mesh::Ticket;

use crate::cluster::{Cluster, Deadline, Peer};
use crate::models::nat_box::presets;
use crate::stage::{Stage, link_ms, with_store};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("the issuer that was asked first was silent, and the next one answered"),
        Mark::new("an issuer without a memory refused a newcomer of a closed invitation"),
        Mark::new("a newcomer with an old ticket had the next secret"),
    ],
    time_limit: Duration::from_secs(15 * 60),
    ..Scenario::new(
        "issuers",
        "a hub without the authority's key asks two issuers behind NATs: one hangs, dies, forgets, and nobody is let in wrongly",
        |trial| Box::pin(run(trial)),
    )
};

const ENROLLED: &str = "a newcomer has its pass while one issuer answers";
const REFUSED: &str = "a closed invitation admits nobody";
const SAME: &str = "no issuer loses a revocation";
const HANDED: &str = "whoever has a pass gets the next secret";

const MEET: Duration = Duration::from_secs(60);

/// A connection, a silent issuer's five seconds and half a second of a hub's clock, an answer of the other one, and a view.
const SOON: Duration = Duration::from_secs(12);

/// How long one that is refused tries.
const TRIES: Duration = Duration::from_secs(20);

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stage = Stage::new(world).links(link_ms(15, 10)).blind_hub("hub");
    let stage = stage.workers(2).configure(|builder, setup| match &*setup.name {
        "office" => with_store(builder, "/issuer"),
        _ => builder,
    });
    let (family, flat) =
        (stage.nat("family", presets::home_router()), stage.nat("flat", presets::home_router()));
    let mut cluster = stage.start();
    let issuers = [cluster.add_issuer("office", family), cluster.add_issuer("cabin", flat)];
    cluster.converge(MEET).await?;
    silent(world, &mut cluster, &issuers).await?;
    lost(world, &mut cluster, &issuers).await?;
    rotated(world, &mut cluster).await?;
    cluster.inspect().await?;
    let asked = cluster.hubs[0].stats().hub;
    let state = format!("{} passes, {} refusals\n", asked.issued, asked.not_issued);
    Ok(Passed { state, notes: String::new() })
}

/// Waits until a newcomer has its pass.
async fn enrolled(world: World, peer: &Peer) -> Result<Duration, Violation> {
    let deadline = Deadline::new(world, ENROLLED, SOON);
    let node = peer.node(&world).await;
    loop {
        let pass = node.status().await.ok().and_then(|status| status.issuer);
        let missing = pass.is_none().then(|| format!("{} has no pass", peer.name));
        if !deadline.still_missing(missing.into_iter().collect()).await? {
            return Ok(deadline.waited());
        }
    }
}

async fn silent(world: World, cluster: &mut Cluster, issuers: &[Peer]) -> Result<(), Violation> {
    let internet = world.internet();
    let ticket = cluster.invitation(8);
    for (hangs, answers) in [(0, 1), (1, 0)] {
        issuers[hangs].host.pause();
        let newcomer = cluster.add_invited(&format!("newcomer {hangs}"), internet, &ticket);
        let took = enrolled(world, &newcomer).await?;
        sometimes!(
            took > Duration::from_secs(5),
            "the issuer that was asked first was silent, and the next one answered"
        );
        let status = newcomer.node(&world).await.status().await;
        let by = status.ok().and_then(|status| status.issuer).map(|issuer| issuer.key);
        if by != Some(issuers[answers].key) {
            return Err(Violation::safety(ENROLLED, format!("its pass is of {by:?}")));
        }
        issuers[hangs].host.resume();
        cluster.converge(MEET).await?;
    }
    Ok(())
}

async fn lost(world: World, cluster: &mut Cluster, issuers: &[Peer]) -> Result<(), Violation> {
    let [office, cabin] = issuers else { unreachable!("two issuers") };
    let internet = world.internet();
    let ticket = cluster.invitation(8);
    let victim = cluster.add_invited("victim", internet, &ticket);
    enrolled(world, &victim).await?;
    cluster.converge(MEET).await?;
    office.host.crash();
    let told = cluster.peers[0].node(&world).await.revoke(cluster.revocation(&victim.key)).await;
    told.map_err(|error| Violation::liveness(SAME, error.to_string()))?;
    world.sleep(Duration::from_secs(5)).await;
    cabin.host.crash();
    world.sleep(Duration::from_secs(5)).await;
    cabin.host.restart();
    cabin.node(&world).await;
    world.sleep(Duration::from_secs(10)).await;

    refused(world, cluster, "intruder", &ticket).await?;
    sometimes!(true, "an issuer without a memory refused a newcomer of a closed invitation");
    // It asks again with its old pass, and then with its invitation.
    victim.host.crash();
    victim.host.restart();
    let other = cluster.invitation(1);
    let newcomer = cluster.add_invited("late", internet, &other);
    enrolled(world, &newcomer).await?;
    world.sleep(TRIES).await;
    let hub = cluster.hubs[0].stats();
    victim.host.crash();
    if hub.hub.not_issued == 0 {
        return Err(Violation::safety(REFUSED, "nobody was refused"));
    }
    office.host.restart();
    cluster.converge(2 * MEET).await?;
    let deadline = Deadline::new(world, SAME, MEET);
    while deadline.still_missing(differing(world, cluster, &victim).await).await? {}
    // The office has its memory, and what happened meanwhile.
    cabin.host.crash();
    refused(world, cluster, "burglar", &ticket).await?;
    cabin.host.restart();
    cluster.converge(2 * MEET).await
}

/// Somebody with this ticket gets no pass.
async fn refused(world: World, cluster: &mut Cluster, name: &str, ticket: &Ticket) -> Result<(), Violation> {
    let before = cluster.hubs[0].stats().hub.not_issued;
    let peer = cluster.add_invited(name, world.internet(), ticket);
    world.sleep(TRIES).await;
    let status = peer.node(&world).await.status().await;
    let pass = status.ok().and_then(|status| status.pass);
    peer.host.crash();
    if pass.is_some() {
        return Err(Violation::safety(REFUSED, format!("{name} has a pass")));
    }
    if cluster.hubs[0].stats().hub.not_issued == before {
        return Err(Violation::liveness(REFUSED, format!("{name} has no answer")));
    }
    Ok(())
}

/// The running nodes that know other revocations than the first, or the revoked one.
async fn differing(world: World, cluster: &Cluster, victim: &Peer) -> Vec<String> {
    let (mut first, mut differing) = (None, Vec::new());
    for peer in cluster.running() {
        let Ok(status) = peer.node(&world).await.status().await else { continue };
        if *first.get_or_insert(status.revocations) != status.revocations {
            differing.push(format!("{} knows others", peer.name));
        }
        if status.members.iter().any(|member| member.key == victim.key) {
            differing.push(format!("{} knows the revoked one", peer.name));
        }
    }
    differing
}

async fn rotated(world: World, cluster: &mut Cluster) -> Result<(), Violation> {
    let old = cluster.invitation(8);
    let away = cluster.peers[1].clone();
    away.host.crash();
    let handed = cluster.peers[0].node(&world).await.rotate(cluster.rotation(1, Duration::ZERO)).await;
    match handed {
        Ok(handed) if !handed.by_hub => {}
        other => return Err(Violation::liveness(HANDED, format!("{other:?}"))),
    }
    away.host.restart();
    let newcomer = cluster.add_invited("old ticket", world.internet(), &old);
    enrolled(world, &newcomer).await?;
    let deadline = Deadline::new(world, HANDED, MEET);
    loop {
        let mut behind = Vec::new();
        for peer in cluster.running() {
            match peer.node(&world).await.status().await {
                Ok(status) if status.generation == 1 => {}
                other => behind.push(format!("{}: {:?}", peer.name, other.map(|status| status.generation))),
            }
        }
        if !deadline.still_missing(behind).await? {
            break;
        }
    }
    sometimes!(true, "a newcomer with an old ticket had the next secret");
    cluster.converge(2 * MEET).await
}
