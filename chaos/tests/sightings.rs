//! What a watched run shows of each host: events with their fields, packets with their fates, names instead of keys, and
//! what is in sealed bytes.
#![cfg(madsim)]

use std::net::SocketAddr;
use std::time::Duration;

use chaos::middlebox::Protocol;
use chaos::rt::{self, net};
use chaos::scenario::{Options, Passed, Scenario, Trial};
use chaos::sighting::{Seen, Sighting};
use chaos::{Labels, RecordingOptions, Recordings};

const KEY_OF_B: &str = "k3yofb";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What a sealed datagram looks like; the second one says the same in other bytes.
fn sealed(counter: u8) -> Vec<u8> {
    vec![counter ^ 0x5a; 40]
}

fn decode(protocol: Protocol, bytes: &[u8], labels: &Labels) -> String {
    assert_eq!(protocol, Protocol::Udp);
    labels.at(bytes).unwrap_or("sealed").to_owned()
}

async fn two_hosts(trial: Trial) -> Passed {
    let world = trial.world;
    let (alpha, beta) = (world.host("alpha").addr("10.0.0.1"), world.host("beta").addr("10.0.0.2"));
    beta.spawn(|| async {
        rt::known_as(KEY_OF_B);
        let _open = net::UdpSocket::bind(addr("10.0.0.2:4000")).await.unwrap();
        std::future::pending::<()>().await;
    });
    world.sleep(Duration::from_millis(1)).await;
    for counter in 0..2 {
        let send = alpha.run(async move {
            let socket = net::UdpSocket::bind(addr("10.0.0.1:0")).await.unwrap();
            let contents = sealed(counter);
            rt::label(&contents, || format!("SUBMIT task {counter} to {KEY_OF_B}"));
            tracing::debug!(peer = KEY_OF_B, counter, "a task is sent");
            socket.writable().await.unwrap();
            let to = addr("10.0.0.2:4000");
            let datagram =
                net::Transmit { destination: to, contents: &contents, segment_size: None, src_ip: None };
            socket.try_send(&datagram).unwrap();
            assert_eq!(rt::labelled(&contents).is_some(), rt::labelled_within(&contents).len() == 25);
        });
        send.await.unwrap();
        world.sleep(Duration::from_secs(1)).await;
        world.partition(&[alpha], &[beta]);
    }
    Passed::default()
}

const TWO_HOSTS: Scenario =
    Scenario::new("two-hosts", "one hears the other", |trial| Box::pin(async { Ok(two_hosts(trial).await) }));

fn seen() -> Recordings {
    let watching = RecordingOptions {
        last: 10,
        decoder: Some(decode),
        logs: &["sightings"],
        ..RecordingOptions::default()
    };
    let (watched, seen) = TWO_HOSTS.run_watched(&Options::seed(1), &watching).unwrap();
    assert_eq!(watched, TWO_HOSTS.run(&Options::seed(1)), "a watched run is the run that nobody watches");
    seen
}

fn lines(seen: &Recordings, which: fn(&Sighting) -> bool) -> Vec<String> {
    let text = |sighting: &Sighting| sighting.to_string()[17..].to_owned();
    seen.sightings.iter().filter(|sighting| which(sighting)).map(text).collect()
}

#[test]
fn events_and_packets_name_hosts_and_tell_what_is_sealed() {
    let seen = seen();
    assert_eq!(
        lines(&seen, |sighting| matches!(sighting.what, Seen::Event(_))),
        [
            "event   alpha      a task is sent peer=beta counter=0",
            "event   alpha      a task is sent peer=beta counter=1"
        ]
    );
    let packets = lines(&seen, |sighting| matches!(sighting.what, Seen::Packet(_)));
    assert_eq!(packets.len(), 2, "{packets:?}");
    assert!(
        packets[0].starts_with("packet  alpha      > beta       UDP 40 B, delivered after "),
        "{packets:?}"
    );
    assert!(packets[0].ends_with(" ms: SUBMIT task 0 to beta"), "{packets:?}");
    let lost = "packet  alpha      > beta       UDP 40 B, dropped before beta (Partition) after 10.0 ms";
    assert_eq!(packets[1], format!("{lost}: SUBMIT task 1 to beta"));
    assert!(seen.sightings.is_sorted_by_key(|sighting| sighting.at));
    assert_eq!(seen.aliases.get(KEY_OF_B).map(String::as_str), Some("beta"));
    let mentioned: Vec<bool> = seen.sightings.iter().map(|sighting| sighting.mentions("beta")).collect();
    assert!(mentioned.iter().filter(|mentioned| **mentioned).count() >= 4, "{mentioned:?}");
}

#[test]
fn without_a_decoder_no_label_is_made() {
    let outcome = chaos::run(1, |world| async move {
        let alpha = world.host("alpha").addr("10.0.0.1");
        alpha.run(async { rt::label(&sealed(0), || panic!("nobody asks")) }).await.unwrap();
    });
    outcome.result.unwrap();
}
