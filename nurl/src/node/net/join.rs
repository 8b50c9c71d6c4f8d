//! Joining, as the API tells it: when a node counts as joined, when waiting is hopeless, and which obstacle is told to
//! a caller that waited in vain.

use std::time::Duration;

use crate::error::{Error, HubFailure, RefusedBy};
use crate::membership::join::Obstacle;
use crate::net::reach::hub_client::DownReason;
use crate::node::HubInfo;
use crate::node::command::MAX_JOINING;

/// Whether this node has joined, and the callers that wait for it.
#[derive(Debug)]
pub(super) struct Join<R> {
    joined: bool,
    waiting: Vec<R>,
}

impl<R> Join<R> {
    pub(super) fn new() -> Join<R> {
        Join { joined: false, waiting: Vec::new() }
    }

    /// Whether a first view of the mesh has arrived, or it is proven that there is no other member.
    pub(super) fn is_complete(&self) -> bool {
        self.joined
    }

    /// Keeps a caller until the end of the join. Gives its reply back if that has passed already, or if too many wait.
    pub(super) fn wait(&mut self, reply: R) -> Option<R> {
        if self.joined || self.waiting.len() >= MAX_JOINING {
            return Some(reply);
        }
        self.waiting.push(reply);
        None
    }

    /// The first view is there. Returns the callers that waited for it.
    pub(super) fn complete(&mut self) -> Vec<R> {
        self.joined = true;
        self.take_waiting()
    }

    /// Whether a caller waits.
    pub(super) fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// All callers that wait.
    pub(super) fn take_waiting(&mut self) -> Vec<R> {
        std::mem::take(&mut self.waiting)
    }

    /// Drops the callers that gave up.
    pub(super) fn retain(&mut self, waits: impl Fn(&R) -> bool) {
        self.waiting.retain(|reply| waits(reply));
    }
}

/// The failures of the hubs, if every one of them has proved its key and refused this node: then waiting doesn't help.
pub(super) fn hopeless(hubs: &[HubInfo]) -> Option<Vec<HubFailure>> {
    let refuses = |hub: &HubInfo| hub.down.is_some_and(DownReason::is_refusal);
    let hopeless = !hubs.is_empty() && hubs.iter().all(refuses);
    hopeless.then(|| hubs.iter().filter_map(HubInfo::failure).collect())
}

/// The error for the obstacle that keeps this node from joining: one for each cause, and only what was observed.
pub(in crate::layers::node) fn kept_out(
    obstacle: Obstacle,
    hubs: &[HubInfo],
    clock_ahead: Option<Duration>,
) -> Error {
    let hubs = hubs.iter();
    match obstacle {
        Obstacle::NoHub => Error::HubUnreachable { hubs: hubs.filter_map(HubInfo::failure).collect() },
        Obstacle::HubSilent => {
            let silent = |hub: &HubInfo| HubFailure { addr: hub.addr.clone(), reason: DownReason::Silent };
            Error::HubUnreachable {
                hubs: hubs.map(|hub| hub.failure().unwrap_or_else(|| silent(hub))).collect(),
            }
        }
        Obstacle::NoAnswer => {
            clock_ahead.map_or(RefusedBy::Members, |ahead| RefusedBy::Clock { ahead }).into()
        }
        Obstacle::NoTable => Error::Busy("members answer, but none has told us the mesh's table in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PublicKey;
    use crate::net::reach::relay::CloseReason;

    const REFUSED: DownReason = DownReason::Closed(CloseReason::UnknownNamespace);

    /// A hub that is up, or down for a reason, or was never reached.
    fn hub(n: u8, up: bool, down: Option<DownReason>) -> HubInfo {
        let key = PublicKey::from_bytes([n; 32]);
        HubInfo { key, addr: format!("hub{n}:1"), up, rtt: None, reflexive: Vec::new(), down }
    }

    fn reasons(hubs: &[HubFailure]) -> Vec<DownReason> {
        hubs.iter().map(|hub| hub.reason).collect()
    }

    #[test]
    fn a_caller_waits_until_the_first_view_and_a_later_one_does_not() {
        let mut join = Join::new();
        for caller in 0..4 {
            assert_eq!(join.wait(caller), None);
        }
        join.retain(|caller| *caller != 2);
        assert!(join.is_awaited() && !join.is_complete());
        assert_eq!(join.complete(), [0, 1, 3]);
        assert!(!join.is_awaited() && join.is_complete());
        assert_eq!(join.wait(9), Some(9));
        assert!(join.complete().is_empty(), "a second view changes nothing");
    }

    #[test]
    fn waiting_is_hopeless_only_when_every_hub_refuses() {
        let version = DownReason::Closed(CloseReason::Version);
        let table: [(&[HubInfo], Option<&[DownReason]>); 6] = [
            (&[], None),
            (&[hub(1, false, Some(REFUSED))], Some(&[REFUSED])),
            (&[hub(1, false, Some(REFUSED)), hub(2, false, Some(version))], Some(&[REFUSED, version])),
            (&[hub(1, false, Some(REFUSED)), hub(2, true, None)], None),
            (&[hub(1, false, Some(REFUSED)), hub(2, false, None)], None),
            (&[hub(1, false, Some(DownReason::Closed(CloseReason::Full)))], None),
        ];
        for (hubs, expected) in table {
            let told = hopeless(hubs).map(|hubs| reasons(&hubs));
            assert_eq!(told.as_deref(), expected, "{hubs:?}");
        }
    }

    #[test]
    fn each_obstacle_has_its_own_error() {
        let hubs = [hub(1, true, None), hub(2, false, Some(DownReason::Lost)), hub(3, false, None)];
        let told = |obstacle| match kept_out(obstacle, &hubs, None) {
            Error::HubUnreachable { hubs } => reasons(&hubs),
            other => panic!("{other}"),
        };
        assert_eq!(told(Obstacle::NoHub), [DownReason::Lost, DownReason::Unreachable]);
        assert_eq!(
            told(Obstacle::HubSilent),
            [DownReason::Silent, DownReason::Lost, DownReason::Unreachable]
        );
        assert!(matches!(kept_out(Obstacle::NoAnswer, &hubs, None), Error::Refused(RefusedBy::Members)));
        let ahead = Duration::from_secs(9 * 86_400);
        let clock = RefusedBy::Clock { ahead };
        assert!(
            matches!(kept_out(Obstacle::NoAnswer, &hubs, Some(ahead)), Error::Refused(by) if by == clock)
        );
        assert!(matches!(kept_out(Obstacle::NoTable, &hubs, Some(ahead)), Error::Busy(_)));
    }
}
