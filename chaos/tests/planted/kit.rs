//! What the protocols are made of: sockets that carry three numbers, hosts, and random waits.

use chaos::rt::Rng;
use chaos::rt::net::{RecvMeta, Transmit, UdpSocket};
use chaos::rt::time;
use chaos::scenario::Trial;
use chaos::{Host, LinkConfig, Rate};
use rand_core::Rng as _;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PORT: u16 = 7000;

/// What is sent: its kind, and two numbers.
pub(super) type Message = [u64; 3];

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The programs' socket.
pub(super) struct Socket(UdpSocket);

impl Socket {
    pub(super) async fn bound() -> Socket {
        Socket(UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], PORT))).await.unwrap())
    }

    pub(super) fn send(&self, destination: SocketAddr, message: Message) {
        let contents: Vec<u8> = message.iter().flat_map(|number| number.to_le_bytes()).collect();
        let _ =
            self.0.try_send(&Transmit { destination, contents: &contents, segment_size: None, src_ip: None });
    }

    /// The next message, and its sender.
    pub(super) async fn next(&self) -> (Message, SocketAddr) {
        let (mut buffer, mut meta) = ([0; 24], [RecvMeta::default()]);
        while self.0.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta).await.is_err() {}
        let number = |n: usize| u64::from_le_bytes(std::array::from_fn(|byte| buffer[8 * n + byte]));
        (std::array::from_fn(number), meta[0].addr)
    }

    /// The next message; `None` after `wait` if there is none.
    pub(super) async fn next_within(&self, wait: Duration) -> Option<(Message, SocketAddr)> {
        time::timeout(wait, self.next()).await.ok()
    }

    /// Waits for exactly this message; whether it comes in time.
    pub(super) async fn hears(&self, message: Message, wait: Duration) -> bool {
        time::timeout(wait, async { while self.next().await.0 != message {} }).await.is_ok()
    }
}

/// Hosts of these names, and their addresses.
pub(super) fn hosts<const N: usize>(trial: &Trial, names: [&str; N]) -> [(Host, SocketAddr); N] {
    let mut number = 0;
    names.map(|name| {
        number += 1;
        let host = trial.world.host(name).addr(&format!("10.0.0.{number}"));
        (host, SocketAddr::new(host.ip(), PORT))
    })
}

/// Links of 10 ms that lose so many percent.
pub(super) fn lossy(percent: u32) -> LinkConfig {
    LinkConfig { latency: ms(10), udp_loss: Rate::percent(percent), ..LinkConfig::ideal() }
}

/// A wait between two bounds.
pub(super) async fn pause(rng: &mut Rng, least: Duration, most: Duration) {
    time::sleep(least + Duration::from_nanos(rng.next_u64() % (most - least).as_nanos() as u64)).await;
}

/// What the property needs to know of the programs.
pub(super) type Shared<T> = Arc<Mutex<T>>;
