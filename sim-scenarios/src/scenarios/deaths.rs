//! Many nodes die at one moment: a rack loses its power, a deployment is taken down.
//!
//! Twenty-one nodes and two hubs. One node dies, by a kill or by a loss of power; the time until all others know
//! it is the measure. Then a part of the other twenty dies at one instant by the same cause: a quarter, half, or
//! four fifths, in some worlds with one of the hubs. All survivors know all deaths within twice the measure. The
//! jobs that are submitted at that moment have their results within four times the measure, since a job that was
//! lost with its executor may be lost with the next one too. No survivor is ever held dead.
//!
//! Negative control: before that, the same number of nodes is paused at one instant, for less than any suspicion
//! lasts, and none is held dead.
//!
//! The number and the cause follow from the seed, so that any six consecutive seeds cover all combinations.

use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Knob, KnobKind, Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::membership::State;
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline, Jobs, Peer};
use crate::models::sim_hub::SimHub;
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[Knob {
        name: "nodes",
        about: "nodes beside the one whose death is the measure",
        default: 20,
        least: 5,
        turns: KnobKind::Hosts,
    }],
    marks: &[
        Mark::new("a quarter died at one instant"),
        Mark::new("half died at one instant"),
        Mark::new("four fifths died at one instant"),
        Mark::new("a hub died with them"),
        Mark::new("many were killed"),
        Mark::new("many lost their power"),
    ],
    ..Scenario::new(
        "deaths",
        "a quarter, half, four fifths of 20 die at one instant: all know it within twice the time of one death",
        |trial| Box::pin(run(trial)),
    )
};

const MEET: Duration = Duration::from_secs(60);

/// How long the nodes are paused, which is shorter than any suspicion.
const STILL: Duration = Duration::from_secs(3);

/// All see each other alive again within this after the pause.
const BACK: Duration = Duration::from_secs(30);

/// One death is known to all within this.
const ONE: Duration = Duration::from_secs(20);

/// Jobs that are submitted when many die.
const JOBS: usize = 40;

const KNOWN: &str = "a death is known to all who live";
const TOGETHER: &str = "deaths at one instant are known to all who live within twice the time of one";
const LIVING: &str = "nobody who lives is held dead";

/// How many nodes die, and by which cause.
#[derive(Clone, Copy)]
struct MassDeath {
    count: usize,
    share: &'static str,
    power: bool,
    hub: bool,
}

impl MassDeath {
    fn of(trial: &Trial, nodes: usize) -> MassDeath {
        let seed = trial.world.seed();
        let (count, share) = match seed / 2 % 3 {
            0 => (nodes / 4, "a quarter"),
            1 => (nodes / 2, "half"),
            _ => (nodes * 4 / 5, "four fifths"),
        };
        let hub = trial.world.rng("hub").next_u32().is_multiple_of(2);
        MassDeath { count, share, power: seed.is_multiple_of(2), hub }
    }

    fn kill(self, peers: &[Peer]) {
        for peer in peers {
            if self.power {
                peer.host.power_loss();
            } else {
                peer.host.crash();
            }
        }
    }

    fn kill_hub(self, hub: &SimHub) {
        if self.power {
            hub.power_loss();
        } else {
            hub.kill();
        }
    }

    fn mark(self) {
        sometimes!(self.share == "a quarter", "a quarter died at one instant");
        sometimes!(self.share == "half", "half died at one instant");
        sometimes!(self.share == "four fifths", "four fifths died at one instant");
        sometimes!(self.hub, "a hub died with them");
        sometimes!(!self.power, "many were killed");
        sometimes!(self.power, "many lost their power");
    }
}

/// Some nodes are paused, one dies, many die.
async fn run(trial: Trial) -> RunResult {
    let (world, nodes) = (trial.world, trial.knob("nodes") as usize);
    let stage = Stage::new(world).links(link_ms(15, 10));
    let mass_death = MassDeath::of(&trial, nodes);
    let cluster = stage.hub("hub 0").hub("hub 1").workers(nodes + 1).meet(MEET).await?;
    let (first, others) = cluster.peers.split_last().expect("there are nodes");
    // The first of them survives, and submits.
    let mut others = others.to_vec();
    for last in (2..others.len()).rev() {
        others.swap(last, 1 + world.rng("victims").next_u32() as usize % last);
    }
    let (living, dying) = others.split_at(nodes - mass_death.count);

    dying.iter().for_each(|peer| peer.host.pause());
    world.sleep(STILL).await;
    dying.iter().for_each(|peer| peer.host.resume());
    cluster.converge(BACK).await?;
    cluster.no_false_deaths(LIVING, &[])?;

    mass_death.kill(std::slice::from_ref(first));
    let one = wait_until_known(&cluster, world, KNOWN, std::slice::from_ref(first), ONE).await?;

    mass_death.kill(dying);
    if mass_death.hub {
        mass_death.kill_hub(&cluster.hubs[0]);
    }
    mass_death.mark();
    let mut jobs = Jobs::new(&cluster);
    for number in 0..JOBS {
        jobs.submit(&living[number % living.len()], "slow", &format!("job {number:02}")).await?;
    }
    let begun = world.elapsed();
    let many = wait_until_known(&cluster, world, TOGETHER, dying, 2 * one).await?;
    let count = jobs.settle((4 * one).saturating_sub(world.elapsed() - begun)).await?;
    let took = world.elapsed() - begun;
    cluster.no_false_deaths(LIVING, &[dying, std::slice::from_ref(first)].concat())?;
    cluster.inspect().await?;
    let hub = if mass_death.hub { " and a hub" } else { "" };
    let cause = if mass_death.power { "lose their power" } else { "are killed" };
    let state = format!(
        "{} of {nodes} nodes{hub} {cause} at one instant: all who live know it in time\n{count} jobs have their results\n",
        mass_death.share
    );
    let notes = format!(
        "one death is known after {one:?}, {} after {many:?}, jobs took {took:?}\n",
        mass_death.count
    );
    Ok(Passed { state, notes })
}

/// How long it takes until all survivors hold all of `dead` dead.
async fn wait_until_known(
    cluster: &Cluster,
    world: World,
    property: &'static str,
    dead: &[Peer],
    limit: Duration,
) -> Result<Duration, Violation> {
    let deadline = Deadline::new(world, property, limit);
    while deadline.still_missing(without_the_verdicts(cluster, dead).await).await? {}
    Ok(deadline.waited())
}

async fn without_the_verdicts(cluster: &Cluster, dead: &[Peer]) -> Vec<String> {
    let mut missing = Vec::new();
    for peer in cluster.running() {
        let view = cluster.view(peer).await;
        let live = dead.iter().filter(|of| view.get(&of.key) != Some(&State::Dead)).count();
        if live > 0 {
            missing.push(format!("{} holds {live} of {} live", peer.name, dead.len()));
        }
    }
    missing
}
