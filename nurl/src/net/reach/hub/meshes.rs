//! The meshes that a hub serves: whose passes it checks, and for which it issues them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::authority::checker::{Checker, NotAdmitted, Standing};
use crate::authority::credential::SHOWN_BYTES;
use crate::authority::issuer::{EnrolRequest, Issuer, NotIssued};
use crate::authority::key::AuthorityKey;
use crate::authority::pass::{Pass, PassError};
use crate::key::PublicKey;
use crate::kit::wall_clock::WallClock;
use crate::mesh::{MeshId, Namespace};
use crate::net::reach::relay::CloseReason;
use crate::rt::Rng;

/// A mesh that a hub serves.
#[derive(Debug, Clone)]
pub struct ServedMesh {
    /// The mesh.
    pub id: MeshId,
    /// Its authority's key, if this hub issues its passes. Whoever has it can admit anybody, itself included.
    pub authority: Option<Arc<AuthorityKey>>,
}

impl ServedMesh {
    /// A mesh whose passes the hub only checks.
    pub fn of(id: MeshId) -> ServedMesh {
        ServedMesh { id, authority: None }
    }

    /// A mesh whose passes the hub issues.
    pub fn issued_by(authority: Arc<AuthorityKey>) -> ServedMesh {
        ServedMesh { id: authority.mesh(), authority: Some(authority) }
    }
}

/// A line for whoever wants to know later who got in.
fn audit(key: &PublicKey, level: &str, what: &str) {
    tracing::info!(target: "audit", peer = %key, level, "{what}");
}

/// What a hub keeps for one mesh.
struct Mesh {
    checker: Checker,
    issuer: Option<Issuer>,
}

/// All meshes of a hub, by the name under which clients register.
pub(super) struct Meshes {
    by_namespace: BTreeMap<Namespace, Mesh>,
    /// Passes signed since the driver last asked, which it makes durable before their owners get them.
    issued: VecDeque<Pass>,
}

impl Meshes {
    pub(super) fn new(
        meshes: impl IntoIterator<Item = ServedMesh>,
        now: Instant,
        wall: WallClock,
        rng: &Rng,
    ) -> Meshes {
        let mut stream = 2;
        let mut serve = |served: ServedMesh| {
            let checker = Checker::new(served.id, wall);
            // The same seed with a random stream for each mesh.
            let mut rng = rng.clone();
            rng.set_stream(stream);
            stream += 1;
            let issuer = served.authority.map(|authority| Issuer::new(authority, now, rng));
            (served.id.namespace(), Mesh { checker, issuer })
        };
        Meshes { by_namespace: meshes.into_iter().map(&mut serve).collect(), issued: VecDeque::new() }
    }

    /// Whether the hub serves this mesh.
    pub(super) fn serves(&self, namespace: &Namespace) -> bool {
        self.by_namespace.contains_key(namespace)
    }

    /// Remembers a pass that was issued by an earlier process of this hub.
    pub(super) fn restore(&mut self, pass: &[u8]) -> Result<(), PassError> {
        let mut issuers = self.by_namespace.values_mut().filter_map(|mesh| mesh.issuer.as_mut());
        // Another mesh's pass has another authority's signature.
        if issuers.any(|issuer| issuer.restore(pass).is_ok()) { Ok(()) } else { Err(PassError::Signature) }
    }

    /// Checks what a client shows at its registration.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        namespace: &Namespace,
        key: &PublicKey,
        shown: &[u8; SHOWN_BYTES],
    ) -> Result<Standing, CloseReason> {
        let mesh = self.by_namespace.get_mut(namespace).ok_or(CloseReason::UnknownNamespace)?;
        mesh.checker.check(now, key, shown).map_err(|reason| match reason {
            NotAdmitted::Nothing => CloseReason::NoPass,
            NotAdmitted::Pass(_) | NotAdmitted::Another => CloseReason::BadPass,
            NotAdmitted::Expired => CloseReason::Expired,
            NotAdmitted::Revoked => CloseReason::Revoked,
        })
    }

    /// Enrols a newcomer.
    pub(super) fn enrol(
        &mut self,
        now: Instant,
        namespace: &Namespace,
        key: &PublicKey,
        request: &[u8],
    ) -> Result<Pass, CloseReason> {
        let request = EnrolRequest::decode(request).ok_or(CloseReason::Protocol)?;
        self.issue(namespace, |issuer, checker| {
            issuer.enrol((now, checker.time(now)), key, &request, checker.revocations())
        })
        .inspect(|pass| audit(key, pass.grant().level.as_str(), "a newcomer is enrolled"))
    }

    /// Renews a pass.
    pub(super) fn renew(
        &mut self,
        now: Instant,
        namespace: &Namespace,
        key: &PublicKey,
        pass: &[u8],
    ) -> Result<Pass, CloseReason> {
        self.issue(namespace, |issuer, checker| {
            issuer.renew((now, checker.time(now)), key, pass, checker.revocations())
        })
    }

    fn issue(
        &mut self,
        namespace: &Namespace,
        issue: impl FnOnce(&mut Issuer, &Checker) -> Result<Pass, NotIssued>,
    ) -> Result<Pass, CloseReason> {
        let mesh = self.by_namespace.get_mut(namespace).ok_or(CloseReason::UnknownNamespace)?;
        let issuer = mesh.issuer.as_mut().ok_or(CloseReason::NoIssuer)?;
        let issued = issue(issuer, &mesh.checker).inspect_err(|reason| {
            tracing::info!(target: "audit", reason = reason.as_str(), "a pass is refused");
        });
        let pass = issued.map_err(|reason| match reason {
            NotIssued::NoProof => CloseReason::BadInvitation,
            NotIssued::Expired => CloseReason::Expired,
            NotIssued::Revoked => CloseReason::Revoked,
            NotIssued::UsedUp => CloseReason::UsedUp,
            NotIssued::Busy => CloseReason::Busy,
        })?;
        self.issued.push_back(pass.clone());
        Ok(pass)
    }

    /// The next pass to make durable.
    pub(super) fn poll_issued(&mut self) -> Option<Pass> {
        self.issued.pop_front()
    }
}
