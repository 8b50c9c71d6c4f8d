//! The client's state, without sockets or clocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::backoff::Backoff;
use super::{ClientStats, DownReason, HubClientConfig, HubCommand, HubEvent};
use crate::key::PublicKey;
use crate::net::reach::control::frames::split;
use crate::net::reach::control::{Connection, MAX_PLAINTEXT_BYTES};
use crate::net::reach::relay::frame::{DELIVER_OVERHEAD_BYTES, MAX_DATAGRAM_BYTES, VERSION};
use crate::net::reach::relay::{self, CloseReason, GroupTag, Limits};
use crate::net::reach::rendezvous::{self, MAX_RECORD_BYTES, RECORD_TTL, SealedRecord, SeqMemory};
use crate::rt::Rng;

/// How long a dial may take: name resolution, all addresses, TCP.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(6);

/// How long the handshake may take, and the registration after it: two round trips each, on a very slow link.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The ping interval. Every NAT keeps an established TCP connection longer; a hub closes idle clients after 60 s.
pub const KEEPALIVE: Duration = Duration::from_secs(15);

/// How long after a ping the client waits for bytes from the hub. TCP retransmits a lost segment three times within
/// it, and any bytes count. With [`KEEPALIVE`] a half-open connection lives 20 s; a node pings every 4 s, so 9 s
/// there. A restarting NAT box drops the connections to all hubs at once, and cuts off peers that only relays reach
/// for so long.
pub const PONG_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that lasted so long was a success: the next failure restarts the back-off.
const STABLE: Duration = Duration::from_secs(5);

/// How long this hub is tried often after the last hub was lost. A hub that restarts is back within seconds; after a
/// longer absence, an operator has probably noticed.
pub const URGENT_FOR: Duration = Duration::from_secs(120);

/// A connection that wasn't replaced for so long resets the back-off after replacements.
const UNCHALLENGED: Duration = Duration::from_secs(300);

/// Bytes of datagrams that wait for the stream; the hub's queue for us is as large. The oldest datagrams go first.
pub const OUTBOX_BYTES: usize = 256 * 1024;

/// Requests that wait for the stream.
pub const MAX_REQUESTS: usize = 1024;

/// The most groups that we join; the hub may allow fewer.
pub const MAX_GROUPS: usize = 64;

/// Unanswered pings that are remembered. The round trip of a forgotten ping isn't measured.
const MAX_PINGS: usize = 8;

/// Bytes of datagrams that wait for the layer above; further datagrams are dropped.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// Events that wait for the layer above.
pub const MAX_EVENTS: usize = 8192;

enum Queued {
    Forward { dst: PublicKey, payload: Bytes },
    Group { tag: GroupTag, payload: Bytes },
}

impl Queued {
    fn bytes(&self) -> usize {
        let (Queued::Forward { payload, .. } | Queued::Group { payload, .. }) = self;
        payload.len() + DELIVER_OVERHEAD_BYTES
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Queued::Forward { dst, payload } => relay::Frame::Forward { dst: *dst, payload }.encode(out),
            Queued::Group { tag, payload } => relay::Frame::GroupSend { tag: *tag, payload }.encode(out),
        }
    }
}

enum State {
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

struct Stream {
    noise: Connection,
    /// Handshake, then registration, then up until the end.
    phase: Phase,
}

enum Phase {
    Handshake { until: Instant },
    Registering { until: Instant },
    Up(Up),
}

struct Up {
    since: Instant,
    limits: Limits,
    heard: Instant,
    next_ping: Instant,
    /// Nonce and time of each unanswered ping.
    pings: BTreeMap<u64, Instant>,
    next_refresh: Option<Instant>,
}

/// The client's state machine.
pub struct HubClient {
    config: HubClientConfig,
    rng: Rng,
    state: State,
    backoff: Backoff,
    /// Until when this hub is tried often; `None` while another hub is up.
    urgent_until: Option<Instant>,
    groups: BTreeSet<GroupTag>,
    record: Option<(u64, Bytes)>,
    seqs: SeqMemory,
    next_nonce: u64,
    requests: VecDeque<Vec<u8>>,
    outbox: VecDeque<Queued>,
    outbox_bytes: usize,
    events: VecDeque<HubEvent>,
    event_bytes: usize,
    plaintext: Vec<u8>,
    stats: ClientStats,
}

impl HubClient {
    /// A client that is about to dial.
    pub fn new(config: HubClientConfig, now: Instant, rng: Rng) -> HubClient {
        HubClient {
            config,
            rng,
            state: State::Dialing { begun: false, until: now + DIAL_TIMEOUT },
            backoff: Backoff::default(),
            urgent_until: Some(now + URGENT_FOR),
            groups: BTreeSet::new(),
            record: None,
            seqs: SeqMemory::default(),
            next_nonce: 0,
            requests: VecDeque::new(),
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            events: VecDeque::new(),
            event_bytes: 0,
            plaintext: Vec::new(),
            stats: ClientStats::default(),
        }
    }

    /// The counters so far.
    pub fn stats(&self) -> ClientStats {
        ClientStats { forgotten_records: self.seqs.forgotten(), ..self.stats }
    }

    /// The hub as configured.
    pub fn hub(&self) -> &crate::mesh::Hub {
        &self.config.hub
    }

    /// Whether to begin a dial; true once for each dial.
    pub fn poll_dial(&mut self) -> bool {
        match &mut self.state {
            State::Dialing { begun: begun @ false, .. } => {
                *begun = true;
                self.stats.dials += 1;
                true
            }
            _ => false,
        }
    }

    /// Whether [`poll_dial`](HubClient::poll_dial) would return true.
    pub fn is_dial_due(&self) -> bool {
        matches!(self.state, State::Dialing { begun: false, .. })
    }

    /// Whether the dial that began is still wanted.
    pub fn wants_dial(&self) -> bool {
        matches!(self.state, State::Dialing { begun: true, .. })
    }

    /// Whether the stream is still wanted; if not, the driver drops it.
    pub fn wants_stream(&self) -> bool {
        matches!(self.state, State::Connected(_))
    }

    /// The dial succeeded and the stream is open.
    pub fn handle_dialed(&mut self, now: Instant) {
        if !self.wants_dial() {
            return;
        }
        match Connection::client(&self.config.key, &self.config.hub.key, &mut self.rng) {
            Ok(noise) => {
                let phase = Phase::Handshake { until: now + HANDSHAKE_TIMEOUT };
                self.state = State::Connected(Box::new(Stream { noise, phase }));
            }
            // The ticket's key is no valid public key.
            Err(_) => self.down(now, DownReason::NotTheHub),
        }
    }

    /// The dial failed.
    pub fn handle_dial_failed(&mut self, now: Instant) {
        if self.wants_dial() {
            self.down(now, DownReason::Unreachable);
        }
    }

    /// The stream has ended.
    pub fn handle_end(&mut self, now: Instant) {
        let State::Connected(stream) = &self.state else { return };
        let reason = match stream.phase {
            Phase::Handshake { .. } => DownReason::NotTheHub,
            _ => DownReason::Lost,
        };
        self.down(now, reason);
    }

    fn down(&mut self, now: Instant, reason: DownReason) {
        if let State::Connected(stream) = &self.state
            && let Phase::Up(up) = &stream.phase
        {
            let stood = now.saturating_duration_since(up.since);
            if stood >= STABLE {
                self.backoff.succeeded();
                self.urgent_again(now);
            }
            if stood >= UNCHALLENGED {
                self.backoff.unchallenged();
            }
        }
        let retry_in = match reason {
            DownReason::Closed(CloseReason::Replaced) => {
                self.stats.replaced += 1;
                tracing::warn!(
                    target: "nurl::hub", hub = %self.config.hub.addr,
                    "another process registered with this node's key; if that wasn't this node itself from \
                     another network, give one of the two a key of its own"
                );
                self.push_event(HubEvent::Replaced);
                self.backoff.after_replaced(&mut self.rng)
            }
            DownReason::NetworkChanged => {
                self.urgent_again(now);
                self.backoff.succeeded();
                self.backoff.unchallenged();
                Duration::ZERO
            }
            _ if reason.is_absence() && self.is_urgent(now) => {
                let wait = self.backoff.after_urgent_failure(&mut self.rng);
                wait.saturating_sub(self.dialing_for(now))
            }
            _ => self.backoff.after_failure(&mut self.rng),
        };
        self.state = match retry_in {
            Duration::ZERO => State::Dialing { begun: false, until: now + DIAL_TIMEOUT },
            wait => State::Waiting { until: now + wait, absent: reason.is_absence() },
        };
        self.stats.dropped_down += self.outbox.len() as u64;
        self.stats.dropped_requests += self.requests.len() as u64;
        self.outbox.clear();
        self.outbox_bytes = 0;
        self.requests.clear();
        self.push_event(HubEvent::Down { reason, retry_in });
    }

    fn is_urgent(&self, now: Instant) -> bool {
        self.urgent_until.is_some_and(|until| now < until)
    }

    /// The hub was up, or our network has changed: the time of frequent attempts begins anew.
    fn urgent_again(&mut self, now: Instant) {
        self.urgent_until = self.urgent_until.map(|_| now + URGENT_FOR);
    }

    /// How long the current dial has taken: the back-off counts from the beginnings of attempts.
    fn dialing_for(&self, now: Instant) -> Duration {
        match self.state {
            State::Dialing { until, .. } => DIAL_TIMEOUT.saturating_sub(until.saturating_duration_since(now)),
            _ => Duration::ZERO,
        }
    }

    /// Cuts a long wait short when no other hub is up.
    fn others_up(&mut self, now: Instant, up: bool) {
        if up {
            self.urgent_until = None;
        } else if self.urgent_until.is_none() {
            self.urgent_until = Some(now + URGENT_FOR);
            if let State::Waiting { until, absent: true } = &mut self.state {
                *until = (*until).min(now + self.backoff.urgent_wait(&mut self.rng));
            }
        }
    }

    fn up(&self) -> Option<&Up> {
        match &self.state {
            State::Connected(stream) => match &stream.phase {
                Phase::Up(up) => Some(up),
                _ => None,
            },
            _ => None,
        }
    }

    fn up_mut(&mut self) -> Option<&mut Up> {
        match &mut self.state {
            State::Connected(stream) => match &mut stream.phase {
                Phase::Up(up) => Some(up),
                _ => None,
            },
            _ => None,
        }
    }

    /// Handles a command of the layer above.
    pub fn handle_command(&mut self, now: Instant, command: HubCommand) {
        match command {
            HubCommand::Forward { dst, payload } => self.queue(Queued::Forward { dst, payload }),
            HubCommand::GroupSend { tag, payload } => self.queue(Queued::Group { tag, payload }),
            HubCommand::GroupJoin { tag } => self.join(tag),
            HubCommand::GroupLeave { tag } => {
                if self.groups.remove(&tag) {
                    self.request(relay::Frame::GroupLeave { tag }.to_vec());
                }
            }
            HubCommand::Publish { seq, sealed } => {
                if sealed.len() > MAX_RECORD_BYTES {
                    let result = rendezvous::PublishResult::TooLarge;
                    self.push_event(HubEvent::Published { seq, result });
                    return;
                }
                self.record = Some((seq, sealed));
                self.publish(now);
            }
            HubCommand::Withdraw => {
                if self.record.take().is_some() {
                    self.request(rendezvous::Frame::Withdraw.to_vec());
                    if let Some(up) = self.up_mut() {
                        up.next_refresh = None;
                    }
                }
            }
            HubCommand::Lookup { peer } => self.request(rendezvous::Frame::Lookup { peer }.to_vec()),
            HubCommand::List { max } => self.request(rendezvous::Frame::List { max }.to_vec()),
            HubCommand::Ping => self.ping(now),
            HubCommand::NetworkChanged | HubCommand::InterfacesChanged(_) => {
                self.down(now, DownReason::NetworkChanged);
            }
            HubCommand::OthersUp(up) => self.others_up(now, up),
            // The requester may have dropped its receiver; then the answer is dropped too.
            HubCommand::Stats(reply) => drop(reply.send(self.stats())),
        }
    }

    fn queue(&mut self, datagram: Queued) {
        let Some(up) = self.up() else {
            self.stats.dropped_down += 1;
            return;
        };
        let limit = (up.limits.datagram_bytes as usize).min(MAX_DATAGRAM_BYTES);
        if datagram.bytes() - DELIVER_OVERHEAD_BYTES > limit {
            self.stats.dropped_too_large += 1;
            return;
        }
        self.outbox_bytes += datagram.bytes();
        self.outbox.push_back(datagram);
        while self.outbox_bytes > OUTBOX_BYTES
            && let Some(oldest) = self.outbox.pop_front()
        {
            self.outbox_bytes -= oldest.bytes();
            self.stats.dropped_queue_full += 1;
        }
    }

    fn join(&mut self, tag: GroupTag) {
        let limit = self.up().map_or(MAX_GROUPS, |up| MAX_GROUPS.min(up.limits.groups.into()));
        if !self.groups.contains(&tag) && self.groups.len() >= limit {
            self.stats.refused_groups += 1;
            self.push_event(HubEvent::GroupRefused { tag });
            return;
        }
        if self.groups.insert(tag) {
            self.request(relay::Frame::GroupJoin { tag }.to_vec());
        }
    }

    fn publish(&mut self, now: Instant) {
        let Some((seq, sealed)) = self.record.clone() else { return };
        let ttl = self.up().map_or(RECORD_TTL, |up| up.limits.record_ttl.min(RECORD_TTL));
        self.request(rendezvous::Frame::Publish { seq, ttl, sealed: &sealed }.to_vec());
        if let Some(up) = self.up_mut() {
            up.next_refresh = Some(now + (ttl / 3).max(Duration::from_secs(1)));
        }
    }

    fn ping(&mut self, now: Instant) {
        let nonce = self.next_nonce;
        self.next_nonce += 1;
        let Some(up) = self.up_mut() else { return };
        if up.pings.len() >= MAX_PINGS {
            // The oldest ping stays, because silence is measured from it.
            let newest = up.pings.last_key_value().map(|(nonce, _)| *nonce);
            newest.and_then(|nonce| up.pings.remove(&nonce));
        }
        up.pings.insert(nonce, now);
        up.next_ping = now + up.keepalive();
        self.request(relay::Frame::Ping { nonce }.to_vec());
    }

    /// Queues a request. [`restore`](Self::restore), or the layer above, which sees [`HubEvent::Down`], repeats
    /// requests that are lost with the connection.
    fn request(&mut self, frame: Vec<u8>) {
        if self.up().is_none() {
            return;
        }
        if self.requests.len() >= MAX_REQUESTS {
            self.stats.dropped_requests += 1;
            return;
        }
        self.requests.push_back(frame);
    }

    /// Handles bytes of the stream.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        let State::Connected(stream) = &mut self.state else { return };
        stream.noise.handle_bytes(bytes);
        if let Phase::Up(up) = &mut stream.phase {
            up.heard = now;
        }
        let mut plaintext = std::mem::take(&mut self.plaintext);
        while let State::Connected(stream) = &mut self.state {
            let polled = stream.noise.poll_message(&mut plaintext);
            if let Phase::Handshake { .. } = stream.phase
                && stream.noise.peer().is_some()
            {
                stream.phase = Phase::Registering { until: now + HANDSHAKE_TIMEOUT };
                self.requests.push_back(
                    relay::Frame::Register {
                        version: VERSION,
                        namespace: self.config.namespace,
                        boot: self.config.boot,
                    }
                    .to_vec(),
                );
            }
            match polled {
                Ok(true) => self.handle_plaintext(now, &plaintext),
                Ok(false) => break,
                Err(_) => {
                    let reason = match stream.phase {
                        Phase::Handshake { .. } => DownReason::NotTheHub,
                        _ => DownReason::Protocol,
                    };
                    self.down(now, reason);
                }
            }
        }
        self.plaintext = plaintext;
    }

    fn handle_plaintext(&mut self, now: Instant, plaintext: &[u8]) {
        for frame in split(plaintext) {
            let handled = frame.ok().and_then(|(kind, body)| self.handle_frame(now, kind, body));
            if handled.is_none() {
                self.down(now, DownReason::Protocol);
            }
            if !self.wants_stream() {
                return;
            }
        }
    }

    /// `None`: a hub never sends this frame.
    fn handle_frame(&mut self, now: Instant, kind: u8, body: &[u8]) -> Option<()> {
        if let Some(frame) = relay::Frame::decode(kind, body).ok()? {
            return self.relay_frame(now, frame);
        }
        if let Some(frame) = rendezvous::Frame::decode(kind, body).ok()? {
            return self.rendezvous_frame(now, frame);
        }
        self.stats.unknown_frames += 1;
        Some(())
    }

    fn relay_frame(&mut self, now: Instant, frame: relay::Frame<'_>) -> Option<()> {
        match frame {
            relay::Frame::Registered(limits) => self.registered(now, limits),
            relay::Frame::Close(reason) => self.down(now, DownReason::Closed(reason)),
            relay::Frame::Ping { nonce } => self.request(relay::Frame::Pong { nonce }.to_vec()),
            relay::Frame::Pong { nonce } => {
                if let Some(sent) = self.up_mut().and_then(|up| up.pings.remove(&nonce)) {
                    self.push_event(HubEvent::Pong { rtt: now.saturating_duration_since(sent) });
                }
            }
            relay::Frame::Deliver { src, payload } => {
                self.stats.received += 1;
                self.push_datagram(payload.len(), || HubEvent::Datagram {
                    src,
                    payload: Bytes::copy_from_slice(payload),
                });
            }
            relay::Frame::GroupDeliver { src, tag, payload } => {
                self.stats.received += 1;
                self.push_datagram(payload.len(), || HubEvent::Group {
                    src,
                    tag,
                    payload: Bytes::copy_from_slice(payload),
                });
            }
            relay::Frame::PeerGone { peer } => self.push_event(HubEvent::PeerGone { peer }),
            relay::Frame::QueueFull { peer } => self.push_event(HubEvent::QueueFull { peer }),
            _ => return None,
        }
        Some(())
    }

    fn rendezvous_frame(&mut self, now: Instant, frame: rendezvous::Frame<'_>) -> Option<()> {
        match frame {
            rendezvous::Frame::Published { seq, result } => {
                self.push_event(HubEvent::Published { seq, result });
            }
            rendezvous::Frame::Record(record) => {
                if self.is_newest(now, &record) {
                    self.push_event(HubEvent::Record(record));
                }
            }
            rendezvous::Frame::Records(mut records) => {
                records.retain(|record| self.is_newest(now, record));
                self.push_event(HubEvent::Records(records));
            }
            rendezvous::Frame::NoRecord { peer } => self.push_event(HubEvent::NoRecord { peer }),
            _ => return None,
        }
        Some(())
    }

    fn is_newest(&mut self, now: Instant, record: &SealedRecord) -> bool {
        let newest = self.seqs.accept(now, record.key, record.seq);
        self.stats.stale_records += u64::from(!newest);
        newest
    }

    fn registered(&mut self, now: Instant, limits: Limits) {
        let State::Connected(stream) = &mut self.state else { return };
        if !matches!(stream.phase, Phase::Registering { .. }) {
            return;
        }
        stream.phase = Phase::Up(Up {
            since: now,
            limits,
            heard: now,
            next_ping: now,
            pings: BTreeMap::new(),
            next_refresh: None,
        });
        self.stats.ups += 1;
        self.push_event(HubEvent::Up { limits });
        self.restore(now);
    }

    /// Restores groups and record at the hub after a reconnect, and measures the first round trip.
    fn restore(&mut self, now: Instant) {
        for tag in self.groups.clone() {
            self.request(relay::Frame::GroupJoin { tag }.to_vec());
        }
        self.publish(now);
        self.ping(now);
    }

    /// Appends the next bytes for the stream: at most one message, so that one write carries everything that waits.
    pub fn poll_write(&mut self, out: &mut Vec<u8>) {
        let State::Connected(stream) = &mut self.state else { return };
        stream.noise.poll_write(out);
        if stream.noise.peer().is_none() {
            return;
        }
        let mut plaintext = std::mem::take(&mut self.plaintext);
        plaintext.clear();
        while let Some(frame) = self.requests.front()
            && plaintext.len() + frame.len() <= MAX_PLAINTEXT_BYTES
        {
            plaintext.extend_from_slice(frame);
            self.requests.pop_front();
        }
        while let Some(datagram) = self.outbox.front()
            && plaintext.len() + datagram.bytes() <= MAX_PLAINTEXT_BYTES
        {
            datagram.encode(&mut plaintext);
            self.outbox_bytes -= datagram.bytes();
            self.outbox.pop_front();
            self.stats.sent += 1;
        }
        // `seal` can't fail here: nonces last for 2^64 messages, and the handshake is done.
        if !plaintext.is_empty() && stream.noise.seal(&plaintext, out).is_err() {
            debug_assert!(false, "an open connection seals");
        }
        self.plaintext = plaintext;
    }

    /// Appends the queued bytes and CLOSE, if the handshake is done. Nothing else is sent after them.
    pub fn poll_goodbye(&mut self, out: &mut Vec<u8>) {
        let waiting = |client: &HubClient| client.requests.len() + client.outbox.len();
        let mut before = usize::MAX;
        while waiting(self) < before {
            before = waiting(self);
            self.poll_write(out);
        }
        if let State::Connected(stream) = &mut self.state {
            let frame = relay::Frame::Close(CloseReason::Bye).to_vec();
            // Before the handshake is done, CLOSE can't be sealed.
            let _ = stream.noise.seal(&frame, out);
        }
    }

    /// When [`handle_timeout`](HubClient::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Instant {
        match &self.state {
            State::Waiting { until, .. } | State::Dialing { until, .. } => *until,
            State::Connected(stream) => match &stream.phase {
                Phase::Handshake { until } | Phase::Registering { until } => *until,
                Phase::Up(up) => {
                    let times = [Some(up.next_ping), up.next_refresh, up.silent_at()];
                    times.into_iter().flatten().min().unwrap_or(up.next_ping)
                }
            },
        }
    }

    /// Handles the timeouts that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.state {
            State::Waiting { until, .. } if now >= *until => {
                self.state = State::Dialing { begun: false, until: now + DIAL_TIMEOUT };
            }
            State::Dialing { until, .. } if now >= *until => self.down(now, DownReason::Unreachable),
            State::Connected(stream) => match &stream.phase {
                Phase::Handshake { until } | Phase::Registering { until } if now >= *until => {
                    self.down(now, DownReason::Silent);
                }
                Phase::Up(up) => {
                    let silent = up.silent_at().is_some_and(|at| now >= at);
                    let refresh = up.next_refresh.is_some_and(|at| now >= at);
                    let ping = now >= up.next_ping;
                    if silent {
                        self.down(now, DownReason::Silent);
                        return;
                    }
                    if refresh {
                        self.publish(now);
                    }
                    if ping {
                        self.ping(now);
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn push_datagram(&mut self, bytes: usize, event: impl FnOnce() -> HubEvent) {
        if self.event_bytes + bytes > MAX_EVENT_BYTES || self.events.len() >= MAX_EVENTS {
            self.stats.dropped_events += 1;
            return;
        }
        self.event_bytes += bytes;
        self.events.push_back(event());
    }

    /// When the queue is full, the oldest event is dropped, since later events depend on the newest one.
    fn push_event(&mut self, event: HubEvent) {
        if self.events.len() >= MAX_EVENTS
            && let Some(oldest) = self.events.pop_front()
        {
            self.event_bytes -= payload_bytes(&oldest);
            self.stats.dropped_events += 1;
        }
        self.events.push_back(event);
    }

    /// Whether events wait.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// All events that wait.
    pub fn take_events(&mut self) -> Vec<HubEvent> {
        self.event_bytes = 0;
        std::mem::take(&mut self.events).into()
    }
}

impl Up {
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

fn payload_bytes(event: &HubEvent) -> usize {
    match event {
        HubEvent::Datagram { payload, .. } | HubEvent::Group { payload, .. } => payload.len(),
        _ => 0,
    }
}
