//! The reflexive address of a socket: STUN (RFC 8489) with a hub as the server.
//!
//! `net::reach::stun::Client` is a state machine without a socket of its own: it returns the datagrams to send, with their
//! times, and takes the received ones. So it shares a socket with a peer's other traffic: the address that it learns
//! is the one at which other peers may reach this very socket.
//!
//! `cargo run -p nurl-examples --bin stun`

use std::io::IoSliceMut;

use nurl::internals::net::reach::stun::{Client, StunOutcome as Answer};
use nurl::rt::net::{RecvMeta, Transmit, UdpSocket};
use nurl::rt::{self, time};
use nurl_examples::{Outcome, soon};

#[tokio::main]
async fn main() -> Outcome {
    // A hub answers STUN on the UDP port with the same number as its TCP port.
    let (hub, _) = nurl::hub::serve_new_mesh("127.0.0.1:0").await?;
    println!("the hub answers STUN at {}", hub.addr());

    let socket = UdpSocket::bind("127.0.0.1:0".parse()?).await?;
    socket.writable().await?;
    let mut client = Client::new(rt::rng("stun example"));
    client.query(time::now(), hub.addr())?;

    let event = soon("an answer", ask(&mut client, &socket)).await??;
    let Answer::Reflexive { addr, rtt } = event.outcome else {
        return Err(format!("no address: {:?}", event.outcome).into());
    };
    println!("{} sees us at {addr}; the round trip took {rtt:?}", event.server);

    // Loopback has no NAT, so the outside and inside addresses agree. Behind a NAT they would differ.
    assert_eq!(addr, socket.local_addr()?);
    assert_eq!(hub.stats().hub.stun_answered, 1);
    println!("that is the address of our socket, so there is no NAT in between");
    hub.shutdown().await;
    Ok(())
}

/// Drives the client until its query has ended: send what is due, then wait for a datagram or for a timer.
async fn ask(
    client: &mut Client,
    socket: &UdpSocket,
) -> std::io::Result<nurl::internals::net::reach::stun::StunEvent> {
    loop {
        let now = time::now();
        client.handle_timeout(now);
        while let Some(request) = client.poll_transmit(now) {
            socket.try_send(&Transmit {
                destination: request.destination,
                contents: &request.contents,
                segment_size: None,
                src_ip: None,
            })?;
        }
        if let Some(event) = client.poll_event() {
            return Ok(event);
        }
        let (mut buffer, mut meta) = ([0; 2048], [RecvMeta::default()]);
        let mut buffers = [IoSliceMut::new(&mut buffer)];
        let arrived = rt::select! {
            received = socket.recv(&mut buffers, &mut meta) => received?,
            () = time::sleep_until(client.poll_timeout().unwrap_or(now)) => 0,
        };
        if arrived == 1 {
            client.handle_datagram(time::now(), meta[0].addr, &buffer[..meta[0].len]);
        }
    }
}
