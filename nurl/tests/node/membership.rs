//! Membership, as nodes see it.

use std::time::Duration;

use bytes::Bytes;
use nurl::Error;
use nurl::config::{DetectorConfig as Config, Role};
use nurl::events::{DownReason, NodeEvent, State};
use nurl::job::SubmitOptions;
use nurl::rt::time;

use crate::harness::{Mesh, key, meet, ping, run, see, soon, state_of};

#[test]
fn a_node_that_shuts_down_is_seen_to_have_left_and_its_handle_says_so() {
    run(async {
        let mesh = Mesh::start().await;
        let [a, b, c] = mesh.nodes(Role::Worker).await;
        let mut events = b.events();
        let left = c.key();
        c.shutdown().await;
        see(&a, left, State::Left).await;
        see(&b, left, State::Left).await;
        soon("the event", async {
            loop {
                match events.next().await.expect("b runs") {
                    NodeEvent::Member { peer, state, .. } if peer == left => {
                        assert_eq!(state, State::Left, "it was never held dead");
                        return;
                    }
                    _ => {}
                }
            }
        })
        .await;
        assert!(matches!(c.members().await, Err(Error::Closed)));
        assert!(matches!(c.send(a.key(), Bytes::new()).await, Err(Error::Closed)));
        let submitted = c.submit("x", b"k", Bytes::new(), SubmitOptions::default()).await;
        assert!(matches!(submitted, Err(Error::Closed)));
        assert!(soon("the end of datagrams", c.recv_many()).await.is_none());
        assert!(soon("the end of messages", c.recv_message()).await.is_none());
        assert!(soon("the end of groups", c.recv_group()).await.is_none());
        // The second shutdown has nothing to do or to wait for.
        soon("a second shutdown", c.shutdown()).await;
    });
}

#[test]
fn a_node_that_vanishes_is_suspected_then_held_dead() {
    run(async {
        let mesh = Mesh::start().await;
        let timings = || Config { suspicion_min: Duration::from_secs(1), ..Config::default() };
        let a = mesh.join(mesh.builder(Role::Member).detector(timings())).await;
        let b = mesh.join(mesh.builder(Role::Member).detector(timings())).await;
        let c = mesh.join(mesh.builder(Role::Member).detector(timings())).await;
        meet(&[&a, &b, &c]).await;
        let mut events = a.events();
        let gone = c.key();
        drop(c);
        let mut states = Vec::new();
        soon("the verdict", async {
            while states.last() != Some(&State::Dead) {
                match events.next().await.expect("a runs") {
                    NodeEvent::Member { peer, state, .. } if peer == gone => states.push(state),
                    NodeEvent::Member { state, .. } => assert_eq!(state, State::Alive),
                    _ => {}
                }
            }
        })
        .await;
        assert_eq!(states, [State::Suspect, State::Dead]);
        assert_eq!(state_of(&a, b.key()).await, Some(State::Alive));
    });
}

#[test]
fn a_node_comes_back_under_its_key_and_is_known_as_restarted() {
    run(async {
        let mesh = Mesh::start().await;
        let a = mesh.node(Role::Member).await;
        let secret = key();
        let b = mesh.join(mesh.builder(Role::Member).key(secret.clone())).await;
        meet(&[&a, &b]).await;
        let mut events = a.events();
        let old = a.members().await.unwrap()[0].boot;
        drop(b);
        let b = mesh.join(mesh.builder(Role::Member).key(secret)).await;
        soon("the news", async {
            while !matches!(events.next().await, Some(NodeEvent::Restarted { peer }) if peer == b.key()) {}
        })
        .await;
        meet(&[&a, &b]).await;
        let members = a.members().await.unwrap();
        assert_eq!(members.len(), 1, "one key is one member");
        assert_ne!(members[0].boot, old);
        soon("a ping", ping(&a, &b)).await.unwrap();
    });
}

#[test]
fn an_observer_sees_everybody_and_is_a_member_to_nobody() {
    run(async {
        let mesh = Mesh::start().await;
        let [a, b] = mesh.nodes(Role::Member).await;
        let observer = mesh.node(Role::Observer).await;
        see(&observer, a.key(), State::Alive).await;
        see(&observer, b.key(), State::Alive).await;
        soon("a ping", ping(&observer, &a)).await.unwrap();
        assert_eq!(state_of(&a, observer.key()).await, None);
        observer.shutdown().await;
        assert_eq!(state_of(&a, observer.key()).await, None);
        assert_eq!(a.members().await.unwrap().len(), 1, "a node isn't among its own members");
    });
}

#[test]
fn members_tell_what_they_do() {
    run(async {
        let mesh = Mesh::start().await;
        let echo = |_, payload| async move { Ok(payload) };
        let worker = mesh.builder(Role::Worker).handler("echo", echo).weight(3);
        let worker = mesh.join(worker).await;
        let other = mesh.node(Role::Member).await;
        meet(&[&worker, &other]).await;
        let seen = other.members().await.unwrap().remove(0);
        assert_eq!((seen.kinds, seen.weight), (vec!["echo".to_owned()], 3));
        assert_eq!(seen.version, env!("CARGO_PKG_VERSION"));
        assert!(seen.roles.contains(nurl::events::Roles::WORKER));
        let seen = worker.members().await.unwrap().remove(0);
        assert!(!seen.roles.contains(nurl::events::Roles::WORKER));
    });
}

#[test]
fn two_processes_with_one_key_do_not_duel() {
    run(async {
        let mesh = Mesh::start().await;
        let secret = key();
        let old = mesh.join(mesh.builder(Role::Member).key(secret.clone())).await;
        let mut events = old.events();
        let new = mesh.join(mesh.builder(Role::Member).key(secret)).await;
        let reason = soon("the hub's word", async {
            loop {
                if let NodeEvent::HubDown { reason, .. } = events.next().await.expect("the old one runs") {
                    return reason;
                }
            }
        })
        .await;
        assert_eq!(reason.as_str(), "replaced");
        // The replaced node doesn't register for the next ten seconds. If the two nodes replaced each other in turns,
        // there would be one replacement per round trip, so three seconds are enough to detect it.
        let mut newer = new.events();
        let duel = time::timeout(Duration::from_secs(3), async {
            loop {
                if let Some(NodeEvent::HubDown { reason, .. }) = newer.next().await {
                    return reason;
                }
            }
        });
        assert!(duel.await.is_err(), "the newer one keeps its place");
        assert_eq!(mesh.hub().stats().relay.replaced, 1);
        let down = old.status().await.unwrap().hubs[0].down;
        assert_eq!(down.map(DownReason::as_str), Some("replaced"));
    });
}

#[test]
fn every_subscriber_gets_every_event_in_one_order() {
    run(async {
        let mesh = Mesh::start().await;
        let a = mesh.node(Role::Member).await;
        let (mut first, mut second) = (a.events(), a.events());
        let b = mesh.node(Role::Member).await;
        meet(&[&a, &b]).await;
        b.shutdown().await;
        see(&a, b.key(), State::Left).await;
        a.shutdown().await;
        let (mut one, mut two) = (Vec::new(), Vec::new());
        while let Some(event) = soon("the first's end", first.next()).await {
            one.push(event);
        }
        while let Some(event) = soon("the second's end", second.next()).await {
            two.push(event);
        }
        assert_eq!(one, two);
        let states: Vec<State> = one
            .iter()
            .filter_map(|event| match event {
                NodeEvent::Member { peer, state, .. } if *peer == b.key() => Some(*state),
                _ => None,
            })
            .collect();
        assert_eq!((states.first(), states.last()), (Some(&State::Alive), Some(&State::Left)), "{one:?}");
    });
}
