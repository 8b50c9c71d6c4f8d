//! A node whose planes end by a panic. In the simulated world a panic ends the run.

use std::time::Duration;

use bytes::Bytes;

use super::command::{NetCommand, WorkCommand};
use super::{Node, NodeEvent, Role};
use crate::compute::job::SubmitOptions;
use crate::mesh::{Hub, Ticket};
use crate::net::reach::hub::{self, HubConfig, HubHandle, ServedMesh};
use crate::rt::{self, contract, time};
use crate::{Error, SecretKey};

const PATIENCE: Duration = Duration::from_secs(20);

async fn mesh() -> (HubHandle, Ticket) {
    let key = SecretKey::generate(&mut rt::rng("test hub"));
    let hub = Hub { key: key.public(), addr: String::new() };
    let (authority, mut ticket) = Ticket::new_mesh(hub, time::unix_now(), &mut rt::rng("test ticket"));
    let served = ServedMesh::issued_by(authority.into());
    let config = HubConfig::new(([127, 0, 0, 1], 0).into(), key, vec![served]);
    let hub = hub::serve(config).await.unwrap();
    ticket.hubs[0].addr = hub.addr().to_string();
    (hub, ticket)
}

async fn worker(ticket: &Ticket) -> Node {
    let node = Node::builder(ticket.clone()).role(Role::Worker).spawn().await.unwrap();
    node.joined(PATIENCE).await.unwrap();
    node
}

/// Asserts that every call reports the plane's panic, including calls that wait.
async fn assert_panicked(node: &Node, plane: &str) {
    let says = |error: Error| {
        let told = matches!(&error, Error::Panicked { plane: of, message } if *of == plane && message.contains("asked for it"));
        assert!(told, "{error}");
    };
    says(node.counter("k").add(1).await.unwrap_err());
    says(node.register("k").get().await.unwrap_err());
    says(node.metrics().await.unwrap_err());
    says(node.members().await.unwrap_err());
    says(node.status().await.unwrap_err());
    says(node.joined(PATIENCE).await.unwrap_err());
    says(node.send(node.key(), Bytes::new()).await.unwrap_err());
    says(node.submit("echo", b"k", Bytes::new(), SubmitOptions::default()).await.unwrap_err());
}

#[test]
fn a_node_whose_work_plane_panics_ends_with_the_panics_text_and_leaves_the_mesh() {
    contract::run(async {
        let (_hub, ticket) = mesh().await;
        let (doomed, witness) = (worker(&ticket).await, worker(&ticket).await);
        let (mut events, mut seen) = (doomed.events(), witness.events());
        doomed.0.work.send(WorkCommand::Panic).await.unwrap();
        let waiting = doomed.metrics().await.unwrap_err();
        assert!(matches!(waiting, Error::Panicked { plane: "work", .. }), "{waiting}");
        while events.next().await.is_some() {}
        assert_panicked(&doomed, "work").await;
        assert!(doomed.events().next().await.is_none(), "a later subscriber sees the end, too");
        let left = async {
            while let Some(event) = seen.next().await {
                if matches!(&event, NodeEvent::Member { peer, state: crate::membership::State::Left, .. } if *peer == doomed.key())
                {
                    return;
                }
            }
        };
        time::timeout(PATIENCE, left).await.expect("others take its work over at once");
        time::timeout(PATIENCE, doomed.shutdown()).await.expect("nothing is left to shut down");
    });
}

#[test]
fn a_node_whose_network_plane_panics_ends_with_the_panics_text() {
    contract::run(async {
        let (_hub, ticket) = mesh().await;
        let doomed = worker(&ticket).await;
        let mut events = doomed.events();
        doomed.0.net.send(NetCommand::Panic).await.unwrap();
        let waiting = doomed.members().await.unwrap_err();
        assert!(matches!(waiting, Error::Panicked { plane: "network", .. }), "{waiting}");
        while events.next().await.is_some() {}
        assert_panicked(&doomed, "network").await;
        assert!(doomed.recv_many().await.is_none() && doomed.recv_message().await.is_none());
        time::timeout(PATIENCE, doomed.shutdown()).await.expect("nothing is left to shut down");
    });
}
