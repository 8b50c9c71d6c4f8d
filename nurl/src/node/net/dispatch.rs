//! Which part of the plane handles a command of the API, or an event of the transport.

use std::time::Instant;

use super::outgoing::Message;
use super::{NetPlane, rotating};
use crate::error::Error;
use crate::key::PublicKey;
use crate::membership::Via;
use crate::node::command::{NetCommand, Pong, Reply};
use crate::node::event::NodeEvent;
use crate::node::{Metrics, NetStats, ReachedIssuer, Status, log};
use crate::rt::time;
use crate::transport::reliable::ReliableEvent;
use crate::transport::{Priority, TransportEvent, group, kind};

impl NetPlane {
    pub(super) fn handle_command(&mut self, now: Instant, command: NetCommand) {
        if let NetCommand::Datagrams { to: peer, .. }
        | NetCommand::ApplicationMessage { to: peer, .. }
        | NetCommand::LargeFile { to: peer, .. }
        | NetCommand::Connect { peer, .. }
        | NetCommand::Ping { peer, .. } = &command
        {
            self.roster.look_up_stranger(*peer, &mut self.transport);
        }
        let transport = &mut self.transport;
        match command {
            NetCommand::Datagrams { to, bodies } => self.mail.send_datagrams(now, to, &bodies, transport),
            NetCommand::Message { to, priority, kind, body } => {
                let (mail, mut ends) = self.mail_and_ends();
                mail.send(now, Message { to, priority, kind, body, reply: None }, &mut ends);
            }
            NetCommand::ApplicationMessage { to, body, reply } => {
                let (priority, kind) = (Priority::Bulk, kind::APPLICATION);
                let (mail, mut ends) = self.mail_and_ends();
                mail.send(now, Message { to, priority, kind, body, reply: Some(reply) }, &mut ends);
            }
            NetCommand::LargeFile { to, priority, body, reply } => {
                let (mail, mut ends) = self.mail_and_ends();
                mail.send(
                    now,
                    Message { to, priority, kind: kind::LARGE_FILE, body, reply: Some(reply) },
                    &mut ends,
                );
            }
            NetCommand::Broadcast { group, body, reply } => {
                let _ = reply.send(transport.broadcast(now, &group, &body).map_err(Error::from));
            }
            NetCommand::Gossip { body, reply } => {
                let _ = reply.send(self.roster.detector.broadcast(&body).map_err(Error::from));
            }
            NetCommand::JoinGroup { group, allow, reply } => {
                let _ = reply.send(transport.join_group(&group, allow).map_err(Error::from));
            }
            NetCommand::LeaveGroup { group } => transport.leave_group(&group),
            NetCommand::Connect { peer, reply } => {
                let _ = reply.send(transport.connect(now, peer).map_err(Error::from));
            }
            NetCommand::Ping { peer, reply } => self.ping(now, peer, reply),
            NetCommand::Members { reply } => {
                let _ = reply.send(self.roster.members(transport));
            }
            NetCommand::Status { reply } => {
                let _ = reply.send(self.status());
            }
            NetCommand::Metrics { reply } => {
                let _ = reply.send(self.metrics());
            }
            NetCommand::Joined { reply } => self.roster.tell_joined(reply),
            NetCommand::Revoke { entry, reply } => {
                let (revoking, mut ends) = self.revoking_and_ends();
                revoking.revoke(now, entry, reply, &mut ends);
            }
            NetCommand::HandOver { secret, reply } => {
                let (rotating, mut ends) = self.rotating_and_ends();
                rotating.hand_over(now, *secret, reply, &mut ends);
            }
            NetCommand::NoteEpoch(counter) => {
                // The counter was taken here, from ones that this node has seen: never a jump.
                let _ = self.roster.detector.note_epoch(counter);
            }
            NetCommand::DiskFails(why) => self.roster.disk_fails(why),
            #[cfg(all(test, not(feature = "sim")))]
            NetCommand::Panic => panic!("a test asked for it"),
            NetCommand::Shutdown { reply } => self.roster.leave(now, transport, reply),
        }
    }

    fn ping(&mut self, now: Instant, peer: PublicKey, reply: Reply<Result<Pong, Error>>) {
        let Some(nonce) = self.pings.next_nonce() else {
            let _ = reply.send(Err(Error::Busy("too many pings are under way")));
            return;
        };
        match self.transport.echo(now, peer, nonce) {
            Ok(_) => self.pings.begin(now, nonce, reply),
            Err(error) => drop(reply.send(Err(error.into()))),
        }
    }

    fn status(&self) -> Status {
        let local = self.roster.detector.local();
        let (versions, incompatible) = self.transport.incompatible(time::now());
        Status {
            key: local.key,
            boot: local.boot,
            pass: self.roster.pass.clone(),
            issuer: self.roster.issuer,
            clock_ahead: self.roster.own_clock.ahead(),
            generation: self.rotating.generation(),
            announced: self.transport.revocations().secret().map_or(0, |(generation, _)| generation),
            disk_fails: self.roster.disk_fails.as_deref().map(str::to_owned),
            versions,
            incompatible,
            hubs: self.roster.hub_infos(&self.transport),
            members: self.roster.members(&self.transport),
            #[cfg(feature = "internals")]
            transport: self.transport.stats(),
            #[cfg(feature = "internals")]
            transport_now: self.transport.gauges(),
            #[cfg(feature = "internals")]
            revocations: self.transport.revocations().digest(),
            obstacle: self.roster.detector.obstacle(),
        }
    }

    fn metrics(&self) -> Metrics {
        Metrics::of_net(&self.stats(), self.mail.waiting(), &self.transport, &self.roster.detector)
    }

    fn stats(&self) -> NetStats {
        NetStats {
            refused_datagrams: self.mail.refused_datagrams,
            beyond_level: self.mail.beyond_level,
            application_dropped: self.outlets.application_dropped,
            work_dropped: self.outlets.work_dropped,
            messages_given_up: self.mail.given_up(),
            revocations: self.revoking.taken,
            revocations_refused: self.revoking.refused,
            secrets: self.rotating.taken,
            secrets_refused: self.rotating.refused,
            issued: self.issuing.as_ref().map_or(0, |issuing| issuing.issued),
            not_issued: self.issuing.as_ref().map_or(0, |issuing| issuing.refused),
            asks_dropped: self.issuing.as_ref().map_or(0, |issuing| issuing.dropped),
        }
    }

    pub(super) fn on_event(&mut self, now: Instant, event: TransportEvent) {
        log::transport_event(&event);
        let _peer = log::peer_span(&event).entered();
        let detector = &mut self.roster.detector;
        match event {
            TransportEvent::Membership { peer, body } => {
                let (_, mut ends) = self.mail_and_ends();
                ends.membership(now, peer, Via::Datagram, &body);
            }
            TransportEvent::Reliable(ReliableEvent::Message { peer, kind: kind::REVOCATIONS, body }) => {
                if let Some((&rotating::SECRET, secret)) = body.split_first() {
                    let (rotating, mut ends) = self.rotating_and_ends();
                    rotating.on_message(now, peer, secret, &mut ends);
                } else {
                    let (revoking, mut ends) = self.revoking_and_ends();
                    revoking.on_message(now, peer, &body, &mut ends);
                }
            }
            TransportEvent::Reliable(event) => {
                if let ReliableEvent::Acked { peer, id } = event {
                    let (revoking, ends) = self.revoking_and_ends();
                    revoking.on_acked(now, peer, id, &ends);
                    let (rotating, mut ends) = self.rotating_and_ends();
                    rotating.on_acked(now, peer, id, &mut ends);
                }
                let (mail, mut ends) = self.mail_and_ends();
                mail.on_event(now, event, &mut ends);
            }
            TransportEvent::Group { group, sender, body } if group == group::MESH_GROUP => {
                detector.handle_announcement(now, sender, &body);
            }
            TransportEvent::Group { group, sender, body } => self.outlets.group(group, sender, body),
            TransportEvent::Issued { credential, hub, issuer } => {
                self.roster.own_clock.issued(time::unix_now(), credential.pass().grant());
                self.roster.issued(credential.pass());
                self.roster.issuer = Some(ReachedIssuer { key: issuer, hub, at: time::unix_now() });
                self.outlets.issued(&credential, (issuer, hub));
            }
            TransportEvent::Asked { hub, number, key, ask } => {
                if let Some((issuing, mut ends)) = self.issuing_and_ends() {
                    issuing.on_asked(now, hub, (number, key), &ask, &mut ends);
                }
            }
            TransportEvent::Revocations { from, entries } => {
                let (revoking, mut ends) = self.revoking_and_ends();
                revoking.on_told(now, from, &entries, &mut ends);
            }
            TransportEvent::HubKnows { hub, digest } => {
                let (revoking, mut ends) = self.revoking_and_ends();
                revoking.on_hub(now, hub, Some(digest), &mut ends);
            }
            TransportEvent::Secret { from, secret, sealed } => {
                let (rotating, mut ends) = self.rotating_and_ends();
                if sealed {
                    rotating.on_sealed(now, from, &secret, &mut ends);
                } else {
                    rotating.on_hub(now, from, *secret, &mut ends);
                }
            }
            TransportEvent::Revoked { peer } => detector.expel(peer),
            TransportEvent::Incompatible { peer, theirs } => {
                let (ours, _) = self.transport.incompatible(now);
                self.outlets.event(&NodeEvent::Incompatible { peer, theirs, ours });
            }
            TransportEvent::Established { peer, .. } => {
                detector.readmit(&peer);
                detector.on_session_up(now, peer);
                if let Some((issuing, mut ends)) = self.issuing_and_ends() {
                    issuing.hand(now, peer, &mut ends);
                }
            }
            TransportEvent::Restarted { peer, .. } => {
                if let Some((issuing, mut ends)) = self.issuing_and_ends() {
                    issuing.hand(now, peer, &mut ends);
                }
            }
            TransportEvent::Unreachable { peer } => detector.on_session_failed(now, peer),
            TransportEvent::Forgotten { peer } => {
                let (mail, mut ends) = self.mail_and_ends();
                mail.on_forgotten(now, peer, &mut ends);
            }
            TransportEvent::Path { peer, path } => self.outlets.event(&NodeEvent::Path {
                peer,
                direct: path.direct,
                addr: path.addr,
                reason: path.reason,
            }),
            TransportEvent::Echo { peer, nonce } => {
                if let Some((reply, rtt)) = self.pings.answered(now, nonce) {
                    let path = self.transport.path(&peer);
                    let _ = reply.send(Ok(Pong { rtt, direct: path.direct, addr: path.addr }));
                }
            }
            TransportEvent::HubUp { hub } => {
                self.clocks.ping_now(now);
                if let Some(pass) = &self.roster.pass {
                    self.roster.own_clock.taken(time::unix_now(), pass.grant());
                }
                detector.on_hub_up(hub);
                let (revoking, mut ends) = self.revoking_and_ends();
                revoking.on_hub(now, hub, None, &mut ends);
                self.outlets.event(&NodeEvent::HubUp { hub });
            }
            TransportEvent::HubDown { hub, reason } => {
                self.revoking.on_hub_down(&hub);
                let last = !self.transport.hubs().values().any(|state| state.up);
                detector.on_hub_down(now, hub, last);
                self.outlets.event(&NodeEvent::HubDown { hub, reason });
            }
            TransportEvent::NotThere { hub, peer } => {
                if detector.on_denied(now, hub, peer) {
                    self.transport.forget(now, &peer);
                }
            }
            TransportEvent::HubPong => detector.on_hub_pong(now),
            TransportEvent::Contacts { hub, contacts } => detector.on_contacts(now, Some(hub), &contacts),
        }
    }
}
