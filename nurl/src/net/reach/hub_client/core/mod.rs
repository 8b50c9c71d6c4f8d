//! The client's state, without sockets or clocks.
//!
//! The layer above gives orders and requests by methods and takes [`HubEvent`]s; the driver moves the stream's bytes,
//! dials when [`poll_dial`](HubClient::poll_dial) says so, and calls [`handle_timeout`](HubClient::handle_timeout).
//!
//! | part | its data |
//! | --- | --- |
//! | `phase` | the connection: waiting, dialing, handshake, registering, up |
//! | `admission` | its pass or its invitation: how it gets in |
//! | `attempts` | when the hub is tried again |
//! | `orders` | groups and record: what holds across reconnects |
//! | `queue` | frames that wait for the stream |
//! | `events` | events that wait for the layer above |

mod admission;
mod attempts;
mod events;
mod orders;
mod phase;
mod queue;

use std::time::{Duration, Instant};

use bytes::Bytes;

use self::admission::{Admission, Step};
use self::attempts::Attempts;
use self::events::Events;
use self::orders::{Join, Orders};
use self::phase::{Phase, State, Stream, Up};
use self::queue::Queue;
use super::{Answer, Ask, ClientStats, DownReason, HubClientConfig, HubEvent};
use crate::authority::credential::Credential;
use crate::authority::rotation::SignedSecret;
use crate::authority::sealed;
use crate::key::PublicKey;
use crate::net::reach::control::frames::{Counted, HEADER_BYTES, split};
use crate::net::reach::control::{Connection, MAX_PLAINTEXT_BYTES};
use crate::net::reach::relay::frame::{DELIVER_OVERHEAD_BYTES, MAX_DATAGRAM_BYTES, VERSION};
use crate::net::reach::relay::{self, CloseReason, GroupTag, Limits};
use crate::net::reach::rendezvous::{self, MAX_RECORD_BYTES, RECORD_TTL, SealedRecord, SeqMemory};
use crate::net::secure::version::Versions;
use crate::rt::Rng;

pub use self::{
    attempts::URGENT_FOR,
    events::{MAX_EVENT_BYTES, MAX_EVENTS},
    orders::MAX_GROUPS,
    phase::{KEEPALIVE, PONG_TIMEOUT},
    queue::{MAX_REQUESTS, OUTBOX_BYTES},
};

/// How long a dial may take: name resolution, all addresses, TCP.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(6);

/// How long the handshake may take, and the registration after it: two round trips each, on a very slow link.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a pass may take: a hub may ask several issuers, one after the other.
pub const ISSUE_TIMEOUT: Duration = Duration::from_secs(20);

/// The client's state machine.
pub struct HubClient {
    config: HubClientConfig,
    rng: Rng,
    state: State,
    admission: Admission,
    attempts: Attempts,
    orders: Orders,
    queue: Queue,
    events: Events,
    seqs: SeqMemory,
    next_nonce: u64,
    plaintext: Vec<u8>,
    stats: ClientStats,
}

impl HubClient {
    /// A client that is about to dial.
    pub fn new(config: HubClientConfig, now: Instant, rng: Rng) -> HubClient {
        let admission = Admission::new(config.key.public(), config.boot, config.joining.clone());
        HubClient {
            admission,
            config,
            rng,
            state: State::Dialing { begun: false, until: now + DIAL_TIMEOUT },
            attempts: Attempts::new(now),
            orders: Orders::default(),
            queue: Queue::default(),
            events: Events::default(),
            seqs: SeqMemory::default(),
            next_nonce: 0,
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

    /// Whether we are registered.
    pub fn is_up(&self) -> bool {
        self.state.up().is_some()
    }

    /// Whether nothing waits for the stream of a registration that stands.
    pub fn is_quiet(&self) -> bool {
        !self.is_up() || self.queue.is_empty()
    }

    /// Whether bulk data should wait until the stream has taken some bytes.
    pub fn holds_back(&self) -> bool {
        self.queue.holds_back()
    }

    // ---- Orders, which hold across reconnects.

    /// Joins a group, now and after each reconnect.
    pub fn join(&mut self, tag: GroupTag) {
        match self.orders.join(tag, self.state.up().map(|up| up.limits().groups)) {
            Join::New => self.request(relay::Frame::GroupJoin { tag }.to_vec()),
            Join::Already => {}
            Join::Refused => {
                self.stats.refused_groups += 1;
                self.push_event(HubEvent::GroupRefused { tag });
            }
        }
    }

    /// Leaves a group.
    pub fn leave(&mut self, tag: GroupTag) {
        if self.orders.leave(tag) {
            self.request(relay::Frame::GroupLeave { tag }.to_vec());
        }
    }

    /// Sets our record, whose sequence number must be above all earlier ones. The client refreshes it at a third of its
    /// lifetime and publishes it again after each reconnect.
    pub fn publish(&mut self, now: Instant, seq: u64, sealed: Bytes) {
        if sealed.len() > MAX_RECORD_BYTES {
            let result = rendezvous::PublishResult::TooLarge;
            self.push_event(HubEvent::Published { seq, result });
            return;
        }
        self.orders.publish(seq, sealed);
        self.refresh(now);
    }

    /// Withdraws our record.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: a node that stays and wants no more callers")
    )]
    pub fn withdraw(&mut self) {
        if self.orders.withdraw() {
            self.request(rendezvous::Frame::Withdraw.to_vec());
            if let Some(up) = self.state.up_mut() {
                up.refresh_at(None);
            }
        }
    }

    /// Whether another hub is up. While none is, this hub is tried more often, and a long wait is cut short. A client
    /// assumes at first that no other hub is up.
    pub fn others_up(&mut self, now: Instant, up: bool) {
        let began = self.attempts.others_up(now, up);
        if began && let State::Waiting { until, absent: true } = &mut self.state {
            *until = (*until).min(now + self.attempts.urgent_wait(&mut self.rng));
        }
    }

    /// Sets our credential. A client that waited for one dials at once.
    pub fn set_credential(&mut self, now: Instant, credential: Credential) {
        self.admission.set(credential);
        if let State::Waiting { until, .. } = &mut self.state {
            *until = now;
        }
    }

    /// Our network changed: reconnects at once and ends any wait.
    pub fn network_changed(&mut self, now: Instant) {
        self.down(now, DownReason::NetworkChanged);
    }

    // ---- Requests and datagrams, which go with the connection.

    /// Asks for one record.
    pub fn look_up(&mut self, peer: PublicKey) {
        self.request(rendezvous::Frame::Lookup { peer }.to_vec());
    }

    /// Asks for a random sample of the mesh, of `max` records at most.
    pub fn list(&mut self, max: u16) {
        self.stats.lists += u64::from(self.is_up());
        self.request(rendezvous::Frame::List { max }.to_vec());
    }

    /// Measures the round trip.
    pub fn ping(&mut self, now: Instant) {
        let Some(up) = self.state.up_mut() else { return };
        let nonce = self.next_nonce;
        self.next_nonce += 1;
        up.on_ping(now, nonce);
        self.stats.pings += 1;
        self.request(relay::Frame::Ping { nonce }.to_vec());
    }

    /// Tells the hub what the authority has revoked; [`HubEvent::Knows`] follows when it has taken it.
    pub fn revoke(&mut self, entries: &[u8]) {
        self.request(relay::Frame::Revoked { entries }.to_vec());
    }

    /// Tells the hub, now and after each reconnect, that we issue passes: it may ask us ([`HubEvent::Asked`]).
    pub fn issue(&mut self) {
        self.orders.issue();
        self.request(relay::Frame::Issues.to_vec());
    }

    /// Answers what the hub asked.
    pub fn answer(&mut self, number: u64, answer: &Answer) {
        self.request(match answer {
            Ok((pass, sealed)) => {
                relay::Frame::Granted { number, pass: Counted(pass.as_bytes()), sealed }.to_vec()
            }
            Err(reason) => relay::Frame::Denied { number, reason: *reason }.to_vec(),
        });
    }

    /// Relays a datagram to a peer.
    pub fn forward(&mut self, dst: &PublicKey, payload: &[u8]) {
        if let Some(frame) = self.begin_forward(dst, payload.len()) {
            frame.extend_from_slice(payload);
            self.commit_forward(payload.len());
        }
    }

    /// The buffer to which a relayed datagram of `len` bytes is to be appended; [`commit_forward`] must follow. `None`:
    /// the datagram is dropped.
    ///
    /// [`commit_forward`]: HubClient::commit_forward
    pub fn begin_forward(&mut self, dst: &PublicKey, len: usize) -> Option<&mut Vec<u8>> {
        if !self.may_send(len) {
            return None;
        }
        let frame = self.queue.begin();
        relay::Frame::begin_forward(dst, len, frame);
        Some(frame)
    }

    /// Completes the datagram of `len` bytes appended since [`begin_forward`](HubClient::begin_forward). If fewer were
    /// appended, there is no datagram.
    pub fn commit_forward(&mut self, len: usize) {
        self.stats.dropped_queue_full += self.queue.commit(DELIVER_OVERHEAD_BYTES + len);
    }

    /// Sends to all others of a group.
    pub fn group_send(&mut self, tag: GroupTag, payload: &[u8]) {
        if self.may_send(payload.len()) {
            relay::Frame::GroupSend { tag, payload }.encode(self.queue.begin());
            let len = HEADER_BYTES + tag.len() + payload.len();
            self.stats.dropped_queue_full += self.queue.commit(len);
        }
    }

    /// Whether a datagram of `len` bytes may be queued; otherwise it counts as dropped.
    fn may_send(&mut self, len: usize) -> bool {
        let Some(up) = self.state.up() else {
            self.stats.dropped_down += 1;
            return false;
        };
        let fits = len <= (up.limits().datagram_bytes as usize).min(MAX_DATAGRAM_BYTES);
        self.stats.dropped_too_large += u64::from(!fits);
        fits
    }

    /// Queues a request. [`restore`](Self::restore), or the layer above, which sees [`HubEvent::Down`], repeats
    /// requests that are lost with the connection.
    fn request(&mut self, frame: Vec<u8>) {
        if self.is_up() && !self.queue.request(frame) {
            self.stats.dropped_requests += 1;
        }
    }

    // ---- The stream.

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

    /// The stream takes no more bytes for now, or takes some again.
    pub fn set_stalled(&mut self, stalled: bool) {
        self.queue.set_stalled(stalled);
    }

    /// Handles bytes of the stream.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        let State::Connected(stream) = &mut self.state else { return };
        stream.noise.handle_bytes(bytes);
        if let Phase::Up(up) = &mut stream.phase {
            up.on_heard(now);
        }
        let mut plaintext = std::mem::take(&mut self.plaintext);
        while let State::Connected(stream) = &mut self.state {
            let polled = stream.noise.poll_message(&mut plaintext);
            if let Phase::Handshake { .. } = stream.phase
                && stream.noise.peer().is_some()
            {
                stream.phase = Phase::Registering { until: now + HANDSHAKE_TIMEOUT };
                // The queue is empty: other requests are taken once we are up.
                match self.admission.next(now) {
                    Step::Register(frame) => {
                        self.queue.request(frame);
                    }
                    Step::Ask(frame) => {
                        stream.phase = Phase::Registering { until: now + ISSUE_TIMEOUT };
                        self.queue.request(frame);
                    }
                    Step::Nothing => {
                        self.down(now, DownReason::NoPass);
                        break;
                    }
                }
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
            relay::Frame::Issued { pass } => self.issued(now, pass),
            relay::Frame::Revoked { entries } => {
                if let State::Connected(stream) = &mut self.state
                    && let Phase::Registering { until } = &mut stream.phase
                {
                    // All that it knows may be more than a slow link takes in that time.
                    *until = now + HANDSHAKE_TIMEOUT;
                }
                let told = || HubEvent::Revocations(Bytes::copy_from_slice(entries));
                self.stats.dropped_events += u64::from(!self.events.push_datagram(entries.len(), told));
            }
            relay::Frame::Knows { digest } => self.push_event(HubEvent::Knows(digest)),
            relay::Frame::Secret { signed } => {
                let secret = Box::new(SignedSecret::decode(signed)?);
                self.push_event(HubEvent::Secret { secret, sealed: false });
            }
            relay::Frame::Issuer { key } => self.admission.issued_by(key),
            relay::Frame::Sealed { sealed } => {
                // One that can't be opened isn't the hub's fault.
                if let Some(secret) = sealed::open(sealed, &self.config.key).map(Box::new) {
                    self.push_event(HubEvent::Secret { secret, sealed: true });
                }
            }
            relay::Frame::Asked { number, key, kind, body } => self.asked(number, key, kind, body),
            // CLOSE follows.
            relay::Frame::Speaks { versions } if self.admission.fits(versions) => {}
            relay::Frame::Speaks { versions } => self.incompatible(now, versions),
            relay::Frame::Close(reason) => self.down(now, DownReason::Closed(reason)),
            relay::Frame::Ping { nonce } => self.request(relay::Frame::Pong { nonce }.to_vec()),
            relay::Frame::Pong { nonce } => {
                if let Some(rtt) = self.state.up_mut().and_then(|up| up.on_pong(now, nonce)) {
                    self.push_event(HubEvent::Pong { rtt });
                }
            }
            relay::Frame::Deliver { src, payload } => {
                self.push_datagram(payload.len(), || HubEvent::Datagram {
                    src,
                    payload: Bytes::copy_from_slice(payload),
                });
            }
            relay::Frame::GroupDeliver { src, tag, payload } => {
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

    /// A pass came: it is shown from now on, and a client that waited for it registers.
    fn issued(&mut self, now: Instant, pass: &[u8]) {
        let Some(credential) = self.admission.take(pass) else { return self.down(now, DownReason::Protocol) };
        if let State::Connected(stream) = &mut self.state
            && let Phase::Registering { until } = &mut stream.phase
        {
            *until = now + HANDSHAKE_TIMEOUT;
            if let Step::Register(frame) = self.admission.next(now) {
                self.queue.request(frame);
            }
        }
        let issuer = self.admission.take_issuer().unwrap_or(self.config.hub.key);
        self.push_event(HubEvent::Issued { credential, issuer });
    }

    /// The hub hands us a newcomer's request, of which it has checked the form only.
    fn asked(&mut self, number: u64, key: PublicKey, kind: u8, body: &[u8]) {
        let mesh = self.config.joining.mesh.namespace();
        let ask = match relay::Frame::decode(kind, body) {
            _ if !self.orders.issues() => None,
            Ok(Some(relay::Frame::Enrol { version: VERSION, namespace, request })) if namespace == mesh => {
                Some(Ask::Enrol(Bytes::copy_from_slice(request)))
            }
            Ok(Some(relay::Frame::Renew { version: VERSION, namespace, pass })) if namespace == mesh => {
                Some(Ask::Renew(Bytes::copy_from_slice(pass)))
            }
            _ => None,
        };
        let Some(ask) = ask else {
            self.stats.unknown_frames += 1;
            return;
        };
        let (Ask::Enrol(bytes) | Ask::Renew(bytes)) = &ask;
        let (len, told) = (bytes.len(), || HubEvent::Asked { number, key, ask: ask.clone() });
        self.stats.dropped_events += u64::from(!self.events.push_datagram(len, told));
    }

    fn registered(&mut self, now: Instant, limits: Limits) {
        let State::Connected(stream) = &mut self.state else { return };
        if !matches!(stream.phase, Phase::Registering { .. }) {
            return;
        }
        if !self.admission.fits(limits.versions) {
            return self.incompatible(now, limits.versions);
        }
        stream.phase = Phase::Up(Up::new(now, limits));
        self.stats.ups += 1;
        self.push_event(HubEvent::Up { limits });
        self.restore(now);
    }

    /// The hub speaks none of our versions.
    fn incompatible(&mut self, now: Instant, theirs: Versions) {
        self.stats.incompatible += 1;
        let ours = self.config.joining.versions;
        self.down(now, DownReason::Versions { theirs, ours });
    }

    /// Gives the orders in force to a hub at which we have just registered, and measures the first round trip.
    fn restore(&mut self, now: Instant) {
        if self.orders.issues() {
            self.request(relay::Frame::Issues.to_vec());
        }
        for frame in self.orders.joins().collect::<Vec<_>>() {
            self.request(frame);
        }
        self.refresh(now);
        self.ping(now);
        self.renew(now);
    }

    /// Asks for a new pass, if it is time.
    fn renew(&mut self, now: Instant) {
        if let Some(frame) = self.admission.renewal(now) {
            self.request(frame);
        }
    }

    /// Sends our record, if there is one.
    fn refresh(&mut self, now: Instant) {
        let ttl = self.state.up().map_or(RECORD_TTL, |up| up.limits().record_ttl.min(RECORD_TTL));
        let Some(frame) = self.orders.record(ttl) else { return };
        self.stats.publishes += u64::from(self.is_up());
        self.request(frame);
        if let Some(up) = self.state.up_mut() {
            up.refresh_at(Some(now + (ttl / 3).max(Duration::from_secs(1))));
        }
    }

    /// The connection, or the attempt to make one, has ended.
    fn down(&mut self, now: Instant, reason: DownReason) {
        if let Some(up) = self.state.up() {
            self.attempts.stood(now, up.stood(now));
        }
        if reason == DownReason::Closed(CloseReason::Expired) {
            self.admission.expired();
        }
        if reason == DownReason::Closed(CloseReason::Replaced) {
            self.stats.replaced += 1;
            tracing::warn!(
                target: "nurl::hub", hub = %self.config.hub.addr,
                "another process registered with this node's key; if that wasn't this node itself from \
                 another network, give one of the two a key of its own"
            );
        }
        let retry_in = self.attempts.wait(now, reason, self.dialing_for(now), &mut self.rng);
        self.state = match retry_in {
            Duration::ZERO => State::Dialing { begun: false, until: now + DIAL_TIMEOUT },
            wait => State::Waiting { until: now + wait, absent: reason.is_absence() },
        };
        let (datagrams, requests) = self.queue.clear();
        self.stats.dropped_down += datagrams;
        self.stats.dropped_requests += requests;
        self.push_event(HubEvent::Down { reason, retry_in });
    }

    /// How long the current dial has taken.
    fn dialing_for(&self, now: Instant) -> Duration {
        match self.state {
            State::Dialing { until, .. } => DIAL_TIMEOUT.saturating_sub(until.saturating_duration_since(now)),
            _ => Duration::ZERO,
        }
    }

    /// Appends the next bytes for the stream: at most one message, so that one write carries everything that waits.
    pub fn poll_write(&mut self, out: &mut Vec<u8>) {
        let State::Connected(stream) = &mut self.state else { return };
        stream.noise.poll_write(out);
        if stream.noise.peer().is_none() || self.queue.is_empty() {
            return;
        }
        let (queue, sent) = (&mut self.queue, &mut self.stats.sent);
        // This can't fail here: nonces last for 2^64 messages, and the handshake is done.
        let sealed = stream.noise.seal_in_place(out, |out| *sent += queue.fill(out, MAX_PLAINTEXT_BYTES));
        debug_assert!(sealed.is_ok(), "an open connection seals");
    }

    /// Appends the queued bytes and CLOSE, if the handshake is done. Nothing else is sent after them.
    pub fn poll_goodbye(&mut self, out: &mut Vec<u8>) {
        let mut before = usize::MAX;
        while out.len() != before {
            before = out.len();
            self.poll_write(out);
        }
        if let State::Connected(stream) = &mut self.state {
            let frame = relay::Frame::Close(CloseReason::Bye).to_vec();
            // Before the handshake is done, CLOSE can't be sealed.
            let _ = stream.noise.seal(&frame, out);
        }
    }

    // ---- Time.

    /// When [`handle_timeout`](HubClient::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Instant {
        self.state.poll_timeout()
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
                Phase::Up(up) if up.is_silent(now) => self.down(now, DownReason::Silent),
                Phase::Up(up) => {
                    let (refresh, ping) = (up.is_refresh_due(now), up.is_ping_due(now));
                    if refresh {
                        self.refresh(now);
                    }
                    if ping {
                        self.ping(now);
                        self.renew(now);
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }

    // ---- Events.

    fn push_datagram(&mut self, bytes: usize, event: impl FnOnce() -> HubEvent) {
        self.stats.received += 1;
        self.stats.dropped_events += u64::from(!self.events.push_datagram(bytes, event));
    }

    fn push_event(&mut self, event: HubEvent) {
        self.stats.dropped_events += u64::from(self.events.push(event));
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<HubEvent> {
        self.events.poll()
    }

    /// Whether events wait.
    #[cfg(any(test, feature = "internals"))]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }
}
