//! A box's treatment of single packets at given times. Each test names the requirement that it checks.

mod firewall;
mod named;
mod ports;
mod room;
mod tcp;
mod udp;

use super::*;
use chaos::middlebox::TcpFlags;
use chaos::seed::{Rng, stream};
use std::net::SocketAddr;
use std::time::Duration;

const OUTER: &str = "203.0.113.1";

/// A box under test, with a clock and its outer addresses.
struct Bench {
    nat: NatBox,
    outer: Vec<IpAddr>,
    rng: Rng,
    now: Duration,
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Bench {
    fn new(config: NatConfig) -> Bench {
        Bench::with_outer(config, &[OUTER])
    }

    fn with_outer(config: NatConfig, outer: &[&str]) -> Bench {
        let outer = outer.iter().map(|ip| ip.parse().unwrap()).collect();
        Bench { nat: NatBox::new(config), outer, rng: stream(7, "bench"), now: Duration::ZERO }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn pass(&mut self, out: bool, mut packet: Packet) -> Result<Packet, Refusal> {
        let mut passage = Passage { now: self.now, outer: &self.outer, rng: &mut self.rng };
        let verdict = match out {
            true => self.nat.outbound(&mut passage, &mut packet),
            false => self.nat.inbound(&mut passage, &mut packet),
        };
        match verdict {
            BoxVerdict::Pass => Ok(packet),
            BoxVerdict::Refuse(refusal) => Err(refusal),
        }
    }

    /// Sends a datagram from inside; returns the source that it has outside.
    fn out(&mut self, src: &str, dst: &str) -> Result<SocketAddr, Refusal> {
        let packet = self.pass(true, Packet::udp(at(src), at(dst), b"out"))?;
        assert_eq!(packet.dst(), at(dst), "the destination stays");
        Ok(packet.src())
    }

    /// Sends a datagram from outside; returns the inner endpoint that it reaches.
    fn back(&mut self, src: &str, dst: SocketAddr) -> Result<SocketAddr, Refusal> {
        let packet = self.pass(false, Packet::udp(at(src), dst, b"back"))?;
        assert_eq!(packet.src(), at(src), "the source stays");
        Ok(packet.dst())
    }

    fn tcp_out(&mut self, src: &str, dst: &str, flags: TcpFlags) -> Result<SocketAddr, Refusal> {
        self.pass(true, Packet::tcp(at(src), at(dst), flags)).map(|packet| packet.src())
    }

    fn tcp_back(&mut self, src: &str, dst: SocketAddr, flags: TcpFlags) -> Result<SocketAddr, Refusal> {
        self.pass(false, Packet::tcp(at(src), dst, flags)).map(|packet| packet.dst())
    }
}
