//! The planes' queues, and the seam: datagrams, reliable messages, groups.

use super::{Metrics, list, list_bounded};
use crate::node::NetStats;
use crate::transport::group::GroupStats;
use crate::transport::reliable::ReliableStats;
use crate::transport::{Gauges, TransportStats};

pub(super) fn node(into: &mut Metrics, stats: &NetStats, messages_waiting: usize) {
    list!(into, Counter, "node", [stats] => NetStats {
        refused_datagrams: "Application datagrams that could not be sent.",
        beyond_level: "Messages of jobs and state refused: the sender's pass permits only to look.",
        application_dropped: "Datagrams, messages and group bodies that the application didn't take in time.",
        work_dropped: "Inputs that jobs and replicated state didn't take in time.",
        messages_given_up: "Reliable messages given up because too many waited for room.",
        revocations: "Revocations taken.",
        revocations_refused: "Messages about revocations refused: malformed, false, not asked for, or beyond a limit.",
        secrets: "Secrets of the mesh taken.",
        secrets_refused: "Secrets refused: malformed, not the authority's, or from somebody who lied before.",
        issued: "Passes issued for others, as hubs asked.",
        not_issued: "Hubs' requests for passes refused.",
        asks_dropped: "Hubs' requests for passes dropped: malformed, or beyond a hub's rate.",
    });
    into.gauge(
        "node.messages_waiting",
        "Reliable messages that wait for room in the transport.",
        messages_waiting,
    );
}

pub(super) fn transport(into: &mut Metrics, stats: &TransportStats, gauges: &Gauges) {
    list!(into, Counter, "transport", [stats] => TransportStats {
        datagrams_in: "Application datagrams received.",
        datagrams_out: "Application datagrams sealed.",
        inbox_dropped: "Application datagrams dropped because too many waited.",
        unknown_channel: "Datagrams on channels that this version doesn't know.",
        waiting_dropped: "Datagrams dropped while they waited for a session.",
        hub_dropped: "Datagrams and requests to hubs dropped because too many waited, or the hub was down.",
        unknown_group_senders: "Requests for a group's key not sent, because the frame's sender isn't a known peer.",
        groups_refused: "Groups that a hub refused, because this node is in too many.",
        refused_peers: "Peers refused because the table was full.",
        evicted_peers: "Peers evicted because the table was full.",
        send_errors: "Sends that the operating system refused.",
    });
    list_bounded!(into, "transport", gauges => Gauges {
        peers: "Known peers: members, and strangers with a session or with waiting data.",
        sessions: "Peers with a session or a handshake.",
        groups: "Groups that this node is in, the mesh's own included.",
        waiting_peers: "Peers for which datagrams wait.",
        waiting_datagrams: "Datagrams in the longest of these queues.",
        sending_bytes: "Bytes of reliable messages that aren't acknowledged.",
        receiving_bytes: "Bytes of reliable messages that have arrived and aren't taken.",
        stuck_peers: "Peers with unacknowledged messages and no timer: a defect.",
    });
}

pub(super) fn reliable(into: &mut Metrics, stats: &ReliableStats) {
    list!(into, Counter, "reliable", [stats] => ReliableStats {
        accepted: "Messages accepted for sending.",
        acked: "Messages acknowledged.",
        failed: "Messages given up.",
        delivered: "Messages received.",
        refused_large: "Messages refused: too large.",
        refused_full: "Messages refused for the time being: a budget was used up.",
        refused_peers: "Peers refused because the table was full.",
        connections: "Connections established.",
        connections_ended: "Connections ended, for any reason.",
        garbage: "Datagrams that are neither QUIC nor control.",
        unknown_peer: "Datagrams of peers whose process isn't known.",
        stale: "Datagrams of an earlier process, attempt or connection.",
        violations: "Connections closed because the peer broke the protocol.",
        stalled: "Connections closed because they held more than their share of the receive budget, and sent too little.",
        evicted: "Connections closed because they held most of a used-up receive budget.",
        paused: "Times that reading from a peer paused because of the receive budget.",
        opens_sent: "Requests for a connection sent.",
        gones_sent: "Notices that a connection is gone sent.",
        early_probes: "Probes sent ahead of QUIC's back-off.",
    });
}

pub(super) fn groups(into: &mut Metrics, stats: &GroupStats) {
    list!(into, Counter, "group", [stats] => GroupStats {
        sealed: "Frames sealed.",
        received: "Frames delivered.",
        waited: "Frames that waited for their sender's key.",
        expired: "Frames that waited too long for their sender's key.",
        malformed: "Frames refused: they don't parse.",
        unknown_group: "Frames refused: of a group that this node isn't in.",
        sender_refused: "Frames refused: their sender gave no key.",
        voided: "Frames refused: of a process that has ended.",
        replayed: "Frames refused: received before, or too old to know.",
        forged: "Frames refused: not sealed by their sender's key.",
        overflow: "Frames refused: too many wait for keys.",
        bad_key_messages: "Key messages refused: malformed, of an unknown group, or of a process that has ended.",
        requests_refused: "Requests for this node's key refused.",
        requests_answered: "Requests for this node's key answered.",
        requests_sent: "Requests for a sender's key, repetitions included.",
        requests_failed: "Requests for a sender's key without an answer.",
        rotations: "New keys of this node after the first.",
        senders_evicted: "Senders evicted for others.",
        outbox_full: "Key messages dropped because too many waited.",
    });
}
