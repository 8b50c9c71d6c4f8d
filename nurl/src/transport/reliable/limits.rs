//! The numbers of reliable messages: each says why it has its value and what breaks when it changes.

use std::time::Duration;

/// The largest message body. A job's payload and result are bounded by it; the receiver's per-peer bound
/// (`MAX_INCOMPLETE_BYTES`) is derived from it.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The largest datagram that is handed out, and the only size that QUIC uses here: `initial_mtu` and
/// `min_mtu`, without discovery. Sealed, it is 1,230 bytes of UDP payload, within IPv6's minimum MTU.
/// QUIC doesn't work below 1,200.
pub const DATAGRAM_BYTES: usize = crate::transport::MAX_DATAGRAM_BYTES;

/// Datagrams in one batch of `poll_transmit`: 32 × 1,230 bytes stay within one 64 KiB GSO send. Larger
/// batches gained nothing measurable and delay other peers' packets.
pub const BATCH_DATAGRAMS: usize = 32;

/// Peers in the table: as many as there can be sessions.
pub const MAX_PEERS: usize = crate::transport::MAX_PEERS;

/// Bytes that may wait, unacknowledged, per peer and priority; one larger message may wait alone. Each
/// priority has its own budget, so a bulk transfer never keeps a control message out.
pub const CLASS_BUDGET_BYTES: usize = 4 << 20;

/// Messages that may wait, unacknowledged, per peer and priority: bounds the table where bodies are tiny.
pub const CLASS_MESSAGES: usize = 1_024;

/// Bytes that may wait, unacknowledged, to all peers together.
pub const SEND_BUDGET_BYTES: usize = 256 << 20;

/// Bytes of received messages that are incomplete, or complete and not yet taken by `poll_event`, from all
/// peers together. Above it only one peer is read from until it completes; QUIC's flow control then stops
/// the others after their windows, which sum up to about as much again.
pub const RECEIVE_BUDGET_BYTES: usize = 256 << 20;

/// What one undelivered message costs beyond its body in the receive budget, so that empty messages count.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// What bytes beyond a gap cost beyond themselves, here and in QUIC's record of what has come, so that single bytes
/// with gaps between them count for what they occupy.
pub(super) const PART_OVERHEAD_BYTES: usize = 128;

/// The lengths that one peer's incomplete messages may announce together, and what they may occupy. An honest sender has at most one
/// message of the largest size in each of the four priorities, or smaller ones that sum up to less.
/// Announcing more closes the connection.
pub const MAX_INCOMPLETE_BYTES: usize = 4 * (MAX_MESSAGE_BYTES + CLASS_BUDGET_BYTES);

/// QUIC's window of one stream, at most: one message alone moves 4 MiB per round trip, 320 Mbit/s at 100 ms.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// QUIC's window of a connection, at most: four priorities with [`STREAM_WINDOW_BYTES`] each, so that what waits at
/// a low priority never uses up the credit of a high one. The windows of all connections share
/// [`RECEIVE_BUDGET_BYTES`], so with more than 16 of them each is smaller.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * STREAM_WINDOW_BYTES;

/// The least window of a connection: about what a full table has for each, 5 Mbit/s at 100 ms.
pub(super) const MIN_WINDOW_BYTES: u32 = 64 << 10;

/// Streams that each priority may have open at once. The receiver admits their sum; every priority has its
/// own share, so that bulk never uses up the streams of control. The rest waits in our own queue, where a
/// higher priority overtakes.
pub(super) const CLASS_STREAMS: [usize; 4] = [64, 64, 96, 32];

/// Streams that a peer may have open at once.
pub(super) const MAX_STREAMS: u32 = 64 + 64 + 96 + 32;

/// QUIC's guess of the round trip before the first sample: a lost first packet is repeated after three
/// times this. RFC 9002's 333 ms make that a second, too long for a phone's 10 % loss; below the real round
/// trip it costs one superfluous packet.
pub(super) const INITIAL_RTT: Duration = Duration::from_millis(150);

/// The longest silence before a connection with unacknowledged data probes again. QUIC doubles its probe
/// timeout without end, so after a minute's blackout the next probe could be a minute away.
pub(super) const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// RFC 9002 §6.1.2: a packet counts as lost after 9/8 of a round trip. It was sent before one that is acknowledged,
/// so this long after the last acknowledgement no loss is pending any more.
pub(super) const LOSS_DELAY: (u32, u32) = (9, 8);

/// An OPEN that got no connection is repeated after this, doubling up to [`MAX_PROBE_INTERVAL`].
pub(super) const OPEN_INTERVAL: Duration = Duration::from_millis(250);

/// At most one GONE per peer in this time: late packets of an ended connection come in bursts.
pub(super) const GONE_INTERVAL: Duration = Duration::from_millis(100);

/// While the receive budget is exceeded, the one peer that is read from must make progress within this
/// time, or its connection is closed to free its bytes.
pub(super) const STALL: Duration = Duration::from_secs(10);

/// Packets that may overtake one before it counts as lost (RFC 9002 §6.1.1 says 3, and lets a sender adapt).
/// Two legs carry copies while a path is in doubt, and wifi delivers a burst out of order: with 3, jitter of a
/// tenth of the round trip looked like 20 % loss and pinned the window to its minimum. Above this many, time
/// alone decides (9/8 of a round trip, §6.1.2), which costs a real loss an eighth of a round trip.
pub(super) const PACKET_THRESHOLD: u32 = 64;
