//! Who isn't on a list hears nothing, and isn't heard.
//!
//! Five workers and a hub. Alice, Bob and Carol join a group, each with a list of the three. Dave and Erin know the group's
//! name, join it and let in everybody; so does an [insider](crate::insider), which asks for each key that it can. All speak
//! once a second.
//!
//! - **The three**: each hears whatever another one says, once.
//! - **Carol is taken off** the lists of the other two. A minute later she hears nothing of what they say from then on.
//!   They hear all of each other meanwhile, and nothing of her.
//! - **She is let in again**, and hears and is heard within seconds.
//! - **The vault**, a member that allows sessions with Alice alone: her messages arrive, nobody else's do, and it opens
//!   a session with nobody else itself.
//!
//! Negative control: Dave and Erin hear each other, and each hears the insider, so all of them are in the group.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::key::AllowList;
use nurl::internals::node::Role;
use nurl::internals::transport::SendError;
use nurl::rt::time;
use nurl::{Error, PublicKey};

use crate::cluster::{Cluster, Peer, secret, text};
use crate::insider::{Inlet, Insider};
use crate::lock::lock;
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[Mark::new("whoever was taken off the list heard the last of it within a minute")],
    ..Scenario::new(
        "guest-list",
        "a group with a list is read and spoken in by those on it; a node with a list has no session with others",
        |trial| Box::pin(run(trial)),
    )
};

const ON_LIST: &str = "who is on the list hears each word of the others on it, once";
const OFF_LIST: &str = "who isn't on the list hears nothing, and isn't heard";
const CONTROL: &str = "who lets in everybody is heard by whoever asks";
const VAULT: &str = "a node has sessions with those that its list names, and with nobody else";

const GROUP: &str = "the three";
const NAMES: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];
const VAULT_NAME: &str = "vault";

const MEET: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(1);

/// The first frames of a sender are lost to whoever has yet to ask for its key: two seconds of them.
const KEYS_ASKED: u32 = 3;

/// A key is replaced within a minute after the list lost somebody.
const REPLACED: u32 = 61;

/// How long each part lasts beyond its beginning, in words of each.
const WORDS: u32 = 20;

/// A word is there a round trip later; it may wait for the new key of its sender.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

/// A session through a hub, a message and its acknowledgement.
const SERVED_WITHIN: Duration = Duration::from_secs(10);

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let allowed = Arc::new(Mutex::new(AllowList::Anyone));
    let of_the_vault = allowed.clone();
    let stage = Stage::new(world).links(link_ms(15, 5)).hub("hub");
    let stage = NAMES.into_iter().fold(stage, Stage::worker);
    let stage = stage.configure(move |builder, setup| match setup.name.as_str() {
        VAULT_NAME => builder.allow(lock(&of_the_vault).clone()),
        _ => builder,
    });
    let mut cluster = stage.meet(MEET).await?;
    let eve = Insider::start(world, &cluster, "eve");
    eve.meet(&cluster, MEET).await?;
    *lock(&allowed) = AllowList::Only([cluster.peers[0].key].into());
    let vault = cluster.add(VAULT_NAME, world.internet(), Role::Observer);

    the_vault(world, &cluster, &vault).await?;
    let mut club = Club::open(world, &cluster, eve);
    club.list(&[0, 1, 2]).await;
    club.let_in_everybody(&[3, 4]).await;
    let first = club.talk(KEYS_ASKED + WORDS).await;
    club.hold(&[0, 1, 2], first + KEYS_ASKED..club.said)?;

    club.list(&[0, 1]).await;
    let from = club.talk(REPLACED + WORDS).await;
    club.hold(&[0, 1], from..club.said)?;
    club.deaf(2, from + REPLACED)?;
    sometimes!(true, "whoever was taken off the list heard the last of it within a minute");

    club.list(&[0, 1, 2]).await;
    let from = club.talk(KEYS_ASKED + WORDS).await;
    club.hold(&[0, 1, 2], from + KEYS_ASKED..club.said)?;
    club.strangers()?;
    cluster.inspect().await?;
    Ok(Passed {
        state: "those on the list heard each other, and nobody else did\n".to_owned(),
        notes: String::new(),
    })
}

/// Alice's messages arrive at the vault. It takes no other's, and sends nobody else one.
async fn the_vault(world: World, cluster: &Cluster, vault: &Peer) -> Result<(), Violation> {
    let (alice, bob) = (&cluster.peers[0], &cluster.peers[1]);
    let sent = |from: Peer, to: PublicKey| async move {
        let node = from.node(&world).await;
        time::timeout(SERVED_WITHIN, node.send_message(to, secret("for the vault"))).await
    };
    let welcome = sent(alice.clone(), vault.key).await;
    if !matches!(welcome, Ok(Ok(()))) {
        return Err(Violation::liveness(VAULT, format!("alice was told {welcome:?}")));
    }
    let refused = [sent(bob.clone(), vault.key).await, sent(vault.clone(), bob.key).await];
    match refused {
        [Err(_) | Ok(Err(_)), Ok(Err(Error::Send(SendError::Refused)))] => Ok(()),
        told => Err(Violation::safety(VAULT, format!("bob, and the vault to bob, were told {told:?}"))),
    }
}

/// How often each word arrived: by who heard it, who said it, and its number.
type Heard = BTreeMap<(String, String, u32), u32>;

/// All who speak in the group.
struct Club<'a> {
    world: World,
    members: &'a [Peer],
    eve: Insider,
    heard: Arc<Mutex<Heard>>,
    /// Words that each has said.
    said: u32,
}

impl<'a> Club<'a> {
    fn open(world: World, cluster: &'a Cluster, eve: Insider) -> Club<'a> {
        let heard = Arc::<Mutex<Heard>>::default();
        let members = &cluster.peers[..NAMES.len()];
        for peer in members {
            let (peer, heard) = (peer.clone(), heard.clone());
            let host = peer.host;
            host.run(async move {
                let node = peer.node(&world).await;
                while let Some((_, _, body)) = node.recv_group().await {
                    note(&heard, &peer.name, &body);
                }
            });
        }
        Club { world, members, eve, heard, said: 0 }
    }

    /// These let in nobody but one another from now on.
    async fn list(&self, named: &[usize]) {
        let list = AllowList::Only(named.iter().map(|at| self.members[*at].key).collect());
        self.join(named, &list).await;
    }

    async fn let_in_everybody(&self, who: &[usize]) {
        self.join(who, &AllowList::Anyone).await;
    }

    async fn join(&self, who: &[usize], list: &AllowList) {
        for at in who {
            let node = self.members[*at].node(&self.world).await;
            node.join_group(GROUP, list.clone()).await.expect("a node has room for a group");
        }
    }

    /// Each says so many words, one a second. Returns the number of the first one.
    async fn talk(&mut self, words: u32) -> u32 {
        let first = self.said;
        for number in first..first + words {
            for peer in self.members {
                let word = secret(&format!("{} {number}", peer.name));
                let node = peer.node(&self.world).await;
                node.broadcast(GROUP, word).await.expect("a node has room for a word a second");
            }
            self.eve.broadcast(GROUP, secret(&format!("eve {number}")));
            self.world.sleep(EVERY).await;
        }
        self.said += words;
        self.world.sleep(HEARD_WITHIN).await;
        for received in self.eve.take_received() {
            if received.by == Inlet::Group(GROUP.to_owned()) {
                note(&self.heard, "eve", &received.body);
            }
        }
        first
    }

    /// Each of these has heard each of these words of each other one, once.
    fn hold(&self, named: &[usize], words: Range<u32>) -> Result<(), Violation> {
        let heard = lock(&self.heard);
        let names = || named.iter().map(|at| NAMES[*at]);
        for (by, from) in names().flat_map(|by| names().map(move |from| (by, from))) {
            let times = |word: u32| heard.get(&(by.to_owned(), from.to_owned(), word)).copied().unwrap_or(0);
            if by != from
                && let Some(word) = words.clone().find(|word| times(*word) != 1)
            {
                let seen = format!("{by} heard word {word} of {from} {} times", times(word));
                return Err(Violation::safety(ON_LIST, seen));
            }
        }
        Ok(())
    }

    /// This one has heard no word from this one on of any who took it off their lists.
    fn deaf(&self, off: usize, from: u32) -> Result<(), Violation> {
        let heard = lock(&self.heard);
        let later = |(by, of, word): &&(String, String, u32)| {
            by == NAMES[off] && *word >= from && (of == NAMES[0] || of == NAMES[1])
        };
        match heard.keys().find(later) {
            None => Ok(()),
            Some((by, of, word)) => Err(Violation::safety(
                OFF_LIST,
                format!("{by} heard word {word} of {of}, and {from} is too late"),
            )),
        }
    }

    /// Nobody off the list heard anybody on it, or was heard by one.
    fn strangers(&self) -> Result<(), Violation> {
        let heard = lock(&self.heard);
        let listed = |name: &String| NAMES[..3].contains(&name.as_str());
        if let Some((by, of, word)) = heard.keys().find(|(by, of, _)| listed(by) != listed(of)) {
            return Err(Violation::safety(OFF_LIST, format!("{by} heard word {word} of {of}")));
        }
        let pairs = [("dave", "erin"), ("erin", "dave"), ("dave", "eve"), ("erin", "eve")];
        let deaf =
            |(by, of): &&(&str, &str)| !heard.keys().any(|(hearer, from, _)| hearer == by && from == of);
        match pairs.iter().find(deaf) {
            None => Ok(()),
            Some((by, of)) => Err(Violation::liveness(CONTROL, format!("{by} never heard {of}"))),
        }
    }
}

/// Records that somebody heard a word.
fn note(heard: &Mutex<Heard>, by: &str, body: &[u8]) {
    let text = text(body);
    let (from, word) = text.split_once(' ').expect("a word has its speaker and its number");
    let word = word.parse().expect("the number of a word");
    *lock(heard).entry((by.to_owned(), from.to_owned(), word)).or_default() += 1;
}
