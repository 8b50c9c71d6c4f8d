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

/// The unproven addresses of a peer are sent at most this many times the bytes that the peer sent (RFC 9000 §8.1), all of
/// them together, and one that was only seen at most this many times the bytes that came from it. An address may be a
/// victim's that the peer named, or that an attacker put on a copied datagram.
pub const AMPLIFICATION_LIMIT: u64 = 3;

/// What a peer may save up of that. It is three times the nine challenges that each of [`MAX_CANDIDATES`] silent addresses
/// gets in 25 s; with more, a peer of long standing could have that much sent to a victim at once.
///
/// [`MAX_CANDIDATES`]: super::control::MAX_CANDIDATES
pub const MAX_ALLOWANCE_BYTES: u64 = 16 * 1024;

/// The challenges of each address that come before the third of any other, when the peer has paid for few. The first one
/// opens our NAT while the peer's opens its own, and the second one goes through both.
pub const FIRST_CHALLENGES: usize = 2;

/// What is held back of it for the response to the peer's next challenge: the longest one, with an IPv6 address. A
/// challenge pays for its response and for one of ours.
pub const RESPONSE_RESERVE_BYTES: usize = SEAL_OVERHEAD + 9 + 19;

/// What a finished handshake counts as received: the shorter one of its messages, so that both sides may count it.
pub const HANDSHAKE_BYTES: usize = crate::net::secure::securedgram::frames::RESPONSE_LEN;

/// What a record counts as received, at least: as much as lets one init go. The record was asked for because somebody
/// wants the peer, and the init is that question.
pub const MIN_RECORD_BYTES: usize = (crate::net::secure::securedgram::frames::INIT_LEN
    + RESPONSE_RESERVE_BYTES)
    .div_ceil(AMPLIFICATION_LIMIT as usize);

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

/// Gaps of the checks after the quick ones, until [`PathConfig::slow_check`] applies. They double, so that an address
/// that comes up a little later is found soon, and a dead one costs three challenges in 21 s.
pub const BACKOFF_GAPS: [Duration; 3] =
    [Duration::from_secs(3), Duration::from_secs(6), Duration::from_secs(12)];

/// An echo older than this proves nothing about the present path. Ten seconds are longer than any round trip that is
/// still useful, also through a full buffer, and shorter than the idle time after which a NAT drops a mapping.
pub const ECHO_LIFE: Duration = Duration::from_secs(10);

/// How long application sends may go unanswered before the path is suspect: minimum and maximum. In between, a
/// round trip and the peer's [`PathConfig::answer_delay`] decide. Below the minimum, one lost datagram of a
/// healthy path would already cost a copy of each send; above the maximum there is no time for probes.
pub const PATIENCE: (Duration, Duration) = (Duration::from_millis(600), Duration::from_millis(1_000));

/// With so many application sends unanswered, an echo no longer clears the path: probes pass, but data doesn't.
/// A single lost datagram must not reach the count, nor must a few at 30 % loss.
pub const DATA_LOSS_SENDS: u32 = 8;

/// How long a roaming peer's old address must stay silent, at least, before we follow without a MOVED; three round trips
/// of the old path if they are longer. The old address is challenged at once, so on a path of up to 100 ms it has three
/// round trips to answer. Less would follow an attacker's copy whenever the old path has a moment of jitter; more would
/// send the data to both addresses for longer, of which one may be dead.
pub const OLD_PATH_SILENCE: Duration = Duration::from_millis(300);

/// A migration that is still undecided ends after this time, and the data stays where it was. The newcomer's quick
/// checks have gone out by then (the last one at 3 s, [`QUICK_GAPS`]), so a newcomer without an echo isn't reached, and
/// the copies of the data that are sent there meanwhile should end.
pub const MIGRATION_LIFE: Duration = Duration::from_secs(3);

/// The pause before a migration to the same newcomer may start again after the old address won. It doubles up to the
/// second value. It begins above [`MIGRATION_LIFE`], so that copies are sent for less than half of the time, and ends at
/// a minute, since a peer that does move there without a word waits as long. Without it, two sides that merely prefer different addresses would send everything twice for
/// ever.
pub const MIGRATION_COOLDOWN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// How long an address that returned the echo of another's challenge may answer for that one. The time covers
/// one doubt and the next echo, so that the proof must be renewed again and again.
pub const SHADOW_LIFE: Duration = Duration::from_secs(10);

/// Gaps between resends of our candidates until they are acknowledged: the first and the longest. The first is longer
/// than most round trips through a relay; the longest costs a peer that can't be reached one datagram a minute.
pub const CANDIDATES_RESEND: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// How long after the session's start the peer's candidates are awaited before it counts as having none: two resends
/// ([`CANDIDATES_RESEND`]) and a slow round trip.
pub const CANDIDATES_WAIT: Duration = Duration::from_secs(3);

/// The interval at which the addresses tried are rotated, while there is no relay and no session. The first tries
/// of a handshake (at 0, 0.25, 0.5, 1 and 2 s) go to three pairs of addresses then.
pub const ROTATE_EVERY: Duration = Duration::from_secs(1);

/// The number of rotations: as many as fit into the time that a handshake is retried.
pub const ROTATE_TIMES: u32 = 90;

/// How often "moved" is repeated; after that, the old address's silence has to suffice. It goes beside the quick checks,
/// so four of them span 0.7 s: all are lost only if the new path loses nearly everything.
pub const MOVED_TIMES: u8 = 4;

/// The bounds of the adaptive keepalive interval. A shorter one would drain a phone's battery; NAT mappings that
/// expire sooner than the upper bound are common.
pub const KEEPALIVE_RANGE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(25));

/// After an idle direct path has held this long, the keepalive interval grows by a quarter. Ten minutes are some forty
/// intervals, so that luck doesn't lengthen it; and a wrong guess costs a path once in that time at most.
pub const KEEPALIVE_GROWS_AFTER: Duration = Duration::from_secs(600);

/// After this long in use without trouble, a path's earlier losses are forgiven. It is the longest hold ([`LOST_HOLD`]):
/// a path has to work for as long as it may have been held.
pub const FLAPS_FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// How long a path that was lost twice in a row may not return, doubling up to the second value. The first hold outlasts
/// one loss and return ([`PathConfig::demote_after`]); with the longest one, a path that flaps for ever changes the route
/// once a minute at most.
pub const LOST_HOLD: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// The same for a path that answers probes but loses data. Its echo proves little, so the hold is longer and
/// applies from the first loss. Only data shows whether the path works again, and each try risks
/// [`DATA_LOSS_SENDS`] datagrams, of which the relay carries copies only once the doubt has begun.
pub const DATA_LOST_HOLD: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(300));

/// Application data counts as flowing when so many datagrams were sent or received within
/// [`PathConfig::rtt_refresh`], one a second. An idle mesh sends less (each member is probed now and then):
/// measuring every path for that would cost more than the probes themselves.
pub const FLOW: u32 = 10;

/// The interval of round-trip measurements of a relay that carries the data, while as many datagrams flow within it
/// ([`FLOW`]). All data, and what answers it, may arrive there seconds late and still without a pause, so that nothing else
/// shows it: a hub's TCP delivers whatever it is given. A fifth more datagrams at most.
pub const RELAY_REFRESH: Duration = Duration::from_secs(2);

/// The parameters that may differ between meshes and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathConfig {
    /// The first keepalive interval on an idle direct path; it adapts within [`KEEPALIVE_RANGE`]. Default 15 s: half of
    /// the 30 s after which the shortest common UDP mappings expire, so that one keepalive may be lost.
    pub keepalive: Duration,
    /// The check interval of silent candidates, and of validated ones in reserve, while the peer is relayed. Default
    /// 30 s: the relay carries the data meanwhile, so a direct path that is found later only burdens the hub.
    pub slow_check: Duration,
    /// The check interval of silent candidates while there is a direct path. Default 300 s: a better address is a gain,
    /// but not needed, and 16 silent ones cost a challenge every 19 s.
    pub idle_check: Duration,
    /// After this long without an answer to application sends, and without an echo, the path is given up. Default 1.5 s:
    /// the longest [`PATIENCE`] before the doubt, then half a second in which the probes at 0, 0.1 and 0.3 s have to
    /// return. Less would give up a path for one lost burst. More would lengthen an outage of the direct path; the relay
    /// has carried copies since the doubt began, at most 1 s after the first unanswered send.
    pub demote_after: Duration,
    /// The delay before received application data is answered by a keepalive, if no other datagram goes that
    /// way. Default 250 ms: most applications answer sooner themselves, and together with a round trip of 350 ms it stays
    /// below the shortest [`PATIENCE`].
    pub answer_delay: Duration,
    /// The interval of round-trip measurements while application data flows ([`FLOW`]). Default 10 s: beside the data
    /// its cost is nothing, and a route that became slow is found within a few intervals.
    pub rtt_refresh: Duration,
    /// Whether a peer's loopback addresses are checked, if the peer may be on this machine
    /// (module `locality`). Default true: several nodes on a machine without a network need it.
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
