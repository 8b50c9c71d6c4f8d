//! The status of a path machine: its state, the reason, and the changes.

use std::net::SocketAddr;
use std::time::Duration;

use crate::net::secure::route::Route;

/// The reason for a peer's present route. Stable: scripts read [`as_str`](PathReason::as_str).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PathReason {
    /// Direct, and there is no evidence against the path.
    Direct,
    /// Direct, but sends go unanswered: the relay carries a copy until the doubt is resolved.
    Suspect,
    /// There is no session yet.
    Starting,
    /// This node has never asked for a session.
    NoSession,
    /// Checks of the peer's addresses are under way.
    Checking,
    /// Neither the peer nor the configuration named an address, and none was seen.
    NoCandidates,
    /// Every address was checked and none answered.
    NoAnswer,
    /// There was a direct path; it stopped answering.
    PathLost,
    /// The direct path answers probes, but loses data.
    DataLost,
    /// A direct path works, but the relay is faster by a wide margin.
    RelayFaster,
    /// There is neither a relay nor a direct path that answered.
    NoRelay,
    /// The peer moved to another address, and we followed.
    PeerMoved,
    /// A better address answered.
    Better,
    /// The session ended.
    Closed,
}

impl PathReason {
    /// The machine-readable form, in snake case.
    pub const fn as_str(self) -> &'static str {
        match self {
            PathReason::Direct => "direct",
            PathReason::Suspect => "suspect",
            PathReason::Starting => "starting",
            PathReason::NoSession => "no_session",
            PathReason::Checking => "checking",
            PathReason::NoCandidates => "no_candidates",
            PathReason::NoAnswer => "no_answer",
            PathReason::PathLost => "path_lost",
            PathReason::DataLost => "data_lost",
            PathReason::RelayFaster => "relay_faster",
            PathReason::NoRelay => "no_relay",
            PathReason::PeerMoved => "peer_moved",
            PathReason::Better => "better",
            PathReason::Closed => "closed",
        }
    }
}

impl std::fmt::Display for PathReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kind of a path change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathEventKind {
    /// Application data goes to this direct address from now on.
    Promoted,
    /// The direct path was given up; application data goes by the event's route from now on.
    Demoted,
    /// The peer roamed; application data follows it to this address.
    Moved,
    /// No route is left.
    Lost,
}

/// A change of the route that application data takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathEvent {
    /// The new route; `None` if no route is left.
    pub route: Option<Route>,
    /// The kind of the change.
    pub kind: PathEventKind,
    /// The reason.
    pub reason: PathReason,
}

/// The present route of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathState {
    /// Whether a validated direct path carries the data (a copy may go through the relay while it's in doubt).
    pub direct: bool,
    /// The direct address in use: the validated one or, without any relay, the one being tried.
    pub addr: Option<SocketAddr>,
    /// The reason.
    pub reason: PathReason,
    /// The smoothed round-trip time of the route in use.
    pub rtt: Option<Duration>,
    /// Whether the state is final: no check is under way that may still change it.
    pub settled: bool,
}

/// Counters of one path machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathStats {
    /// Challenges sent.
    pub challenges: u64,
    /// Challenges answered.
    pub echoes: u64,
    /// Responses that match no open challenge of their source or of the address in use.
    pub stray_responses: u64,
    /// Keepalives sent to hold a mapping open.
    pub keepalives: u64,
    /// Keepalives sent because application data had arrived and nothing else answered it.
    pub answers: u64,
    /// Addresses refused: unusable ones, or beyond the bound.
    pub candidates_refused: u64,
    /// Unknown sources that were ignored, since their datagram wasn't its leg's newest.
    pub late_sources: u64,
    /// Messages not sent to an unproven address, because too few bytes had come from the peer.
    pub amplification_refused: u64,
    /// Challenges not sent to a loopback address, because the peer isn't known to be on this machine.
    pub loopback_refused: u64,
    /// Control messages dropped because the queue was full.
    pub control_dropped: u64,
    /// Events dropped because the caller didn't fetch them.
    pub events_dropped: u64,
    /// Changes to a direct path, or to a better direct address.
    pub promotions: u64,
    /// Direct paths given up.
    pub demotions: u64,
    /// Times the peer was followed to another address.
    pub moves: u64,
    /// Candidates messages older than the known ones.
    pub stale_candidates: u64,
}
