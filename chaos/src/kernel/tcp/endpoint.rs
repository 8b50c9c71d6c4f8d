//! The smoltcp side of one connection: an interface with one address, one socket, and two queues of packets.
//!
//! **Its clocks.** smoltcp's retransmission timer is far shorter than Linux's and can't be set. So it gets another time when
//! it sends than when it receives: sends are on a day after tomorrow that stands still, where a timer that begins never runs
//! out, and [`retransmit`](Endpoint::retransmit) moves on from there. What comes in has the true time, for smoltcp's delayed
//! ACKs and its limit on challenge ACKs, and it is asked to send only when one of these, or data, are due. In TIME-WAIT
//! nothing is left to be sent again, so it has the true time for everything. smoltcp measures round trips of days by that,
//! but only for its own timer.

use super::reminder::LastAck;
use super::segment::Segment;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::{Duration as SmolDuration, Instant as SmolInstant};
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// The buffer of each direction in bytes, and so the largest window. It is the largest without window scale: smoltcp
/// 0.12 rounds a scaled window down, which moves its right edge back, and panics if the peer has filled the old
/// window.
const BUFFER_BYTES: usize = u16::MAX as usize;

/// How far the time of sends is ahead, at first. smoltcp keeps round trips in milliseconds as `u32`, and takes seven times
/// one without a check.
const AHEAD_NS: u64 = 2 * DAY_NS;

const DAY_NS: u64 = 24 * 3_600_000_000_000;

/// A step of the time of sends: longer than any timer of smoltcp.
const STEP_NS: u64 = 60_000_000_000;

/// The longest time that smoltcp's keepalive waits: a probe is sent at once, and the next one when it is asked for.
const PROBE: SmolDuration = SmolDuration::from_secs(10);

/// Packets on their way into and out of one connection: the device below the interface.
struct Queues {
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
    mtu: usize,
}

struct Incoming(Vec<u8>);
struct Outgoing<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        self.0.push(bytes);
        result
    }
}

impl Device for Queues {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Incoming, Outgoing<'_>)> {
        let bytes = self.incoming.pop_front()?;
        Some((Incoming(bytes), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// An interface with one address that reaches every destination directly.
fn interface(queues: &mut Queues, ip: IpAddr, random_seed: u64, now: SmolInstant) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = random_seed;
    let mut interface = Interface::new(config, queues, now);
    interface.update_ip_addrs(|addrs| {
        addrs.push(IpCidr::new(ip.into(), 0)).expect("an interface has room for one address");
    });
    interface
}

/// smoltcp's form of the world's time. Its resolution is a microsecond.
fn smol(now_ns: u64) -> SmolInstant {
    SmolInstant::from_micros((now_ns / 1000) as i64)
}

/// One connection's smoltcp interface and socket.
pub(super) struct Endpoint {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    queues: Queues,
    last_ack: Option<LastAck>,
    /// The time of sends.
    sends_ns: u64,
    /// How far the next retransmission is from there.
    step_ns: u64,
}

impl Endpoint {
    /// An endpoint with the address `ip`, on a path of this MTU.
    pub(super) fn new(ip: IpAddr, mtu: usize, random_seed: u64, now_ns: u64) -> Endpoint {
        let mut queues = Queues { incoming: VecDeque::new(), outgoing: Vec::new(), mtu };
        let interface = interface(&mut queues, ip, random_seed, smol(now_ns));
        let buffer = || SocketBuffer::new(vec![0; BUFFER_BYTES]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Reno);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        Endpoint {
            interface,
            sockets,
            socket,
            queues,
            last_ack: None,
            sends_ns: now_ns + AHEAD_NS,
            step_ns: 0,
        }
    }

    pub(super) fn connect(&mut self, local: SocketAddr, remote: SocketAddr) -> io::Result<()> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        socket.connect(self.interface.context(), remote, local).map_err(io::Error::other)
    }

    pub(super) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    pub(super) fn state(&self) -> State {
        self.sockets.get::<Socket<'_>>(self.socket).state()
    }

    /// A packet has come in, which is this segment if it is whole; the next poll handles it.
    pub(super) fn push(&mut self, packet: Vec<u8>, segment: Option<&Segment>) {
        self.last_ack = segment.map_or(self.last_ack, |segment| LastAck::after(self.last_ack, segment));
        self.queues.incoming.push_back(packet);
    }

    /// Handles what has come in, and sends what is due.
    pub(super) fn poll(&mut self, now_ns: u64) {
        let now = smol(now_ns);
        loop {
            let handled = self.interface.poll_ingress_single(now, &mut self.queues, &mut self.sockets);
            if matches!(handled, PollIngressSingleResult::None) {
                break;
            }
        }
        if self.sends_ns < now_ns + DAY_NS {
            // What is under way for a day without a break is sent again once.
            self.sends_ns = now_ns + AHEAD_NS;
        }
        if self.poll_at(now_ns).is_some_and(|at| at <= now) {
            let is_over = self.state() == State::TimeWait;
            self.send(if is_over { now_ns } else { self.sends_ns });
        }
    }

    fn send(&mut self, at_ns: u64) {
        self.interface.poll_egress(smol(at_ns), &mut self.queues, &mut self.sockets);
    }

    /// Lets smoltcp's timers run out, which send again what isn't acknowledged, if they run.
    pub(super) fn retransmit(&mut self) {
        self.step_ns += STEP_NS;
        self.send(self.sends_ns + self.step_ns);
    }

    /// Has smoltcp send again what isn't acknowledged, by duplicate ACKs.
    pub(super) fn remind(&mut self, now_ns: u64) {
        if let Some(ack) = self.last_ack {
            self.queues.incoming.extend(ack.duplicates());
            self.poll(now_ns);
        }
    }

    /// Probes a closed window by a keepalive, which smoltcp 0.12 doesn't by itself: it repeats the byte before the first that
    /// was never sent. So it is turned off at once: nothing may be under way when another one leaves.
    pub(super) fn probe(&mut self) {
        self.socket().set_keep_alive(Some(PROBE));
        self.retransmit();
        self.socket().set_keep_alive(None);
    }

    /// When smoltcp wants the next poll, in nanoseconds and rounded down to microseconds; its retransmission timer doesn't count.
    pub(super) fn poll_at_ns(&mut self, now_ns: u64) -> Option<u64> {
        let at = self.poll_at(now_ns).filter(|at| *at < smol(self.sends_ns))?;
        Some((at.total_micros().max(0) as u64) * 1000)
    }

    fn poll_at(&mut self, now_ns: u64) -> Option<SmolInstant> {
        self.interface.poll_at(smol(now_ns), &self.sockets)
    }

    /// The packets that the last poll made.
    pub(super) fn outgoing(&mut self) -> impl Iterator<Item = Vec<u8>> {
        self.queues.outgoing.drain(..)
    }
}

/// The answers to a segment without a connection: RST, unless it is an RST.
pub(super) fn refusal(now_ns: u64, ip: IpAddr, packet: Vec<u8>, mtu: usize) -> Vec<Vec<u8>> {
    let mut queues = Queues { incoming: VecDeque::from([packet]), outgoing: Vec::new(), mtu };
    let mut interface = interface(&mut queues, ip, 0, smol(now_ns));
    interface.poll(smol(now_ns), &mut queues, &mut SocketSet::new(Vec::new()));
    queues.outgoing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoltcp_sends_again_only_when_it_is_told() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let mut endpoint = Endpoint::new(addr("10.0.0.1:0").ip(), 1500, 7, 0);
        endpoint.connect(addr("10.0.0.1:4000"), addr("10.0.0.2:80")).unwrap();
        let sent_at = |endpoint: &mut Endpoint, now_ns| {
            endpoint.poll(now_ns);
            endpoint.outgoing().count()
        };
        assert_eq!(sent_at(&mut endpoint, 0), 1);
        assert!((1..24).all(|hour| sent_at(&mut endpoint, hour * DAY_NS / 24) == 0));
        assert_eq!(endpoint.poll_at_ns(DAY_NS), None);
        for _ in 0..3 {
            endpoint.retransmit();
            assert_eq!(endpoint.outgoing().count(), 1);
            assert_eq!(sent_at(&mut endpoint, DAY_NS - 1), 0);
        }
        let in_a_week: usize = (24..168).map(|hour| sent_at(&mut endpoint, hour * DAY_NS / 24)).sum();
        assert!(in_a_week <= 7, "{in_a_week}");
    }
}
