//! Ownership, replicated state, jobs and handlers.

use super::{Metrics, list};
use crate::compute::job::custody::{CustodyGauges, CustodyStats};
use crate::compute::job::{Gauges as JobGauges, JobStats};
use crate::compute::pool::PoolStats;
use crate::node::command::{DiskStats, WorkStats};
use crate::replication::replicator::ReplicationStats;
use crate::ring::TenureCounters;

pub(super) fn ring(into: &mut Metrics, stats: &WorkStats) {
    list!(into, Counter, "ring.tenures", [&stats.tenures] => TenureCounters {
        too_far_ahead: "Epoch counters refused: too far ahead.",
        full: "Attempts refused because the table of tenures was full.",
        evicted: "Idle tenures evicted for another key.",
        superseded: "Tenures ended because a resource returned a higher token.",
    });
}

pub(super) fn state(into: &mut Metrics, stats: &WorkStats) {
    list!(into, Counter, "state", [&stats.replication] => ReplicationStats {
        malformed: "Messages that didn't parse, or had a value of another kind than their key.",
        bad_states: "States refused: not canonical, or above a limit.",
        marks_ahead: "States taken without a deletion or an expiry whose stamp is ahead of the clock.",
        not_owner: "States refused: of keys that this node doesn't own.",
        foreign: "States refused: they would have changed what the sender didn't write.",
        declined: "Writes and copies declined: no room, a limit of the value, or not the sender's.",
        not_stored: "States refused because this node's disk takes no commits.",
        stray: "Acknowledgements and answers that match no request, or come from the wrong node.",
        full: "States, deltas, observers' writes, lists and watches refused because this node has as much as it may.",
        bad_names: "Lists of names refused: not of what was asked for, or without an end.",
        outbox_dropped: "Messages dropped because too many waited.",
        throttled: "Times that repair stopped because its budget was used up.",
        summaries: "Summaries sent.",
        in_sync: "Summaries received that matched.",
        in_sync_told: "Matches told to a peer that learns of which keys there is nothing.",
        out_of_sync: "Summaries received that differed.",
        states_sent: "Whole states sent, for repair or hand-off.",
        parked: "Merges that parked a write whose stamp is too far ahead.",
        handed_off: "Keys handed off and dropped.",
        set_aside: "Objects set aside after a long absence.",
        discarded: "Objects set aside that were discarded, since owners that were there lack them.",
        expired: "Objects that expired here.",
        forgotten: "Deletions forgotten, for age or for lack of room.",
        renewed: "Times that this node took another replica id, for lack of room to remember more of its own sums.",
    });
    let help = "Keys with writes that too few nodes have acknowledged yet.";
    into.gauge("state.unacknowledged", help, stats.unacknowledged);
    list!(into, Counter, "disk", [&stats.disk] => DiskStats {
        failures: "Commits of the store that failed, each of which closed it.",
        failing: "1 while the store fails and the node takes no writes.",
    });
}

pub(super) fn jobs(into: &mut Metrics, stats: &WorkStats) {
    list!(into, Counter, "job", [&stats.jobs] => JobStats {
        submitted: "Submitter: tasks taken.",
        results: "Submitter: tasks that ended with a result.",
        errors: "Submitter: tasks that ended with an error.",
        attempts: "Submitter: attempts sent out.",
        silences: "Submitter: attempts given up because the executor was silent, unreachable or gone.",
        busy_seen: "Submitter: executors that answered to be busy.",
        duplicate_results: "Submitter: results after the task's end, from another run.",
        forged_outcomes: "Submitter: outcomes refused: from nodes without a part in the task.",
        withdrawn: "Submitter: runs withdrawn because the task runs elsewhere or has ended.",
        run_once_more: "Submitter: tasks run a second time beside a run that took long.",
        fetched: "Submitter: results of finished tasks asked for again.",
        hand_backs: "Submitter: tasks that a draining executor refused or gave back.",
        not_allowed_seen: "Submitter: executors whose policy didn't permit a task.",
        refused_submits: "Submitter: tasks refused because too many were open.",
        runs: "Executor: handlers started.",
        duplicate_submits: "Executor: submits of a task that was here already.",
        forwarded: "Executor: submits forwarded.",
        misrouted: "Executor: submits that no node within the hop limit took.",
        busy: "Executor: submits refused because this node was busy.",
        unknown_kind: "Executor: submits of a kind without a handler.",
        not_allowed: "Executor: submits that a policy refused.",
        bad_warrants: "Executor: submits for another refused: the word of whose task it is doesn't count.",
        spoofed: "Executor: submits refused: the submitter wasn't the sender, or claims another task.",
        unclaimed: "Executor: forwarded tasks dropped because their submitters didn't claim them in time.",
        gave_way: "Executor: queued tasks that gave way to those of submitters with fewer.",
        recalled: "Executor: tasks submitted again of which an owner had the outcome.",
        elsewhere: "Executor: tasks submitted again that another node was running.",
        fenced: "Executor: runs that a resource fenced.",
        outcomes_unheard: "Executor: outcomes no longer sent to a submitter that doesn't answer.",
        handed_back: "Executor: tasks given back or refused while this node drained.",
        conflicts: "Executor: task ids used for two payloads.",
        duplicate_runs: "Replica: records that showed a second run of a task.",
        forged_records: "Replica: records refused: from nodes that may not make them.",
        records_refused: "Replica: outcomes not kept because the table was full.",
        records_evicted: "Replica: outcomes dropped early, for one of a peer that has fewer.",
        unexpected: "Messages of nodes that have no part in the task.",
        malformed: "Messages that didn't parse.",
        unknown_type: "Messages of types that this version doesn't know.",
        epoch_refused: "Epoch counters refused: too far ahead.",
        outbox_dropped: "Messages dropped because too many waited.",
        events_dropped: "Notices dropped because too many waited.",
    });
    list!(into, Gauge, "job", [&stats.jobs_now] => JobGauges {
        open: "Submitter: tasks without an outcome.",
        executing: "Executor: tasks asked about, queued or running.",
        running: "Executor: handlers running.",
        records: "Replica: outcomes and hashes held.",
        record_bytes: "Replica: bytes of outcomes held.",
        tenures: "Executor: tenures held.",
        left_behind_bytes: "Bytes that finished tasks occupy in all tables.",
    });
}

pub(super) fn custody(into: &mut Metrics, stats: &WorkStats) {
    list!(into, Counter, "custody", [&stats.custody] => CustodyStats {
        deposited: "Detached tasks taken from their submitters.",
        driven: "Detached tasks submitted as their custodian.",
        concluded: "Detached tasks ended as their custodian.",
        expired: "Detached tasks whose time in the log was over.",
        refused: "Requests and copies refused: no room, no valid word of the submitter, not the submitter's, another id.",
        conflicts: "Copies of an id that has another content here.",
        forged: "Marks and copies from members that don't keep the task.",
        unexpected: "Answers that nobody waits for.",
        malformed: "Messages that didn't parse, or are beyond a limit.",
        unknown_type: "Messages of a later version.",
        outbox_dropped: "Messages dropped because too many waited.",
        evicted: "Ended tasks whose bytes were dropped for want of room.",
    });
    list!(into, Gauge, "custody", [&stats.custody_now] => CustodyGauges {
        entries: "Detached tasks of which this node has a copy.",
        bytes: "Their bytes: payloads and results.",
        driving: "Detached tasks that this node has submitted as their custodian.",
        calls: "This node's own calls about detached tasks under way.",
    });
}

pub(super) fn pool(into: &mut Metrics, stats: &WorkStats) {
    list!(into, Counter, "pool", [&*stats.pool] => PoolStats {
        started: "Handlers started.",
        panicked: "Handlers that panicked.",
        timed_out: "Handlers that exceeded their time.",
        stuck: "Aborted handlers that didn't end in time and keep their thread.",
        notes_dropped: "Progress notes dropped because too many waited.",
    });
    let large = [
        (
            "large.received_bytes",
            "Bytes of large files that were asked for and came.",
            &stats.large.received_bytes,
        ),
        (
            "large.found_bytes",
            "Bytes of large files that were on the disk already.",
            &stats.large.found_bytes,
        ),
        ("large.wrong", "Chunks whose bytes weren't the file's.", &stats.large.wrong),
        ("large.unasked", "Chunks that nobody had asked for.", &stats.large.unasked),
        ("large.malformed", "Messages about large files that didn't parse.", &stats.large.malformed),
        (
            "large.dropped",
            "Messages about large files dropped because too many waited.",
            &stats.large.dropped,
        ),
        ("large.sent", "Chunks read and sent.", &stats.large.sent),
        (
            "large.unknown",
            "Requests for files that this node doesn't offer to the peer.",
            &stats.large.unknown,
        ),
        ("large.too_often", "Requests over a bound.", &stats.large.too_often),
        ("large.changed", "Chunks not sent because the file has changed.", &stats.large.changed),
    ];
    large.into_iter().for_each(|(name, help, count)| into.counter(name, help, count.get()));
    into.gauge("pool.running", "Handlers running, or whose end is not yet noted.", stats.pool_running);
}
