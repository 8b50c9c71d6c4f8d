//! Replicated counters, registers and sets.

use nurl::Error;
use nurl::membership::State;
use nurl::node::Role;

use crate::harness::{Mesh, run, see, soon, until};

#[test]
fn counter_register_and_set_converge_over_four_workers_and_all_read_the_same() {
    run(async {
        let mesh = Mesh::start().await;
        let workers: [_; 4] = mesh.nodes(Role::Worker).await;
        // They own nothing, so what they read comes from the owners.
        let member = mesh.node(Role::Member).await;
        let observer = mesh.node(Role::Observer).await;
        for worker in &workers {
            see(&member, worker.key(), State::Alive).await;
            see(&observer, worker.key(), State::Alive).await;
        }
        for (number, worker) in (1..).zip(&workers) {
            for _ in 0..10 {
                worker.counter("visits").add(number).await.unwrap();
            }
            worker.set("names").insert(format!("worker {number}").as_bytes()).await.unwrap();
        }
        workers[2].register("motto").set(b"festina lente").await.unwrap();
        member.counter("visits").add(-50).await.unwrap();
        observer.counter("visits").add(7).await.unwrap();
        let names: Vec<Vec<u8>> = (1..=4).map(|n| format!("worker {n}").into_bytes()).collect();
        for node in workers.iter().chain([&member, &observer]) {
            until("the sum", async || node.counter("visits").get().await.unwrap() == 100 - 50 + 7).await;
            until("the motto", async || {
                node.register("motto").get().await.unwrap().as_deref() == Some(b"festina lente")
            })
            .await;
            until("the names", async || node.set("names").members().await.unwrap() == names).await;
        }
        // The later write wins, from wherever it comes.
        member.register("motto").set(b"carpe diem").await.unwrap();
        for node in &workers {
            until("the new motto", async || {
                node.register("motto").get().await.unwrap().as_deref() == Some(b"carpe diem")
            })
            .await;
        }
    });
}

#[test]
fn an_element_can_be_removed_from_anywhere() {
    run(async {
        let mesh = Mesh::start().await;
        let workers: [_; 4] = mesh.nodes(Role::Worker).await;
        let member = mesh.node(Role::Member).await;
        let observer = mesh.node(Role::Observer).await;
        see(&member, workers[0].key(), State::Alive).await;
        see(&observer, workers[0].key(), State::Alive).await;
        let all: Vec<_> = workers.iter().chain([&member, &observer]).collect();
        for (number, node) in all.iter().enumerate() {
            let element = [number as u8];
            workers[0].set("s").insert(&element).await.unwrap();
            let has =
                async |node: &nurl::Node| node.set("s").members().await.unwrap().contains(&element.to_vec());
            until("the element", async || has(node).await).await;
            soon("the removal", node.set("s").remove(&element)).await.unwrap();
            for other in &all {
                until("the element's end", async || !has(other).await).await;
            }
        }
        // Nothing there, nothing to remove.
        for node in &all {
            soon("the removal", node.set("empty").remove(b"x")).await.unwrap();
        }
    });
}

#[test]
fn a_key_is_of_one_kind_and_an_unwritten_one_is_empty() {
    run(async {
        let mesh = Mesh::start().await;
        let [worker] = mesh.nodes(Role::Worker).await;
        assert_eq!(worker.counter("new").get().await.unwrap(), 0);
        assert_eq!(worker.register("new").get().await.unwrap(), None);
        assert!(worker.set("new").members().await.unwrap().is_empty());
        worker.counter("new").add(1).await.unwrap();
        assert!(matches!(worker.set("new").members().await, Err(Error::State(_))));
        assert!(matches!(worker.set("new").insert(b"x").await, Err(Error::State(_))));
        assert_eq!(worker.counter("new").get().await.unwrap(), 1);
    });
}

#[test]
fn state_survives_the_end_of_an_owner() {
    run(async {
        let mesh = Mesh::start().await;
        let [a, b, c] = mesh.nodes(Role::Worker).await;
        a.counter("k").add(5).await.unwrap();
        until("the copies", async || {
            b.counter("k").get().await.unwrap() == 5 && c.counter("k").get().await.unwrap() == 5
        })
        .await;
        a.shutdown().await;
        see(&b, a.key(), State::Left).await;
        see(&c, a.key(), State::Left).await;
        b.counter("k").add(1).await.unwrap();
        until("the sum", async || c.counter("k").get().await.unwrap() == 6).await;
    });
}

#[test]
fn state_with_a_store_is_there_after_a_restart_of_everybody() {
    run(async {
        let mesh = Mesh::start().await;
        let dir = tempfile::tempdir().unwrap();
        let key = crate::harness::key();
        let start = || mesh.join(mesh.builder(Role::Worker).key(key.clone()).store(dir.path()));
        let worker = start().await;
        worker.counter("k").add(5).await.unwrap();
        worker.shutdown().await;
        drop(worker);
        let worker = start().await;
        worker.counter("k").add(1).await.unwrap();
        assert_eq!(worker.counter("k").get().await.unwrap(), 6);
    });
}
