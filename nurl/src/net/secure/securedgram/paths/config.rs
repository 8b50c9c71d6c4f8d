//! The constants of the path machine, each with its reason.

use std::time::Duration;

/// The most relay legs per peer: as many as the hubs that a ticket may name.
pub const MAX_RELAYS: usize = crate::mesh::MAX_HUBS;

/// The most candidates that were only seen as a source. An on-path attacker creates one with each datagram that
/// it copies; with this bound they can't displace the addresses that the peer named.
pub const MAX_REFLEXIVE: usize = 4;

/// The most unanswered candidates checked in quick succession at one time. The rest wait for their turn, so that
/// a peer with 16 addresses doesn't cause a burst that overloads a NAT's table or a slow uplink.
pub const MAX_CHECKS_IN_FLIGHT: usize = 8;

/// Control messages that wait to be sealed. The caller drains them after each call, so the queue fills only when
/// a peer challenges faster than the caller polls.
pub const MAX_QUEUED_CONTROL: usize = 64;

/// Events that wait for the caller; the oldest is dropped first.
pub const MAX_QUEUED_EVENTS: usize = 32;

/// The bytes that sealing adds to a control message: frame header, channel, tag.
pub const SEAL_OVERHEAD: usize = crate::net::secure::session::OVERHEAD + 1;

/// An unvalidated source is sent at most this many times the bytes that it sent (RFC 9000 §8.1). The source may
/// be a victim's address that an attacker put on a copied datagram.
pub const AMPLIFICATION_LIMIT: u64 = 3;

/// Gaps between the quick checks of a candidate: they go out at 0, 0.1, 0.3, 0.7, 1.5 and 3 s. Both sides' NATs
/// have to open, so the first ones may be lost on the way. After the last check, the same gap passes once more
/// before the candidate counts as silent.
pub const QUICK_GAPS: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1_500),
    Duration::from_millis(1_500),
];

/// Gaps of the checks after the quick ones, until [`PathConfig::slow_check`] applies.
pub const BACKOFF_GAPS: [Duration; 3] =
    [Duration::from_secs(3), Duration::from_secs(6), Duration::from_secs(12)];

/// An echo older than this proves nothing about the present path.
pub const ECHO_LIFE: Duration = Duration::from_secs(10);

/// How long application sends may go unanswered before the path is suspect: minimum and maximum. In between, a
/// round trip and the peer's [`PathConfig::answer_delay`] decide. Below the minimum, one lost datagram of a
/// healthy path would already cost a copy of each send; above the maximum there is no time for probes.
pub const PATIENCE: (Duration, Duration) = (Duration::from_millis(600), Duration::from_millis(1_000));

/// With so many application sends unanswered, an echo no longer clears the path: probes pass, but data doesn't.
/// A single lost datagram must not reach the count, nor must a few at 30 % loss.
pub const DATA_LOSS_SENDS: u32 = 8;

/// How long a roaming peer's old address must stay silent, at least, before we follow without a MOVED.
pub const OLD_PATH_SILENCE: Duration = Duration::from_millis(300);

/// A contest between two addresses ends undecided after this time.
pub const CONTEST_LIFE: Duration = Duration::from_secs(3);

/// The pause before the same newcomer may start a contest again after the old address won. It doubles up to the
/// second value. Without it, two sides that merely prefer different addresses would send everything twice for
/// ever.
pub const CONTEST_COOLDOWN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// How long an address that returned the echo of another's challenge may answer for that one. The time covers
/// one doubt and the next echo, so that the proof must be renewed again and again.
pub const SHADOW_LIFE: Duration = Duration::from_secs(10);

/// Gaps between resends of our candidates until they are acknowledged: the first and the longest.
pub const CANDIDATES_RESEND: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// How long after the session's start the peer's candidates are awaited before it counts as having none.
pub const CANDIDATES_WAIT: Duration = Duration::from_secs(3);

/// The interval at which the addresses tried are rotated, while there is no relay and no session.
pub const ROTATE_EVERY: Duration = Duration::from_secs(1);

/// The number of rotations: as many as fit into the time that a handshake is retried.
pub const ROTATE_TIMES: u32 = 90;

/// How often "moved" is repeated; after that, the old address's silence has to suffice.
pub const MOVED_TIMES: u8 = 4;

/// The bounds of the adaptive keepalive interval. A shorter one would drain a phone's battery; NAT mappings that
/// expire sooner than the upper bound are common.
pub const KEEPALIVE_RANGE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(25));

/// After an idle direct path has held this long, the keepalive interval grows by a quarter.
pub const KEEPALIVE_GROWS_AFTER: Duration = Duration::from_secs(600);

/// After this long in use without trouble, a path's earlier losses are forgiven.
pub const FLAPS_FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// How long a path that was lost twice in a row may not return, doubling up to the second value.
pub const LOST_HOLD: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// The same for a path that answers probes but loses data. Its echo proves little, so the hold is longer and
/// applies from the first loss.
pub const DATA_LOST_HOLD: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(300));

/// Application data counts as flowing when so many datagrams were sent or received within
/// [`PathConfig::rtt_refresh`], one a second. An idle mesh sends less (each member is probed now and then):
/// measuring every path for that would cost more than the probes themselves.
pub const FLOW: u32 = 10;

/// The parameters that may differ between meshes and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathConfig {
    /// The first keepalive interval on an idle direct path; it adapts within [`KEEPALIVE_RANGE`].
    pub keepalive: Duration,
    /// The check interval of silent candidates, and of validated ones in reserve, while the peer is relayed.
    pub slow_check: Duration,
    /// The check interval of silent candidates while there is a direct path.
    pub idle_check: Duration,
    /// After this long without an answer to application sends, and without an echo, the path is given up.
    pub demote_after: Duration,
    /// The delay before received application data is answered by a keepalive, if no other datagram goes that
    /// way.
    pub answer_delay: Duration,
    /// The interval of round-trip measurements while application data flows ([`FLOW`]).
    pub rtt_refresh: Duration,
    /// Whether a peer's loopback addresses are checked: several nodes on one machine need it.
    pub loopback: bool,
}

impl Default for PathConfig {
    fn default() -> PathConfig {
        PathConfig {
            keepalive: Duration::from_secs(15),
            slow_check: Duration::from_secs(30),
            idle_check: Duration::from_secs(300),
            demote_after: Duration::from_millis(1_500),
            answer_delay: Duration::from_millis(250),
            rtt_refresh: Duration::from_secs(10),
            loopback: true,
        }
    }
}
