//! The hub and its client on real loopback sockets.
#![cfg(not(feature = "sim"))]

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::key::{PublicKey, SecretKey};
use crate::mesh::{self, Namespace};
use crate::net::hub_client::{self, HubClientConfig, HubCommand, HubEvent};
use crate::net::relay::Roles;
use crate::rt::sync::mpsc;
use crate::rt::time;

const HOME: Namespace = Namespace::from_bytes([1; 32]);
const PATIENCE: Duration = Duration::from_secs(10);

fn run<F: Future<Output = ()>>(body: F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body);
}

fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn config(listen: &str) -> HubConfig {
    HubConfig {
        listen: listen.parse().unwrap(),
        key: secret(100),
        namespaces: vec![HOME],
        roles: Roles::ALL,
        limits: HubLimits::default(),
    }
}

async fn start() -> HubHandle {
    serve(config("127.0.0.1:0")).await.unwrap()
}

struct Client {
    key: PublicKey,
    commands: mpsc::Sender<HubCommand>,
    events: mpsc::Receiver<(PublicKey, Vec<HubEvent>)>,
    backlog: std::collections::VecDeque<HubEvent>,
}

impl Client {
    fn at(hub: mesh::Hub, n: u8) -> Client {
        let key = secret(n);
        let config = HubClientConfig { hub, key: key.clone(), namespace: HOME, boot: n.into() };
        let (commands, events) = hub_client::spawn(config);
        Client { key: key.public(), commands, events, backlog: Default::default() }
    }

    fn of(hub: &HubHandle, n: u8) -> Client {
        Client::at(mesh::Hub { key: hub.key(), addr: hub.addr().to_string() }, n)
    }

    async fn up(hub: &HubHandle, n: u8) -> Client {
        let mut client = Client::of(hub, n);
        client.until(|event| matches!(event, HubEvent::Up { .. })).await;
        client
    }

    async fn send(&self, command: HubCommand) {
        self.commands.send(command).await.unwrap();
    }

    async fn forward(&self, dst: &Client, text: &'static str) {
        let payload = Bytes::from_static(text.as_bytes());
        self.send(HubCommand::Forward { dst: dst.key, payload }).await;
    }

    /// Steps over events until one fits.
    async fn until(&mut self, fits: impl Fn(&HubEvent) -> bool) -> HubEvent {
        let found = async {
            loop {
                while let Some(event) = self.backlog.pop_front() {
                    if fits(&event) {
                        return event;
                    }
                }
                let (_, batch) = self.events.recv().await.expect("the client runs");
                self.backlog.extend(batch);
            }
        };
        time::timeout(PATIENCE, found).await.expect("the event comes in time")
    }

    async fn datagram(&mut self) -> (PublicKey, Bytes) {
        match self.until(|event| matches!(event, HubEvent::Datagram { .. })).await {
            HubEvent::Datagram { src, payload } => (src, payload),
            _ => unreachable!("filtered"),
        }
    }
}

#[test]
fn two_clients_register_and_forward_both_ways() {
    run(async {
        let hub = start().await;
        let (mut a, mut b) = (Client::up(&hub, 1).await, Client::up(&hub, 2).await);
        a.forward(&b, "to b").await;
        assert_eq!(b.datagram().await, (a.key, Bytes::from_static(b"to b")));
        b.forward(&a, "to a").await;
        assert_eq!(a.datagram().await, (b.key, Bytes::from_static(b"to a")));
        assert_eq!(hub.stats().relay.forwarded, 2);
        hub.shutdown().await;
    });
}
