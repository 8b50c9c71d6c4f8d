//! Bugs of epochs, terms and sessions: a message meets another one than it was meant for.

use super::kit::{Shared, Socket, hosts, lossy, ms, pause};
use chaos::property::Violation;
use chaos::rt::{self, time};
use chaos::scenario::{Passed, RunResult, Trial};
use chaos::{LinkConfig, Rate, Targets, sometimes};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const START: u64 = 1;
const STARTED: u64 = 2;
const DATA: u64 = 3;
const BEAT: u64 = 4;
const LEAD: u64 = 5;
const ASK: u64 = 6;
const LOGIN: u64 = 7;
const UNKNOWN: u64 = 8;
const REFUSED: u64 = 9;
const ANSWER: u64 = 10;

/// A sender begins a new epoch after ten messages, and tells its start until that is acknowledged. Messages that overtake
/// the start wait for it. The planted bug: they aren't taken out of the room where they wait, so a start that is told
/// again delivers them again.
pub(super) async fn epoch(trial: Trial) -> RunResult {
    let [(sender, _), (receiver, at)] = hosts(&trial, ["sender", "receiver"]);
    let link = LinkConfig { reorder: Rate::percent(5), reorder_by: ms(150), ..lossy(2) };
    trial.world.set_link_both(sender, receiver, &link);
    let delivered: Shared<BTreeMap<u64, u64>> = Shared::default();
    let counted = delivered.clone();
    drop(receiver.run(async move {
        let socket = Socket::bound().await;
        let (mut current, mut waiting) = (0, Vec::new());
        let deliver = |number| *counted.lock().unwrap().entry(number).or_default() += 1;
        loop {
            match socket.next().await {
                ([START, epoch, _], from) if epoch >= current => {
                    tracing::debug!(epoch, "an epoch begins");
                    current = epoch;
                    waiting.iter().filter(|(of, _)| *of == epoch).for_each(|(_, number)| deliver(*number));
                    waiting.retain(|(of, _)| *of >= epoch);
                    socket.send(from, [STARTED, epoch, 0]);
                }
                ([DATA, epoch, number], _) if epoch == current => deliver(number),
                ([DATA, epoch, number], _) if epoch > current => {
                    tracing::debug!(epoch, "a message is early");
                    sometimes!("a message waits for its epoch");
                    waiting.push((epoch, number));
                }
                _ => tracing::debug!("a message is late"),
            }
        }
    }));
    let sent = sender.run(async move {
        let socket = Socket::bound().await;
        let mut rng = rt::rng("sender");
        for epoch in 1..=5 {
            let mut is_started = false;
            for number in 0..10 {
                if !is_started && number % 4 == 0 {
                    socket.send(at, [START, epoch, 0]);
                }
                socket.send(at, [DATA, epoch, epoch * 100 + number]);
                let wait = time::sleep(ms(50));
                let acknowledged = async { while socket.next().await.0 != [STARTED, epoch, 0] {} };
                is_started |= time::timeout(ms(50), acknowledged).await.is_ok();
                wait.await;
                pause(&mut rng, ms(0), ms(10)).await;
            }
        }
    });
    sent.await.unwrap();
    trial.world.sleep(ms(500)).await;
    match delivered.lock().unwrap().iter().find(|(_, times)| **times > 1) {
        None => Ok(Passed::default()),
        Some((number, times)) => {
            Err(Violation::safety("a message is delivered once", format!("{number}: {times} times")))
        }
    }
}

/// Two nodes beat for a registry, which makes the other the leader when the leader has been silent. The leader writes to a
/// store, which is told of each change. The planted bug: a write has one bit of its term only, so that the store takes a
/// write that is under way while the leader changes twice.
pub(super) async fn leaders(trial: Trial) -> RunResult {
    let [(registry, registry_at), (store, store_at), first, second] =
        hosts(&trial, ["registry", "store", "first", "second"]);
    let nodes = [first, second];
    for (node, _) in nodes {
        trial.world.set_link(node, registry, lossy(36));
        trial.world.set_link(
            node,
            store,
            LinkConfig { reorder: Rate::percent(2), reorder_by: ms(1500), ..lossy(0) },
        );
    }
    let broken: Shared<Option<String>> = Shared::default();
    let noted = broken.clone();
    drop(store.run(async move {
        let socket = Socket::bound().await;
        let mut term = 0;
        loop {
            let ([kind, number, sent_in], _) = socket.next().await;
            match kind {
                LEAD => term = number,
                _ if number != term % 2 => tracing::debug!("an old leader's write"),
                _ if sent_in != term => {
                    *noted.lock().unwrap() = Some(format!("a write of term {sent_in} is taken in {term}"));
                }
                _ => {}
            }
        }
    }));
    drop(registry.run(async move {
        let socket = Socket::bound().await;
        let mut term = 0u64;
        let mut heard = time::now();
        let lead = |term: u64| {
            for at in [nodes[0].1, nodes[1].1, store_at] {
                socket.send(at, [LEAD, term, 0]);
            }
        };
        lead(term);
        loop {
            let leader = nodes[(term % 2) as usize].1;
            match socket.next_within(ms(100)).await {
                Some((_, from)) if from == leader => heard = time::now(),
                _ => {}
            }
            if time::now().duration_since(heard) > ms(450) {
                term += 1;
                heard = time::now();
                tracing::info!(term, "the leader is silent");
                sometimes!("a leader is replaced");
                lead(term);
            }
        }
    }));
    for (number, (node, _)) in nodes.into_iter().enumerate() {
        drop(node.run(async move {
            let socket = Socket::bound().await;
            let mut term = 0;
            let mut rng = rt::rng("beats");
            loop {
                socket.send(registry_at, [BEAT, 0, 0]);
                if term % 2 == number as u64 {
                    socket.send(store_at, [DATA, term % 2, term]);
                }
                if let Some(([_, new, _], _)) = socket.next_within(ms(90)).await {
                    term = new;
                }
                pause(&mut rng, ms(0), ms(20)).await;
            }
        }));
    }
    trial.world.sleep(Duration::from_secs(6)).await;
    match broken.lock().unwrap().clone() {
        None => Ok(Passed::default()),
        Some(how) => Err(Violation::safety("a write is of the current term", how)),
    }
}

/// A client asks in a session, which the server forgets in a crash; then the client logs in again. The planted bug: a
/// server that knows the client refuses its login, so the client gives up if the answer to a login is lost.
pub(super) async fn login(trial: Trial) -> RunResult {
    let [(client, _), (server, at), (other, _)] = hosts(&trial, ["client", "server", "other"]);
    trial.world.set_link_both(client, server, &lossy(1));
    server.spawn(|| async {
        let socket = Socket::bound().await;
        let mut known = false;
        loop {
            let ([kind, number, _], from) = socket.next().await;
            let answer = match kind {
                LOGIN if known => REFUSED,
                LOGIN => {
                    known = true;
                    ANSWER
                }
                _ if known => ANSWER,
                _ => UNKNOWN,
            };
            socket.send(from, [answer, number, 0]);
        }
    });
    let gave_up: Shared<bool> = Shared::default();
    let noted = gave_up.clone();
    drop(client.run(async move {
        let socket = Socket::bound().await;
        let mut rng = rt::rng("client");
        let mut outstanding = VecDeque::from([LOGIN]);
        for number in 0.. {
            let kind = outstanding.pop_front().unwrap_or(ASK);
            socket.send(at, [kind, number, 0]);
            let answered = async {
                loop {
                    if let ([answer, of, _], _) = socket.next().await
                        && of == number
                    {
                        break answer;
                    }
                }
            };
            match (time::timeout(ms(300), answered).await, kind) {
                (Ok(UNKNOWN), _) => {
                    tracing::debug!("the session is unknown");
                    sometimes!("a session is unknown");
                    outstanding.push_back(LOGIN);
                }
                (Ok(REFUSED), _) => {
                    tracing::error!("the login is refused");
                    *noted.lock().unwrap() = true;
                    return;
                }
                (Ok(_), LOGIN) => tracing::debug!("logged in"),
                (Ok(_), _) => {}
                (Err(_), _) => {
                    tracing::debug!("no answer");
                    outstanding.push_back(kind);
                }
            }
            pause(&mut rng, ms(200), ms(400)).await;
        }
    }));
    let span = Duration::from_secs(30);
    trial.start_faults(&Targets { hosts: vec![server, other], ..Targets::default() }, span);
    trial.world.sleep(span).await;
    trial.heal().await;
    match *gave_up.lock().unwrap() {
        false => Ok(Passed::default()),
        true => Err(Violation::safety("a client can always log in", "it was refused")),
    }
}
