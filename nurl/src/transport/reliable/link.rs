//! One QUIC connection, with its own endpoint.
//!
//! An endpoint per connection isolates peers: the connection ids, tables and generators of one can't be reached from
//! another. All datagrams appear to come from one fixed address, because paths are handled below this layer: QUIC
//! never sees a migration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionEvent, ConnectionHandle, ConnectionId, ConnectionIdGenerator,
    DatagramEvent, Endpoint, EndpointConfig, NoneTokenStore, ServerConfig, TimeSource, TransportConfig,
};
use rand_core::{Rng as _, SeedableRng};

use super::congestion::{Cubic, CubicFactory, EARLY_BYTES};
use super::crypto::{NoTokens, Plain, ResetKey};
use super::inbox::Inbox;
use super::limits::{
    BATCH_DATAGRAMS, DATAGRAM_BYTES, INITIAL_RTT, LONGEST_ROUND_TRIP, LOSS_DELAY, MAX_PROBE_INTERVAL,
    MAX_STREAMS, PACKET_THRESHOLD, STREAM_WINDOW_BYTES,
};
use super::wire::{CID_BYTES, Cid, Datagram};
use crate::rt::Rng;

/// The peer's address as presented to QUIC.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1);

/// Draws connection ids from the connection's own generator.
struct CidGenerator(Rng);

impl ConnectionIdGenerator for CidGenerator {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut cid = [0; CID_BYTES];
        self.0.fill_bytes(&mut cid);
        ConnectionId::new(&cid)
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// quinn-proto dates address tokens by the wall clock; none is ever issued.
struct NoClock;

impl TimeSource for NoClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

/// The settings shared by all connections.
#[derive(Clone)]
pub(super) struct Settings {
    transport: Arc<TransportConfig>,
    /// QUIC's window of a connection.
    window: u32,
}

impl Settings {
    /// Connections with a window of this many bytes.
    pub(super) fn new(window: u32) -> Settings {
        let mtu = u16::try_from(DATAGRAM_BYTES).expect("1,200 fits");
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(0u32.into())
            .max_concurrent_uni_streams(MAX_STREAMS.into())
            .max_idle_timeout(None)
            .packet_threshold(PACKET_THRESHOLD)
            .keep_alive_interval(None)
            .stream_receive_window(STREAM_WINDOW_BYTES.min(window).into())
            .receive_window(window.into())
            // Bodies are reference-counted, and the outbox bounds them.
            .send_window(u64::MAX >> 2)
            .initial_rtt(INITIAL_RTT)
            .initial_mtu(mtu)
            .min_mtu(mtu)
            .mtu_discovery_config(None)
            .allow_spin(false)
            .datagram_receive_buffer_size(None)
            .congestion_controller_factory(Arc::new(CubicFactory));
        Settings { transport: Arc::new(transport), window }
    }

    /// The window of a new connection.
    pub(super) fn window(&self) -> u32 {
        self.window
    }

    fn endpoint(&self, server: bool, rng: &mut Rng) -> Endpoint {
        let mut draw = || {
            let mut bytes = [0; 32];
            rng.fill_bytes(&mut bytes);
            bytes
        };
        let (seed, reset_key, cid_seed) = (draw(), draw(), draw());
        let mut config = EndpointConfig::new(Arc::new(ResetKey(reset_key)));
        config.cid_generator(move || Box::new(CidGenerator(Rng::from_seed(cid_seed))));
        // Our control datagrams are distinguished by QUIC's fixed bit in the first byte.
        config.grease_quic_bit(false);
        config.supported_versions(vec![1]);
        config.rng_seed(Some(seed));
        config
            .max_udp_payload_size(u16::try_from(DATAGRAM_BYTES).expect("1,200 fits"))
            .expect("1,200 is the least that QUIC allows");
        let server = server.then(|| {
            let mut config = ServerConfig::new(Arc::new(Plain), Arc::new(NoTokens));
            config
                .transport_config(self.transport.clone())
                .migration(false)
                .max_incoming(1)
                .time_source(Arc::new(NoClock));
            Arc::new(config)
        });
        Endpoint::new(Arc::new(config), server, false, None)
    }
}

/// The result of handling a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The connection accepted it.
    Taken,
    /// It belongs to no connection.
    Unknown,
}

pub(super) struct Link {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    pub(super) conn: Connection,
    /// The client's attempt number.
    pub(super) attempt: u64,
    pub(super) connected: bool,
    /// The handshake is confirmed (RFC 9001 §4.1.2): both sides have all that they need of it.
    confirmed: bool,
    pub(super) inbox: Inbox,
    /// The peer's connection id in our last packet; a GONE must contain it to be accepted.
    pub(super) remote_cid: Option<Cid>,
    /// Our connection id in the peer's last packet, for a GONE from us.
    pub(super) local_cid: Option<Cid>,
    /// When the peer last acknowledged anything.
    answered: Instant,
    /// ACK frames received, as counted by QUIC, and the packets of ours that were acknowledged.
    acks: (u64, u64),
    /// When the peer last acknowledged anything, or a probe was last sent.
    pub(super) touched: Instant,
    /// Set when the connection is over.
    pub(super) over: bool,
}

impl Link {
    /// Opens a connection as the client.
    pub(super) fn connect(
        settings: &Settings,
        now: Instant,
        first_cid: &[u8],
        attempt: u64,
        rng: &mut Rng,
    ) -> Option<Link> {
        let mut endpoint = settings.endpoint(false, rng);
        let first_cid = ConnectionId::new(first_cid);
        let mut config = ClientConfig::new(Arc::new(Plain));
        config
            .transport_config(settings.transport.clone())
            .token_store(Arc::new(NoneTokenStore))
            .initial_dst_cid_provider(Arc::new(move || first_cid));
        let (handle, conn) = endpoint.connect(now, config, PEER, "peer").ok()?;
        Some(Link::new(endpoint, handle, conn, attempt, now))
    }

    /// Accepts a client's first packet.
    pub(super) fn accept(
        settings: &Settings,
        now: Instant,
        packet: &[u8],
        attempt: u64,
        rng: &mut Rng,
    ) -> Option<Link> {
        let mut endpoint = settings.endpoint(true, rng);
        let mut reply = Vec::new();
        let event = endpoint.handle(now, PEER, None, None, BytesMut::from(packet), &mut reply)?;
        let DatagramEvent::NewConnection(incoming) = event else { return None };
        let (handle, conn) = endpoint.accept(incoming, now, &mut reply, None).ok()?;
        Some(Link::new(endpoint, handle, conn, attempt, now))
    }

    fn new(
        endpoint: Endpoint,
        handle: ConnectionHandle,
        conn: Connection,
        attempt: u64,
        now: Instant,
    ) -> Link {
        Link {
            endpoint,
            handle,
            conn,
            attempt,
            connected: false,
            confirmed: false,
            inbox: Inbox::default(),
            remote_cid: None,
            local_cid: None,
            answered: now,
            acks: (0, 0),
            touched: now,
            over: false,
        }
    }

    /// Handles a packet from the peer.
    pub(super) fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> Fate {
        let mut reply = Vec::new();
        // Direct responses (resets, version negotiation) are never sent: GONE replaces them.
        match self.endpoint.handle(now, PEER, None, None, BytesMut::from(packet), &mut reply) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                self.handle_event(event);
                if !self.confirmed && self.conn.stats().frame_rx.handshake_done > 0 {
                    self.confirm();
                }
                // Only a new acknowledgement counts: a peer that sends but doesn't receive our packets, and repeats what it
                // had acknowledged, must not postpone our probes.
                let frames = self.conn.stats().frame_rx.acks;
                if self.acks.0 != frames {
                    let acked = Cubic::acks(self.conn.congestion_state());
                    if std::mem::replace(&mut self.acks, (frames, acked)).1 != acked {
                        (self.answered, self.touched) = (now, now);
                    }
                }
                if let Some(Datagram::Packet(cid)) = Datagram::parse(packet) {
                    self.local_cid = Some(cid);
                }
                Fate::Taken
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.endpoint.ignore(incoming);
                Fate::Unknown
            }
            Some(DatagramEvent::Response(_)) | None => Fate::Unknown,
        }
    }

    /// This side's handshake is complete. A server's is confirmed by that, a client's by the server (HANDSHAKE_DONE).
    pub(super) fn complete(&mut self) {
        self.connected = true;
        if self.conn.side().is_server() {
            self.confirm();
        }
    }

    fn confirm(&mut self) {
        self.confirmed = true;
        Cubic::confirm(self.conn.congestion_state());
    }

    /// The most bytes of messages that may be under way; `None` if only the congestion window bounds them.
    pub(super) fn early_limit(&self) -> Option<usize> {
        (!self.confirmed).then_some(EARLY_BYTES)
    }

    /// Drops what QUIC has learned of the path.
    pub(super) fn reset_path(&mut self, now: Instant) {
        self.conn.path_changed(now);
        if self.confirmed {
            // The congestion controller is a new one.
            Cubic::confirm(self.conn.congestion_state());
        }
    }

    fn handle_event(&mut self, event: ConnectionEvent) {
        self.conn.handle_event(event);
        self.handle_endpoint_events();
    }

    /// Exchanges events between the connection and its endpoint.
    pub(super) fn handle_endpoint_events(&mut self) {
        while let Some(event) = self.conn.poll_endpoint_events() {
            self.over |= event.is_drained();
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.conn.handle_event(event);
            }
        }
    }

    /// Writes the next batch into `out`; returns the segment size if it is more than one datagram.
    pub(super) fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Option<usize>> {
        let transmit = self.conn.poll_transmit(now, BATCH_DATAGRAMS, out)?;
        if let Some(Datagram::Packet(cid)) = Datagram::parse(out) {
            self.remote_cid = Some(cid);
        }
        Some(transmit.segment_size)
    }

    /// When [`handle_timeout`](Link::handle_timeout) is due. While something is `unanswered` there is always a
    /// deadline, even if QUIC has none: quinn-proto stops its timer when it discards the handshake keys before the
    /// connection counts as established, and doesn't restart it.
    pub(super) fn poll_timeout(&mut self, unanswered: bool) -> Option<Instant> {
        let probe = unanswered.then(|| self.touched + MAX_PROBE_INTERVAL);
        self.conn.poll_timeout().into_iter().chain(probe).min()
    }

    /// Handles the timers due at `now`. Returns whether it probed.
    pub(super) fn handle_timeout(&mut self, now: Instant, unanswered: bool) -> bool {
        self.conn.handle_timeout(now);
        let probe = unanswered && now >= self.touched + MAX_PROBE_INTERVAL;
        if probe {
            self.probe(now);
        }
        probe
    }

    /// Probes the peer now, because QUIC may be in a long back-off.
    ///
    /// A full window holds a ping back; only a probe timeout may send past it. So after a silence that timer is fired
    /// early. Within a round trip of an acknowledgement it isn't, because it may be the loss timer (RFC 9002 §6.1.2):
    /// firing it early would declare packets lost whose acknowledgement is in flight, and shrink the window. If QUIC
    /// has no timer at all, its window may be full of packets that it will never declare lost, so the path is reset.
    /// The reset discards the round-trip estimate, and is done in this case only.
    ///
    /// Before the handshake ends, no ping is sent: QUIC retransmits the handshake's own packets, and a server would
    /// seal a ping with the keys that follow the handshake. The client can't open it yet, so it is never
    /// acknowledged, and no packet in that space is declared lost before the handshake ends. A dozen such packets,
    /// padded to the length of an Initial beside them, would fill the window for the life of the connection.
    pub(super) fn probe(&mut self, now: Instant) {
        self.touched = now;
        if self.connected {
            self.conn.ping();
        }
        match self.conn.poll_timeout() {
            Some(_) if now >= self.answered + self.loss_delay() => self.fire_timers(now),
            Some(_) => {}
            None => self.reset_path(now),
        }
        self.handle_endpoint_events();
    }

    /// Fires QUIC's timers early, up to its probe timeout. Before that come the times at which packets count as lost, each
    /// with its own: those of an outage may be seconds apart, and a window is full until the last of them.
    fn fire_timers(&mut self, now: Instant) {
        // The timer of an acknowledgement may come before the probe timeout.
        let mut others = 0;
        while others < 2
            && let Some(at) = self.conn.poll_timeout()
        {
            let lost = self.conn.stats().path.lost_packets;
            self.conn.handle_timeout(at.max(now));
            others += u32::from(self.conn.stats().path.lost_packets == lost);
        }
    }

    /// How long after an acknowledgement a loss may be pending.
    fn loss_delay(&self) -> Duration {
        self.conn.rtt().min(LONGEST_ROUND_TRIP) * LOSS_DELAY.0 / LOSS_DELAY.1
    }

    /// Sets the receive window. A smaller window takes effect as data in flight is read, because granted credit can't
    /// be revoked.
    pub(super) fn set_window(&mut self, window: u32) {
        self.conn.set_receive_window(window.into());
    }

    /// Sends a PING frame, which the peer must acknowledge.
    pub(super) fn ping(&mut self) {
        self.conn.ping();
    }

    /// The congestion window in bytes.
    #[cfg(test)]
    pub(super) fn window(&self) -> u64 {
        self.conn.congestion_state().window()
    }
}
