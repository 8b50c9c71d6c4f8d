//! The transport: `send(peer)`, `broadcast(group)`, `recv()`, independent of the path to a peer.
//!
//! Two nodes meet at a hub. Datagrams flow at once, through the hub, which sees only ciphertext. Meanwhile both ends
//! try each other's addresses. As soon as one answers, datagrams take the direct path. The program does nothing for
//! this and sees only an event.
//!
//! `cargo run -p nurl-examples --bin transport`

use std::time::Duration;

use bytes::Bytes;
use nurl::Node;
use nurl::config::{AllowList, Role};
use nurl::events::NodeEvent;
use nurl::rt::time;
use nurl_examples::{Outcome, PATIENCE, see_alive, soon};

#[tokio::main]
async fn main() -> Outcome {
    let (hub, ticket) = nurl::hub::serve_new_mesh("127.0.0.1:0").await?;
    let alice = Node::builder(ticket.clone()).role(Role::Member).spawn().await?;
    let bob = Node::builder(ticket).role(Role::Member).spawn().await?;
    let mut events = alice.events();

    // Datagrams may be lost, as with UDP, so a sender that needs an answer asks again.
    let echo = soon("an echo", async {
        loop {
            alice.send(bob.key(), Bytes::from_static(b"ping")).await?;
            if let Ok(Some(batch)) = time::timeout(Duration::from_millis(100), bob.recv_many()).await {
                let first = batch.into_iter().next().ok_or("a batch is never empty")?;
                return Ok::<_, Box<dyn std::error::Error + Send + Sync>>(first);
            }
        }
    });
    let datagram = echo.await??;
    assert_eq!((datagram.peer, &datagram.body[..]), (alice.key(), &b"ping"[..]));
    println!("bob got {:?} from {:?}", datagram.body, datagram.peer);

    // The path: relayed at first, then direct.
    let promoted = async {
        loop {
            match events.next().await {
                Some(NodeEvent::Path { peer, direct, addr, reason }) if peer == bob.key() => {
                    let way = addr.map_or("the hub".to_owned(), |addr| addr.to_string());
                    println!("alice reaches bob by {way}: {reason}");
                    if direct {
                        return true;
                    }
                }
                Some(_) => {}
                None => return false,
            }
        }
    };
    assert!(soon("a direct path", promoted).await?);
    let pong = alice.ping(bob.key(), PATIENCE).await?;
    assert!(pong.direct);
    println!("a ping to {:?} took {:?}", pong.addr, pong.rtt);

    // A reliable message: up to 16 MiB, delivered as a whole, and acknowledged when the peer has it.
    let large = Bytes::from(vec![7; 1 << 20]);
    let (sent, received) = tokio::join!(alice.send_message(bob.key(), large.clone()), bob.recv_message());
    sent?;
    assert_eq!(received, Some((alice.key(), large)));
    println!("a message of 1 MiB arrived whole");

    // A group: one upload, fanned out by the hub. The members create and distribute the group's key.
    see_alive(&alice, &[bob.key()]).await?;
    alice.join_group("weather", AllowList::Anyone).await?;
    bob.join_group("weather", AllowList::Anyone).await?;
    let heard = soon("a broadcast", async {
        loop {
            alice.broadcast("weather", Bytes::from_static(b"rain")).await?;
            if let Ok(heard) = time::timeout(Duration::from_millis(200), bob.recv_group()).await {
                return Ok::<_, nurl::Error>(heard);
            }
        }
    });
    let (group, sender, body) = heard.await??.ok_or("bob has shut down")?;
    assert_eq!((group.as_str(), sender, &body[..]), ("weather", alice.key(), &b"rain"[..]));
    println!("bob heard {body:?} in {group}");

    alice.shutdown().await;
    bob.shutdown().await;
    hub.shutdown().await;
    Ok(())
}
