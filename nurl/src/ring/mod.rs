//! Ownership: which members a key belongs to, and who may act for it.
//!
//! # What it promises
//! - Two nodes with the same view compute the same owners, on every platform: positions come from BLAKE3,
//!   ties are broken by public key, nothing is a float.
//! - A key's preference list names each member once, also where the ring wraps, and spreads over zones first
//!   where members have zones.
//! - A member that leaves hands its keys to all others in proportion to their weight, and no key moves
//!   between two members that stayed (without zones; with them a list may reorder to stay spread).
//! - Load follows theory: with V points a member, the spread of the shares is cv = 1/√V.
//! - Two nodes never hold equal [`Epoch`]s.
//!
//! # How
//! [`Ring`] is an immutable snapshot of weighted consistent hashing on a 64-bit ring. The *placement* ring
//! holds every placed member, live or not: a roaming phone must not reshuffle data. Liveness and job kinds
//! are filters over a key's list, never over the ring. [`TenureBook`] gives this node its fencing tokens.
//!
//! # What it refuses
//! Points beyond [`MAX_POINTS`] (counted in [`Ring::refused`]), epochs more than [`MAX_COUNTER_JUMP`] above
//! the highest known, more than [`MAX_TENURES`] keys acted for at once. There is no checksum of the whole
//! ring: two views that differ elsewhere still agree on a key, so only a key's owners are ever compared.

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
pub use epoch::{EPOCH_LEN, Epoch};
pub use placement::LOAD_BOUND_PERCENT;
pub use points::{MAX_POINTS, MAX_WEIGHT, POINTS_PER_WEIGHT, position};
pub use preference::Preference;
pub use snapshot::{Ring, RingMember};
pub use tenure::{
    MAX_COUNTER_JUMP, MAX_TENURE_KEY_BYTES, MAX_TENURES, TENURE_RESERVE, TenureBook, TenureCounters,
    TenureError,
};
