//! The checks of tables, queues and counters, at nodes and at hubs.

use chaos::property::Violation;
use chaos::sometimes;
use nurl::internals::compute::job::Config as JobConfig;
use nurl::internals::compute::job::options::{
    MAX_EXECUTIONS, MAX_RECORD_BYTES, MAX_RECORDS, MAX_SUBMISSIONS,
};
use nurl::internals::net::reach::hub::{HubLimits, HubStats};
use nurl::internals::node::WorkStats;
use nurl::internals::replication::replicator::MAX_PENDING;
use nurl::internals::ring::MAX_TENURES;
use nurl::internals::transport::Gauges;

/// Checks a node's tables and counters.
///
/// # Errors
/// The property that they break.
pub(super) fn check_stats(by: &str, stats: &WorkStats) -> Result<(), Violation> {
    let (jobs, now) = (&stats.jobs, &stats.jobs_now);
    let ends = jobs.results + jobs.errors;
    if ends + now.open as u64 != jobs.submitted {
        return Err(Violation::safety(
            "a result is recorded once",
            format!("{by} took {} tasks, {} are open, and it counts {ends} ends", jobs.submitted, now.open),
        ));
    }
    let bounds = [
        ("open tasks", now.open, MAX_SUBMISSIONS),
        ("executions", now.executing, MAX_EXECUTIONS),
        ("running handlers", now.running, JobConfig::default().concurrency),
        ("outcomes", now.records, MAX_RECORDS),
        ("bytes of outcomes", now.record_bytes, MAX_RECORD_BYTES),
        ("tenures", now.tenures, MAX_TENURES),
        ("unacknowledged writes", stats.unacknowledged, MAX_PENDING),
    ];
    check_bounds(by, bounds)?;
    sometimes!(jobs.forwarded > 0, "a job was forwarded");
    sometimes!(jobs.duplicate_runs > 0, "a job ran twice and was recorded once");
    sometimes!(jobs.recalled > 0, "an owner gave an outcome instead of a second run");
    Ok(())
}

/// Checks the gauges of a node's transport.
///
/// # Errors
/// The property that they break.
pub(super) fn check_gauges(by: &str, gauges: &Gauges) -> Result<(), Violation> {
    check_bounds(by, gauges.named().map(|(what, gauge)| (what, gauge.now, gauge.bound)))
}

/// Checks the tables and client queues of a hub with these limits.
///
/// # Errors
/// The property that they break.
pub(super) fn check_hub(by: &str, stats: &HubStats, limits: &HubLimits) -> Result<(), Violation> {
    let relay = limits.relay;
    let bounds = [
        ("clients", stats.clients, limits.clients),
        ("connections", stats.connections, limits.clients + limits.half_open),
        ("records", stats.records, limits.records),
        ("bytes of datagrams for a client", stats.fullest_queue_bytes, relay.queue_bytes),
        ("bytes of control frames for a client", stats.fullest_control_bytes, relay.control_bytes),
    ];
    check_bounds(by, bounds)
}

fn check_bounds<const N: usize>(by: &str, bounds: [(&str, usize, usize); N]) -> Result<(), Violation> {
    match bounds.into_iter().find(|(_, count, bound)| count > bound) {
        None => Ok(()),
        Some((what, count, bound)) => Err(Violation::safety(
            "no queue is longer than its bound",
            format!("{by} has {count} {what}, the bound is {bound}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nurl::internals::transport::Gauge;

    fn property(found: Result<(), Violation>) -> String {
        found.expect_err("the check goes red").property
    }

    #[test]
    fn a_second_record_of_a_result_and_an_end_that_is_missing_are_seen() {
        let mut counted = WorkStats::default();
        (counted.jobs.submitted, counted.jobs.results, counted.jobs_now.open) = (3, 2, 1);
        check_stats("a", &counted).unwrap();
        counted.jobs.results = 3;
        assert_eq!(property(check_stats("a", &counted)), "a result is recorded once");
        counted.jobs.results = 1;
        assert_eq!(property(check_stats("a", &counted)), "a result is recorded once");
    }

    #[test]
    fn a_queue_past_its_bound_is_seen() {
        let over = WorkStats { unacknowledged: MAX_PENDING + 1, ..WorkStats::default() };
        assert_eq!(property(check_stats("a", &over)), "no queue is longer than its bound");
        let mut over = WorkStats::default();
        over.jobs_now.running = JobConfig::default().concurrency + 1;
        assert_eq!(property(check_stats("a", &over)), "no queue is longer than its bound");
        let mut over = Gauges::default();
        check_gauges("a", &over).unwrap();
        over.waiting_datagrams = Gauge { now: 3, bound: 2 };
        assert_eq!(property(check_gauges("a", &over)), "no queue is longer than its bound");
        let limits = HubLimits::default();
        let mut over = HubStats { fullest_queue_bytes: limits.relay.queue_bytes, ..HubStats::default() };
        check_hub("h", &over, &limits).unwrap();
        over.fullest_queue_bytes += 1;
        assert_eq!(property(check_hub("h", &over, &limits)), "no queue is longer than its bound");
    }
}
