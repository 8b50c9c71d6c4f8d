//! The mesh's members and hubs, as this node sees them: the failure detector, the join, the leave, and the views that
//! follow from them.

use std::sync::Arc;
use std::time::Instant;

use super::join::{Join, hopeless};
use super::leave::Leave;
use super::outlets::Outlets;
use super::own_clock::OwnClock;
use super::view::{Views, hub_info, member_info, view};
use crate::authority::pass::Pass;
use crate::compute::job::MemberChange;
use crate::error::{Error, RefusedBy};
use crate::key::PublicKey;
use crate::membership::{Detector, MembershipEvent, Roles, State};
use crate::mesh::Hub;
use crate::node::command::{Reply, TOO_MANY_JOINING};
use crate::node::event::NodeEvent;
use crate::node::{HubInfo, MemberInfo, ReachedIssuer, Role};
use crate::transport::{Transport, group};

/// Members and hubs.
pub(super) struct Roster {
    pub(super) detector: Detector,
    role: Role,
    /// This node's pass.
    pub(super) pass: Option<Pass>,
    /// Who issued it, if that was in the life of this process.
    pub(super) issuer: Option<ReachedIssuer>,
    pub(super) own_clock: OwnClock,
    /// The hubs in the ticket's order.
    hubs: Vec<Hub>,
    join: Join<Reply<Result<(), Error>>>,
    views: Views,
    leaving: Option<Leave<Reply<()>>>,
    /// Why this node's store fails, if it does.
    pub(super) disk_fails: Option<Arc<str>>,
}

impl Roster {
    /// Begins to join.
    pub(super) fn new(
        mut detector: Detector,
        (role, pass): (Role, Option<Pass>),
        hubs: Vec<Hub>,
        now: Instant,
    ) -> Roster {
        detector.join(now);
        Roster {
            detector,
            role,
            pass,
            issuer: None,
            own_clock: OwnClock::default(),
            hubs,
            join: Join::new(),
            views: Views::new(),
            leaving: None,
            disk_fails: None,
        }
    }

    /// Tells the others that this node's store fails, or works again.
    pub(super) fn disk_fails(&mut self, why: Option<Arc<str>>) {
        let meta = self.detector.local().meta.clone();
        let roles = match &why {
            Some(_) => meta.roles().with(Roles::DISK_FAILS),
            None => meta.roles().without(Roles::DISK_FAILS),
        };
        self.detector.set_meta(meta.with_roles(roles));
        self.disk_fails = why;
    }

    /// When [`handle_timeout`](Roster::handle_timeout) is due, or a leave's time is up.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let leaving = self.leaving.as_ref().map(Leave::poll_timeout);
        [self.detector.poll_timeout(), leaving].into_iter().flatten().min()
    }

    /// Does the detector's work, and fails the callers of `joined` when waiting wouldn't help.
    pub(super) fn handle_timeout(&mut self, now: Instant, transport: &Transport) {
        self.detector.handle_timeout(now);
        if !self.join.is_awaited() {
            return;
        }
        if let Some(hubs) = hopeless(&self.hub_infos(transport)) {
            for reply in self.join.take_waiting() {
                let _ = reply.send(Err(Error::HubRefused { hubs: hubs.clone() }));
            }
        }
    }

    /// Replies when this node has joined.
    pub(super) fn tell_joined(&mut self, reply: Reply<Result<(), Error>>) {
        if let Some(reply) = self.join.wait(reply) {
            let joined = if self.join.is_complete() { self.admitted() } else { Err(TOO_MANY_JOINING) };
            let _ = reply.send(joined);
        }
    }

    /// This node has a pass, or another one: it says so to the others.
    pub(super) fn issued(&mut self, pass: &Pass) {
        self.pass = Some(pass.clone());
        self.detector.set_pass(pass.clone());
        self.views.changed();
    }

    /// What joining has come to: with a pass below its role, the others serve this node as an observer.
    fn admitted(&self) -> Result<(), Error> {
        let needs = self.role.needs();
        match &self.pass {
            Some(pass) if pass.grant().level < needs => {
                Err(RefusedBy::Level { has: pass.grant().level, needs }.into())
            }
            _ => Ok(()),
        }
    }

    /// Drops the callers that gave up.
    pub(super) fn forget_callers(&mut self) {
        self.join.retain(|reply| !reply.is_closed());
    }

    /// Begins to leave the mesh.
    pub(super) fn leave(&mut self, now: Instant, transport: &mut Transport, reply: Reply<()>) {
        if let Some(leave) = &mut self.leaving {
            leave.replies.push(reply);
            return;
        }
        self.detector.leave(now);
        transport.hurry(now);
        self.leaving = Some(Leave::begin(now, self.role == Role::Observer, reply));
    }

    /// Whether a leaving node has sent everything, or its time is up.
    pub(super) fn is_gone(&self, now: Instant, transport: &Transport) -> bool {
        self.leaving.as_ref().is_some_and(|leave| leave.is_over(now, transport.is_quiet()))
    }

    /// Replies to the callers that still wait.
    pub(super) fn end(mut self) {
        for reply in self.join.take_waiting() {
            let _ = reply.send(Err(Error::Closed));
        }
        for reply in self.leaving.into_iter().flat_map(|leave| leave.replies) {
            // An error means that the caller gave up.
            let _ = reply.send(());
        }
    }

    /// Looks up a key that isn't in the membership at rendezvous.
    pub(super) fn look_up_stranger(&self, peer: PublicKey, transport: &mut Transport) {
        if self.detector.member(&peer).is_none() {
            transport.look_up(peer);
        }
    }

    /// Handles an event of the detector.
    pub(super) fn on_event(
        &mut self,
        now: Instant,
        event: MembershipEvent,
        transport: &mut Transport,
        outlets: &mut Outlets,
    ) {
        use MembershipEvent as Event;
        match event {
            Event::Alive(member) | Event::Suspect(member) | Event::Dead(member) | Event::Left(member) => {
                self.views.changed();
                let (peer, state, incarnation) = (member.key, member.state, member.incarnation);
                match state {
                    State::Alive | State::Suspect => transport.know(now, peer),
                    // A dead member may return, so the transport keeps seeking it until membership reclaims it.
                    State::Dead => transport.presume_dead(&peer),
                    State::Left => transport.dismiss(now, &peer),
                }
                outlets.event(&NodeEvent::Member { peer, state, incarnation });
                if let Some(change) = change(state) {
                    outlets.verdict(peer, change);
                }
            }
            Event::Restarted { peer, .. } => {
                self.views.changed();
                outlets.event(&NodeEvent::Restarted { peer });
                outlets.verdict(peer, MemberChange::Restarted);
            }
            Event::Joined | Event::Alone => {
                tracing::info!(target: "nurl::membership", alone = matches!(event, Event::Alone), "joined the mesh");
                self.views.changed();
                for reply in self.join.complete() {
                    let _ = reply.send(self.admitted());
                }
            }
            Event::ListDue => transport.ask_contacts(),
            Event::WantSession { peer } => {
                // If the transport refuses the peer, the probe fails.
                let _ = transport.connect(now, peer);
            }
            Event::Isolated(isolated) => outlets.event(&NodeEvent::Isolated(isolated)),
            Event::Reclaimed(peer) => {
                self.views.changed();
                transport.forget(now, &peer);
            }
            Event::Expelled(peer) => {
                self.views.changed();
                transport.expel(now, &peer);
                outlets.event(&NodeEvent::Revoked { peer });
                outlets.verdict(peer, MemberChange::Revoked);
            }
            // The plane, which has the map, handles it.
            Event::RevocationsDiffer { .. } => {}
            Event::MetaChanged(_) => self.views.changed(),
            Event::AnnounceDue => self.announce(now, transport),
            Event::Departed => {
                if let Some(leave) = &mut self.leaving {
                    leave.on_departed();
                }
            }
            Event::User { origin, body } => {
                outlets.event(&NodeEvent::Gossip { claimed: origin, body: body.into() });
            }
            Event::Refuted { .. } => {}
        }
    }

    /// Reads rendezvous again, and announces this node to the mesh group.
    fn announce(&mut self, now: Instant, transport: &mut Transport) {
        transport.ask_contacts();
        if self.role != Role::Observer {
            let body = self.detector.announce();
            // Without a hub and without direct paths no peer receives it; the next period's announcement may.
            let _ = transport.broadcast(now, group::MESH_GROUP, &body);
        }
    }

    /// Publishes a view of the mesh, if it has changed.
    pub(super) fn publish(&mut self, outlets: &Outlets) {
        if self.views.take_due(self.detector.highest_epoch()) {
            outlets.view(view(&self.detector, self.join.is_complete()));
        }
    }

    /// The other members, and the path to each.
    pub(super) fn members(&self, transport: &Transport) -> Vec<MemberInfo> {
        let local = self.detector.local().key;
        let others = self.detector.members().filter(|member| member.key != local);
        others.map(|member| member_info(member, transport.path(&member.key))).collect()
    }

    /// The hubs in the ticket's order.
    pub(super) fn hub_infos(&self, transport: &Transport) -> Vec<HubInfo> {
        let states = transport.hubs();
        self.hubs
            .iter()
            .map(|hub| hub_info(hub, states.get(&hub.key), transport.reflexive(&hub.key)))
            .collect()
    }
}

/// The verdict for the plane above; a suspicion is none.
fn change(state: State) -> Option<MemberChange> {
    match state {
        State::Alive => Some(MemberChange::Alive),
        State::Dead => Some(MemberChange::Dead),
        State::Left => Some(MemberChange::Left),
        State::Suspect => None,
    }
}
