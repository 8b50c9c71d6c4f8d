//! Watches go on whatever becomes of the owners, and lists say what they may lack.
//!
//! Four workers without stores, a member and an observer. The member counts, and gives names to registers. The first worker, the
//! member and the observer each watch the counter. In each round the counter is counted up in steps while something happens:
//! one of the other workers is killed and starts again, or is cut off from everybody and comes back, or a further one joins and
//! owns some of the keys; or nothing does.
//!
//! - Within a bound after a round each watch has told the whole sum. What a watch tells never falls, and is never more than
//!   what was counted.
//! - A list has every name that was acknowledged, or is partial; who is cut off is named as silent. Within a bound after a round
//!   nobody is.
//! - At last the counter is deleted: each watch tells it, and no list has it any more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Knob, KnobKind, Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::{Host, World};
use nurl::Error;
use nurl::internals::node::{Names, Node, Role};
use nurl::internals::replication::crdt::Kind;
use nurl::rt::{Rng, task};
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline, Peer, secret};
use crate::lock::lock;
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[Knob {
        name: "rounds",
        about: "rounds in which something happens",
        default: 6,
        least: 1,
        turns: KnobKind::Work,
    }],
    marks: &[
        Mark::new("a worker restarted while others watched"),
        Mark::new("a worker was cut off while others watched"),
        Mark::new("a worker joined while others watched"),
        Mark::new("a list named who was cut off"),
        Mark::new("a watch told that writes may be missing"),
        Mark::new("a watch skipped a value"),
    ],
    time_limit: Duration::from_secs(20 * 60),
    ..Scenario::new(
        "watched",
        "owners restart, are cut off or are others: each watch tells the newest value, and lists say what they lack",
        |trial| Box::pin(run(trial)),
    )
};

const SEEN: &str = "a watch tells the newest value";
const GROWS: &str = "what a watch tells of a sum never falls, nor is it more than was counted";
const LISTED: &str = "a list has every name that was acknowledged, or says that it may lack some";
const SILENT: &str = "a list names who is silent";
const WHOLE: &str = "a list is whole again when everybody is back";

const COUNTER: &str = "watched by all";

const MEET: Duration = Duration::from_secs(60);
/// The writer sends a write again after a minute at most, and a watch looks by itself after 25 s.
const SEEN_WITHIN: Duration = Duration::from_secs(100);
/// All see each other again, and the next list asks them.
const WHOLE_WITHIN: Duration = Duration::from_secs(90);
/// Steps of each round, and the longest pause between two.
const STEPS: usize = 6;
const PAUSE_MS: usize = 4_000;

/// What a watch has told.
#[derive(Default)]
struct Told {
    last: Option<(i128, bool)>,
    /// The first fault.
    wrong: Option<String>,
}

/// The sum that was begun to be counted, and whether it was deleted.
#[derive(Default)]
struct Counted {
    begun: i128,
    deleted: bool,
}

struct Play {
    world: World,
    cluster: Cluster,
    draws: Rng,
    counted: Arc<Mutex<Counted>>,
    watches: Vec<(String, Arc<Mutex<Told>>)>,
    /// The names of registers that were acknowledged.
    named: BTreeSet<String>,
}

/// Runs the scenario.
async fn run(trial: Trial) -> RunResult {
    let stage = Stage::new(trial.world).links(link_ms(15, 10)).hub("hub").workers(4);
    let cluster = stage.member("desk").observer("phone").meet(MEET).await?;
    let (world, draws) = (trial.world, trial.world.rng("watched"));
    let (counted, named) = (Arc::default(), BTreeSet::new());
    let mut play = Play { world, cluster, draws, counted, watches: Vec::new(), named };
    for peer in play.readers() {
        play.watch(&peer).await?;
    }
    for round in 0..trial.knob("rounds") {
        play.round(round).await?;
    }
    play.delete().await?;
    play.cluster.inspect().await?;
    let sum = lock(&play.counted).begun;
    let state = format!("each watch told {sum}, and then nothing; {} names are listed\n", play.named.len());
    Ok(Passed { state, notes: String::new() })
}

impl Play {
    fn draw(&mut self, end: usize) -> usize {
        (self.draws.next_u64() % end as u64) as usize
    }

    fn peer(&self, name: &str) -> Peer {
        self.cluster.peers.iter().find(|peer| peer.name == name).expect("it is on the stage").clone()
    }

    /// Those that watch and list: they stay.
    fn readers(&self) -> Vec<Peer> {
        ["node 0", "desk", "phone"].map(|name| self.peer(name)).into()
    }

    async fn watch(&mut self, peer: &Peer) -> Result<(), Violation> {
        let (told, counted) = (Arc::new(Mutex::new(Told::default())), self.counted.clone());
        let watch = peer.node(&self.world).await.counter(COUNTER).watch().await;
        let mut watch = watch.map_err(|error| Violation::safety(SEEN, format!("no watch: {error}")))?;
        self.watches.push((peer.name.clone(), told.clone()));
        task::spawn(async move {
            while let Some(reading) = watch.next().await {
                sometimes!(reading.partial, "a watch told that writes may be missing");
                let Counted { begun, deleted } = *lock(&counted);
                let mut told = lock(&told);
                let before = told.last.map_or(0, |(sum, _)| sum);
                sometimes!(reading.value > before + 1, "a watch skipped a value");
                if !deleted && !(before..=begun).contains(&reading.value) {
                    let wrong = format!("{} after {before}, and {begun} was counted", reading.value);
                    told.wrong.get_or_insert(wrong);
                }
                told.last = Some((reading.value, reading.partial));
            }
        });
        Ok(())
    }

    async fn round(&mut self, round: u64) -> Result<(), Violation> {
        let number = 1 + self.draw(3);
        let victim = self.peer(&format!("node {number}"));
        let victims = [victim.host];
        let others: Vec<Host> = {
            let peers = self.cluster.peers.iter().map(|peer| peer.host);
            let hubs = self.cluster.hubs.iter().map(|hub| hub.host);
            peers.chain(hubs).filter(|host| *host != victim.host).collect()
        };
        let (happens, at, back) = (self.draw(4), self.draw(STEPS / 2), STEPS / 2 + self.draw(STEPS / 2));
        for step in 0..STEPS {
            match happens {
                1 if step == at => victim.host.crash(),
                1 if step == back => {
                    victim.host.restart();
                    sometimes!(true, "a worker restarted while others watched");
                }
                2 if step == at => {
                    self.world.partition(&victims, &others);
                    self.list_without(&victim).await?;
                    sometimes!(true, "a worker was cut off while others watched");
                }
                2 if step == back => self.world.mend(&victims, &others),
                3 if step == at => {
                    let joins = format!("joins in round {round}");
                    self.cluster.add(&joins, self.world.internet(), Role::Worker);
                    sometimes!(true, "a worker joined while others watched");
                }
                _ => {}
            }
            self.write(&format!("{round} {step}")).await?;
            let pause = Duration::from_millis(self.draw(PAUSE_MS) as u64);
            self.world.sleep(pause).await;
        }
        self.all_told(None).await?;
        // Who isn't known, or is held dead, is no owner, and isn't asked.
        self.cluster.converge(WHOLE_WITHIN).await?;
        self.listed_whole().await
    }

    /// Counts one up, and names a register.
    async fn write(&mut self, name: &str) -> Result<(), Violation> {
        let desk = self.peer("desk").node(&self.world).await;
        lock(&self.counted).begun += 1;
        match desk.counter(COUNTER).add(1).await {
            // It is sent until enough have it.
            Ok(()) | Err(Error::Unconfirmed { .. }) => {}
            Err(_) => lock(&self.counted).begun -= 1,
        }
        if desk.register(name).set(&secret("a name")).await.is_ok() {
            self.named.insert(name.to_owned());
        }
        Ok(())
    }

    /// Waits until each watch has told the sum, or this value, and that nothing is missing.
    async fn all_told(&self, value: Option<i128>) -> Result<(), Violation> {
        let sum = value.unwrap_or(lock(&self.counted).begun);
        let deadline = Deadline::new(self.world, SEEN, SEEN_WITHIN);
        loop {
            let mut missing = Vec::new();
            for (name, told) in &self.watches {
                let told = lock(told);
                if let Some(wrong) = &told.wrong {
                    return Err(Violation::safety(GROWS, format!("the watch of {name} told {wrong}")));
                }
                if told.last != Some((sum, false)) {
                    missing.push(format!("{name} was told {:?}, not {sum}", told.last));
                }
            }
            if !deadline.still_missing(missing).await? {
                return Ok(());
            }
        }
    }

    /// Lists all registers at a node. What is missing has to be said.
    async fn list(&self, node: &Node) -> Result<Names, Violation> {
        let listed = node.names(Some(Kind::Register), "", None).await;
        let names = listed.map_err(|error| Violation::safety(LISTED, format!("no list: {error}")))?;
        let listed: BTreeSet<&String> = names.names.iter().map(|(_, name)| name).collect();
        let missing: Vec<_> = self.named.iter().filter(|name| !listed.contains(name)).collect();
        if !missing.is_empty() && !names.partial {
            let seen = format!("{missing:?} are missing, and silent are {:?}", names.silent);
            return Err(Violation::safety(LISTED, seen));
        }
        Ok(names)
    }

    async fn list_without(&self, victim: &Peer) -> Result<(), Violation> {
        for reader in self.readers() {
            let names = self.list(&reader.node(&self.world).await).await?;
            if !names.silent.contains(&victim.key) {
                let seen = format!("{} isn't silent to {}: {:?}", victim.name, reader.name, names.silent);
                return Err(Violation::safety(SILENT, seen));
            }
            sometimes!(true, "a list named who was cut off");
        }
        Ok(())
    }

    async fn listed_whole(&self) -> Result<(), Violation> {
        let deadline = Deadline::new(self.world, WHOLE, WHOLE_WITHIN);
        loop {
            let mut missing = Vec::new();
            for reader in self.readers() {
                let names = self.list(&reader.node(&self.world).await).await?;
                if !names.silent.is_empty() {
                    missing.push(format!("{} lists without {:?}", reader.name, names.silent));
                }
            }
            if !deadline.still_missing(missing).await? {
                return Ok(());
            }
        }
    }

    async fn delete(&self) -> Result<(), Violation> {
        lock(&self.counted).deleted = true;
        let desk = self.peer("desk").node(&self.world).await;
        let deleted = desk.counter(COUNTER).delete().await;
        deleted.map_err(|error| Violation::safety(SEEN, format!("the deletion failed: {error}")))?;
        self.all_told(Some(0)).await?;
        let deadline = Deadline::new(self.world, WHOLE, WHOLE_WITHIN);
        loop {
            let mut missing = Vec::new();
            for reader in self.readers() {
                let listed = reader.node(&self.world).await.names(Some(Kind::Counter), "", None).await;
                if !listed.is_ok_and(|names| names.names.is_empty()) {
                    missing.push(format!("{} lists what was deleted", reader.name));
                }
            }
            if !deadline.still_missing(missing).await? {
                return Ok(());
            }
        }
    }
}
