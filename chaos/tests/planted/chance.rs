//! Bugs of chance alone: nothing that a run reaches brings it nearer to them.

use super::kit::{Shared, Socket, hosts, lossy, ms, pause};
use chaos::property::Violation;
use chaos::rt::{self, time};
use chaos::scenario::{Passed, RunResult, Trial};
use chaos::{LinkConfig, sometimes};
use rand_core::Rng as _;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

const ASK: u64 = 1;
const ANSWER: u64 = 2;

/// Asks until there is an answer; returns how long the last one took.
async fn asked(socket: &Socket, server: SocketAddr, number: u64) -> Duration {
    loop {
        let begun = time::now();
        socket.send(server, [ASK, number, 0]);
        if socket.hears([ANSWER, number, 0], ms(100)).await {
            return time::now().duration_since(begun);
        }
        tracing::debug!(number, "no answer");
        sometimes!("a request is repeated");
    }
}

async fn answers() {
    let socket = Socket::bound().await;
    loop {
        let ([_, number, _], client) = socket.next().await;
        socket.send(client, [ANSWER, number, 0]);
    }
}

/// A client asks thirty times, each with a timer of 80 ms at whose end a result that has just come is counted twice. The
/// planted bug: just means within 30 µs.
pub(super) async fn race(trial: Trial) -> RunResult {
    let [(client, _), (server, at)] = hosts(&trial, ["client", "server"]);
    trial.world.set_link_both(client, server, &LinkConfig { jitter: ms(40), ..lossy(5) });
    drop(server.run(answers()));
    let asking = client.run(async move {
        let socket = Socket::bound().await;
        let mut rng = rt::rng("client");
        for number in 0..30 {
            let took = asked(&socket, at, number).await;
            tracing::debug!(number, "an answer");
            if took.abs_diff(ms(80)) < Duration::from_micros(30) {
                return true;
            }
            pause(&mut rng, ms(10), ms(100)).await;
        }
        false
    });
    match asking.await.unwrap() {
        false => Ok(Passed::default()),
        true => Err(Violation::safety("a result is counted once", "it is counted twice")),
    }
}

/// Six workers draw an identifier when they start, and ask a server in turns. The planted bug: identifiers have ten bits.
pub(super) async fn collision(trial: Trial) -> RunResult {
    let names = ["server", "a", "b", "c", "d", "e", "f"];
    let [(server, at), workers @ ..] = hosts(&trial, names);
    trial.world.link_default(lossy(5));
    drop(server.run(answers()));
    let identifiers: Shared<BTreeSet<u64>> = Shared::default();
    let mut asking = Vec::new();
    for (worker, _) in workers {
        let drawn = identifiers.clone();
        asking.push(worker.run(async move {
            let mut rng = rt::rng("worker");
            drawn.lock().unwrap().insert(rng.next_u64() >> 54);
            let socket = Socket::bound().await;
            for number in 0..5 {
                asked(&socket, at, number).await;
                tracing::debug!(number, "an answer");
                pause(&mut rng, ms(10), ms(100)).await;
            }
        }));
    }
    for asking in asking {
        asking.await.unwrap();
    }
    match identifiers.lock().unwrap().len() {
        6 => Ok(Passed::default()),
        different => Err(Violation::safety("identifiers differ", format!("{different} do, of 6"))),
    }
}
