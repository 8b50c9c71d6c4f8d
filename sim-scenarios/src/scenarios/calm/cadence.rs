//! How often what nodes do by themselves happens in a calm time. What has no line here doesn't happen.
//!
//! Lines of one node come first. Each is a number of times with a lowest and a highest value: a strict period gives one
//! of two neighbours. Then come the sums, which hold exactly but for what is under way at both ends.

use nurl::internals::node::MetricKind;

use super::books::Books;
use super::numbers::{
    HANDSHAKE_S, HUB_PING_S, IDLE_CHECK_S, KEEPALIVE_S, MEASURE_S, PROBE_S, PUSH_PULL_S, REFRESH_S, REKEY_S,
    SEAL_S, SLOW_CHECK_S, STUN_S, SUMMARY_S, SUMMARY_TICK_S,
};
use super::shape::Shape;

/// The lowest and the highest number of times.
type Times = (f64, f64);

/// A strict period.
fn each(seconds: f64, period_s: f64) -> Times {
    let times = seconds / period_s;
    (times.floor() - 1.0, times.ceil() + 1.0)
}

/// So often at least and at most, and one more or less at both ends for each of so many.
fn between(low: f64, high: f64, ends: f64) -> Times {
    ((low - ends).max(0.0), high + ends)
}

/// What a node counts in so many seconds in which the application does nothing.
fn of_node(name: &str, shape: &Shape, node: usize, seconds: f64) -> Option<Times> {
    let peers = (shape.nodes() - 1) as f64;
    let (direct, relayed) = shape.member_paths(node);
    let (direct, relayed) = (direct as f64, relayed as f64);
    let others = direct + relayed;
    let member = shape.is_member(node);
    // Each pair renews its session once in the time, and its handshake is begun by one of both.
    let rekeys =
        between(peers * (seconds / (REKEY_S + HANDSHAKE_S)).floor(), peers * (seconds / REKEY_S).ceil(), 0.0);
    let measured = if member { 1.0 } else { 0.0 };
    let echoes = seconds / MEASURE_S * (2.0 * direct + relayed) * measured;
    let in_vain = shape.in_vain(node).map(|addresses| addresses as f64);
    let in_vain = seconds * (in_vain[0] / IDLE_CHECK_S + in_vain[1] / SLOW_CHECK_S);
    let legs = 2.0 * peers + 2.0;
    Some(match name {
        "membership.pings" | "membership.probes_answered" if member => each(seconds, PROBE_S),
        // Each of the others has this one once in each of its rounds.
        "membership.acks" if member => between(seconds / PROBE_S, seconds / PROBE_S, 2.0 * others),
        "membership.push_pulls" => each(seconds, PUSH_PULL_S),
        "hub.lists" | "group.sealed" if member => each(seconds, PUSH_PULL_S),
        "group.received" => {
            let heard = (shape.members() - usize::from(member)) as f64;
            between(heard * seconds / PUSH_PULL_S, heard * seconds / PUSH_PULL_S, heard)
        }
        "hub.pings" => each(seconds, HUB_PING_S),
        "hub.publishes" if member => {
            between(seconds / REFRESH_S, seconds / REFRESH_S + seconds / SEAL_S, 1.0)
        }
        "stun.requests" | "stun.answers" => each(seconds, STUN_S),
        "session.rekeyed" => rekeys,
        // Who begins is drawn once for each pair; the sums below say how many do.
        "session.inits_sent" | "session.inits_answered" | "session.confirms_sent" => (0.0, rekeys.1),
        // es and ss, ee and se, of which both sides count three.
        "session.dh" => (3.0 * rekeys.0, 3.0 * rekeys.1 + 3.0),
        "path.echoes" => between(echoes * 0.98, echoes * 1.01, legs),
        // Each gap is drawn within a fifth.
        "path.challenges" => {
            between(echoes * 0.98 + in_vain * 0.9, echoes * 1.01 + in_vain * 1.1, 2.0 * legs)
        }
        // An ack is answered after 250 ms, unless something else is said there before: a ping of the other one is. So is
        // the acknowledgement of a summary, if there are any.
        "path.answers" if member => {
            let summaries = shape.sharers(node) as f64 * seconds / SUMMARY_S;
            let highest = seconds / PROBE_S + summaries + 2.0 * seconds / PUSH_PULL_S;
            between(seconds / PROBE_S * 0.55, highest, 2.0 * peers)
        }
        "path.answers" => (0.0, 2.0 + seconds / PUSH_PULL_S),
        // Those that aren't probed are idle, but for exchanges of tables, which put the next keepalive off.
        "path.keepalives" => {
            let idle = shape.idle_paths(node) as f64;
            between(idle * seconds / KEEPALIVE_S.1 * 0.6, idle * seconds / KEEPALIVE_S.0, idle)
        }
        "hub.sent" => {
            let (low, high) = relayed_by(shape, node, seconds);
            between(low, high, 4.0 * peers)
        }
        // The sums say the rest of these.
        "hub.received"
        | "session.frames_sealed"
        | "session.frames_opened"
        | "membership.chunks"
        | "reliable.accepted"
        | "reliable.acked"
        | "reliable.delivered" => (0.0, f64::INFINITY),
        "state.summaries" | "state.in_sync" => {
            let sharers = shape.sharers(node) as f64;
            between(0.0, sharers * seconds / SUMMARY_S, sharers)
        }
        // Once for each other owner, when there are the first keys.
        "state.in_sync_told" => (0.0, shape.sharers(node) as f64),
        _ => return None,
    })
}

/// The datagrams that a node gives to its hub: the measurement of each way by the hub, with its echoes; the lists of addresses at
/// each new session, with their receipts; announcements; and all that it says to those that it doesn't reach.
fn relayed_by(shape: &Shape, node: usize, seconds: f64) -> Times {
    let (direct, relayed) = shape.member_paths(node);
    let peers = (shape.nodes() - 1) as f64;
    let lists = 2.0 * peers * seconds / REKEY_S;
    if !shape.is_member(node) {
        // Exchanges of tables with those that are relayed, and their handshakes.
        return (lists * 0.95, lists + peers * (2.0 * seconds / REKEY_S + 4.0 * seconds / PUSH_PULL_S));
    }
    let measured = 2.0 * (direct + relayed) as f64 * seconds / MEASURE_S;
    let probed = seconds / PROBE_S / (direct + relayed) as f64 * relayed as f64;
    let tables = 4.0 * seconds / PUSH_PULL_S * f64::from(u8::from(shape.is_relayed(node)));
    let (low, high) = (measured + lists + seconds / PUSH_PULL_S, relayed as f64 * seconds / 20.0);
    (low * 0.97 + 2.4 * probed, low * 1.02 + 3.4 * probed + high + tables * peers)
}

/// The lines that don't hold, each with what it should be.
pub(super) fn wrong(
    shape: &Shape,
    grown: &Books,
    seconds: f64,
    beyond: impl Fn(&str, usize) -> i64,
    skip: &[&str],
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, entry) in grown.iter() {
        let is_path = name.starts_with("path.");
        if skip.contains(&name) || (entry.kind == MetricKind::Gauge && !is_path) {
            continue;
        }
        for (node, times) in entry.of.iter().enumerate() {
            let (low, high) = of_node(name, shape, node, seconds).unwrap_or((0.0, 0.0));
            let times = (times - beyond(name, node)) as f64;
            if times < low || times > high {
                wrong.push(format!("{name} of {} is {times}, not {low:.0} to {high:.0}", shape.name(node)));
            }
        }
    }
    wrong
}

/// The sums that don't hold; `messages` is the number of reliable messages of the application, which take so many `packets`
/// at most beyond their first ones.
pub(super) fn wrong_sums(shape: &Shape, grown: &Books, messages: i64, packets: i64) -> Vec<String> {
    let sum = |name| grown.sum(name);
    let (nodes, under_way) = (shape.nodes() as i64, 3 * shape.nodes() as i64);
    let rekeyed = sum("session.rekeyed");
    let challenges = sum("path.challenges");
    let tables = sum("membership.push_pulls");
    let others = sum("membership.pings")
        + sum("membership.acks")
        + sum("membership.gossips")
        + sum("path.answers")
        + sum("path.keepalives")
        + challenges
        + sum("path.echoes")
        // A list of addresses and its receipt, from each side.
        + 2 * rekeyed
        // A confirmation has one answer.
        + 2 * sum("session.confirms_sent");
    let quic = sum("session.frames_sealed") - others - sum("transport.datagrams_out");
    let carried = tables + sum("state.summaries") + sum("state.in_sync_told") + messages;
    let table = [
        ("a table is answered by a table", sum("membership.chunks"), 2 * tables, 0, 0),
        ("a handshake is sent once", 2 * sum("session.inits_sent"), rekeyed, under_way, under_way),
        ("a handshake is answered once", 2 * sum("session.inits_answered"), rekeyed, under_way, under_way),
        ("a session is confirmed once", 2 * sum("session.confirms_sent"), rekeyed, under_way, under_way),
        ("each ping has its ack", sum("membership.acks"), sum("membership.pings"), under_way, under_way),
        (
            "what is relayed arrives, a group's word at each node",
            sum("hub.received"),
            sum("hub.sent") + (nodes - 2) * sum("group.sealed"),
            under_way,
            under_way,
        ),
        (
            "all frames are opened but challenges to those that can't be reached",
            sum("session.frames_opened"),
            sum("session.frames_sealed") - challenges + sum("path.echoes"),
            2 * under_way,
            2 * under_way,
        ),
        (
            "each summary is compared",
            sum("state.in_sync") + sum("state.out_of_sync"),
            sum("state.summaries"),
            0,
            0,
        ),
        ("reliable messages are acknowledged", sum("reliable.acked"), sum("reliable.accepted"), 0, 0),
        ("reliable messages arrive once", sum("reliable.delivered"), sum("reliable.accepted"), 0, 0),
        // The message, and acknowledgements of it that say no more.
        (
            "a message is a packet or two",
            quic,
            carried,
            2 * under_way,
            carried * 3 / 2 + tables + packets + 2 * under_way,
        ),
    ];
    let mut wrong = Vec::new();
    for (what, is, should, less, more) in table {
        if is < should - less || is > should + more {
            wrong.push(format!("{what}: {is}, not {} to {}", should - less, should + more));
        }
    }
    wrong
}

/// The periods of summaries to a peer: each is ten seconds, and up to a tick more.
pub(super) fn summaries(shape: &Shape, grown: &Books, seconds: f64) -> Vec<String> {
    let mut wrong = Vec::new();
    for node in 0..shape.nodes() {
        let (sharers, is) = (shape.sharers(node) as f64, grown.of("state.summaries", node) as f64);
        let (low, high) =
            between(sharers * seconds / (SUMMARY_S + SUMMARY_TICK_S), sharers * seconds / SUMMARY_S, sharers);
        if is < low || is > high {
            wrong.push(format!("summaries of {} are {is}, not {low:.0} to {high:.0}", shape.name(node)));
        }
    }
    wrong
}
