//! The ways to one peer: relays at once, else the one direct address that is known.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::key::PublicKey;
use crate::net::route::{Route, Routes};
use crate::rt::Rng;

/// The most candidates in one message, as in a rendezvous record.
pub const MAX_CANDIDATES: usize = 16;

/// The body of channel 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Asks for the same bytes back, by the way that this came.
    Challenge {
        /// Random.
        data: [u8; 8],
    },
    /// Gives them back.
    Response {
        /// As they came.
        data: [u8; 8],
    },
    /// Says only that its sender is there.
    Keepalive,
    /// Where its sender may be reached.
    Candidates {
        /// Grows with each change.
        generation: u32,
        /// At most [`MAX_CANDIDATES`].
        addrs: Vec<SocketAddr>,
    },
    /// Its sender moved here.
    Moved,
    /// Its sender ends the session.
    Close,
}

impl Control {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Control::Challenge { data } => {
                out.push(1);
                out.extend_from_slice(data);
            }
            Control::Response { data } => {
                out.push(2);
                out.extend_from_slice(data);
            }
            Control::Keepalive => out.push(3),
            Control::Candidates { generation, addrs } => {
                out.push(4);
                out.extend_from_slice(&generation.to_le_bytes());
                for addr in addrs.iter().take(MAX_CANDIDATES) {
                    match addr.ip() {
                        IpAddr::V4(ip) => {
                            out.push(4);
                            out.extend_from_slice(&ip.octets());
                        }
                        IpAddr::V6(ip) => {
                            out.push(6);
                            out.extend_from_slice(&ip.octets());
                        }
                    }
                    out.extend_from_slice(&addr.port().to_le_bytes());
                }
            }
            Control::Moved => out.push(5),
            Control::Close => out.push(6),
        }
    }

    /// Reads one message; none if it is malformed.
    pub fn decode(body: &[u8]) -> Option<Control> {
        let (kind, mut rest) = body.split_first()?;
        match kind {
            1 => Some(Control::Challenge { data: rest.try_into().ok()? }),
            2 => Some(Control::Response { data: rest.try_into().ok()? }),
            4 => {
                let (generation, tail) = rest.split_first_chunk::<4>()?;
                rest = tail;
                let mut addrs = Vec::new();
                while let Some((family, tail)) = rest.split_first() {
                    let (ip, tail): (IpAddr, _) = match family {
                        4 => tail.split_first_chunk::<4>().map(|(ip, tail)| ((*ip).into(), tail))?,
                        6 => tail.split_first_chunk::<16>().map(|(ip, tail)| ((*ip).into(), tail))?,
                        _ => return None,
                    };
                    let (port, tail) = tail.split_first_chunk::<2>()?;
                    if addrs.len() == MAX_CANDIDATES {
                        return None;
                    }
                    addrs.push(SocketAddr::new(ip, u16::from_le_bytes(*port)));
                    rest = tail;
                }
                Some(Control::Candidates { generation: u32::from_le_bytes(*generation), addrs })
            }
            3 if rest.is_empty() => Some(Control::Keepalive),
            5 if rest.is_empty() => Some(Control::Moved),
            6 if rest.is_empty() => Some(Control::Close),
            _ => None,
        }
    }
}

/// How paths are kept.
#[derive(Debug, Clone, Default)]
pub struct PathConfig {}

/// Something about the way to a peer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathEvent {
    /// The way that it is about.
    pub route: Option<Route>,
    /// What happened.
    pub kind: PathEventKind,
    /// Why.
    pub reason: Reason,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathEventKind {
    /// A direct way is in use now.
    Promoted,
    /// The direct way is out of use.
    Demoted,
    /// The direct way leads elsewhere now.
    Moved,
    /// No way is left.
    Lost,
}

/// Why a path is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No direct way is known.
    NoCandidate,
    /// The peer was heard there.
    Heard,
}

impl Reason {
    /// For machines.
    pub fn as_str(&self) -> &'static str {
        match self {
            Reason::NoCandidate => "no-candidate",
            Reason::Heard => "heard",
        }
    }
}

/// How a peer is reached now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathState {
    /// Whether the way is direct.
    pub direct: bool,
    /// The peer's address.
    pub addr: Option<SocketAddr>,
    /// Why it is so.
    pub reason: Reason,
    /// The round trip's time.
    pub rtt: Option<Duration>,
    /// Whether nothing is in doubt.
    pub settled: bool,
}

/// The ways to one peer.
#[derive(Debug)]
pub struct Paths {
    relays: Vec<PublicKey>,
    addr: Option<SocketAddr>,
    control: VecDeque<(Route, Control)>,
}

impl Paths {
    /// No way is known.
    pub fn new(_config: PathConfig, _now: Instant, _rng: Rng) -> Paths {
        Paths { relays: Vec::new(), addr: None, control: VecDeque::new() }
    }

    /// The hubs through which the peer can be reached.
    pub fn set_relays(&mut self, _now: Instant, hubs: &[PublicKey]) {
        self.relays = hubs.to_vec();
    }

    /// Our own addresses.
    pub fn set_local_candidates(&mut self, _now: Instant, _addrs: &[SocketAddr]) {}

    /// The peer's addresses, from outside.
    pub fn add_candidates(&mut self, _now: Instant, addrs: &[SocketAddr]) {
        self.addr = addrs.last().copied().or(self.addr);
    }

    /// There is a session.
    pub fn on_established(&mut self, _now: Instant) {}

    /// There is none.
    pub fn on_closed(&mut self, _now: Instant) {}

    /// An authenticated datagram came.
    pub fn on_authentic(&mut self, _: Instant, source: Route, newest_on_leg: bool, _len: usize, _app: bool) {
        if let (Route::Direct(addr), true) = (source, newest_on_leg) {
            self.addr = Some(addr);
        }
    }

    /// A control message came.
    pub fn on_control(&mut self, _now: Instant, source: Route, _newest: bool, control: Control) {
        if let Control::Challenge { data } = control
            && self.control.len() < MAX_CANDIDATES
        {
            self.control.push_back((source, Control::Response { data }));
        }
    }

    /// Something was sealed.
    pub fn on_sent(&mut self, _now: Instant, _len: usize, _app: bool) {}

    /// Our own network changed.
    pub fn on_network_change(&mut self, _now: Instant) {}

    /// Where application data goes now.
    pub fn routes(&self) -> Routes {
        match (self.relays.first(), self.addr) {
            (Some(hub), _) => Routes::one(Route::Relay(*hub)),
            (None, Some(addr)) => Routes::one(Route::Direct(addr)),
            (None, None) => Routes::NONE,
        }
    }

    /// Whether an unvalidated candidate may be sent that much.
    pub fn may_send(&self, _route: &Route, _len: usize) -> bool {
        true
    }

    /// The next control message, for exactly that route.
    pub fn poll_control(&mut self) -> Option<(Route, Control)> {
        self.control.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<PathEvent> {
        None
    }

    /// When to call [`handle_timeout`](Paths::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// How the peer is reached.
    pub fn state(&self) -> PathState {
        let direct = self.relays.is_empty() && self.addr.is_some();
        let reason = if direct { Reason::Heard } else { Reason::NoCandidate };
        PathState { direct, addr: self.addr, reason, rtt: None, settled: true }
    }
}
