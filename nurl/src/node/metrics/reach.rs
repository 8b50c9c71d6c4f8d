//! Sessions, paths, STUN, and the connections to hubs.

use super::{Metrics, list};
use crate::net::reach::hub_client::ClientStats;
use crate::net::reach::stun::StunStats;
use crate::net::secure::securedgram::EndpointStats;
use crate::net::secure::securedgram::paths::PathStats;

pub(super) fn sessions(into: &mut Metrics, stats: &EndpointStats) {
    list!(into, Counter, "session", [stats] => EndpointStats {
        unknown_frame: "Datagrams refused: no frame of this protocol.",
        bad_length: "Datagrams refused: a frame of the wrong length.",
        oversize: "Datagrams refused: larger than any frame.",
        no_return_address: "Handshakes refused: there is no address to answer to.",
        bad_mac1: "Handshakes refused: the sender doesn't know the mesh's secret or this node's key.",
        cookie_demanded: "Handshakes answered with a cookie, because their source is over its budget.",
        cookies_limited: "Cookies not handed out, because their source had too many.",
        cookie_holder_over_budget: "Handshakes refused: their source has a cookie and is still over its budget.",
        not_admitted: "Handshakes refused: without a pass that counts.",
        not_allowed: "Handshakes refused: the peer isn't on the allow-list, or is this node.",
        peers_full: "Peers refused: the table of sessions is full.",
        handshake_forged: "Handshakes refused: they can't be decrypted, as with another secret.",
        small_order: "Handshakes refused: a public key of small order.",
        repeated: "Handshakes refused: the same one came before.",
        answers_limited: "Copies of an answered handshake that weren't answered again: their source is over its budget.",
        incompatible: "Peers that have proved who they are, and speak no version that this node speaks.",
        stale_timestamp: "Handshakes refused: not newer than the peer's last one, or than this node's start.",
        stale_unvouched: "Stale handshakes that got silence, because they may be replays.",
        challenge_limited: "Stale handshakes that got no challenge, because one was sent just before.",
        dh: "Diffie-Hellman computations.",
        inits_sent: "Handshakes sent, repetitions included.",
        inits_answered: "Handshakes answered.",
        answers_from_cache: "Copies of a handshake answered again without a computation.",
        responses_unexpected: "Responses that match no handshake of this node.",
        responses_limited: "Responses beyond those that one handshake may cost.",
        cookies_taken: "Cookies taken.",
        cookies_refused: "Cookies and challenges that match no handshake, or can't be opened.",
        challenges_sent: "Challenges sent to peers whose clock went back.",
        challenges_taken: "Challenges taken, because this node's clock went back.",
        clocks_let_back: "Peers whose clock went back and that answered the challenge.",
        established: "Sessions established with a peer that had none.",
        rekeyed: "Sessions replaced by a newer one.",
        tie_breaks: "Handshakes of both sides at once, of which one was chosen.",
        handshakes_failed: "Handshakes given up.",
        confirms_sent: "Confirmations of a session sent.",
        frames_sealed: "Frames sealed.",
        frames_opened: "Frames opened.",
        unknown_index: "Frames refused: of no session that this node has.",
        forged: "Frames refused: not sealed by the session's peer.",
        replayed: "Frames refused: received before, or too old to know.",
        expired: "Frames refused: their session is too old.",
        unknown_channel: "Frames refused: of a channel that this version doesn't know.",
        bad_control: "Control messages that didn't parse.",
        grown_control: "Control messages with more behind their fields than this version knows.",
        seal_no_session: "Frames not sealed: there is no session.",
        seal_too_large: "Frames not sealed: the body is too large.",
        seal_no_route: "Frames not sealed: there is no route to the peer.",
        unproven_over_budget: "Frames not sent to unproven addresses: the budget of all peers was spent.",
        events_dropped: "Events of sessions dropped because too many waited.",
        transmits_dropped: "Outgoing frames dropped because too many waited.",
    });
}

/// The paths of the peers that are held now: a forgotten peer takes its counts along, so these are gauges.
pub(super) fn paths<'a>(into: &mut Metrics, peers: impl Iterator<Item = &'a PathStats>) {
    list!(into, Gauge, "path", peers => PathStats {
        challenges: "Challenges sent to addresses.",
        echoes: "Challenges answered.",
        stray_responses: "Responses that match no open challenge.",
        keepalives: "Keepalives sent to hold a mapping open.",
        answers: "Keepalives sent because nothing else answered a peer's data.",
        candidates_refused: "Addresses refused: unusable, or too many.",
        late_sources: "Unknown sources ignored, because their datagram wasn't the newest.",
        amplification_refused: "Messages not sent to an unproven address, because too little came from the peer.",
        loopback_refused: "Challenges not sent to loopback for a peer that isn't known to be on this machine.",
        control_dropped: "Control messages dropped because too many waited.",
        events_dropped: "Events of paths dropped because too many waited.",
        promotions: "Changes to a direct path, or to a better one.",
        demotions: "Direct paths given up.",
        moves: "Times that a peer was followed to another address.",
        stale_candidates: "Lists of addresses that are older than the known one.",
    });
}

pub(super) fn stun(into: &mut Metrics, stats: &StunStats) {
    list!(into, Counter, "stun", [stats] => StunStats {
        requests: "Requests sent, repetitions included.",
        answers: "Answers accepted.",
        malformed: "Datagrams that are no valid STUN message.",
        unexpected: "Valid messages that answer no open request.",
        timeouts: "Requests that ended without an answer.",
        events_dropped: "Answers dropped because too many waited.",
    });
}

pub(super) fn hubs(into: &mut Metrics, hubs: impl Iterator<Item = ClientStats>) {
    let hubs: Vec<ClientStats> = hubs.collect();
    list!(into, Counter, "hub", &hubs => ClientStats {
        dials: "Attempts to connect to a hub.",
        ups: "Registrations at a hub.",
        replaced: "Registrations that another process with this node's key replaced.",
        pings: "Pings of a hub.",
        lists: "Requests for contacts.",
        publishes: "Own records published, refreshes included.",
        sent: "Datagrams given to a hub.",
        received: "Datagrams received from a hub.",
        dropped_down: "Datagrams dropped because the hub wasn't connected.",
        dropped_queue_full: "Datagrams dropped because the connection doesn't take them fast enough.",
        dropped_too_large: "Datagrams dropped because they are over the hub's limit.",
        dropped_events: "Datagrams and answers of a hub dropped because this node doesn't take them fast enough.",
        dropped_requests: "Requests dropped because too many waited, or because the connection ended.",
        refused_groups: "Groups that weren't joined at a hub, because there are too many.",
        stale_records: "Records of peers that are older than a known one.",
        forgotten_records: "Record numbers forgotten, because there were too many.",
        unknown_frames: "Frames of kinds that this version doesn't know.",
        incompatible: "Registrations refused: the hub speaks no version that this node speaks.",
    });
}
