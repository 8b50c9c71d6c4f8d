//! Bugs behind retries: what is lost, and then lost again.

use super::kit::{Shared, Socket, hosts, lossy, ms, pause};
use chaos::property::Violation;
use chaos::rt::{self, task};
use chaos::scenario::{Passed, RunResult, Trial};
use chaos::{LinkConfig, sometimes};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

const ASK: u64 = 1;
const ANSWER: u64 = 2;

/// Asks three times; whether there is an answer.
async fn is_answered(socket: &Socket, server: SocketAddr) -> bool {
    for _ in 0..3 {
        socket.send(server, [ASK, 0, 0]);
        if socket.next_within(ms(100)).await.is_some() {
            return true;
        }
    }
    false
}

/// A client asks a server, and its deputy if there is no answer. The planted bug: nobody is left to ask if the deputy's
/// answer is missing too. Each costs three lost packets of three.
pub(super) async fn forgetful(trial: Trial) -> RunResult {
    let [(client, _), (server, first), (deputy, second)] = hosts(&trial, ["client", "server", "deputy"]);
    for host in [server, deputy] {
        trial.world.set_link(client, host, LinkConfig { latency: ms(0), ..lossy(40) });
        host.spawn(|| async {
            let socket = Socket::bound().await;
            loop {
                let (_, client) = socket.next().await;
                socket.send(client, [ANSWER, 0, 0]);
            }
        });
    }
    let asked = client.run(async move {
        let socket = Socket::bound().await;
        for server in [first, second] {
            if is_answered(&socket, server).await {
                tracing::debug!("there is an answer");
                return true;
            }
            tracing::debug!("there is no answer");
            sometimes!("a server gave no answer");
        }
        false
    });
    match asked.await {
        Ok(true) => Ok(Passed::default()),
        _ => Err(Violation::safety("a question is answered", "nobody is left to ask")),
    }
}

/// Orders are sent until they are acknowledged, and executed once. The planted bug: the server forgets an order when it
/// has answered a duplicate of it, as if the client had to have that answer.
pub(super) async fn twice(trial: Trial) -> RunResult {
    let [(client, _), (server, at)] = hosts(&trial, ["client", "server"]);
    trial.world.set_link_both(client, server, &lossy(3));
    let executed: Shared<BTreeMap<u64, u64>> = Shared::default();
    let counted = executed.clone();
    drop(server.run(async move {
        let socket = Socket::bound().await;
        let mut known: BTreeMap<u64, u64> = BTreeMap::new();
        loop {
            let ([_, order, _], client) = socket.next().await;
            if let Some(result) = known.remove(&order) {
                tracing::debug!(order, "a duplicate");
                sometimes!("a duplicate is answered");
                socket.send(client, [ANSWER, order, result]);
            } else {
                tracing::debug!(order, "an order is executed");
                *counted.lock().unwrap().entry(order).or_default() += 1;
                known.insert(order, order);
                socket.send(client, [ANSWER, order, order]);
            }
        }
    }));
    let ordered = client.run(async move {
        let socket = Socket::bound().await;
        for order in 1..=4 {
            loop {
                socket.send(at, [ASK, order, 0]);
                if socket.hears([ANSWER, order, order], ms(100)).await {
                    break;
                }
                tracing::debug!(order, "it is sent again");
            }
        }
    });
    ordered.await.unwrap();
    match executed.lock().unwrap().iter().find(|(_, times)| **times > 1) {
        None => Ok(Passed::default()),
        Some((order, times)) => {
            Err(Violation::safety("an order is executed once", format!("{order}: {times} times")))
        }
    }
}

/// Room in the queue of [`full`].
const ROOM: usize = 6;

/// A producer waits while its queue is full. A sender takes the oldest, and sends it until it is acknowledged; after four
/// times the connection is reset, and it goes back to the queue. The planted bug: there is no room for it if the
/// queue is full.
pub(super) async fn full(trial: Trial) -> RunResult {
    let [(sender, _), (sink, at)] = hosts(&trial, ["sender", "sink"]);
    trial.world.set_link_both(sender, sink, &lossy(18));
    let received: Shared<BTreeMap<u64, ()>> = Shared::default();
    let noted = received.clone();
    drop(sink.run(async move {
        let socket = Socket::bound().await;
        loop {
            let ([_, number, _], from) = socket.next().await;
            noted.lock().unwrap().insert(number, ());
            socket.send(from, [ANSWER, number, 0]);
        }
    }));
    const COUNT: u64 = 40;
    let sent = sender.run(async move {
        let queue: Arc<Mutex<VecDeque<u64>>> = Arc::default();
        let filled = queue.clone();
        let mut rng = rt::rng("producer");
        let producing = task::spawn(async move {
            for number in 1..=COUNT {
                while filled.lock().unwrap().len() >= ROOM {
                    sometimes!("the queue is full");
                    rt::time::sleep(ms(20)).await;
                }
                filled.lock().unwrap().push_back(number);
                pause(&mut rng, ms(10), ms(130)).await;
            }
        });
        let socket = Socket::bound().await;
        loop {
            let Some(number) = queue.lock().unwrap().pop_front() else {
                if producing.is_finished() {
                    return;
                }
                rt::time::sleep(ms(10)).await;
                continue;
            };
            let mut is_sent = false;
            for _ in 0..4 {
                socket.send(at, [ASK, number, 0]);
                is_sent = socket.hears([ANSWER, number, 0], ms(60)).await;
                if is_sent {
                    break;
                }
            }
            if is_sent {
                tracing::trace!(number, "it is acknowledged");
                continue;
            }
            tracing::debug!(number, "the connection is reset");
            sometimes!("the connection is reset");
            let mut queue = queue.lock().unwrap();
            if queue.len() < ROOM {
                queue.push_front(number);
            }
        }
    });
    sent.await.unwrap();
    let missing = (1..=COUNT).find(|number| !received.lock().unwrap().contains_key(number));
    match missing {
        None => Ok(Passed::default()),
        Some(number) => Err(Violation::safety("nothing is lost", format!("{number} is"))),
    }
}
