//! Properties that every node must keep in every scenario.
//!
//! | property | observed through |
//! | --- | --- |
//! | an incarnation never goes back in a node's view | its events |
//! | a dead or left member comes back only with a higher incarnation | its events |
//! | a node runs no more handlers of a kind at once than the kind allows | its events |
//! | a handle resolves once | the scenario's task handles |
//! | a result is recorded once | the node's counters |
//! | no queue is longer than its bound | the node's gauges, and the hubs' |
//! | an owner set has no duplicates | rings made of the node's members |
//! | a job goes to a member that is live | rings made of the node's members |
//! | a node that has been silent on every leg for 60 s is not held alive | the node's members, and the world |
//!
//! A node is silent to another one if none of its packets can have reached the other, directly or through third
//! nodes; the world knows this. An observer that was isolated meanwhile has 90 s, since its verdicts are held
//! back for 60 s.
//!
//! Each check is a lookup in a small table. The first failed check ends the run.
//!
//! Two cases look like a resurrection and are none. First, a node that was cut off retracts the verdicts that it
//! made alone (see `nurl::internals::membership::isolation`). Its own verdicts from then on are excused, and
//! those made on the way into isolation: no older than [`RETRACT`]. Second, a left member is forgotten after a
//! while, and may then return as a new member.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chaos::property::{Broken, fail};
use chaos::sometimes;
use chaos::world::{Host, World};
use nurl::PublicKey;
use nurl::internals::compute::job::options::{
    MAX_EXECUTIONS, MAX_RECORD_BYTES, MAX_RECORDS, MAX_SUBMISSIONS,
};
use nurl::internals::compute::job::{Config as JobConfig, KindLimits, TaskId};
use nurl::internals::membership::detector::RETRACT;
use nurl::internals::membership::{Config as DetectorConfig, Roles, State};
use nurl::internals::net::reach::hub::{HubLimits, HubStats};
use nurl::internals::node::{MemberInfo, Node, NodeEvent, Role, WorkStats};
use nurl::internals::replication::replicator::MAX_PENDING;
use nurl::internals::ring::{MAX_TENURES, Ring, RingMember};
use nurl::internals::transport::Gauges;
use nurl::rt::time;

use super::{Setup, Witness};
use crate::models::relay::Relay;

/// How often a node is asked for its counters, gauges and members, which no event reports.
const SAMPLE: Duration = Duration::from_secs(10);

/// Keys whose owner sets are checked in each sample. Each sample takes other keys, so that in a sweep they cover
/// the whole ring, also where it wraps.
const SAMPLED_KEYS: u8 = 4;

/// The time within which a silent node must be held dead: the longest suspicion in a mesh of a hundred is 48 s.
const SILENT: Duration = Duration::from_secs(60);

/// The same for an observer that was isolated meanwhile.
const SILENT_TO_THE_ISOLATED: Duration = Duration::from_secs(90);

/// Owners of a key, the default.
const REPLICAS: usize = 3;

/// The state of the checks.
#[derive(Debug, Default)]
pub struct Checks {
    nodes: BTreeMap<String, Observer>,
    hosts: BTreeMap<PublicKey, Host>,
    ended: BTreeSet<(String, TaskId)>,
}

/// One observing node, in its present process.
#[derive(Debug, Default)]
struct Observer {
    boot: u32,
    isolated: bool,
    /// When its isolation last began or ended.
    isolated_at: Option<Duration>,
    views: BTreeMap<PublicKey, Seen>,
    running: BTreeMap<String, usize>,
}

/// A node's latest report of another node.
#[derive(Debug, Clone, Copy)]
struct Seen {
    state: State,
    incarnation: u64,
    at: Duration,
    /// Reported in isolation, or shortly before: it may be retracted.
    excused: bool,
    /// When the observer first heard of the member at this incarnation.
    met: Duration,
}

impl Checks {
    /// Registers `host` as the host of the node with this key.
    pub(super) fn knows(&mut self, key: PublicKey, host: Host) {
        self.hosts.insert(key, host);
    }

    /// Checks whether the node `by` on `host`, with these members, holds a member alive that has been silent for
    /// too long.
    ///
    /// # Errors
    /// If it does.
    pub fn silent(&self, world: World, by: &str, host: Host, members: &[MemberInfo]) -> Result<(), Broken> {
        let (now, Some(node)) = (world.elapsed(), self.nodes.get(by)) else { return Ok(()) };
        let lately = node.isolated_at.is_some_and(|at| now.saturating_sub(at) <= SILENT_TO_THE_ISOLATED);
        let limit = if node.isolated || lately { SILENT_TO_THE_ISOLATED } else { SILENT };
        // A node that has just started or was paused has had less time.
        let Some(since) = now.checked_sub(limit) else { return Ok(()) };
        if host.runs_since().is_none_or(|at| at > since) {
            return Ok(());
        }
        let audible = world.audible(host, since);
        let long_silent = |key: &PublicKey| {
            let long_met = node.views.get(key).is_some_and(|seen| seen.met <= since);
            long_met && self.hosts.get(key).is_some_and(|of| !audible.contains(of))
        };
        held_alive(by, members, limit, long_silent)
    }

    /// An event of the node `by`, whose host has had `boot` processes, at the world's time `at`.
    ///
    /// # Errors
    /// The property that the event breaks.
    pub fn event(&mut self, at: Duration, by: &str, boot: u32, event: &NodeEvent) -> Result<(), Broken> {
        let node = self.nodes.entry(by.to_owned()).or_default();
        if boot < node.boot {
            return Ok(());
        }
        if boot > node.boot {
            *node = Observer { boot, ..Observer::default() };
        }
        match event {
            NodeEvent::Member { peer, state, incarnation } => {
                let (state, incarnation) = (*state, *incarnation);
                let now = Seen { state, incarnation, at, excused: node.isolated, met: at };
                node.member(by, *peer, now)
            }
            NodeEvent::Isolated(isolated) => {
                node.isolated = *isolated;
                node.isolated_at = Some(at);
                if *isolated {
                    let young = |seen: &&mut Seen| at.saturating_sub(seen.at) <= RETRACT;
                    node.views.values_mut().filter(young).for_each(|seen| seen.excused = true);
                }
                Ok(())
            }
            NodeEvent::JobStarted { kind, .. } => node.started(by, kind),
            NodeEvent::JobFinished { kind, .. } => {
                if let Some(running) = node.running.get_mut(kind) {
                    *running = running.saturating_sub(1);
                }
                Ok(())
            }
            NodeEvent::Lagged(lost) => {
                Err(Broken::safety("the checks hear every event", format!("{by} dropped {lost}")))
            }
            _ => Ok(()),
        }
    }

    /// How many handlers run at a node now.
    pub fn running(&self, by: &str) -> usize {
        self.nodes.get(by).map_or(0, |node| node.running.values().sum())
    }

    /// Records that a task's handle at the node `by` has resolved.
    ///
    /// # Errors
    /// If it had resolved before.
    pub fn ended(&mut self, by: &str, task: TaskId) -> Result<(), Broken> {
        if self.ended.insert((by.to_owned(), task)) {
            return Ok(());
        }
        Err(Broken::safety("a handle resolves once", format!("{by} was told the end of {task:?} again")))
    }
}

impl Observer {
    fn member(&mut self, by: &str, peer: PublicKey, mut now: Seen) -> Result<(), Broken> {
        let forget = DetectorConfig::default().left_reclaim;
        let before = self.views.get(&peer).copied();
        // A left member may have been forgotten since, and then returns as a new one.
        let before =
            before.filter(|seen| seen.state != State::Left || now.at.saturating_sub(seen.at) < forget);
        if let Some(before) = before {
            if now.incarnation < before.incarnation {
                return Err(Broken::safety(
                    "an incarnation never goes back in a node's view",
                    format!("{by} saw {peer:?} at {}, now at {}", before.incarnation, now.incarnation),
                ));
            }
            let risen = !before.state.is_live() && now.state.is_live();
            let excused = before.excused && before.state == State::Dead;
            if risen && now.incarnation == before.incarnation && !excused {
                return Err(Broken::safety(
                    "who is dead or has left comes back only with a higher incarnation",
                    format!(
                        "{by} held {peer:?} {} at {}, and now {} at the same",
                        before.state.as_str(),
                        before.incarnation,
                        now.state.as_str()
                    ),
                ));
            }
            let refuted = before.state == State::Suspect && now.incarnation > before.incarnation;
            sometimes!(refuted && now.state == State::Alive, "a suspect refutes");
            sometimes!(risen, "who was held dead is alive again");
            if now.incarnation == before.incarnation {
                now.met = before.met;
            }
        }
        self.views.insert(peer, now);
        Ok(())
    }

    fn started(&mut self, by: &str, kind: &str) -> Result<(), Broken> {
        let limit = KindLimits::default().concurrency;
        let running = self.running.entry(kind.to_owned()).or_default();
        *running += 1;
        if *running > limit {
            return Err(Broken::safety(
                "a node runs no more handlers of a kind at once than the kind allows",
                format!("{by} runs {running} of {kind}, the limit is {limit}"),
            ));
        }
        Ok(())
    }
}

/// Checks a node's tables and counters.
///
/// # Errors
/// The property that they break.
pub fn stats(by: &str, stats: &WorkStats) -> Result<(), Broken> {
    let (jobs, now) = (&stats.jobs, &stats.jobs_now);
    let ends = jobs.results + jobs.errors;
    if ends + now.open as u64 != jobs.submitted {
        return Err(Broken::safety(
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
    within(by, bounds)?;
    sometimes!(jobs.forwarded > 0, "a job was forwarded");
    sometimes!(jobs.duplicate_runs > 0, "a job ran twice and was recorded once");
    sometimes!(jobs.recalled > 0, "an owner gave an outcome instead of a second run");
    Ok(())
}

/// Checks the gauges of a node's transport.
///
/// # Errors
/// The property that they break.
pub fn gauges(by: &str, gauges: &Gauges) -> Result<(), Broken> {
    within(by, gauges.named().map(|(what, gauge)| (what, gauge.now, gauge.bound)))
}

/// Checks the tables and client queues of a hub with these limits.
///
/// # Errors
/// The property that they break.
pub fn hub(by: &str, stats: &HubStats, limits: &HubLimits) -> Result<(), Broken> {
    let relay = limits.relay;
    let bounds = [
        ("clients", stats.clients, limits.clients),
        ("connections", stats.connections, limits.clients + limits.half_open),
        ("records", stats.records, limits.records),
        ("bytes of datagrams for a client", stats.fullest_queue_bytes, relay.queue_bytes),
        ("bytes of control frames for a client", stats.fullest_control_bytes, relay.control_bytes),
    ];
    within(by, bounds)
}

fn within<const N: usize>(by: &str, bounds: [(&str, usize, usize); N]) -> Result<(), Broken> {
    match bounds.into_iter().find(|(_, count, bound)| count > bound) {
        None => Ok(()),
        Some((what, count, bound)) => Err(Broken::safety(
            "no queue is longer than its bound",
            format!("{by} has {count} {what}, the bound is {bound}"),
        )),
    }
}

/// Checks the owner sets that follow from a node's members, at the world's time `at`.
///
/// # Errors
/// The property that they break.
pub fn owners(at: Duration, by: &str, local: PublicKey, members: &[MemberInfo]) -> Result<(), Broken> {
    let placed = |member: &MemberInfo| RingMember {
        key: member.key,
        weight: member.weight,
        zone: member.zone.clone(),
        kinds: member.kinds.clone(),
        live: member.state.is_live(),
        placed: member.roles.contains(Roles::WORKER) && member.state != State::Left,
    };
    let me = RingMember {
        key: local,
        weight: 1,
        zone: String::new(),
        kinds: Vec::new(),
        live: true,
        placed: true,
    };
    let ring = Ring::new(members.iter().map(placed).chain([me]));
    let kinds: BTreeSet<_> = members.iter().flat_map(|member| &member.kinds).collect();
    for number in 0..SAMPLED_KEYS {
        // The ring hashes the key.
        let key = [at.as_nanos().to_le_bytes().as_slice(), &[number]].concat();
        distinct(by, &ring.owners(&key, REPLICAS))?;
        for kind in &kinds {
            live(by, members, kind, &ring.executors(kind, &key))?;
        }
    }
    Ok(())
}

/// Checks that all executors for a job of a kind are live, as this node sees them.
fn live(by: &str, members: &[MemberInfo], kind: &str, executors: &[PublicKey]) -> Result<(), Broken> {
    let gone = |key: &&PublicKey| members.iter().any(|of| of.key == **key && !of.state.is_live());
    match executors.iter().find(gone) {
        None => Ok(()),
        Some(key) => Err(Broken::safety(
            "a job goes to a member that is live",
            format!("{by} would give a job of {kind} to {key:?}, which it doesn't hold live"),
        )),
    }
}

/// Checks that no member that has been silent for `limit` or longer is held alive.
fn held_alive(
    by: &str,
    members: &[MemberInfo],
    limit: Duration,
    long_silent: impl Fn(&PublicKey) -> bool,
) -> Result<(), Broken> {
    match members.iter().find(|member| member.state.is_live() && long_silent(&member.key)) {
        None => Ok(()),
        Some(member) => Err(Broken::safety(
            "a node that has been silent on every leg for a minute is not held alive",
            format!("{by} holds {:?} {}, silent for {limit:?}", member.key, member.state.as_str()),
        )),
    }
}

fn distinct(by: &str, owners: &[PublicKey]) -> Result<(), Broken> {
    let set: BTreeSet<_> = owners.iter().collect();
    if set.len() == owners.len() {
        return Ok(());
    }
    Err(Broken::safety("an owner set has no duplicates", format!("{by} has the owners {owners:?}")))
}

/// A node under inspection.
pub struct Looked<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its role in the mesh. An observer only asks for the members at intervals, so its view is older.
    pub role: Role,
    /// Its host.
    pub host: Host,
    /// The record of its events.
    pub witness: &'a Witness,
}

/// Queries a node, and the hubs, for the facts that no event reports.
///
/// # Errors
/// The property that their answers break.
pub async fn look(world: World, peer: &Looked<'_>, node: &Node, hubs: &[Relay]) -> Result<(), Broken> {
    let by = peer.name;
    for relay in hubs {
        hub(&relay.host.name(), &relay.stats(), &relay.limits())?;
    }
    // A node that shuts down during the query breaks nothing.
    let (Ok(status), Ok(counted)) = (node.status().await, node.work_stats().await) else { return Ok(()) };
    if peer.role != Role::Observer {
        peer.witness.silent(world, by, peer.host, &status.members)?;
    }
    owners(world.elapsed(), by, node.key(), &status.members)?;
    gauges(by, &status.transport_now)?;
    stats(by, &counted)
}

/// Checks a node at intervals, until its process ends.
pub(super) async fn sample(setup: Setup, node: Node, hubs: Vec<Relay>) {
    let Setup { name, role, host, world, witness, .. } = &setup;
    loop {
        time::sleep(SAMPLE).await;
        let peer = Looked { name, role: *role, host: *host, witness };
        if let Err(broken) = look(*world, &peer, &node, &hubs).await {
            fail(broken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nurl::internals::net::secure::securedgram::paths::PathReason;
    use nurl::internals::transport::{Gauge, PathInfo};

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    fn says(checks: &mut Checks, state: State, incarnation: u64) -> Result<(), Broken> {
        let event = NodeEvent::Member { peer: key(1), state, incarnation };
        checks.event(Duration::from_secs(1), "a", 1, &event)
    }

    fn property(found: Result<(), Broken>) -> String {
        found.expect_err("the check goes red").property
    }

    #[test]
    fn an_incarnation_that_goes_back_is_seen() {
        let mut checks = Checks::default();
        says(&mut checks, State::Alive, 4).unwrap();
        assert!(property(says(&mut checks, State::Alive, 3)).starts_with("an incarnation never goes back"));
    }

    #[test]
    fn another_process_of_the_observer_begins_anew() {
        let mut checks = Checks::default();
        says(&mut checks, State::Alive, 4).unwrap();
        let event = NodeEvent::Member { peer: key(1), state: State::Alive, incarnation: 0 };
        checks.event(Duration::from_secs(2), "a", 2, &event).unwrap();
        // A late event of the old process is ignored.
        says(&mut checks, State::Alive, 9).unwrap();
        checks.event(Duration::from_secs(2), "a", 2, &event).unwrap();
    }

    #[test]
    fn a_resurrection_is_seen() {
        for gone in [State::Dead, State::Left] {
            let mut checks = Checks::default();
            says(&mut checks, gone, 4).unwrap();
            assert!(property(says(&mut checks, State::Alive, 4)).starts_with("who is dead or has left"));
            says(&mut checks, State::Alive, 5).unwrap();
        }
    }

    #[test]
    fn a_verdict_of_isolation_may_be_taken_back_a_goodbye_may_not() {
        let mut checks = Checks::default();
        let isolated = |checks: &mut Checks, is| {
            checks.event(Duration::from_secs(1), "a", 1, &NodeEvent::Isolated(is)).unwrap();
        };
        says(&mut checks, State::Dead, 4).unwrap();
        isolated(&mut checks, true);
        isolated(&mut checks, false);
        says(&mut checks, State::Alive, 4).unwrap();
        says(&mut checks, State::Dead, 4).unwrap();
        assert!(says(&mut checks, State::Alive, 4).is_err(), "the next verdict is no longer excused");
        says(&mut checks, State::Left, 5).unwrap();
        isolated(&mut checks, true);
        assert!(says(&mut checks, State::Alive, 5).is_err());
    }

    #[test]
    fn a_verdict_from_long_before_isolation_stands() {
        let mut checks = Checks::default();
        says(&mut checks, State::Dead, 4).unwrap();
        let late = Duration::from_secs(2) + RETRACT;
        checks.event(late, "a", 1, &NodeEvent::Isolated(true)).unwrap();
        assert!(property(says(&mut checks, State::Alive, 4)).starts_with("who is dead or has left"));
    }

    #[test]
    fn who_left_long_ago_may_be_met_anew() {
        let mut checks = Checks::default();
        says(&mut checks, State::Left, 4).unwrap();
        let event = NodeEvent::Member { peer: key(1), state: State::Alive, incarnation: 1 };
        let later = DetectorConfig::default().left_reclaim + Duration::from_secs(1);
        checks.event(later, "a", 1, &event).unwrap();
    }

    #[test]
    fn too_many_handlers_of_a_kind_are_seen() {
        let mut checks = Checks::default();
        let (task, kind) = (TaskId::from_bytes([0; 16]), "k".to_owned());
        let started = NodeEvent::JobStarted { task, kind: kind.clone() };
        let finished = NodeEvent::JobFinished { task, kind, error: None };
        for _ in 0..KindLimits::default().concurrency {
            checks.event(Duration::ZERO, "a", 1, &started).unwrap();
        }
        checks.event(Duration::ZERO, "a", 1, &finished).unwrap();
        checks.event(Duration::ZERO, "a", 1, &started).unwrap();
        let one_more = checks.event(Duration::ZERO, "a", 1, &started);
        assert!(property(one_more).starts_with("a node runs no more handlers"));
    }

    #[test]
    fn lost_events_are_no_silence() {
        let mut checks = Checks::default();
        assert!(checks.event(Duration::ZERO, "a", 1, &NodeEvent::Lagged(3)).is_err());
    }

    #[test]
    fn a_handle_that_resolves_twice_is_seen() {
        let mut checks = Checks::default();
        let task = TaskId::from_bytes([7; 16]);
        checks.ended("a", task).unwrap();
        checks.ended("b", task).unwrap();
        assert_eq!(property(checks.ended("a", task)), "a handle resolves once");
    }

    #[test]
    fn a_second_record_of_a_result_and_an_end_that_is_missing_are_seen() {
        let mut counted = WorkStats::default();
        (counted.jobs.submitted, counted.jobs.results, counted.jobs_now.open) = (3, 2, 1);
        stats("a", &counted).unwrap();
        counted.jobs.results = 3;
        assert_eq!(property(stats("a", &counted)), "a result is recorded once");
        counted.jobs.results = 1;
        assert_eq!(property(stats("a", &counted)), "a result is recorded once");
    }

    #[test]
    fn a_queue_past_its_bound_is_seen() {
        let over = WorkStats { unacknowledged: MAX_PENDING + 1, ..WorkStats::default() };
        assert_eq!(property(stats("a", &over)), "no queue is longer than its bound");
        let mut over = WorkStats::default();
        over.jobs_now.running = JobConfig::default().concurrency + 1;
        assert_eq!(property(stats("a", &over)), "no queue is longer than its bound");
        let mut over = Gauges::default();
        gauges("a", &over).unwrap();
        over.waiting_datagrams = Gauge { now: 3, bound: 2 };
        assert_eq!(property(gauges("a", &over)), "no queue is longer than its bound");
        let limits = HubLimits::default();
        let mut over = HubStats { fullest_queue_bytes: limits.relay.queue_bytes, ..HubStats::default() };
        hub("h", &over, &limits).unwrap();
        over.fullest_queue_bytes += 1;
        assert_eq!(property(hub("h", &over, &limits)), "no queue is longer than its bound");
    }

    #[test]
    fn an_owner_twice_is_seen() {
        distinct("a", &[key(1), key(2), key(3)]).unwrap();
        assert_eq!(property(distinct("a", &[key(1), key(2), key(1)])), "an owner set has no duplicates");
    }

    fn member(n: u8, state: State) -> MemberInfo {
        MemberInfo {
            key: key(n),
            state,
            incarnation: 1,
            boot: 1,
            roles: Roles::WORKER,
            kinds: vec!["work".to_owned()],
            weight: 1,
            zone: String::new(),
            version: String::new(),
            path: PathInfo { direct: true, addr: None, reason: PathReason::Direct, rtt: None, settled: true },
        }
    }

    #[test]
    fn a_silent_member_that_is_held_alive_is_seen() {
        for (state, broken) in [(State::Alive, true), (State::Suspect, true), (State::Dead, false)] {
            let found =
                held_alive("a", &[member(1, State::Alive), member(2, state)], SILENT, |of| *of == key(2));
            assert_eq!(found.is_err(), broken, "{state:?}");
        }
    }

    #[test]
    fn a_job_for_a_dead_member_is_seen() {
        let members = [member(1, State::Suspect), member(2, State::Dead)];
        live("a", &members, "work", &[key(1)]).unwrap();
        let found = live("a", &members, "work", &[key(1), key(2)]);
        assert_eq!(property(found), "a job goes to a member that is live");
    }
}
