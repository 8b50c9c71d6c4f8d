//! The check of what a peer shows, at each gate: handshakes between peers, and registrations at hubs.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::UnixSeconds;
use super::account::Account;
use super::credential::{self, SHOWN_BYTES};
use super::level::Level;
use super::pass::{Grant, Pass, PassError, PassHash};
use super::revocation::{Revocation, Revocations};
use super::slip::Slip;
use crate::key::PublicKey;
use crate::kit::wall_clock::WallClock;
use crate::mesh::MeshId;

/// Passes whose signature is remembered as checked. A peer shows its pass in each handshake; with more peers than this
/// the oldest costs its check again.
const MAX_KNOWN: usize = 4_096;

/// No right clock shows an earlier time: 2026-01-01, before this program was built. A clock that does (a board without
/// a battery) counts as the newest time that the authority signed.
const BUILT: UnixSeconds = 1_767_225_600;

/// A peer's standing, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What it may do: what its pass says, or less by a slip.
    pub level: Level,
    /// The pass: its own, or that of the slip's holder.
    pub grant: Arc<Grant>,
    /// The pass's name.
    pub pass: PassHash,
}

impl Standing {
    /// What a pass gives its own key; no signature is looked at.
    pub fn of(pass: &Pass) -> Standing {
        Standing { level: pass.grant().level, grant: Arc::new(pass.grant().clone()), pass: pass.hash() }
    }

    /// On whose account the peer `key` of this standing has what it has.
    pub fn account(&self, key: PublicKey) -> Account {
        Account::new(key, self)
    }
}

#[cfg(test)]
impl Standing {
    /// A worker's, by a pass that nobody signed.
    pub(crate) fn for_tests() -> Standing {
        let grant = Grant::new(PublicKey::from_bytes([1; 32]), Level::Worker, 0, 1);
        Standing { level: Level::Worker, grant: Arc::new(grant), pass: PassHash([0; 32]) }
    }
}

/// Why a peer isn't admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// It shows nothing.
    #[error("no pass")]
    Nothing,
    /// What it shows is no pass of this mesh.
    #[error("{0}")]
    Pass(#[from] PassError),
    /// The pass is another key's, and no slip of its holder names this key.
    #[error("the pass is another key's")]
    Another,
    /// The pass has ended.
    #[error("the pass has expired")]
    Expired,
    /// The pass was revoked.
    #[error("the pass was revoked")]
    Revoked,
}

impl NotAdmitted {
    /// The machine-readable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            NotAdmitted::Nothing => "no-pass",
            NotAdmitted::Pass(_) => "bad-pass",
            NotAdmitted::Another => "anothers-pass",
            NotAdmitted::Expired => "expired",
            NotAdmitted::Revoked => "revoked",
        }
    }
}

/// Checks passes of one mesh.
#[derive(Debug)]
pub struct Checker {
    mesh: MeshId,
    wall: WallClock,
    /// The newest time that the authority is known to have signed.
    newest: UnixSeconds,
    revocations: Revocations,
    known: BTreeSet<PassHash>,
    /// The same, oldest first.
    order: VecDeque<PassHash>,
}

impl Checker {
    /// A checker that knows no revocation.
    pub fn new(mesh: MeshId, wall: WallClock) -> Checker {
        Checker {
            mesh,
            wall,
            newest: 0,
            revocations: Revocations::default(),
            known: BTreeSet::new(),
            order: VecDeque::new(),
        }
    }

    /// The time by which passes are judged.
    pub fn time(&self, now: Instant) -> UnixSeconds {
        let shown = self.wall.seconds(now);
        if shown < BUILT { shown.max(self.newest) } else { shown }
    }

    /// The revocations known.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// The mesh.
    pub fn mesh(&self) -> &MeshId {
        &self.mesh
    }

    /// Drops the revocations that have been kept long enough. Returns whether there were any.
    pub fn expire(&mut self, now: Instant) -> bool {
        let time = self.time(now);
        self.revocations.expire(time)
    }

    /// The entries by which what a client shows is out, for the client to see.
    pub fn against(&self, shown: &[u8; SHOWN_BYTES]) -> Vec<u8> {
        let pass = credential::split(shown).and_then(|(bytes, _)| Pass::read(bytes).ok());
        pass.map(|pass| self.revocations.against(pass.grant())).unwrap_or_default()
    }

    /// Takes a revocation. Returns whether it is news: then the caller ends what it revokes.
    pub fn revoke(&mut self, entry: Revocation) -> bool {
        self.newest = self.newest.max(entry.made);
        self.revocations.merge(entry)
    }

    /// Whether a standing that was admitted earlier counts no more.
    pub fn is_over(&self, now: Instant, standing: &Standing) -> bool {
        let time = self.time(now);
        self.revocations.revokes(&standing.grant)
            || time > standing.grant.not_after.saturating_add(super::pass::GRACE)
    }

    /// Checks what the peer with this key shows: the cheap parts first, a signature only of a pass that isn't known.
    ///
    /// # Errors
    /// [`NotAdmitted`].
    pub fn check(
        &mut self,
        now: Instant,
        key: &PublicKey,
        shown: &[u8; SHOWN_BYTES],
    ) -> Result<Standing, NotAdmitted> {
        let (bytes, slip) = credential::split(shown).ok_or(NotAdmitted::Pass(PassError::Malformed))?;
        if bytes.is_empty() {
            return Err(NotAdmitted::Nothing);
        }
        let unchecked = Pass::read(bytes)?;
        let time = self.time(now);
        if slip.is_none() && unchecked.grant().key != *key {
            return Err(NotAdmitted::Another);
        }
        if !unchecked.is_current(time) {
            return Err(NotAdmitted::Expired);
        }
        if self.revocations.revokes(unchecked.grant()) {
            return Err(NotAdmitted::Revoked);
        }
        let hash = unchecked.hash();
        let pass = if self.known.contains(&hash) {
            unchecked.trust()
        } else {
            let pass = unchecked.verify(&self.mesh)?;
            self.remember(hash);
            pass
        };
        self.newest = self.newest.max(pass.grant().issued);
        let level = match slip {
            None => pass.grant().level,
            Some(slip) => {
                let slip = Slip::decode(&self.mesh, pass.grant(), time, slip).ok_or(NotAdmitted::Another)?;
                if slip.key != *key {
                    return Err(NotAdmitted::Another);
                }
                slip.level
            }
        };
        Ok(Standing { level, grant: Arc::new(pass.into_grant()), pass: hash })
    }

    fn remember(&mut self, hash: PassHash) {
        if self.order.len() >= MAX_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.known.insert(hash);
        self.order.push_back(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::super::credential::Credential;
    use super::super::key::AuthorityKey;
    use super::super::pass::{DAY, GRACE};
    use super::super::revocation::Subject;
    use super::*;
    use crate::key::SecretKey;
    use rand_core::SeedableRng;
    use std::time::Duration;

    const NOW: UnixSeconds = BUILT + 1_000_000;

    struct Fixture {
        authority: AuthorityKey,
        holder: SecretKey,
        start: Instant,
    }

    impl Fixture {
        fn new() -> Fixture {
            let mut rng = crate::rt::Rng::from_seed([3; 32]);
            Fixture {
                authority: AuthorityKey::generate(&mut rng),
                holder: SecretKey::generate(&mut rng),
                start: crate::rt::test_now(),
            }
        }

        fn checker(&self, unix: UnixSeconds) -> Checker {
            Checker::new(self.authority.mesh(), WallClock::new(self.start, Duration::from_secs(unix.into())))
        }

        fn pass(&self, level: Level, issued: UnixSeconds) -> Pass {
            Grant::new(self.holder.public(), level, issued, issued + 30 * DAY).sign(&self.authority).unwrap()
        }
    }

    #[test]
    fn a_pass_admits_its_key_alone_while_it_counts() {
        let fixture = Fixture::new();
        let shown = Credential::new(fixture.pass(Level::Worker, NOW)).show();
        let (key, other) = (fixture.holder.public(), PublicKey::from_bytes([9; 32]));
        for (unix, key, expected) in [
            (NOW, key, Ok(Level::Worker)),
            (NOW, other, Err(NotAdmitted::Another)),
            (NOW + 30 * DAY + GRACE, key, Ok(Level::Worker)),
            (NOW + 30 * DAY + GRACE + 1, key, Err(NotAdmitted::Expired)),
            (0, key, Ok(Level::Worker)),
        ] {
            let checked = fixture.checker(unix).check(fixture.start, &key, &shown);
            assert_eq!(checked.map(|standing| standing.level), expected, "at {unix}");
        }
        let nothing = fixture.checker(NOW).check(fixture.start, &key, &[0; SHOWN_BYTES]);
        assert_eq!(nothing, Err(NotAdmitted::Nothing));
        let stranger = AuthorityKey::from_seed(&[8; 32]).mesh();
        let mut elsewhere =
            Checker::new(stranger, WallClock::new(fixture.start, Duration::from_secs(NOW.into())));
        assert_eq!(
            elsewhere.check(fixture.start, &key, &shown),
            Err(NotAdmitted::Pass(PassError::Signature))
        );
    }

    #[test]
    fn a_known_pass_costs_no_signature_and_a_revoked_one_is_out_at_once() {
        let fixture = Fixture::new();
        let mut checker = fixture.checker(NOW);
        let (key, pass) = (fixture.holder.public(), fixture.pass(Level::Member, NOW));
        let shown = Credential::new(pass.clone()).show();
        let standing = checker.check(fixture.start, &key, &shown).unwrap();
        assert!(!checker.is_over(fixture.start, &standing));
        // The grant was signed by the authority once; no other bytes say the same with another signature.
        let mut other_signature = shown;
        other_signature[pass.as_bytes().len()] ^= 1;
        assert_eq!(checker.check(fixture.start, &key, &other_signature), Ok(standing.clone()));
        assert!(checker.revoke(Revocation::sign(&fixture.authority, Subject::Key(key), NOW, NOW)));
        assert!(checker.is_over(fixture.start, &standing));
        assert_eq!(checker.check(fixture.start, &key, &shown), Err(NotAdmitted::Revoked));
        let renewed = Credential::new(fixture.pass(Level::Submit, NOW + 1)).show();
        let again = checker.check(fixture.start, &key, &renewed).unwrap();
        assert_eq!(again.level, Level::Submit, "a pass of later admits, with what it says");
    }

    #[test]
    fn a_clock_before_this_program_counts_as_the_newest_signed_time() {
        let fixture = Fixture::new();
        let mut checker = fixture.checker(0);
        let shown = Credential::new(fixture.pass(Level::Member, NOW)).show();
        let key = fixture.holder.public();
        assert!(checker.check(fixture.start, &key, &shown).is_ok());
        assert_eq!(checker.time(fixture.start), NOW);
        checker.revoke(Revocation::sign(&fixture.authority, Subject::All, 0, NOW + 31 * DAY + GRACE));
        assert_eq!(checker.check(fixture.start, &key, &shown), Err(NotAdmitted::Expired));
    }

    #[test]
    fn a_slip_admits_its_throwaway_key_at_most_to_submit() {
        let fixture = Fixture::new();
        let mesh = fixture.authority.mesh();
        let throwaway = PublicKey::from_bytes([7; 32]);
        let slip = Slip { key: throwaway, level: Level::Submit, not_after: NOW + 600 };
        let credential =
            Credential::with_slip(fixture.pass(Level::Worker, NOW), slip.sign(&fixture.holder, &mesh));
        let mut checker = fixture.checker(NOW);
        let standing = checker.check(fixture.start, &throwaway, &credential.show()).unwrap();
        assert_eq!((standing.level, standing.grant.key), (Level::Submit, fixture.holder.public()));
        let other = PublicKey::from_bytes([6; 32]);
        assert_eq!(checker.check(fixture.start, &other, &credential.show()), Err(NotAdmitted::Another));
    }

    #[test]
    fn the_memory_of_checked_passes_is_bounded() {
        let mut checker = Fixture::new().checker(NOW);
        for n in 0..2 * MAX_KNOWN {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_le_bytes());
            checker.remember(PassHash(hash));
        }
        assert_eq!((checker.known.len(), checker.order.len()), (MAX_KNOWN, MAX_KNOWN));
    }
}
