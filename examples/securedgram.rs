//! Encrypted datagrams between two keys, over plain UDP sockets, and a peer that changes its address meanwhile.
//!
//! `net::secure::securedgram::Endpoint` is a state machine: it takes and returns sealed datagrams, and the program owns the
//! sockets. No hub is needed. The endpoint handles the handshake, keys, replay window and roaming.
//!
//! `cargo run -p nurl-examples --bin securedgram`

use std::io::IoSliceMut;
use std::time::Duration;

use nurl::hub::Hub;
use nurl::internals::net::secure::route::Route;
use nurl::internals::net::secure::securedgram::{Endpoint, EndpointConfig, Received, Source, channel};
use nurl::pass::{AuthorityKey, Level};
use nurl::rt::net::{RecvMeta, Transmit, UdpSocket};
use nurl::rt::{self, time};
use nurl::{PublicKey, SecretKey, Ticket};
use nurl_examples::{Outcome, soon};

#[tokio::main]
async fn main() -> Outcome {
    // Both peers hold the mesh's secret; the hub that the ticket names is not used here.
    let unused = Hub { key: PublicKey::from_bytes([0; 32]), addr: String::new() };
    let (authority, ticket) = Ticket::new_mesh(unused, time::unix_now(), &mut rt::rng("ticket"));
    let (mut alice, mut bob) =
        (Peer::bind(&authority, &ticket, 1).await?, Peer::bind(&authority, &ticket, 2).await?);
    alice.endpoint.add_candidates(time::now(), &bob.key, &[bob.socket.local_addr()?], None)?;

    let echo = soon("an echo", talk(&mut alice, &mut bob, b"hello, bob")).await??;
    assert_eq!(echo, b"HELLO, BOB");
    println!("bob answered {:?} to {}", String::from_utf8_lossy(&echo), alice.socket.local_addr()?);

    // Alice gets another socket, like a phone that leaves its Wi-Fi. Bob isn't told: an authentic datagram from a new
    // address makes him challenge that address, then switch to it.
    alice.socket = bound().await?;
    let moved_to = alice.socket.local_addr()?;
    alice.endpoint.on_network_change(time::now());
    println!("alice moves to {moved_to}");
    let mut echo = Vec::new();
    while bob.endpoint.path_state(&alice.key).and_then(|path| path.addr) != Some(moved_to) {
        echo = soon("an echo after the move", talk(&mut alice, &mut bob, b"still there?")).await??;
    }
    assert_eq!(echo, b"STILL THERE?");
    assert_eq!(bob.endpoint.stats().established, 1);
    println!("bob answered {:?} to {moved_to}, in the same session", String::from_utf8_lossy(&echo));
    Ok(())
}

struct Peer {
    key: PublicKey,
    endpoint: Endpoint,
    socket: UdpSocket,
    buffer: Vec<u8>,
}

async fn bound() -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(([127, 0, 0, 1], 0).into()).await?;
    socket.writable().await?;
    Ok(socket)
}

impl Peer {
    async fn bind(authority: &AuthorityKey, ticket: &Ticket, boot: u64) -> std::io::Result<Peer> {
        let secret = SecretKey::generate(&mut rt::rng("peer key"));
        let key = secret.public();
        // A hub that issues passes would give it one; here the authority signs it at once.
        let now = time::unix_now().as_secs() as u32;
        let credential = Some(authority.mint(key, Level::Worker, now));
        let config = EndpointConfig {
            credential,
            ..EndpointConfig::new(secret, ticket.mesh, ticket.generations(), boot)
        };
        let endpoint = Endpoint::new(config, time::now(), time::unix_now(), rt::rng("sessions"));
        Ok(Peer { key, endpoint, socket: bound().await?, buffer: vec![0; 2048] })
    }

    fn transmit(&self, route: Route, contents: &[u8]) {
        if let Route::Direct(destination) = route {
            // Datagrams may be lost, so an error is ignored.
            let _ =
                self.socket.try_send(&Transmit { destination, contents, segment_size: None, src_ip: None });
        }
    }

    /// Seals a body and sends it. Without a session this begins the handshake, and drops the body.
    fn say(&mut self, to: &PublicKey, body: &[u8]) {
        let mut sealed = Vec::new();
        if let Ok(routes) = self.endpoint.seal(time::now(), to, channel::APPLICATION, body, &mut sealed) {
            routes.iter().for_each(|route| self.transmit(route, &sealed));
        }
    }

    /// Sends the endpoint's own datagrams, then waits for one datagram and opens it.
    async fn turn(&mut self) -> std::io::Result<Option<(PublicKey, Vec<u8>)>> {
        let mut datagram = Vec::new();
        while let Some(outgoing) = self.endpoint.poll_transmit(&mut datagram) {
            self.transmit(outgoing.route, &datagram);
            datagram.clear();
        }
        let mut meta = [RecvMeta::default()];
        self.socket.recv(&mut [IoSliceMut::new(&mut self.buffer)], &mut meta).await?;
        let (source, bytes) = (Source::direct(meta[0].addr), &mut self.buffer[..meta[0].len]);
        match self.endpoint.handle_datagram(time::now(), source, bytes) {
            Some(Received::Data { peer, body, .. }) => Ok(Some((peer, bytes[body].to_vec()))),
            _ => Ok(None),
        }
    }
}

/// Alice sends a body until bob has answered in capitals.
async fn talk(alice: &mut Peer, bob: &mut Peer, body: &[u8]) -> std::io::Result<Vec<u8>> {
    loop {
        alice.say(&bob.key, body);
        let again = time::now() + Duration::from_millis(100);
        loop {
            rt::select! {
                heard = alice.turn() => if let Some((_, echo)) = heard? { return Ok(echo) },
                heard = bob.turn() => if let Some((peer, body)) = heard? {
                    bob.say(&peer, &body.to_ascii_uppercase());
                },
                () = time::sleep_until(again) => break,
            }
        }
        alice.endpoint.handle_timeout(time::now());
        bob.endpoint.handle_timeout(time::now());
    }
}
