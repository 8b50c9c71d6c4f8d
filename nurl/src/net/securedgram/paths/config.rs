//! The numbers of the path machine, each with its reason.

use std::time::Duration;

/// The most relay legs per peer: as many as a ticket names hubs.
pub const MAX_RELAYS: usize = crate::mesh::MAX_HUBS;

/// The most candidates that were only seen as a source. An on-path attacker makes one with each datagram it
/// copies; with this bound they can't displace the addresses that the peer named.
pub const MAX_REFLEXIVE: usize = 4;

/// The most unanswered candidates checked in quick succession at one time; the rest wait for their turn, so
/// that a peer with 16 addresses doesn't cost a burst that a NAT's table or a slow uplink can't take.
pub const MAX_CHECKS_IN_FLIGHT: usize = 8;

/// Control messages that wait to be sealed. The caller drains them after each call, so the bound is met only
/// when a peer challenges faster than the caller polls.
pub const MAX_QUEUED_CONTROL: usize = 64;

/// Events that wait to be fetched; the oldest goes first.
pub const MAX_QUEUED_EVENTS: usize = 32;

/// What a sealed control message adds to its body: frame header, channel, tag.
pub const SEAL_OVERHEAD: usize = crate::net::session::OVERHEAD + 1;

/// An unvalidated source is sent at most this many times the bytes that it sent (RFC 9000 §8.1): it may be a
/// victim's address that an attacker wrote on a copied datagram.
pub const AMPLIFICATION_LIMIT: u64 = 3;

/// Gaps between the quick checks of a candidate, from one to the next: they go out at 0, 0.1, 0.3, 0.7, 1.5
/// and 3 s. Both sides' NATs have to open, so the first may die on the way; after the last, an answer is
/// waited for as long again before the candidate counts as silent.
pub const QUICK_GAPS: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1_500),
    Duration::from_millis(1_500),
];

/// Gaps of the checks behind the quick ones, until [`PathConfig::slow_check`] takes over.
pub const BACKOFF_GAPS: [Duration; 3] =
    [Duration::from_secs(3), Duration::from_secs(6), Duration::from_secs(12)];

/// An echo older than this proves nothing about the path as it is now.
pub const ECHO_LIFE: Duration = Duration::from_secs(10);

/// Application sends unanswered for this long make the path suspect, at least and at most; between the two,
/// a round trip and the peer's [`PathConfig::answer_delay`] decide. Below the least, a lost datagram of a
/// healthy path would already cost a copy of each send; above the most there is no time for probes.
pub const PATIENCE: (Duration, Duration) = (Duration::from_millis(600), Duration::from_millis(1_000));

/// With this many application sends unanswered, an echo no longer clears the path: probes pass, data doesn't.
/// A single lost datagram must not do that, nor must a few at 30 % loss.
pub const DATA_LOSS_SENDS: u32 = 8;

/// A roaming peer's old address must stay silent at least this long before we follow without being asked.
pub const OLD_PATH_SILENCE: Duration = Duration::from_millis(300);

/// A contest between two addresses ends undecided after this.
pub const CONTEST_LIFE: Duration = Duration::from_secs(3);

/// After the old address won, the same newcomer starts no contest for this long, doubling up to the second
/// value: two sides that merely prefer different addresses would else send everything twice for ever.
pub const CONTEST_COOLDOWN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// How long an address that returned the echo of another's challenge answers for it: one doubt's time and the
/// next echo's, so that it has to be shown again and again.
pub const SHADOW_LIFE: Duration = Duration::from_secs(10);

/// Resends of our candidates until they are acknowledged: first and longest gap.
pub const CANDIDATES_RESEND: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// How long after the session's start the peer's candidates are waited for before their absence is an answer.
pub const CANDIDATES_WAIT: Duration = Duration::from_secs(3);

/// While there is no relay and no session, the addresses tried are changed this often …
pub const ROTATE_EVERY: Duration = Duration::from_secs(1);

/// … and this many times: as long as a handshake is retried.
pub const ROTATE_TIMES: u32 = 90;

/// How often "moved" is repeated before the silence speaks for itself.
pub const MOVED_TIMES: u8 = 4;

/// The keepalive interval adapts between these: below the lower, it would drain a phone; mappings that live
/// shorter than the upper one are common.
pub const KEEPALIVE_RANGE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(25));

/// An idle direct path that held this long makes the keepalive a quarter rarer.
pub const KEEPALIVE_GROWS_AFTER: Duration = Duration::from_secs(600);

/// A path that was in use this long without trouble has paid for its earlier losses.
pub const FLAPS_FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// A path lost twice in a row is kept from returning for this long, doubling up to the second value.
pub const LOST_HOLD: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// The same for a path that answers probes but loses data: its echo proves little, so it waits longer, also
/// the first time.
pub const DATA_LOST_HOLD: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(300));

/// Application data flows when so many datagrams were sent or received within [`PathConfig::rtt_refresh`], one a
/// second. Below it lies what a mesh says while it is idle (each member is probed now and then): to measure
/// every path for that would cost more than the probes themselves.
pub const FLOW: u32 = 10;

/// What may differ between meshes and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathConfig {
    /// The first keepalive interval on an idle direct path; it adapts within [`KEEPALIVE_RANGE`].
    pub keepalive: Duration,
    /// Checks of silent candidates and of validated ones in reserve, while the peer is relayed.
    pub slow_check: Duration,
    /// Checks of silent candidates while there is a direct path.
    pub idle_check: Duration,
    /// Application sends unanswered for this long, and no echo either: the path is given up.
    pub demote_after: Duration,
    /// How soon received application data is answered by a keepalive, when nothing else goes that way.
    pub answer_delay: Duration,
    /// While application data flows ([`FLOW`]), round-trip times are measured this often.
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
