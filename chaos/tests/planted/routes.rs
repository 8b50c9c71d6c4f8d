//! A bug of a cached address.

use super::kit::{Shared, Socket, hosts, lossy, ms, pause};
use chaos::property::Violation;
use chaos::rt::{self, task, time};
use chaos::scenario::{Passed, RunResult, Trial};
use chaos::{LinkConfig, Rate, sometimes};
use std::collections::BTreeSet;
use std::sync::Arc;

const BEAT: u64 = 1;
const PUSH: u64 = 2;
const GOT: u64 = 3;

/// A client roams, and says so three times when its address has changed. A server pushes numbers to where the last message
/// came from, three times if they aren't acknowledged. The planted bug: the last message isn't the newest, so one from the
/// old address that comes late brings that address back.
pub(super) async fn roam(trial: Trial) -> RunResult {
    let [(server, at), (client, first)] = hosts(&trial, ["server", "client"]);
    let link = LinkConfig { reorder: Rate::percent(1), reorder_by: ms(800), ..lossy(1) };
    trial.world.set_link(client, server, link);
    let got: Shared<BTreeSet<u64>> = Shared::default();
    let noted = got.clone();
    const COUNT: u64 = 12;
    drop(client.run(async move {
        let socket = Arc::new(Socket::bound().await);
        let beats = socket.clone();
        drop(task::spawn(async move {
            let mut was = client.ip();
            loop {
                time::sleep(ms(50)).await;
                if std::mem::replace(&mut was, client.ip()) == client.ip() {
                    continue;
                }
                tracing::info!("the address has changed");
                for _ in 0..3 {
                    beats.send(at, [BEAT, 0, 0]);
                    time::sleep(ms(30)).await;
                }
            }
        }));
        loop {
            let ([_, number, _], from) = socket.next().await;
            noted.lock().unwrap().insert(number);
            socket.send(from, [GOT, number, 0]);
        }
    }));
    let pushed = server.run(async move {
        let socket = Socket::bound().await;
        let (mut rng, mut client) = (rt::rng("pushes"), first);
        for number in 1..=COUNT {
            let pushes = time::now() + ms(400 + rand_core::Rng::next_u64(&mut rng) % 800);
            let mut left = 3;
            let mut wait = pushes.saturating_duration_since(time::now());
            loop {
                match socket.next_within(wait).await {
                    Some((message, from)) => {
                        if from != client {
                            tracing::info!(%from, "the client has moved");
                            sometimes!("a client has moved");
                            client = from;
                        }
                        if message == [GOT, number, 0] {
                            break;
                        }
                    }
                    None if left == 0 => {
                        tracing::warn!(number, "no answer to a push");
                        break;
                    }
                    None => {
                        left -= 1;
                        socket.send(client, [PUSH, number, 0]);
                    }
                }
                let due = if left == 3 { pushes } else { time::now() + ms(200) };
                wait = due.saturating_duration_since(time::now());
            }
        }
    });
    let mut rng = trial.world.rng("roaming");
    for number in 3..=5 {
        pause(&mut rng, ms(1500), ms(3500)).await;
        client.set_addrs("eth0", &[&format!("10.0.0.{number}")]);
    }
    pushed.await.unwrap();
    trial.world.sleep(ms(200)).await;
    match (1..=COUNT).find(|number| !got.lock().unwrap().contains(number)) {
        None => Ok(Passed::default()),
        Some(number) => Err(Violation::safety("a push arrives", format!("{number} doesn't"))),
    }
}
