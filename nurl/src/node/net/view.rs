//! What the plane tells about the mesh: members, hubs and paths to the API, and the ring's members to the plane above.
//! Pure: each answer is made from what the detector and the transport know.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::membership::{Detector, Member};
use crate::mesh::Hub;
use crate::node::command::View;
use crate::node::{HubInfo, MemberInfo};
use crate::ring::RingMember;
use crate::transport::PathInfo;
use crate::transport::core::HubState;

/// Decides when a new view of the mesh is published.
#[derive(Debug)]
pub(super) struct Views {
    changed: bool,
    /// The highest epoch counter in the last published view.
    epoch_told: u64,
}

impl Views {
    /// A first view is due at once.
    pub(super) fn new() -> Views {
        Views { changed: true, epoch_told: 0 }
    }

    /// A member has changed, or the view is complete.
    pub(super) fn changed(&mut self) {
        self.changed = true;
    }

    /// Whether a view is to be published, of which `epoch` is the highest counter.
    pub(super) fn take_due(&mut self, epoch: u64) -> bool {
        let due = self.changed || epoch != self.epoch_told;
        (self.changed, self.epoch_told) = (false, epoch);
        due
    }
}

/// The ring's members, as the detector knows them. `complete`: whether a first table has arrived.
pub(super) fn view(detector: &Detector, complete: bool) -> Arc<View> {
    let members = detector.members().map(ring_member).collect();
    Arc::new(View { members, complete, epoch: detector.highest_epoch() })
}

/// A member's place on the ring.
fn ring_member(member: &Member) -> RingMember {
    RingMember {
        key: member.key,
        boot: member.boot,
        seed: member.grant.ring_seed,
        weight: member.weight(),
        zone: member.grant.zone.clone(),
        kinds: member.meta.kinds().to_vec(),
        live: member.state.is_live(),
        placed: member.is_placed(),
    }
}

/// A member for the API.
pub(super) fn member_info(member: &Member, path: PathInfo) -> MemberInfo {
    MemberInfo {
        key: member.key,
        state: member.state,
        incarnation: member.incarnation,
        boot: member.boot,
        roles: member.meta.roles(),
        kinds: member.meta.kinds().to_vec(),
        weight: member.weight(),
        zone: member.grant.zone.clone(),
        ring_seed: member.grant.ring_seed,
        version: member.meta.version().to_owned(),
        path,
    }
}

/// A hub for the API; without a state, one of which nothing is known yet.
pub(super) fn hub_info(
    hub: &Hub,
    state: Option<&HubState>,
    reflexive: impl Iterator<Item = SocketAddr>,
) -> HubInfo {
    HubInfo {
        key: hub.key,
        addr: hub.addr.clone(),
        up: state.is_some_and(|state| state.up),
        rtt: state.and_then(|state| state.rtt),
        reflexive: reflexive.collect(),
        down: state.and_then(|state| state.down),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::authority::level::Level;
    use crate::authority::pass::Grant;
    use crate::key::PublicKey;
    use crate::membership::{Meta, Roles, State};
    use crate::net::reach::hub_client::DownReason;
    use crate::net::secure::securedgram::paths::PathReason;

    fn grant(level: Level) -> Grant {
        let grant = Grant::new(PublicKey::from_bytes([3; 32]), level, 0, 1);
        Grant { weight: 4, zone: "zone".to_owned(), ring_seed: [9; 8], ..grant }
    }

    fn member(state: State, roles: Roles) -> Member {
        let kinds = vec!["echo".to_owned()];
        Member {
            key: PublicKey::from_bytes([3; 32]),
            state,
            incarnation: 4,
            boot: 5,
            meta: Meta::new(roles, kinds, 6, "0.1".to_owned()).unwrap(),
            grant: Arc::new(grant(Level::Worker)),
            since: crate::rt::time::now(),
        }
    }

    #[test]
    fn a_view_is_published_once_for_each_change_and_for_a_new_epoch() {
        let mut views = Views::new();
        assert!(views.take_due(0), "the first one");
        assert!(!views.take_due(0));
        assert!(views.take_due(7) && !views.take_due(7));
        views.changed();
        views.changed();
        assert!(views.take_due(7) && !views.take_due(7));
        views.changed();
        assert!(views.take_due(8), "both at once are one view");
        assert!(!views.take_due(8));
    }

    #[test]
    fn workers_have_a_place_while_they_live_and_with_a_store_beyond() {
        let (worker, store) = (Roles::NONE.with(Roles::WORKER), Roles::NONE.with(Roles::STORE));
        let table = [
            (State::Alive, worker, true, true),
            (State::Suspect, worker, true, true),
            (State::Dead, worker, false, false),
            (State::Dead, worker.with(Roles::STORE), false, true),
            (State::Left, worker.with(Roles::STORE), false, false),
            (State::Alive, store, true, false),
            (State::Alive, Roles::NONE, true, false),
        ];
        for (state, roles, live, placed) in table {
            let on_ring = ring_member(&member(state, roles));
            assert_eq!((on_ring.live, on_ring.placed), (live, placed), "{state:?} {roles:?}");
            assert_eq!(
                (on_ring.weight, on_ring.zone.as_str(), on_ring.seed, &on_ring.kinds[..]),
                (4, "zone", [9; 8], &["echo".to_owned()][..]),
                "within its pass"
            );
        }
        for (level, placed) in [(Level::Member, false), (Level::Worker, true), (Level::Issuer, true)] {
            let of = Member { grant: Arc::new(grant(level)), ..member(State::Alive, worker) };
            assert_eq!(ring_member(&of).placed, placed, "{level:?}");
        }
    }

    #[test]
    fn the_api_is_told_what_is_known_of_a_member_and_a_hub() {
        let path =
            PathInfo { direct: true, addr: None, reason: PathReason::NoSession, rtt: None, settled: true };
        let info = member_info(&member(State::Suspect, Roles::NONE), path);
        assert_eq!((info.state, info.incarnation, info.boot, info.weight), (State::Suspect, 4, 5, 4));
        assert_eq!((info.zone.as_str(), info.version.as_str(), info.path), ("zone", "0.1", path));
        let hub = Hub { key: PublicKey::from_bytes([9; 32]), addr: "hub:1".to_owned() };
        let told = |state: Option<&HubState>| {
            let info = hub_info(&hub, state, std::iter::empty());
            assert_eq!((info.key, info.addr.as_str()), (hub.key, "hub:1"));
            (info.up, info.rtt, info.down, info.failure().map(|failure| failure.reason))
        };
        assert_eq!(told(None), (false, None, None, Some(DownReason::Unreachable)));
        let rtt = Some(Duration::from_millis(9));
        let up = HubState { up: true, rtt, down: None };
        assert_eq!(told(Some(&up)), (true, rtt, None, None));
        let down = HubState { down: Some(DownReason::Silent), ..HubState::default() };
        assert_eq!(told(Some(&down)), (false, None, Some(DownReason::Silent), Some(DownReason::Silent)));
    }
}
