//! Rendezvous: a peer publishes its addresses, and only its mesh can read them.
//!
//! The hub keeps one record for each key that was proved to it, with a number and a time to live. The record's
//! content is sealed under the mesh's secret, together with the key and the number. So the hub can't read it, can't
//! present one peer's record as another's, and can't present an old one as new.
//!
//! `cargo run -p nurl-examples --bin rendezvous`

use std::net::SocketAddr;

use bytes::Bytes;
use nurl::hub::Hub;
use nurl::internals::kit::wall_clock::WallClock;
use nurl::internals::net::reach::hub_client::{HubClientConfig, HubEvent, Joining, LoneClient};
use nurl::internals::net::reach::rendezvous::record::{MAX_RECORD_LIFE, RecordError};
use nurl::internals::net::reach::rendezvous::{PublishResult, Record};
use nurl::rt::{self, time};
use nurl::{SecretKey, Ticket};
use nurl_examples::{Outcome, soon};

#[tokio::main]
async fn main() -> Outcome {
    let (hub, ticket) = nurl::hub::serve_new_mesh("127.0.0.1:0").await?;
    let secret = SecretKey::generate(&mut rt::rng("alice"));
    let alice = secret.public();
    let mut publisher = client(&ticket, secret).await?;
    let mut reader = client(&ticket, SecretKey::generate(&mut rt::rng("bob"))).await?;

    // Sealed under the mesh's present secret, for this key and this number.
    let address: SocketAddr = "192.0.2.7:4242".parse()?;
    let record = Record {
        candidates: vec![address],
        home: Some(hub.key()),
        capabilities: 0,
        expires: time::unix_now() + MAX_RECORD_LIFE,
    };
    let seq = 1;
    let sealed = record.seal(&ticket.generations()[0], &alice, seq, &mut rt::rng("nonces"))?;
    println!("alice publishes {} sealed bytes as number {seq}", sealed.len());
    publisher.give(move |hub, now| hub.publish(now, seq, Bytes::from(sealed))).await;
    let answer = next(&mut publisher, |event| matches!(event, HubEvent::Published { .. })).await?;
    assert_eq!(answer, HubEvent::Published { seq, result: PublishResult::Stored });

    // Bob knows alice's key and looks it up.
    reader.give(move |hub, _| hub.look_up(alice)).await;
    let HubEvent::Record(kept) = next(&mut reader, |event| matches!(event, HubEvent::Record(_))).await?
    else {
        unreachable!("filtered")
    };
    let open = |ticket: &Ticket, seq| {
        Record::open(&ticket.generations(), &kept.key, seq, &kept.sealed, time::unix_now())
    };
    let opened = open(&ticket, kept.seq)?;
    assert_eq!(opened.candidates, [address]);
    println!("bob reads that alice may be at {address}, kept for {:?} more", kept.ttl);

    // No other mesh can read it, and the hub can't give it another number.
    let elsewhere = Hub { key: hub.key(), addr: hub.addr().to_string() };
    let (_, other_mesh) = Ticket::new_mesh(elsewhere, time::unix_now(), &mut rt::rng("another mesh"));
    assert_eq!(open(&other_mesh, kept.seq), Err(RecordError::Sealed));
    assert_eq!(open(&ticket, kept.seq + 1), Err(RecordError::Sealed));
    println!("another mesh's secret doesn't open it, and neither does another number");

    // A newcomer that knows no key asks for some members: this is how it finds its first contacts.
    reader.give(|hub, _| hub.list(8)).await;
    let HubEvent::Records(list) = next(&mut reader, |event| matches!(event, HubEvent::Records(_))).await?
    else {
        unreachable!("filtered")
    };
    assert_eq!(list.iter().map(|record| record.key).collect::<Vec<_>>(), [alice]);
    println!("the list of the mesh has {} record", list.len());

    // A peer that leaves withdraws its record.
    publisher.give(|hub, _| hub.withdraw()).await;
    publisher.give(move |hub, _| hub.look_up(alice)).await;
    next(&mut publisher, |event| *event == HubEvent::NoRecord { peer: alice }).await?;
    println!("alice has taken it back");
    hub.shutdown().await;
    Ok(())
}

/// A registered client. Requests made before the registration are dropped.
async fn client(ticket: &Ticket, key: SecretKey) -> Result<LoneClient, String> {
    let hub = ticket.hubs[0].clone();
    // The ticket's invitation gets the client a pass, which it shows at its registration.
    let joining = Joining::by(ticket, WallClock::new(time::now(), time::unix_now()));
    let mut client = LoneClient::spawn(HubClientConfig { hub, key, boot: 1, joining });
    next(&mut client, |event| matches!(event, HubEvent::Up { .. })).await?;
    Ok(client)
}

/// The next event that fits; the events before it are dropped.
async fn next(client: &mut LoneClient, fits: impl Fn(&HubEvent) -> bool) -> Result<HubEvent, String> {
    let found = soon("an answer of the hub", client.until(fits)).await?;
    found.ok_or("the client has ended".to_owned())
}
