//! The limits of reliable messages: each comment gives the reason for the value and the effect of changing it.

use std::time::Duration;

/// The largest message body. A job's payload and result are bounded by it; the receiver's per-peer bound
/// (`MAX_INCOMPLETE_BYTES`) is derived from it.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The largest datagram passed to the caller, and the only size that QUIC uses here: `initial_mtu` and `min_mtu`,
/// without discovery. Sealed, it is 1,230 bytes of UDP payload, within IPv6's minimum MTU. QUIC needs at least 1,200.
pub const DATAGRAM_BYTES: usize = crate::transport::MAX_DATAGRAM_BYTES;

/// Datagrams in one batch of `poll_transmit`: 32 × 1,230 bytes fit one 64 KiB GSO send. Larger batches gained nothing
/// measurable, and they delay other peers' packets.
pub const BATCH_DATAGRAMS: usize = 32;

/// Peers in the table: the same as the limit on sessions.
pub const MAX_PEERS: usize = crate::transport::MAX_PEERS;

/// Bytes that may wait, unacknowledged, per peer and priority; a single larger message is also accepted. Each
/// priority has its own budget, so a bulk transfer never blocks a control message.
pub const CLASS_BUDGET_BYTES: usize = 4 << 20;

/// Messages that may wait, unacknowledged, per peer and priority: bounds the table when bodies are tiny.
pub const CLASS_MESSAGES: usize = 1_024;

/// Bytes that may wait, unacknowledged, to all peers together. The last eighth is for invitations for whose keys less waits
/// than a fair share (`engine::sending`).
pub const SEND_BUDGET_BYTES: usize = 256 << 20;

/// Bytes of received messages that are incomplete, or complete and not yet taken by `poll_event`, for all peers. The
/// incomplete ones share the half of it once they fill that (`engine::receiving`). QUIC's flow control stops a peer that
/// isn't read from after its window; the windows add up to about the same amount again.
pub const RECEIVE_BUDGET_BYTES: usize = 256 << 20;

/// Overhead of one undelivered message in the receive budget, so that empty messages count.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// Overhead of a chunk beyond a gap, here and in QUIC's record of received ranges, so that single bytes with gaps
/// between them count for the memory that they occupy.
pub(super) const PART_OVERHEAD_BYTES: usize = 128;

/// Limit on the total announced length of one peer's incomplete messages, and on the bytes that they occupy. An
/// honest sender has at most one message of the largest size in each of the four priorities, or smaller ones with a
/// smaller total. A peer that exceeds the limit loses its connection.
pub const MAX_INCOMPLETE_BYTES: usize = 4 * (MAX_MESSAGE_BYTES + CLASS_BUDGET_BYTES);

/// The largest window of a QUIC stream: one message alone moves 4 MiB per round trip, 320 Mbit/s at 100 ms.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// The largest window of a QUIC connection: [`STREAM_WINDOW_BYTES`] for each of the four priorities, so data of a low
/// priority never uses up the credit of a high one. The windows of all connections share [`RECEIVE_BUDGET_BYTES`], so
/// with more than 16 connections each window is smaller.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * STREAM_WINDOW_BYTES;

/// The smallest window of a connection: about the share of each in a full table, 5 Mbit/s at 100 ms.
pub(super) const MIN_WINDOW_BYTES: u32 = 64 << 10;

/// Streams that each priority may have open at once. The receiver admits their sum. Every priority has its own share,
/// so bulk never uses up the streams of control. Other messages wait in our own queue, where a higher priority
/// overtakes.
pub(super) const CLASS_STREAMS: [usize; 4] = [64, 64, 96, 32];

/// Streams that a peer may have open at once.
pub(super) const MAX_STREAMS: u32 = 64 + 64 + 96 + 32;

/// QUIC's estimate of the round trip before the first sample: a lost first packet is retransmitted after three times
/// this. With RFC 9002's 333 ms that is a second, too long for a phone's 10 % loss. If the real round trip is longer,
/// the cost is one superfluous packet.
pub(super) const INITIAL_RTT: Duration = Duration::from_millis(150);

/// The longest silence before a connection with unacknowledged data probes again. QUIC doubles its probe timeout
/// without limit, so after a minute's blackout its next probe could be a minute away.
pub(super) const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// RFC 9002 §6.1.2: a packet counts as lost 9/8 of a round trip after it was sent, if a later one is acknowledged. So
/// this long after the last acknowledgement no loss is pending.
pub(super) const LOSS_DELAY: (u32, u32) = (9, 8);

/// The longest estimate of a round trip that puts off an early probe. A longer one comes from datagrams that waited, say in a
/// hub's TCP for the end of an outage, and says nothing of the path now. A path that really takes longer may lose a few
/// packets to a probe that is too early, and they are sent again.
pub(super) const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(1);

/// An OPEN without a resulting connection is repeated after this, doubling up to [`MAX_PROBE_INTERVAL`].
pub(super) const OPEN_INTERVAL: Duration = Duration::from_millis(250);

/// At most one GONE per peer in this time, because late packets of an ended connection come in bursts.
pub(super) const GONE_INTERVAL: Duration = Duration::from_millis(100);

/// While the receive budget is divided, a peer that holds more than its share and may send must send
/// [`MIN_PROGRESS_BYTES`] within this time, or its connection is closed to free its bytes. Also the time for which one of
/// them leads.
pub(super) const STALL: Duration = Duration::from_secs(10);

/// See [`STALL`]: 52 kbit/s, below what a phone at the edge of its cell sends. Single bytes, which keep a message open at
/// no cost, are no progress.
pub(super) const MIN_PROGRESS_BYTES: u64 = 64 << 10;

/// Packets that may overtake one before it counts as lost (RFC 9002 §6.1.1 says 3, and lets a sender adapt). Two
/// routes carry copies while a path is in doubt, and wifi delivers a burst out of order. With 3, jitter of a tenth of
/// the round trip looked like 20 % loss and kept the window at its minimum. With this threshold, time decides (9/8 of
/// a round trip, §6.1.2), which delays the detection of a real loss by an eighth of a round trip.
pub(super) const PACKET_THRESHOLD: u32 = 64;
