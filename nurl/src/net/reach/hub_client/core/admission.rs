//! How the client gets in: with its pass, by a new one in place of the old, or by its ticket's invitation.

use std::time::{Duration, Instant};

use super::super::Joining;
use crate::authority::credential::Credential;
use crate::authority::issuer::EnrolRequest;
use crate::authority::pass::Pass;
use crate::key::PublicKey;
use crate::net::reach::relay::Frame;
use crate::net::reach::relay::frame::VERSION;
use crate::net::secure::version::Versions;

/// How often a client that is registered asks for a new pass, until it has one.
const RENEW_EVERY: Duration = Duration::from_secs(3_600);

/// The next step of a client that isn't registered.
pub(super) enum Step {
    /// It registers with this frame.
    Register(Vec<u8>),
    /// It asks for a pass with this frame.
    Ask(Vec<u8>),
    /// It has neither a pass nor an invitation.
    Nothing,
}

/// The client's way in.
pub(super) struct Admission {
    key: PublicKey,
    boot: u64,
    joining: Joining,
    renew_at: Option<Instant>,
    /// The authority signed the pass in the life of this process, and no hub has said since that it has ended: it counts,
    /// whatever this machine's clock shows.
    fresh: bool,
    /// The issuer whose pass comes next, as the hub says.
    issuer: Option<PublicKey>,
}

impl Admission {
    pub(super) fn new(key: PublicKey, boot: u64, joining: Joining) -> Admission {
        Admission { key, boot, joining, renew_at: None, fresh: false, issuer: None }
    }

    /// What to send first on a new connection.
    pub(super) fn next(&self, now: Instant) -> Step {
        let Joining { mesh, credential, invitation, name, wall, .. } = &self.joining;
        let namespace = mesh.namespace();
        match (credential, invitation) {
            (Some(credential), _)
                if credential.pass().is_current(wall.seconds(now)) || credential.is_slip() || self.fresh =>
            {
                Step::Register(self.register(credential))
            }
            (Some(credential), _) => {
                let pass = credential.pass().as_bytes();
                Step::Ask(Frame::Renew { version: VERSION, namespace, pass }.to_vec())
            }
            (None, Some(invitation)) => {
                let request = EnrolRequest::new(invitation, &self.key, name).encode();
                Step::Ask(Frame::Enrol { version: VERSION, namespace, request: &request }.to_vec())
            }
            (None, None) => Step::Nothing,
        }
    }

    fn register(&self, credential: &Credential) -> Vec<u8> {
        let (namespace, boot, versions) = (self.joining.mesh.namespace(), self.boot, self.joining.versions);
        Frame::Register { version: VERSION, namespace, boot, shown: &credential.show(), versions }.to_vec()
    }

    /// Whether a hub that speaks these versions speaks one of ours.
    pub(super) fn fits(&self, versions: Versions) -> bool {
        self.joining.versions.common(versions).is_some()
    }

    /// The hub says who issues the pass that comes next.
    pub(super) fn issued_by(&mut self, issuer: PublicKey) {
        self.issuer = Some(issuer);
    }

    /// Who issued the pass that came, if it wasn't the hub.
    pub(super) fn take_issuer(&mut self) -> Option<PublicKey> {
        self.issuer.take()
    }

    /// A pass came. Returns it if it is ours.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Option<Credential> {
        let pass = Pass::decode(&self.joining.mesh, bytes).ok()?;
        if pass.grant().key != self.key {
            return None;
        }
        let credential = Credential::new(pass);
        self.set(credential.clone());
        Some(credential)
    }

    /// Sets the credential from now on.
    pub(super) fn set(&mut self, credential: Credential) {
        self.joining.credential = Some(credential);
        self.renew_at = None;
        self.fresh = true;
    }

    /// A hub says that the pass has ended.
    pub(super) fn expired(&mut self) {
        self.fresh = false;
    }

    /// The request for a new pass, if it is time for one and none was sent lately.
    pub(super) fn renewal(&mut self, now: Instant) -> Option<Vec<u8>> {
        let Joining { mesh, credential: Some(credential), wall, .. } = &self.joining else { return None };
        let due = !credential.is_slip() && credential.pass().is_due_for_renewal(wall.seconds(now));
        if !due || self.renew_at.is_some_and(|at| now < at) {
            return None;
        }
        self.renew_at = Some(now + RENEW_EVERY);
        let (namespace, pass) = (mesh.namespace(), credential.pass().as_bytes());
        Some(Frame::Renew { version: VERSION, namespace, pass }.to_vec())
    }
}
