//! The meshes that a hub serves: whose passes it checks, and for which it issues them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::asking::Asking;
use crate::authority::checker::{Checker, NotAdmitted, Standing};
use crate::authority::credential::SHOWN_BYTES;
use crate::authority::issuer::{EnrolRequest, Issuer, NotIssued};
use crate::authority::key::AuthorityKey;
use crate::authority::pass::{Pass, PassError};
use crate::authority::revocation::{MAX_ENTRIES, NotTaken, Revocation, Revocations, Subject};
use crate::authority::rotation::SignedSecret;
use crate::key::PublicKey;
use crate::kit::rate::TokenBucket;
use crate::kit::reader::Reader;
use crate::kit::wall_clock::WallClock;
use crate::mesh::{MeshId, Namespace};
use crate::net::reach::relay::CloseReason;
use crate::net::secure::version::Incompatible;
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

/// Signatures of revocations that are checked per second, and at once: as many as a map can have. Entries that are known
/// cost no check, so only a hub that has just begun, and is told all of a large map, comes near.
const CHECKS: (u64, u64) = (64, MAX_ENTRIES as u64);

/// What a hub keeps for one mesh.
struct Mesh {
    checker: Checker,
    issuer: Option<Issuer>,
    checks: TokenBucket,
    /// The present secret, once it was rotated, if this hub is an issuer.
    secret: Option<SignedSecret>,
}

impl Mesh {
    /// An issuer has the secret that the latest rotation announced.
    fn update_secret(&mut self) {
        if let (Some((generation, made)), Some(issuer)) = (self.checker.revocations().secret(), &self.issuer)
        {
            self.secret = Some(issuer.secret(generation, made));
        }
    }
}

/// All meshes of a hub, by the name under which clients register.
pub(super) struct Meshes {
    by_namespace: BTreeMap<Namespace, Mesh>,
    /// Passes signed since the driver last asked, which it makes durable before their owners get them.
    issued: VecDeque<(MeshId, Pass)>,
    /// Entries taken since the driver last asked, which it makes durable too.
    revoked: VecDeque<(MeshId, Revocation)>,
    /// What waits for issuers elsewhere, for meshes whose passes the hub doesn't issue.
    pub(super) asking: Asking,
    /// The clients met lately that speak none of the hub's versions.
    pub(super) incompatible: Incompatible,
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
            let checks = TokenBucket::new(CHECKS.0, CHECKS.1, now);
            (served.id.namespace(), Mesh { checker, issuer, checks, secret: None })
        };
        let by_namespace = meshes.into_iter().map(&mut serve).collect();
        Meshes {
            by_namespace,
            issued: VecDeque::new(),
            revoked: VecDeque::new(),
            asking: Asking::default(),
            incompatible: Incompatible::default(),
        }
    }

    /// Whether the hub serves this mesh.
    pub(super) fn serves(&self, namespace: &Namespace) -> bool {
        self.by_namespace.contains_key(namespace)
    }

    /// Whether the hub issues this mesh's passes itself.
    pub(super) fn issues(&self, namespace: &Namespace) -> bool {
        self.by_namespace.get(namespace).is_some_and(|mesh| mesh.issuer.is_some())
    }

    /// The id of a mesh that the hub serves.
    pub(super) fn id(&self, namespace: &Namespace) -> Option<&MeshId> {
        self.by_namespace.get(namespace).map(|mesh| mesh.checker.mesh())
    }

    /// Remembers a pass that was issued by an earlier process of this hub.
    pub(super) fn restore(&mut self, pass: &[u8]) -> Result<(), PassError> {
        let mut issuers = self.by_namespace.values_mut().filter_map(|mesh| mesh.issuer.as_mut());
        // Another mesh's pass has another authority's signature.
        if issuers.any(|issuer| issuer.restore(pass).is_ok()) { Ok(()) } else { Err(PassError::Signature) }
    }

    /// Remembers an entry that an earlier process of this hub took. One of a mesh that it serves no more is no harm.
    pub(super) fn restore_revocation(&mut self, entry: &[u8]) {
        for mesh in self.by_namespace.values_mut() {
            if let Some(entry) = Revocation::decode(mesh.checker.mesh(), &mut Reader(entry)) {
                mesh.checker.revoke(entry);
                mesh.update_secret();
            }
        }
    }

    /// Takes entries that a client tells. Returns those that are news.
    pub(super) fn revoke(
        &mut self,
        now: Instant,
        namespace: &Namespace,
        entries: &[u8],
    ) -> (Vec<Revocation>, Result<(), CloseReason>) {
        let Some(mesh) = self.by_namespace.get_mut(namespace) else {
            return (Vec::new(), Err(CloseReason::UnknownNamespace));
        };
        let Mesh { checker, issuer, checks, .. } = mesh;
        checker.expire(now);
        let time = checker.time(now);
        let (told, read) =
            checker.revocations().read_news((checker.mesh(), time), entries, || checks.take(now, 1));
        let mut news = Vec::new();
        for entry in told {
            if !checker.revoke(entry.clone()) {
                continue;
            }
            tracing::info!(target: "audit", subject = ?entry.subject, "a revocation is taken");
            if let (Subject::Key(key), Some(issuer)) = (entry.subject, issuer.as_ref())
                && let Some(closing) = issuer.close_invitation_of(&key, None, time, checker.revocations())
            {
                checker.revoke(closing.clone());
                news.push(closing);
            }
            news.push(entry);
        }
        let id = *checker.mesh();
        if news.iter().any(|entry| entry.subject == Subject::Secret) {
            mesh.update_secret();
        }
        self.revoked.extend(news.iter().map(|entry| (id, entry.clone())));
        let read = read.map_err(|reason| match reason {
            NotTaken::Malformed | NotTaken::Forged => CloseReason::Protocol,
            NotTaken::TooMany => CloseReason::Busy,
        });
        (news, read)
    }

    /// What a mesh's authority has revoked, as far as this hub knows.
    pub(super) fn revocations(&self, namespace: &Namespace) -> Option<&Revocations> {
        self.by_namespace.get(namespace).map(|mesh| mesh.checker.revocations())
    }

    /// The mesh's present secret, for its clients: if it was rotated, and this hub is an issuer.
    pub(super) fn secret(&self, namespace: &Namespace) -> Option<&SignedSecret> {
        self.by_namespace.get(namespace)?.secret.as_ref()
    }

    /// The entries by which what a client shows is out.
    pub(super) fn against(&self, namespace: &Namespace, shown: &[u8; SHOWN_BYTES]) -> Vec<u8> {
        self.by_namespace.get(namespace).map(|mesh| mesh.checker.against(shown)).unwrap_or_default()
    }

    /// The next entry to make durable.
    pub(super) fn poll_revoked(&mut self) -> Option<(MeshId, Revocation)> {
        self.revoked.pop_front()
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
        self.issued.push_back((*mesh.checker.mesh(), pass.clone()));
        Ok(pass)
    }

    /// The next pass to make durable.
    pub(super) fn poll_issued(&mut self) -> Option<(MeshId, Pass)> {
        self.issued.pop_front()
    }
}
