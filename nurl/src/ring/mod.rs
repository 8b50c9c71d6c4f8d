//! Ownership: the members that own a key, and the member that may act for it.
//!
//! # Guarantees
//! - Two nodes with the same view compute the same owners, on every platform: positions come from BLAKE3,
//!   ties are broken by public key, and no floating point is used.
//! - A key's preference list contains each member once, even where the ring wraps, and spreads over zones
//!   first if members have zones.
//! - A member that leaves hands its keys to all others in proportion to their weight, and no key moves
//!   between two members that stayed (without zones; with zones a list may be reordered to stay spread).
//! - The load follows theory: with V points per member, the spread of the shares is cv = 1/√V.
//! - Two nodes never hold equal [`Epoch`]s.
//!
//! # Mechanism
//! [`Ring`] is an immutable snapshot of weighted consistent hashing on a 64-bit ring. The *placement* ring
//! holds every placed member, live or not, so a roaming phone, or a restart of a member with a store, doesn't move data. Liveness and job kinds
//! filter a key's list, never the ring. [`TenureBook`] issues this node's fencing tokens.
//!
//! # Limits
//! Weights beyond [`MAX_POINTS`] have fewer points each, at all members alike. The book refuses epochs
//! too far ahead of the wall clock ([`crate::membership::limit`]), and more than [`MAX_TENURES`] keys acted for
//! at once. There is no checksum of the whole ring: two views that differ elsewhere still agree on a key, so
//! only a key's owners are compared.

mod diff;
mod epoch;
mod placement;
mod points;
mod preference;
mod snapshot;
mod tenure;
#[cfg(test)]
mod tests;

pub use diff::{Diff, Moved};
pub use epoch::{EPOCH_LEN, Epoch, NotAToken};
pub use placement::LOAD_BOUND_PERCENT;
pub use points::{MAX_POINTS, MAX_WEIGHT, POINTS_PER_WEIGHT, RingSeed, position};
pub use preference::Preference;
pub use snapshot::{Ring, RingMember};
pub use tenure::{
    MAX_TENURE_KEY_BYTES, MAX_TENURES, TENURE_RESERVE, TenureBook, TenureCounters, TenureError,
};
