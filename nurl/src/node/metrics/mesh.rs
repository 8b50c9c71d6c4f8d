//! The failure detector.

use super::{Metrics, list};
use crate::membership::{Detector, DetectorStats};

pub(super) fn membership(into: &mut Metrics, detector: &Detector) {
    list!(into, Counter, "membership", [detector.stats()] => DetectorStats {
        malformed: "Messages that didn't parse.",
        unknown_kinds: "Messages of kinds that this version doesn't know.",
        oversize: "Messages above the limit.",
        from_self: "Messages from this node's own key.",
        incarnations_too_high: "Facts refused: their incarnation is too far ahead of the clock.",
        epochs_too_high: "Epoch counters refused: too far ahead of the clock.",
        table_full: "New members refused: the table is full.",
        expired_facts: "Facts refused: about members that are about to be forgotten.",
        claims_checked: "Claims that a live member is dead, checked with their subject.",
        claims_refuted: "Such claims that their subject refuted by its answer.",
        claims_limited: "Claims and suspicions refused: their teller had caused too many.",
        claims_of_strangers: "Claims and suspicions refused: their teller is no live member.",
        beyond_level: "Messages of members from peers whose pass permits no membership.",
        facts_of_outcasts: "Facts refused: about peers whose pass was revoked.",
        facts_forged: "Facts refused: their pass or signature isn't valid.",
        facts_of_forgers: "Facts refused unchecked: their teller had told forged ones.",
        facts_below_member: "Facts refused: about peers whose pass permits no membership.",
        facts_of_forgotten: "Facts refused: old words of members that are forgotten.",
        facts_of_unknown: "Accusations refused: of peers that this node doesn't know.",
        transmits_dropped: "Messages dropped because too many waited.",
        events_dropped: "Events dropped because too many waited.",
        gossip_full: "Facts not gossiped because too many waited.",
        unsolicited_acks: "Acks that match no probe.",
        late_acks: "Acks after their probe had failed.",
        served_full: "Ping-reqs refused because too many were being served.",
        served_unknown: "Ping-reqs refused because their target isn't known.",
        served: "Ping-reqs served.",
        push_pulls_refused: "Exchanges of tables refused by the limit.",
        push_pulls_failed: "Exchanges of tables without an answer.",
        push_pulls: "Exchanges of tables completed.",
        unsolicited_chunks: "Parts of a table that wasn't asked for.",
        refutations_limited: "Claims about this node left unrefuted by the limit.",
        pings: "Pings sent, for others too.",
        acks: "Acks sent.",
        gossips: "Gossip messages sent.",
        chunks: "Parts of this node's table sent.",
        stalls: "Times that this node itself stalled.",
        probes_failed: "Probes that failed.",
        probes_beside: "Probes outside the rounds, of members under accusation or denial.",
        urgent_full: "Probes out of turn not made, because too many waited.",
        probes_answered: "Probes answered in time.",
        announcements_dropped: "Announcements not answered because too many waited.",
    });
    into.gauge(
        "membership.live",
        "Live members, this node included unless it is an observer.",
        detector.live(),
    );
    into.gauge(
        "membership.health",
        "The local health score: 0 is healthy, 8 is slowest.",
        detector.health() as usize,
    );
    let isolated = usize::from(detector.is_isolated());
    into.gauge("membership.isolated", "1 while this node considers itself cut off from the mesh.", isolated);
}
