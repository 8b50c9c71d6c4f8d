//! A transport that is registered at a hub, whose end of the connection the test plays. Nothing takes any time.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

use rand_core::SeedableRng;

use super::super::Transport;
use crate::key::{PublicKey, SecretKey};
use crate::net::reach::control::Connection;
use crate::net::reach::control::frames::split;
use crate::net::reach::hub::HubLimits;
use crate::net::reach::relay::{self, Roles};
use crate::net::reach::rendezvous;
use crate::rt::Rng;

/// A frame that the hub has received.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Forward(PublicKey, Vec<u8>),
    Lookup(PublicKey),
}

/// A transport and the hub's end of its connection.
pub(super) struct Registered {
    node: Transport,
    hub: PublicKey,
    noise: Connection,
}

impl Deref for Registered {
    type Target = Transport;

    fn deref(&self) -> &Transport {
        &self.node
    }
}

impl DerefMut for Registered {
    fn deref_mut(&mut self) -> &mut Transport {
        &mut self.node
    }
}

impl Registered {
    /// Registers a transport at the hub with this key, whose ticket names it.
    pub(super) fn new(now: Instant, node: Transport, hub: &SecretKey) -> Registered {
        let noise = Connection::server(hub, &mut Rng::seed_from_u64(3)).unwrap();
        let mut registered = Registered { node, hub: hub.public(), noise };
        let client = registered.node.hub_client(&hub.public()).unwrap();
        assert!(client.poll_dial());
        client.handle_dialed(now);
        registered.heard(now);
        let limits = HubLimits::default().announced(Roles::ALL);
        registered.tell(now, &relay::Frame::Registered(limits).to_vec());
        registered
    }

    /// What the hub has received since the last call. It answers pings at once.
    pub(super) fn heard(&mut self, now: Instant) -> Vec<Heard> {
        let (mut heard, mut plaintext) = (Vec::new(), Vec::new());
        loop {
            let mut bytes = Vec::new();
            self.node.hub_client(&self.hub).unwrap().poll_write(&mut bytes);
            self.noise.handle_bytes(&bytes);
            let mut answers = Vec::new();
            while self.noise.poll_message(&mut plaintext).unwrap() {
                for frame in split(&plaintext) {
                    let (kind, body) = frame.unwrap();
                    match relay::Frame::decode(kind, body).unwrap() {
                        Some(relay::Frame::Forward { dst, payload }) => {
                            heard.push(Heard::Forward(dst, payload.to_vec()));
                        }
                        Some(relay::Frame::Ping { nonce }) => {
                            relay::Frame::Pong { nonce }.encode(&mut answers)
                        }
                        _ => {}
                    }
                    if let Ok(Some(rendezvous::Frame::Lookup { peer })) =
                        rendezvous::Frame::decode(kind, body)
                    {
                        heard.push(Heard::Lookup(peer));
                    }
                }
            }
            let mut back = Vec::new();
            self.noise.poll_write(&mut back);
            if !answers.is_empty() {
                self.noise.seal(&answers, &mut back).unwrap();
            }
            self.hear(now, &back);
            if bytes.is_empty() {
                return heard;
            }
        }
    }

    /// Gives frames of the hub to the transport.
    pub(super) fn tell(&mut self, now: Instant, plaintext: &[u8]) {
        let mut bytes = Vec::new();
        self.noise.seal(plaintext, &mut bytes).unwrap();
        self.hear(now, &bytes);
    }

    /// Relays datagrams to the transport, all in one message.
    pub(super) fn deliver(&mut self, now: Instant, src: PublicKey, datagrams: &[Vec<u8>]) {
        let mut plaintext = Vec::new();
        datagrams.iter().for_each(|payload| relay::Frame::Deliver { src, payload }.encode(&mut plaintext));
        self.tell(now, &plaintext);
    }

    /// The stream ends.
    pub(super) fn end(&mut self, now: Instant) {
        self.node.hub_client(&self.hub).unwrap().handle_end(now);
        self.node.pump(now);
    }

    fn hear(&mut self, now: Instant, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.node.hub_client(&self.hub).unwrap().handle_bytes(now, bytes);
            self.node.pump(now);
        }
    }
}
