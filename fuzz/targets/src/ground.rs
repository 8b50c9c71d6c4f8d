//! What the targets stand on: a time, keys, a mesh.

use std::time::{Duration, Instant};

use nurl::internals::authority::key::AuthorityKey;
use nurl::internals::mesh::{Hub, MeshSecret, Ticket};
use nurl::{PublicKey, SecretKey, rt};
use rand_core::SeedableRng as _;

/// The wall clock at [`now`], since 1970.
pub(crate) const UNIX: Duration = Duration::from_secs(1_800_000_000);

/// The same in whole seconds.
pub(crate) const UNIX_S: u32 = 1_800_000_000;

/// A time. Only differences from it matter; it is a day ahead, so that subtracting stays in the clock's range.
pub(crate) fn now() -> Instant {
    rt::time::now() + Duration::from_secs(86_400)
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn rng(seed: u64) -> rt::Rng {
    rt::Rng::seed_from_u64(seed)
}

/// The key of peer `n` for state machines that use no cryptography.
pub(crate) fn key(n: u8) -> PublicKey {
    PublicKey::from_bytes([n; 32])
}

/// The secret key of peer `n`.
pub(crate) fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

/// The authority of the mesh.
pub(crate) fn authority() -> AuthorityKey {
    AuthorityKey::from_seed(&[1; 32])
}

/// A ticket of the mesh, with two generations of its secret.
pub(crate) fn ticket() -> Ticket {
    let hub = Hub { key: key(200), addr: "hub.example:4242".into() };
    let mut ticket = Ticket::generate(authority().mesh(), hub, &mut rng(1));
    ticket.previous = Some(MeshSecret::from_bytes([2; 32]));
    ticket
}
