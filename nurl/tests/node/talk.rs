//! Datagrams, messages, groups and paths.

use std::time::Duration;

use bytes::Bytes;
use nurl::config::{AllowList, Role};
use nurl::events::NodeEvent;
use nurl::message::MAX_DATAGRAM_BYTES;
use nurl::rt::{disk, time};
use nurl::{Error, Node, PublicKey};

use crate::harness::{Mesh, PATIENCE, deliver, is_direct, meet, metric, ping, run, soon, until};
use crate::spy::Spy;

#[test]
fn datagrams_go_both_ways_from_the_first_one_on() {
    run(async {
        let mesh = Mesh::start().await;
        let a = mesh.node(Role::Member).await;
        let b = mesh.node(Role::Member).await;
        // The caller needs no session and no membership first: the node queues the first datagram.
        a.send(b.key(), Bytes::from_static(b"first")).await.unwrap();
        let batch = soon("the first datagram", b.recv_many()).await.unwrap();
        assert_eq!((batch[0].peer, &batch[0].body[..]), (a.key(), &b"first"[..]));
        deliver(&b, &a, b"and back").await;
        let largest = Bytes::from(vec![7; MAX_DATAGRAM_BYTES]);
        until("the largest", async || {
            a.send_many(b.key(), vec![largest.clone(), Bytes::new()]).await.unwrap();
            let batch = time::timeout(Duration::from_millis(100), b.recv_many()).await;
            batch.is_ok_and(|batch| batch.unwrap().iter().any(|datagram| datagram.body == largest))
        })
        .await;
    });
}

#[test]
fn a_datagram_that_is_too_large_is_refused_with_all_of_its_batch() {
    run(async {
        let mesh = Mesh::start().await;
        let a = mesh.node(Role::Member).await;
        let bodies = vec![Bytes::from_static(b"x"), Bytes::from(vec![0; MAX_DATAGRAM_BYTES + 1])];
        let error = a.send_many(a.key(), bodies).await.unwrap_err();
        assert!(error.to_string().contains("1201"), "{error}");
        assert_eq!(metric(&a, "transport.datagrams_out").await, 0);
        // A datagram to the node itself is dropped and counted.
        a.send(a.key(), Bytes::from_static(b"me")).await.unwrap();
        until("the count", async || metric(&a, "node.refused_datagrams").await == 1).await;
    });
}

#[test]
fn a_message_of_16_mib_arrives_whole_and_a_larger_one_is_refused() {
    run(async {
        let mesh = Mesh::start().await;
        let [a, b] = mesh.nodes(Role::Member).await;
        let body: Bytes = (0..16 << 20).map(|at: u32| (at % 251) as u8).collect::<Vec<_>>().into();
        let (sent, received) = soon("the message", async {
            tokio::join!(a.send_message(b.key(), body.clone()), b.recv_message())
        })
        .await;
        sent.unwrap();
        let (from, got) = received.unwrap();
        assert!(from == a.key() && got == body);
        let refused = a.send_message(b.key(), Bytes::from(vec![0; (16 << 20) + 1])).await;
        assert!(matches!(refused, Err(Error::Message(_))), "{refused:?}");
    });
}

#[test]
fn many_messages_at_once_wait_for_room_and_arrive_in_full() {
    run(async {
        let mesh = Mesh::start().await;
        let [a, b] = mesh.nodes(Role::Member).await;
        // Twelve times the limit of unacknowledged data for one peer.
        const MESSAGES: usize = 200;
        let sends = (0..MESSAGES).map(|number| {
            let (a, to) = (a.clone(), b.key());
            nurl::rt::task::spawn(async move {
                a.send_message(to, Bytes::from(vec![number as u8; 256 << 10])).await.unwrap();
            })
        });
        let sends: Vec<_> = sends.collect();
        let mut numbers = Vec::new();
        for _ in 0..MESSAGES {
            let (_, body) = soon("a message", b.recv_message()).await.unwrap();
            assert!(body.len() == 256 << 10 && body.iter().all(|byte| *byte == body[0]));
            numbers.push(body[0]);
        }
        for send in sends {
            soon("its acknowledgement", send).await.unwrap();
        }
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..MESSAGES as u8), "each came once");
    });
}

#[test]
fn a_message_to_a_process_that_ends_is_an_error() {
    run(async {
        let mesh = Mesh::start().await;
        let secret = crate::harness::key();
        let a = mesh.node(Role::Member).await;
        let b = mesh.join(mesh.builder(Role::Member).key(secret.clone())).await;
        meet(&[&a, &b]).await;
        let to = b.key();
        drop(b);
        let waiting = a.clone();
        let sent =
            nurl::rt::task::spawn(
                async move { waiting.send_message(to, Bytes::from(vec![1; 1 << 20])).await },
            );
        // A new process with the same key doesn't get the messages for the old process.
        let b = mesh.join(mesh.builder(Role::Member).key(secret)).await;
        let end = soon("the answer", sent).await.unwrap();
        match end {
            Err(Error::MessageLost(_)) => {}
            // No part of the message had been sent yet: then it is for the new process.
            Ok(()) => assert!(soon("the message", b.recv_message()).await.is_some()),
            other => panic!("{other:?}"),
        }
    });
}

/// Broadcasts may be lost, so the message is sent again until all nodes have received it.
async fn broadcast_until_heard(from: &Node, to: &[&Node], group: &str, body: &Bytes) {
    for node in to {
        soon("the broadcast", async {
            loop {
                from.broadcast(group, body.clone()).await.unwrap();
                // Broadcasts that were sent earlier, for other nodes, may still be in the queue.
                let said = (group.to_owned(), from.key(), body.clone());
                while let Ok(heard) = time::timeout(Duration::from_millis(200), node.recv_group()).await {
                    if heard.as_ref() == Some(&said) {
                        return;
                    }
                }
            }
        })
        .await;
    }
}

#[test]
fn a_broadcast_reaches_every_member_of_its_group_and_nobody_else() {
    run(async {
        let mesh = Mesh::start().await;
        let [a, b, c, outsider] = mesh.nodes(Role::Member).await;
        let refused = a.broadcast("choir", Bytes::from_static(b"x")).await;
        assert!(matches!(refused, Err(Error::Group(_))), "one has to join first");
        for node in [&a, &b, &c] {
            node.join_group("choir", AllowList::Anyone).await.unwrap();
        }
        broadcast_until_heard(&a, &[&b, &c], "choir", &Bytes::from_static(b"la")).await;
        broadcast_until_heard(&c, &[&a], "choir", &Bytes::from_static(b"li")).await;
        assert!(time::timeout(Duration::from_millis(100), outsider.recv_group()).await.is_err());
        // A node that left the group receives nothing more.
        b.leave_group("choir").await.unwrap();
        while time::timeout(Duration::from_millis(200), b.recv_group()).await.is_ok() {}
        broadcast_until_heard(&a, &[&c], "choir", &Bytes::from_static(b"lo")).await;
        let late = time::timeout(Duration::from_millis(200), b.recv_group()).await;
        assert!(late.is_err(), "{late:?}");
    });
}

#[test]
fn what_is_said_in_a_group_is_read_by_its_list_or_by_members_and_never_by_an_observer() {
    run(async {
        let mesh = Mesh::start().await;
        let [a, b, c] = mesh.nodes(Role::Member).await;
        let observer = mesh.node(Role::Observer).await;
        for node in [&b, &c, &observer] {
            node.join_group("choir", AllowList::Anyone).await.unwrap();
        }
        a.join_group("choir", AllowList::Anyone).await.unwrap();
        broadcast_until_heard(&a, &[&b, &c], "choir", &Bytes::from_static(b"to members")).await;
        let only = |keys: &[PublicKey]| AllowList::Only(keys.iter().copied().collect());
        let [d] = mesh.nodes(Role::Member).await;
        d.join_group("choir", only(&[b.key(), observer.key()])).await.unwrap();
        while time::timeout(Duration::from_millis(200), c.recv_group()).await.is_ok() {}
        broadcast_until_heard(&d, &[&b, &observer], "choir", &Bytes::from_static(b"to two")).await;
        let heard = time::timeout(Duration::from_millis(200), c.recv_group()).await;
        assert!(heard.is_err(), "{heard:?}");
        let heard = time::timeout(Duration::from_millis(200), observer.recv_group()).await;
        assert!(!matches!(heard, Ok(Some((_, from, _))) if from == a.key()), "{heard:?}");
    });
}

#[test]
fn a_hub_sees_neither_a_groups_name_nor_any_content() {
    run(async {
        let spy = Spy::start().await;
        let builder = || Node::builder(spy.ticket.clone()).role(Role::Member);
        let (a, b) = (builder().spawn().await.unwrap(), builder().spawn().await.unwrap());
        for node in [&a, &b] {
            node.joined(PATIENCE).await.unwrap();
        }
        meet(&[&a, &b]).await;
        a.join_group("conspirators", AllowList::Anyone).await.unwrap();
        b.join_group("conspirators", AllowList::Anyone).await.unwrap();
        let body = Bytes::from_static(b"at midnight, in the garden");
        broadcast_until_heard(&a, &[&b], "conspirators", &body).await;
        // The first datagram goes through the relay: a newcomer's first message waits for nothing else.
        let c = builder().spawn().await.unwrap();
        c.send(a.key(), Bytes::from_static(b"I come by the back door")).await.unwrap();
        soon("the datagram", a.recv_many()).await.unwrap();
        assert!(spy.relay().group_deliveries >= 1 && spy.relay().forwarded >= 1);
        assert_eq!(spy.sightings(b"at midnight"), 0);
        assert_eq!(spy.sightings(b"conspirators"), 0);
        assert_eq!(spy.sightings(b"back door"), 0);
        // The spy does see the nodes' keys, because a hub needs the return addresses.
        assert!(spy.sightings(a.key().as_bytes()) > 0);
    });
}

#[test]
fn two_nodes_on_one_machine_are_direct_within_two_seconds() {
    run(async {
        let mesh = Mesh::start().await;
        let a = mesh.node(Role::Member).await;
        let mut events = a.events();
        let b = mesh.node(Role::Member).await;
        a.connect(b.key()).await.unwrap();
        let direct = async {
            loop {
                if let Some(NodeEvent::Path { peer, direct: true, addr, .. }) = events.next().await
                    && peer == b.key()
                {
                    return addr;
                }
            }
        };
        let addr = time::timeout(Duration::from_secs(2), direct).await.expect("in two seconds");
        assert_eq!(addr.unwrap().port(), b.local_addrs()[0].port());
        until("the way back", async || is_direct(&b, a.key()).await).await;
    });
}

#[test]
fn a_ping_measures_the_way_that_data_takes() {
    run(async {
        let mesh = Mesh::start().await;
        let [a, b] = mesh.nodes(Role::Member).await;
        until("a direct path", async || is_direct(&a, b.key()).await).await;
        let pong = soon("a ping", ping(&a, &b)).await.unwrap();
        assert!(pong.direct && pong.addr.is_some());
        assert!(pong.rtt > Duration::ZERO && pong.rtt < PATIENCE);
        let nobody = PublicKey::from_bytes([9; 32]);
        let limit = Duration::from_millis(300);
        assert!(matches!(a.ping(nobody, limit).await, Err(Error::Deadline(at)) if at == limit));
        // A node can't ping itself. The answer is an error, and doesn't claim that the node is gone.
        let oneself = a.ping(a.key(), limit).await;
        assert!(matches!(oneself, Err(Error::Send(_))), "{oneself:?}");
    });
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let text = disk::read(std::path::Path::new("/proc/self/statm"), 4096).unwrap();
    let pages = String::from_utf8(text).unwrap().split(' ').nth(1).unwrap().parse::<usize>().unwrap();
    pages * 4096
}

#[test]
fn datagrams_are_received_one_by_one_or_in_batches_in_one_order() {
    run(async {
        let mesh = Mesh::start().await;
        let [a, b] = mesh.nodes(Role::Member).await;
        until("a direct path", async || is_direct(&a, b.key()).await).await;
        let numbered = |from: u8, to: u8| (from..to).map(|n| Bytes::from(vec![n])).collect::<Vec<_>>();
        soon("eight are sent", a.send_many(b.key(), numbered(0, 8))).await.unwrap();
        let mut numbers = Vec::new();
        while numbers.len() < 3 {
            let datagram = soon("a datagram", b.recv()).await.unwrap();
            assert_eq!(datagram.peer, a.key());
            numbers.push(datagram.body[0]);
        }
        while numbers.len() < 8 {
            let batch = soon("the rest", b.recv_many()).await.unwrap();
            assert!(!batch.is_empty());
            numbers.extend(batch.iter().map(|datagram| datagram.body[0]));
        }
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7]);
        b.shutdown().await;
        assert!(soon("the end", b.recv()).await.is_none());
    });
}

#[test]
fn a_flood_that_nobody_takes_waits_or_is_dropped_and_counted_and_costs_bounded_memory() {
    run(async {
        let mesh = Mesh::start().await;
        let [a, b] = mesh.nodes(Role::Member).await;
        until("a direct path", async || is_direct(&a, b.key()).await).await;
        let before = resident();
        // 300 MB in total; b's application takes none of it.
        let body = Bytes::from(vec![7; MAX_DATAGRAM_BYTES]);
        for _ in 0..1_000 {
            soon("room for a batch", a.send_many(b.key(), vec![body.clone(); 250])).await.unwrap();
        }
        // Both nodes still answer; the queue between the planes is empty then.
        soon("a ping", ping(&a, &b)).await.unwrap();
        soon("a ping back", ping(&b, &a)).await.unwrap();
        let grown = resident().saturating_sub(before);
        assert!(grown < 150 << 20, "{} MB", grown >> 20);
        assert!(metric(&a, "transport.datagrams_out").await > 100_000);
        let dropped =
            metric(&b, "node.application_dropped").await + metric(&b, "transport.inbox_dropped").await;
        assert!(dropped > 0);
        assert_eq!(b.status().await.unwrap().members.len(), 1);
        // The queued datagrams can be taken, and new ones come through after that.
        soon("the rest", async {
            while time::timeout(Duration::from_millis(100), b.recv_many()).await.is_ok() {}
        })
        .await;
        deliver(&a, &b, b"after the flood").await;
    });
}

#[test]
fn a_flood_of_broadcasts_ends_in_errors_or_drops_never_in_a_standstill() {
    run(async {
        let mesh = Mesh::start().await;
        let [a, b] = mesh.nodes(Role::Member).await;
        for node in [&a, &b] {
            node.join_group("flood", AllowList::Anyone).await.unwrap();
        }
        let body = Bytes::from(vec![7; MAX_DATAGRAM_BYTES]);
        for _ in 0..20_000 {
            soon("room", a.broadcast("flood", body.clone())).await.unwrap();
        }
        soon("a ping", ping(&a, &b)).await.unwrap();
        assert!(metric(&b, "node.application_dropped").await <= 20_000);
    });
}

#[test]
fn messages_that_nobody_takes_are_bounded_in_bytes_and_counted() {
    run(async {
        let mesh = Mesh::start().await;
        let [a, b] = mesh.nodes(Role::Member).await;
        let body = Bytes::from(vec![7; 8 << 20]);
        // The limit is eight waiting messages.
        for _ in 0..10 {
            soon("the acknowledgement", a.send_message(b.key(), body.clone())).await.unwrap();
        }
        until("the count", async || metric(&b, "node.application_dropped").await == 2).await;
        for _ in 0..8 {
            assert_eq!(soon("a message", b.recv_message()).await.unwrap().1.len(), 8 << 20);
        }
        let small = Bytes::from_static(b"there is room again");
        soon("the acknowledgement", a.send_message(b.key(), small.clone())).await.unwrap();
        assert_eq!(soon("a message", b.recv_message()).await.unwrap().1, small);
    });
}

#[test]
fn gossip_is_an_event_at_the_others_and_what_is_too_large_is_refused() {
    run(async {
        let mesh = Mesh::start().await;
        let [a, b, c] = mesh.nodes(Role::Member).await;
        meet(&[&a, &b, &c]).await;
        let others = [b.events(), c.events()];
        let word = Bytes::from_static(b"spring is here");
        a.gossip(word.clone()).await.unwrap();
        for mut events in others {
            let (claimed, body) = soon("the word", async {
                loop {
                    if let NodeEvent::Gossip { claimed, body } = events.next().await.unwrap() {
                        return (claimed, body);
                    }
                }
            })
            .await;
            assert_eq!((claimed, body), (a.key(), word.clone()));
        }
        let refused = a.gossip(Bytes::from(vec![0; 257])).await;
        assert!(matches!(refused, Err(Error::Membership(_))), "{refused:?}");
    });
}
