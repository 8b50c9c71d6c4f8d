//! The relay: three clients behind one hub, a datagram to a key, and one upload for a whole group.
//!
//! A relay forwards bytes to a client that has proved a key to it. Clients use TCP, so it can be reached from behind
//! every NAT. The relay has no key to the payloads: in a node they are sealed frames. This example sends plain text
//! to make that visible; `transport` shows the sealed use.
//!
//! `cargo run -p nurl-examples --bin relay`

use bytes::Bytes;
use nurl::internals::kit::wall_clock::WallClock;
use nurl::internals::net::reach::hub_client::{HubClientConfig, HubEvent, Joining, LoneClient};
use nurl::rt::{self, time};
use nurl::{PublicKey, SecretKey, Ticket};
use nurl_examples::{Outcome, soon};

#[tokio::main]
async fn main() -> Outcome {
    let (hub, ticket) = nurl::hub::serve_new_mesh("127.0.0.1:0").await?;
    let mut alice = Client::register(&ticket).await?;
    let mut bob = Client::register(&ticket).await?;
    let mut carol = Client::register(&ticket).await?;
    println!("{} clients are registered at {}", hub.stats().clients, hub.addr());

    // To one key. The hub names the sender, as a return address and not as a proof of identity.
    let dst = bob.key;
    alice.client.give(move |hub, _| hub.forward(&dst, b"for bob alone")).await;
    let event = bob.until(|event| matches!(event, HubEvent::Datagram { .. })).await?;
    let HubEvent::Datagram { src, payload } = event else { unreachable!("filtered") };
    assert_eq!((src, &payload[..]), (alice.key, &b"for bob alone"[..]));
    println!("bob got {payload:?} from {src:?}");

    // To a group. The hub knows it by an opaque tag, which only members can compute.
    let tag = [7; 16];
    for member in [&mut bob, &mut carol] {
        member.client.give(move |hub, _| hub.join(tag)).await;
        // The connection is ordered: the answer to a later command means that the hub has processed the join.
        let own = member.key;
        member.client.give(move |hub, _| hub.look_up(own)).await;
        member.until(|event| matches!(event, HubEvent::NoRecord { .. })).await?;
    }
    let payload = Bytes::from_static(b"for everybody");
    let sent = payload.clone();
    alice.client.give(move |hub, _| hub.group_send(tag, &sent)).await;
    for member in [&mut bob, &mut carol] {
        let event = member.until(|event| matches!(event, HubEvent::Group { .. })).await?;
        assert_eq!(event, HubEvent::Group { src: alice.key, tag, payload: payload.clone() });
    }
    let relay = hub.stats().relay;
    assert_eq!((relay.forwarded, relay.group_sends), (1, 1));
    println!("one uplink of alice's reached bob and carol: {payload:?}");

    // A datagram to an absent peer is answered with a notice, so that the sender can look for another path.
    let stranger = SecretKey::generate(&mut rt::rng("stranger")).public();
    alice.client.give(move |hub, _| hub.forward(&stranger, &payload)).await;
    alice.until(|event| *event == HubEvent::PeerGone { peer: stranger }).await?;
    println!("and the hub says that {stranger:?} isn't registered");
    hub.shutdown().await;
    Ok(())
}

/// A connection to the hub, kept alive by a task.
struct Client {
    key: PublicKey,
    client: LoneClient,
}

impl Client {
    async fn register(ticket: &Ticket) -> Result<Client, String> {
        let key = SecretKey::generate(&mut rt::rng("client"));
        let public = key.public();
        let hub = ticket.hubs[0].clone();
        // The ticket's invitation gets the client a pass, which it shows at its registration.
        let joining = Joining::by(ticket, WallClock::new(time::now(), time::unix_now()));
        let client = LoneClient::spawn(HubClientConfig { hub, key, boot: 1, joining });
        let mut client = Client { key: public, client };
        client.until(|event| matches!(event, HubEvent::Up { .. })).await?;
        Ok(client)
    }

    /// The next event that fits; the events before it are dropped.
    async fn until(&mut self, fits: impl Fn(&HubEvent) -> bool) -> Result<HubEvent, String> {
        let found = soon("an event of the hub", self.client.until(fits)).await?;
        found.ok_or("the client has ended".to_owned())
    }
}
