//! Hubs that restart, refuse or are absent; strangers and allow-lists.

use std::time::Duration;

use bytes::Bytes;
use nurl::config::{AllowList, Role};
use nurl::events::{DownReason, NodeEvent, State};
use nurl::hub::{Hub, MeshSecret};
use nurl::rt::time;
use nurl::{Error, HubFailure, RefusedBy, rt};

use crate::harness::{Mesh, deliver, is_direct, key, meet, metric, ping, run, see, soon, until};

#[test]
fn a_hub_that_restarts_is_found_again_and_direct_peers_never_stop_talking() {
    run(async {
        let mut mesh = Mesh::start().await;
        let [a, b] = mesh.nodes(Role::Member).await;
        until("a direct path", async || is_direct(&a, b.key()).await && is_direct(&b, a.key()).await).await;
        let mut events = a.events();
        mesh.stop_hub().await;
        soon("the news", async { while !matches!(events.next().await, Some(NodeEvent::HubDown { .. })) {} })
            .await;
        deliver(&a, &b, b"without a hub").await;
        assert!(soon("a ping", ping(&b, &a)).await.unwrap().direct);
        assert!(!a.status().await.unwrap().hubs[0].up);

        mesh.start_hub().await;
        soon("the hub", async { while !matches!(events.next().await, Some(NodeEvent::HubUp { .. })) {} })
            .await;
        // A newcomer finds both nodes through the restarted hub, which has forgotten all its state.
        let c = mesh.node(Role::Member).await;
        meet(&[&a, &b, &c]).await;
        deliver(&c, &a, b"hello").await;
        deliver(&b, &c, b"hello").await;
    });
}

#[test]
fn a_node_that_began_before_its_hub_joins_when_the_hub_is_there() {
    run(async {
        let mut mesh = Mesh::start().await;
        mesh.stop_hub().await;
        let node = mesh.builder(Role::Member).spawn().await.unwrap();
        match node.joined(Duration::from_millis(500)).await {
            Err(Error::HubUnreachable { hubs }) => {
                let addr = mesh.ticket.hubs[0].addr.clone();
                assert_eq!(hubs, [HubFailure { addr, reason: DownReason::Unreachable }]);
            }
            other => panic!("{other:?}"),
        }
        mesh.start_hub().await;
        soon("joining", node.joined(Duration::MAX)).await.unwrap();
    });
}

#[test]
fn a_hub_with_another_key_than_the_tickets_is_tried_again_and_told_as_not_the_hub() {
    run(async {
        let mesh = Mesh::start().await;
        let mut ticket = mesh.ticket.clone();
        ticket.hubs[0].key = key().public();
        let node = nurl::Node::builder(ticket).spawn().await.unwrap();
        let error = node.joined(Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(&error, Error::HubUnreachable { .. }), "{error:?}");
        assert_eq!(error.hub_reason(), Some("not-a-hub"));
        assert!(error.to_string().contains(&mesh.ticket.hubs[0].addr), "{error}");
        assert!(mesh.hub().stats().hub.accepted > 1, "it is tried again");
    });
}

#[test]
fn a_hub_that_accepts_and_falls_silent_is_told_as_silent() {
    run(async {
        let mesh = Mesh::start().await;
        // The kernel accepts the connection, but no process reads from it.
        let mute = rt::net::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let mut ticket = mesh.ticket.clone();
        ticket.hubs[0].addr = mute.local_addr().unwrap().to_string();
        let node = nurl::Node::builder(ticket).spawn().await.unwrap();
        let error = node.joined(Duration::from_secs(7)).await.unwrap_err();
        assert!(matches!(&error, Error::HubUnreachable { .. }), "{error:?}");
        assert_eq!(error.hub_reason(), Some("silent"));
    });
}

#[test]
fn a_hub_that_takes_nobody_is_told_as_overloaded_and_tried_again() {
    run(async {
        let mesh = Mesh::start().await;
        mesh.hub().limit_clients(0);
        let node = mesh.builder(Role::Member).spawn().await.unwrap();
        let error = node.joined(Duration::from_millis(500)).await.unwrap_err();
        assert!(matches!(&error, Error::HubUnreachable { .. }), "{error:?}");
        assert_eq!(error.hub_reason(), Some("overloaded"));
        mesh.hub().limit_clients(100);
        soon("joining", node.joined(Duration::MAX)).await.unwrap();
    });
}

#[test]
fn each_hub_of_a_ticket_is_told_with_its_own_cause() {
    run(async {
        let mesh = Mesh::start().await;
        let mut ticket = mesh.ticket.clone();
        ticket.hubs[0].key = key().public();
        let gone = rt::net::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let dead = gone.local_addr().unwrap();
        drop(gone);
        ticket.hubs.insert(0, Hub { key: key().public(), addr: dead.to_string() });
        let node = nurl::Node::builder(ticket).spawn().await.unwrap();
        match node.joined(Duration::from_secs(1)).await {
            Err(Error::HubUnreachable { hubs }) => {
                let reasons: Vec<_> = hubs.iter().map(|hub| hub.reason).collect();
                assert_eq!(reasons, [DownReason::Unreachable, DownReason::NotTheHub]);
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_mesh_that_the_hub_does_not_serve_is_an_error_at_once() {
    run(async {
        let mesh = Mesh::start().await;
        let hub = mesh.ticket.hubs[0].clone();
        let (_, other) = nurl::Ticket::new_mesh(hub, time::unix_now(), &mut rt::rng("another mesh"));
        let node = nurl::Node::builder(other).spawn().await.unwrap();
        let error = soon("an answer", node.joined(Duration::MAX)).await.unwrap_err();
        assert!(matches!(&error, Error::HubRefused { .. }), "{error:?}");
    });
}

#[test]
fn a_secret_that_is_no_longer_accepted_gets_silence_and_a_clear_error() {
    run(async {
        let mesh = Mesh::start().await;
        let inside = mesh.node(Role::Member).await;
        let mut ticket = mesh.ticket.clone();
        ticket.current = MeshSecret::generate(&mut rt::rng("an old secret"));
        let outside = nurl::Node::builder(ticket).role(Role::Member).spawn().await.unwrap();
        let error = outside.joined(Duration::from_secs(2)).await.unwrap_err();
        assert!(matches!(&error, Error::Refused(RefusedBy::Members)), "{error:?}");
        assert!(inside.members().await.unwrap().is_empty());
        let asked = outside.ping(inside.key(), Duration::from_secs(1)).await;
        assert!(matches!(asked, Err(Error::Deadline(_))), "{asked:?}");
    });
}

#[test]
fn a_secret_from_before_a_rotation_is_accepted_while_it_goes_on() {
    run(async {
        let mesh = Mesh::start().await;
        let mut rotated = mesh.ticket.clone();
        rotated.current = MeshSecret::generate(&mut rt::rng("the next secret"));
        rotated.previous = Some(mesh.ticket.current.clone());
        let new = mesh.join(nurl::Node::builder(rotated).role(Role::Member)).await;
        let old = mesh.node(Role::Member).await;
        meet(&[&new, &old]).await;
        deliver(&old, &new, b"from the old").await;
        deliver(&new, &old, b"from the new").await;
    });
}

#[test]
fn a_peer_that_is_not_on_the_allow_list_is_not_heard() {
    run(async {
        let mesh = Mesh::start().await;
        let friend = key();
        let only = AllowList::Only([friend.public()].into());
        let guarded = mesh.join(mesh.builder(Role::Member).allow(only)).await;
        let friend = mesh.join(mesh.builder(Role::Member).key(friend)).await;
        meet(&[&guarded, &friend]).await;
        let stranger = mesh.builder(Role::Member).spawn().await.unwrap();
        see(&stranger, friend.key(), State::Alive).await;
        stranger.send(guarded.key(), Bytes::from_static(b"let me in")).await.unwrap();
        let pinged = stranger.ping(guarded.key(), Duration::from_secs(1)).await;
        assert!(matches!(pinged, Err(Error::Deadline(_))), "{pinged:?}");
        // The guarded node receives the friend's datagram, and has received nothing else.
        friend.send(guarded.key(), Bytes::from_static(b"it's me")).await.unwrap();
        let heard = soon("the friend", guarded.recv_many()).await.unwrap();
        assert!(heard.iter().all(|datagram| datagram.peer == friend.key()));
        assert!(metric(&guarded, "session.not_allowed").await > 0, "the stranger's handshakes are counted");
        // In the other direction the guarded node's send is refused, and counted.
        guarded.send(stranger.key(), Bytes::from_static(b"no")).await.unwrap();
        until("the count", async || metric(&guarded, "node.refused_datagrams").await == 1).await;
        let refused = guarded.send_message(stranger.key(), Bytes::from_static(b"no"));
        assert!(matches!(soon("the refusal", refused).await, Err(Error::Send(_))));
        assert!(matches!(guarded.connect(stranger.key()).await, Err(Error::Send(_))));
    });
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    run(async {
        let mesh = Mesh::start().await;
        let node = mesh.builder(Role::Member).listen("127.0.0.1:0".parse().unwrap()).spawn().await.unwrap();
        let taken = node.local_addrs()[0];
        let error = mesh.builder(Role::Member).listen(taken.into()).spawn().await.err().unwrap();
        assert!(matches!(&error, Error::Listen { addr, .. } if *addr == taken.to_string()), "{error}");
        node.shutdown().await;
        mesh.builder(Role::Member).listen(taken.into()).spawn().await.unwrap();
    });
}
