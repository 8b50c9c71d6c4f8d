//! The phases of the connection, from the wait before a dial to the registration that stands.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::net::reach::control::Connection;
use crate::net::reach::relay::Limits;

/// The ping interval. Every NAT keeps an established TCP connection longer; a hub closes idle clients after 60 s.
pub const KEEPALIVE: Duration = Duration::from_secs(15);

/// How long after a ping the client waits for bytes from the hub. TCP retransmits a lost segment three times within
/// it, and any bytes count. With [`KEEPALIVE`] a half-open connection lives 20 s; a node pings every 4 s, so 9 s
/// there. A restarting NAT box drops the connections to all hubs at once, and cuts off peers that only relays reach
/// for so long.
pub const PONG_TIMEOUT: Duration = Duration::from_secs(5);

/// Unanswered pings that are remembered. The round trip of a forgotten ping isn't measured.
const MAX_PINGS: usize = 8;

pub(super) enum State {
    /// `absent`: the hub was absent (`DownReason::is_absence`), so the wait may be cut short.
    Waiting {
        until: Instant,
        absent: bool,
    },
    /// `begun`: the driver has taken the request to dial.
    Dialing {
        begun: bool,
        until: Instant,
    },
    Connected(Box<Stream>),
}

pub(super) struct Stream {
    pub(super) noise: Connection,
    /// Handshake, then registration, then up until the end.
    pub(super) phase: Phase,
}

pub(super) enum Phase {
    Handshake { until: Instant },
    Registering { until: Instant },
    Up(Up),
}

/// A registration that stands.
pub(super) struct Up {
    since: Instant,
    limits: Limits,
    heard: Instant,
    next_ping: Instant,
    /// Nonce and time of each unanswered ping.
    pings: BTreeMap<u64, Instant>,
    next_refresh: Option<Instant>,
}

impl State {
    /// The registration, if it stands.
    pub(super) fn up(&self) -> Option<&Up> {
        let State::Connected(stream) = self else { return None };
        let Phase::Up(up) = &stream.phase else { return None };
        Some(up)
    }

    /// The registration, if it stands.
    pub(super) fn up_mut(&mut self) -> Option<&mut Up> {
        let State::Connected(stream) = self else { return None };
        let Phase::Up(up) = &mut stream.phase else { return None };
        Some(up)
    }

    /// When the phase has something to do, or ends.
    pub(super) fn poll_timeout(&self) -> Instant {
        match self {
            State::Waiting { until, .. } | State::Dialing { until, .. } => *until,
            State::Connected(stream) => match &stream.phase {
                Phase::Handshake { until } | Phase::Registering { until } => *until,
                Phase::Up(up) => up.poll_timeout(),
            },
        }
    }
}

impl Up {
    /// A registration that begins, and whose round trip is measured at once.
    pub(super) fn new(now: Instant, limits: Limits) -> Up {
        Up { since: now, limits, heard: now, next_ping: now, pings: BTreeMap::new(), next_refresh: None }
    }

    /// The hub's limits.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How long the registration has stood.
    pub(super) fn stood(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Bytes have come from the hub.
    pub(super) fn on_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A ping is sent.
    pub(super) fn on_ping(&mut self, now: Instant, nonce: u64) {
        if self.pings.len() >= MAX_PINGS {
            // The oldest ping stays, because silence is measured from it.
            let newest = self.pings.last_key_value().map(|(nonce, _)| *nonce);
            newest.and_then(|nonce| self.pings.remove(&nonce));
        }
        self.pings.insert(nonce, now);
        self.next_ping = now + self.keepalive();
    }

    /// The round trip of an answered ping, unless it was forgotten.
    pub(super) fn on_pong(&mut self, now: Instant, nonce: u64) -> Option<Duration> {
        self.pings.remove(&nonce).map(|sent| now.saturating_duration_since(sent))
    }

    /// Sets when our record is to be refreshed.
    pub(super) fn refresh_at(&mut self, at: Option<Instant>) {
        self.next_refresh = at;
    }

    /// Whether the next ping is due.
    pub(super) fn is_ping_due(&self, now: Instant) -> bool {
        now >= self.next_ping
    }

    /// Whether our record is to be refreshed.
    pub(super) fn is_refresh_due(&self, now: Instant) -> bool {
        self.next_refresh.is_some_and(|at| now >= at)
    }

    /// Whether the connection counts as silent.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.silent_at().is_some_and(|at| now >= at)
    }

    fn poll_timeout(&self) -> Instant {
        let times = [Some(self.next_ping), self.next_refresh, self.silent_at()];
        times.into_iter().flatten().min().unwrap_or(self.next_ping)
    }

    /// The interval is at most a third of the hub's idle limit, and at least one second.
    fn keepalive(&self) -> Duration {
        KEEPALIVE.min(self.limits.idle / 3).max(Duration::from_secs(1))
    }

    /// When the connection counts as silent: `PONG_TIMEOUT` after the oldest unanswered ping, or after the last
    /// bytes received if they are later.
    fn silent_at(&self) -> Option<Instant> {
        let oldest = *self.pings.first_key_value()?.1;
        Some(oldest.max(self.heard) + PONG_TIMEOUT)
    }
}
