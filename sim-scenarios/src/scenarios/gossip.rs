//! What an application gossips reaches every member, though not by the straight way.
//!
//! Twelve workers, a member and an observer; the links lose a twentieth of UDP. One worker hears neither another one nor
//! the hub, which would relay. Three members gossip each second, one of them bodies of the largest size. Within seconds each
//! word reaches each other member, but for one of a hundred at most, and no member twice; it carries what was said. The
//! observer gossips nothing and hears nothing. A body that is too large is refused.
//!
//! Negative control: the two that are cut off from each other lose what they send to each other straight.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chaos::link::{LinkConfig, Rate};
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::Error;
use nurl::internals::membership::MembershipError;
use nurl::internals::membership::message::MAX_EVENT_BYTES;
use nurl::internals::node::NodeEvent;

use crate::cluster::{Cluster, Deadline, Peer, is_secret, secret, text};
use crate::lock::lock;
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[Mark::new("gossip passed between two that don't hear each other")],
    ..Scenario::new(
        "gossip",
        "what applications gossip reaches every member once, also those that can't hear its author",
        |trial| Box::pin(run(trial)),
    )
};

const HEARD: &str = "what a member gossips reaches the others within seconds";
const ONCE: &str = "gossip reaches nobody twice, and carries what was said";
const MEMBERS_ALONE: &str = "an observer neither gossips nor hears gossip";
const BOUNDED: &str = "gossip that is too large is refused";
const CONTROL: &str = "the two that are cut off hear nothing straight";

const WORKERS: usize = 12;

/// The numbers of those who speak: a worker, the one it can't hear, and the member.
const SPEAKERS: [usize; 3] = [0, 1, WORKERS];
const OBSERVER: usize = WORKERS + 1;

const MEET: Duration = Duration::from_secs(60);
const WORDS: u32 = 12;
const EVERY: Duration = Duration::from_secs(1);

/// Gossip leaves with probes, acknowledgements and rounds of its own, five a second, and is told eight times by each.
const WITHIN: Duration = Duration::from_secs(5);

/// Of a hundred words at one member each, so many may be lost: nothing repairs what all tellers have told in vain.
const LOST: usize = 1;

/// Who heard what, and how often.
type Heard = Arc<Mutex<BTreeMap<(usize, String), u32>>>;

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stage = Stage::new(world).links(LinkConfig { udp_loss: Rate::percent(5), ..link_ms(20, 10) });
    let stage = stage.hub("hub").workers(WORKERS).member("member").observer("observer");
    let cluster = stage.meet(MEET).await?;
    let heard = listen(world, &cluster);
    let [a, b] = [&cluster.peers[0], &cluster.peers[1]];
    // The hub would relay.
    world.partition(&[a.host], &[b.host, cluster.hubs[0].host]);

    refused(world, &cluster).await?;
    let mut said = Vec::new();
    for word in 0..WORDS {
        for speaker in SPEAKERS {
            let peer = &cluster.peers[speaker];
            let body = body(peer, word, speaker == 0);
            peer.node(&world)
                .await
                .gossip(body.clone())
                .await
                .map_err(|error| Violation::safety(HEARD, format!("{} is refused: {error}", peer.name)))?;
            said.push((speaker, text(&body)));
        }
        world.sleep(EVERY).await;
    }
    let deadline = Deadline::new(world, HEARD, WITHIN);
    while deadline.still_missing(unheard(&cluster, &heard, &said)).await? {}
    let took = deadline.waited();
    sometimes!(true, "gossip passed between two that don't hear each other");
    // What is still under way arrives nowhere again.
    world.sleep(WITHIN).await;
    once(&cluster, &heard, &said)?;

    let straight = a.node(&world).await.ping(b.key, WITHIN).await;
    world.heal();
    if straight.is_ok() {
        return Err(Violation::safety(CONTROL, "a ping was answered".to_owned()));
    }
    cluster.inspect().await?;
    let state = format!("{} words reached the members, none twice\n", said.len());
    Ok(Passed { state, notes: format!("all had arrived {took:?} after the last\n") })
}

/// A word, and filling if it is to have the largest size.
fn body(peer: &Peer, word: u32, largest: bool) -> Bytes {
    let body = secret(&format!("{} {word}", peer.name));
    let filling = if largest { MAX_EVENT_BYTES - body.len() } else { 0 };
    Bytes::from([&body[..], &b".".repeat(filling)].concat())
}

/// Records what each node hears.
fn listen(world: World, cluster: &Cluster) -> Heard {
    let heard = Heard::default();
    for (number, peer) in cluster.peers.iter().enumerate() {
        let (peer, heard) = (peer.clone(), heard.clone());
        let host = peer.host;
        host.run(async move {
            let mut events = peer.node(&world).await.events();
            while let Some(event) = events.next().await {
                if let NodeEvent::Gossip { body, .. } = event
                    && is_secret(&body)
                {
                    *lock(&heard).entry((number, text(&body))).or_default() += 1;
                }
            }
        });
    }
    heard
}

/// What is too large, and what an observer says, is refused by the call.
async fn refused(world: World, cluster: &Cluster) -> Result<(), Violation> {
    let body = |bytes: usize| Bytes::from(vec![0; bytes]);
    let large = cluster.peers[0].node(&world).await.gossip(body(MAX_EVENT_BYTES + 1)).await;
    if !matches!(large, Err(Error::Membership(MembershipError::EventTooLarge(_)))) {
        return Err(Violation::safety(BOUNDED, format!("{large:?}")));
    }
    let observed = cluster.peers[OBSERVER].node(&world).await.gossip(body(1)).await;
    match observed {
        Err(Error::Membership(MembershipError::NotAMember)) => Ok(()),
        other => Err(Violation::safety(MEMBERS_ALONE, format!("{other:?}"))),
    }
}

/// The words that haven't reached a member, if they are more than may be lost.
fn unheard(cluster: &Cluster, heard: &Heard, said: &[(usize, String)]) -> Vec<String> {
    let heard = lock(heard);
    let members = || cluster.peers.iter().enumerate().filter(|(number, _)| *number != OBSERVER);
    let missing = said.iter().flat_map(|(speaker, word)| {
        let others = members().filter(move |(number, _)| number != speaker);
        let deaf = others.filter(|(number, _)| !heard.contains_key(&(*number, word.clone())));
        deaf.map(move |(_, peer)| format!("{word:?} at {}", peer.name))
    });
    let missing: Vec<_> = missing.collect();
    if missing.len() * 100 <= said.len() * WORKERS * LOST { Vec::new() } else { missing }
}

/// Nobody heard a word twice, or its own, or one that nobody said; the observer heard none.
fn once(cluster: &Cluster, heard: &Heard, said: &[(usize, String)]) -> Result<(), Violation> {
    for ((number, word), times) in &*lock(heard) {
        let name = &cluster.peers[*number].name;
        let by = said.iter().find(|(_, known)| known == word).map(|(speaker, _)| *speaker);
        if *number == OBSERVER {
            return Err(Violation::safety(MEMBERS_ALONE, format!("{name} heard {word:?}")));
        }
        if *times != 1 || by.is_none() || by == Some(*number) {
            return Err(Violation::safety(ONCE, format!("{name} heard {word:?} {times} times")));
        }
    }
    Ok(())
}
