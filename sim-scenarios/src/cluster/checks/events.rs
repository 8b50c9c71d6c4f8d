//! The checks of nodes' events: incarnations, resurrections, handlers at once, handles.
//!
//! Each check is a lookup in a small table. The first failed check ends the run.
//!
//! Two cases look like a resurrection and are none. First, a node that was cut off retracts the verdicts that it
//! made alone (see `nurl::internals::membership::isolation`). Its own verdicts from then on are excused, and
//! those made on the way into isolation: no older than [`RETRACT`]. Second, a left member is forgotten after a
//! while, and may then return as a new member. Both times are the node's own: while its host is suspended, none passes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chaos::property::Violation;
use chaos::sometimes;
use chaos::world::{Host, World};
use nurl::PublicKey;
use nurl::internals::compute::job::{KindLimits, TaskId};
use nurl::internals::membership::detector::RETRACT;
use nurl::internals::membership::{DetectorConfig, State};
use nurl::internals::node::{MemberInfo, NodeEvent};

use super::silence::{self, SILENT, SILENT_TO_THE_ISOLATED};

/// When a node said something: the world's time, and the reading of its host's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The world's time.
    pub world: Duration,
    /// The reading of the host's monotonic clock.
    pub own: Duration,
}

/// The checks of all nodes' events, and the little that they remember.
#[derive(Debug, Default)]
pub struct EventChecks {
    nodes: BTreeMap<String, NodeReports>,
    hosts: BTreeMap<PublicKey, Host>,
    resolved: BTreeSet<(String, TaskId)>,
}

/// The reports of one node, in its present process.
#[derive(Debug, Default)]
struct NodeReports {
    boot: u32,
    isolated: bool,
    /// When its isolation last began or ended.
    isolated_at: Option<Duration>,
    reports: BTreeMap<PublicKey, Report>,
    running: BTreeMap<String, usize>,
}

/// A node's latest report of another node.
#[derive(Debug, Clone, Copy)]
struct Report {
    state: State,
    incarnation: u64,
    /// When, by the observer's own clock.
    at: Duration,
    /// Reported in isolation, or shortly before: it may be retracted.
    excused: bool,
    /// When the observer first heard of the member at this incarnation.
    met: Duration,
}

impl EventChecks {
    /// Registers `host` as the host of the node with this key.
    pub(in crate::cluster) fn register(&mut self, key: PublicKey, host: Host) {
        self.hosts.insert(key, host);
    }

    /// Checks whether the node `by` on `host`, which had these members when it was asked, held a member alive that had been
    /// silent for too long.
    ///
    /// # Errors
    /// If it does.
    pub fn check_silence(
        &self,
        world: World,
        asked: Duration,
        by: &str,
        host: Host,
        members: &[MemberInfo],
    ) -> Result<(), Violation> {
        let (now, Some(node)) = (asked, self.nodes.get(by)) else { return Ok(()) };
        let lately = node.isolated_at.is_some_and(|at| now.saturating_sub(at) <= SILENT_TO_THE_ISOLATED);
        let limit = if node.isolated || lately { SILENT_TO_THE_ISOLATED } else { SILENT };
        // A node that has just started or was paused has had less time.
        let Some(since) = now.checked_sub(limit) else { return Ok(()) };
        if host.runs_since().is_none_or(|at| at > since) {
            return Ok(());
        }
        let audible = world.audible(host, since);
        let long_silent = |key: &PublicKey| {
            let long_met = node.reports.get(key).is_some_and(|report| report.met <= since);
            long_met && self.hosts.get(key).is_some_and(|of| !audible.contains(of))
        };
        silence::none_held_alive(by, members, limit, long_silent)
    }

    /// An event of the node `by`, whose host has had `boot` processes.
    ///
    /// # Errors
    /// The property that the event breaks.
    pub fn event(&mut self, at: Moment, by: &str, boot: u32, event: &NodeEvent) -> Result<(), Violation> {
        let node = self.nodes.entry(by.to_owned()).or_default();
        if boot < node.boot {
            return Ok(());
        }
        if boot > node.boot {
            *node = NodeReports { boot, ..NodeReports::default() };
        }
        match event {
            NodeEvent::Member { peer, state, incarnation } => {
                let (state, incarnation) = (*state, *incarnation);
                let now = Report { state, incarnation, at: at.own, excused: node.isolated, met: at.world };
                node.member_reported(by, *peer, now)
            }
            NodeEvent::Isolated(isolated) => {
                node.isolated = *isolated;
                node.isolated_at = Some(at.world);
                if *isolated {
                    let young = |report: &&mut Report| at.own.saturating_sub(report.at) <= RETRACT;
                    node.reports.values_mut().filter(young).for_each(|report| report.excused = true);
                }
                Ok(())
            }
            NodeEvent::JobStarted { kind, .. } => node.handler_started(by, kind),
            NodeEvent::JobFinished { kind, .. } => {
                if let Some(running) = node.running.get_mut(kind) {
                    *running = running.saturating_sub(1);
                }
                Ok(())
            }
            NodeEvent::Lagged(lost) => {
                Err(Violation::safety("the checks hear every event", format!("{by} dropped {lost}")))
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
    pub fn handle_resolved(&mut self, by: &str, task: TaskId) -> Result<(), Violation> {
        if self.resolved.insert((by.to_owned(), task)) {
            return Ok(());
        }
        Err(Violation::safety("a handle resolves once", format!("{by} was told the end of {task:?} again")))
    }
}

impl NodeReports {
    fn member_reported(&mut self, by: &str, peer: PublicKey, mut now: Report) -> Result<(), Violation> {
        let forget = DetectorConfig::default().left_reclaim;
        let before = self.reports.get(&peer).copied();
        // A left member may have been forgotten since, and then returns as a new one.
        let before = before.filter(|old| old.state != State::Left || now.at.saturating_sub(old.at) < forget);
        if let Some(before) = before {
            if now.incarnation < before.incarnation {
                return Err(Violation::safety(
                    "an incarnation never goes back in a node's view",
                    format!("{by} saw {peer:?} at {}, now at {}", before.incarnation, now.incarnation),
                ));
            }
            let risen = !before.state.is_live() && now.state.is_live();
            let excused = before.excused && before.state == State::Dead;
            if risen && now.incarnation == before.incarnation && !excused {
                return Err(Violation::safety(
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
        self.reports.insert(peer, now);
        Ok(())
    }

    fn handler_started(&mut self, by: &str, kind: &str) -> Result<(), Violation> {
        let limit = KindLimits::default().concurrency;
        let running = self.running.entry(kind.to_owned()).or_default();
        *running += 1;
        if *running > limit {
            return Err(Violation::safety(
                "a node runs no more handlers of a kind at once than the kind allows",
                format!("{by} runs {running} of {kind}, the limit is {limit}"),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time at which both clocks read the same.
    fn at(time: Duration) -> Moment {
        Moment { world: time, own: time }
    }

    fn says(checks: &mut EventChecks, state: State, incarnation: u64) -> Result<(), Violation> {
        let event = NodeEvent::Member { peer: PublicKey::from_bytes([1; 32]), state, incarnation };
        checks.event(at(Duration::from_secs(1)), "a", 1, &event)
    }

    fn property(found: Result<(), Violation>) -> String {
        found.expect_err("the check goes red").property
    }

    #[test]
    fn an_incarnation_that_goes_back_is_seen() {
        let mut checks = EventChecks::default();
        says(&mut checks, State::Alive, 4).unwrap();
        assert!(property(says(&mut checks, State::Alive, 3)).starts_with("an incarnation never goes back"));
    }

    #[test]
    fn another_process_of_the_observer_begins_anew() {
        let mut checks = EventChecks::default();
        says(&mut checks, State::Alive, 4).unwrap();
        let event =
            NodeEvent::Member { peer: PublicKey::from_bytes([1; 32]), state: State::Alive, incarnation: 0 };
        checks.event(at(Duration::from_secs(2)), "a", 2, &event).unwrap();
        // A late event of the old process is ignored.
        says(&mut checks, State::Alive, 9).unwrap();
        checks.event(at(Duration::from_secs(2)), "a", 2, &event).unwrap();
    }

    #[test]
    fn a_resurrection_is_seen() {
        for gone in [State::Dead, State::Left] {
            let mut checks = EventChecks::default();
            says(&mut checks, gone, 4).unwrap();
            assert!(property(says(&mut checks, State::Alive, 4)).starts_with("who is dead or has left"));
            says(&mut checks, State::Alive, 5).unwrap();
        }
    }

    #[test]
    fn a_verdict_of_isolation_may_be_taken_back_a_goodbye_may_not() {
        let mut checks = EventChecks::default();
        let isolated = |checks: &mut EventChecks, is| {
            checks.event(at(Duration::from_secs(1)), "a", 1, &NodeEvent::Isolated(is)).unwrap();
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
        let mut checks = EventChecks::default();
        says(&mut checks, State::Dead, 4).unwrap();
        let late = Duration::from_secs(2) + RETRACT;
        checks.event(at(late), "a", 1, &NodeEvent::Isolated(true)).unwrap();
        assert!(property(says(&mut checks, State::Alive, 4)).starts_with("who is dead or has left"));
    }

    #[test]
    fn no_time_passes_for_a_node_whose_host_is_suspended() {
        let mut checks = EventChecks::default();
        says(&mut checks, State::Dead, 4).unwrap();
        let late = Moment { world: Duration::from_secs(2) + RETRACT, own: RETRACT };
        checks.event(late, "a", 1, &NodeEvent::Isolated(true)).unwrap();
        says(&mut checks, State::Alive, 4).unwrap();
    }

    #[test]
    fn who_left_long_ago_may_be_met_anew() {
        let mut checks = EventChecks::default();
        says(&mut checks, State::Left, 4).unwrap();
        let event =
            NodeEvent::Member { peer: PublicKey::from_bytes([1; 32]), state: State::Alive, incarnation: 1 };
        let later = DetectorConfig::default().left_reclaim + Duration::from_secs(1);
        checks.event(at(later), "a", 1, &event).unwrap();
    }

    #[test]
    fn too_many_handlers_of_a_kind_are_seen() {
        let mut checks = EventChecks::default();
        let (task, kind) = (TaskId::from_bytes([0; 16]), "k".to_owned());
        let started = NodeEvent::JobStarted { task, kind: kind.clone() };
        let finished = NodeEvent::JobFinished { task, kind, error: None };
        for _ in 0..KindLimits::default().concurrency {
            checks.event(at(Duration::ZERO), "a", 1, &started).unwrap();
        }
        checks.event(at(Duration::ZERO), "a", 1, &finished).unwrap();
        checks.event(at(Duration::ZERO), "a", 1, &started).unwrap();
        let one_more = checks.event(at(Duration::ZERO), "a", 1, &started);
        assert!(property(one_more).starts_with("a node runs no more handlers"));
    }

    #[test]
    fn lost_events_are_no_silence() {
        let mut checks = EventChecks::default();
        assert!(checks.event(at(Duration::ZERO), "a", 1, &NodeEvent::Lagged(3)).is_err());
    }

    #[test]
    fn a_handle_that_resolves_twice_is_seen() {
        let mut checks = EventChecks::default();
        let task = TaskId::from_bytes([7; 16]);
        checks.handle_resolved("a", task).unwrap();
        checks.handle_resolved("b", task).unwrap();
        assert_eq!(property(checks.handle_resolved("a", task)), "a handle resolves once");
    }
}
