//! A hub without the authority's key hands requests for passes to issuers among its clients, and their answers back.
//!
//! It can't change a request, which its MAC or the authority's signature covers together with the newcomer's key, and it
//! can't invent a pass. It passes on no answer that isn't the authority's pass for the key that asked.

use std::time::Instant;

use super::super::asking::{Request, Step};
use super::{Connection, Hub, Phase};
use crate::authority::issuer::EnrolRequest;
use crate::authority::pass::Pass;
use crate::key::PublicKey;
use crate::mesh::Namespace;
use crate::net::reach::relay::{self, ClientId, CloseReason};

impl Hub {
    /// A client that isn't registered asks for a pass, once.
    pub(super) fn hand_first(
        &mut self,
        now: Instant,
        id: ClientId,
        (namespace, key): (Namespace, PublicKey),
        (kind, body): (u8, &[u8]),
    ) -> Result<(), CloseReason> {
        let Some(Connection { phase: Phase::HalfOpen { asked, .. }, .. }) = self.connections.get_mut(&id)
        else {
            return Err(CloseReason::Protocol);
        };
        if std::mem::replace(asked, true) {
            return Err(CloseReason::Protocol);
        }
        self.hand(now, id, (namespace, key), (kind, body)).inspect_err(|_| self.counters.not_issued += 1)
    }

    /// Queues a request for the issuers, if it has the form of one.
    pub(super) fn hand(
        &mut self,
        now: Instant,
        id: ClientId,
        (namespace, key): (Namespace, PublicKey),
        (kind, body): (u8, &[u8]),
    ) -> Result<(), CloseReason> {
        match relay::Frame::decode(kind, body) {
            Ok(Some(relay::Frame::Enrol { request, .. })) => {
                EnrolRequest::decode(request).ok_or(CloseReason::Protocol)?;
            }
            Ok(Some(relay::Frame::Renew { pass, .. })) => {
                let mesh = self.meshes.id(&namespace).ok_or(CloseReason::UnknownNamespace)?;
                let pass = Pass::decode(mesh, pass).map_err(|_| CloseReason::BadInvitation)?;
                if pass.grant().key != key {
                    return Err(CloseReason::BadInvitation);
                }
            }
            _ => return Err(CloseReason::Protocol),
        }
        let prefix = self.connections.get(&id).ok_or(CloseReason::Protocol)?.prefix;
        let request = Request { client: id, key, prefix, kind, body: body.to_vec() };
        self.meshes.asking.ask(now, namespace, request)?;
        self.counters.handed += 1;
        Ok(())
    }

    /// A registered client says that it issues. Only one whose pass says so is asked.
    pub(super) fn offer(&mut self, now: Instant, id: ClientId) {
        let Some(Connection { phase: Phase::Registered { namespace, standing, .. }, .. }) =
            self.connections.get(&id)
        else {
            return;
        };
        // A hub that issues itself asks nobody.
        let wanted = !self.meshes.issues(namespace);
        if !standing.level.may_issue() {
            self.counters.beyond_level += 1;
        } else if wanted && !self.meshes.asking.offer(now, *namespace, id) {
            self.counters.issuers_full += 1;
        }
    }

    /// An issuer's answer: a pass, perhaps with the mesh's secret, sealed for the client.
    pub(super) fn granted(
        &mut self,
        now: Instant,
        issuer: ClientId,
        number: u64,
        pass: &[u8],
        sealed: &[u8],
    ) {
        let Some(by) = self.registered_key(issuer) else { return };
        let Some(Request { client, key, .. }) = self.meshes.asking.answered(issuer, number) else {
            self.counters.late_answers += 1;
            return;
        };
        let (client, key) = (*client, *key);
        let is_ours = |namespace: &Namespace| {
            let pass = Pass::decode(self.meshes.id(namespace)?, pass).ok()?;
            (pass.grant().key == key).then_some(())
        };
        if is_ours(&by.0).is_none() {
            self.counters.bad_answers += 1;
            self.meshes.asking.again(client);
            return;
        }
        self.meshes.asking.end(client);
        self.counters.issued += 1;
        let mut frames = relay::Frame::Issuer { key: by.1 }.to_vec();
        if !sealed.is_empty() {
            relay::Frame::Sealed { sealed }.encode(&mut frames);
        }
        relay::Frame::Issued { pass }.encode(&mut frames);
        self.relay.push_control_bytes(client, frames.into());
        if let Some(Connection { phase: Phase::HalfOpen { .. }, accepted, .. }) =
            self.connections.get_mut(&client)
        {
            // The wait was none of its own.
            *accepted = now;
        }
    }

    /// An issuer refuses.
    pub(super) fn denied(&mut self, now: Instant, issuer: ClientId, number: u64, reason: CloseReason) {
        let Some(Request { client, .. }) = self.meshes.asking.answered(issuer, number) else {
            self.counters.late_answers += 1;
            return;
        };
        let client = *client;
        match reason {
            CloseReason::Expired
            | CloseReason::Revoked
            | CloseReason::UsedUp
            | CloseReason::BadInvitation => {
                self.meshes.asking.end(client);
                self.refuse(now, client, reason);
            }
            // Another one may have time for it.
            CloseReason::Busy => self.meshes.asking.again(client),
            _ => {
                self.counters.bad_answers += 1;
                self.meshes.asking.again(client);
            }
        }
    }

    /// A client gets no pass. One that is registered has one that still counts.
    fn refuse(&mut self, now: Instant, client: ClientId, reason: CloseReason) {
        self.counters.not_issued += 1;
        if let Some(Connection { phase: Phase::HalfOpen { .. }, .. }) = self.connections.get(&client) {
            self.close(now, client, reason);
        }
    }

    /// Asks issuers as far as they are to be asked now.
    pub(super) fn ask_issuers(&mut self, now: Instant) {
        while let Some(step) = self.meshes.asking.poll(now) {
            match step {
                Step::Ask(issuer, frame) => drop(self.relay.push_control_bytes(issuer, frame.into())),
                Step::Refuse(client, reason) => self.refuse(now, client, reason),
            }
        }
    }

    fn registered_key(&self, id: ClientId) -> Option<(Namespace, PublicKey)> {
        match &self.connections.get(&id)?.phase {
            Phase::Registered { namespace, key, .. } => Some((*namespace, *key)),
            _ => None,
        }
    }
}
