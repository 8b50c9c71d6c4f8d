//! A member's metadata about itself: roles, job kinds, weight, version. Its zone is its pass's.
//!
//! Metadata travels with every alive fact, so it is small: its names total at most [`MAX_META_BYTES`]. Every [`Meta`]
//! is within its bounds, since its constructor checks them.

use super::event::MembershipError;

/// The most job kinds that a member advertises.
pub const MAX_KINDS: usize = 32;

/// The longest job kind or version, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// The sum of all names, in bytes. An alive fact with it (about 350 bytes more, with its pass and its signature) fits a
/// 1,200-byte datagram beside a ping and a second fact; larger metadata would starve the facts of others.
pub const MAX_META_BYTES: usize = 384;

/// A member's roles in the mesh, as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Roles(u16);

impl Roles {
    /// No role.
    pub const NONE: Roles = Roles(0);
    /// Runs jobs and holds state: it has a place on the ring.
    pub const WORKER: Roles = Roles(1);
    /// Is also a hub.
    pub const HUB: Roles = Roles(2);
    /// Keeps its state across restarts, so its place on the ring is kept for a day after its death.
    pub const STORE: Roles = Roles(4);

    /// Its disk fails: it answers reads, and takes no writes.
    pub const DISK_FAILS: Roles = Roles(8);

    /// The bits; unknown ones are kept, so that a newer member's roles survive being passed on.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// From bits.
    pub const fn from_bits(bits: u16) -> Roles {
        Roles(bits)
    }

    /// The union of both.
    #[must_use]
    pub const fn with(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }

    /// These but `other`.
    #[must_use]
    pub const fn without(self, other: Roles) -> Roles {
        Roles(self.0 & !other.0)
    }

    /// Whether all of `other` are among these.
    pub const fn contains(self, other: Roles) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Metadata within its bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Meta {
    roles: Roles,
    kinds: Vec<String>,
    weight: u16,
    version: String,
}

impl Meta {
    /// Checks the bounds. The kinds are sorted and deduplicated, so that equal metadata has equal bytes.
    ///
    /// # Errors
    /// [`MembershipError::MetaTooLarge`].
    pub fn new(
        roles: Roles,
        mut kinds: Vec<String>,
        weight: u16,
        version: String,
    ) -> Result<Meta, MembershipError> {
        kinds.sort_unstable();
        kinds.dedup();
        let names = || kinds.iter().chain([&version]);
        let total: usize = names().map(String::len).sum();
        if kinds.len() > MAX_KINDS
            || total > MAX_META_BYTES
            || names().any(|name| name.len() > MAX_NAME_BYTES)
        {
            return Err(MembershipError::MetaTooLarge { kinds: kinds.len(), bytes: total });
        }
        Ok(Meta { roles, kinds, weight, version })
    }

    /// The member's roles.
    pub fn roles(&self) -> Roles {
        self.roles
    }

    /// The same with other roles.
    #[must_use]
    pub fn with_roles(mut self, roles: Roles) -> Meta {
        self.roles = roles;
        self
    }

    /// The job kinds that it runs, sorted.
    pub fn kinds(&self) -> &[String] {
        &self.kinds
    }

    /// The share of the ring that it claims, relative to others; its pass says how much it may.
    pub fn weight(&self) -> u16 {
        self.weight
    }

    /// The version of the software it runs.
    pub fn version(&self) -> &str {
        &self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(count: usize, length: usize) -> Vec<String> {
        (0..count).map(|at| format!("{at:0length$}")).collect()
    }

    fn of(kinds: Vec<String>) -> Result<Meta, MembershipError> {
        Meta::new(Roles::WORKER, kinds, 1, String::new())
    }

    #[test]
    fn metadata_beyond_a_bound_is_a_typed_error() {
        assert!(of(kinds(MAX_KINDS, 2)).is_ok());
        assert!(matches!(of(kinds(MAX_KINDS + 1, 2)), Err(MembershipError::MetaTooLarge { .. })));
        assert!(of(kinds(1, MAX_NAME_BYTES)).is_ok());
        assert!(matches!(of(kinds(1, MAX_NAME_BYTES + 1)), Err(MembershipError::MetaTooLarge { .. })));
        assert!(of(kinds(6, 64)).is_ok());
        assert!(matches!(of(kinds(7, 64)), Err(MembershipError::MetaTooLarge { bytes: 448, .. })));
    }

    #[test]
    fn the_order_of_kinds_makes_no_difference() {
        let one = of(vec!["b".into(), "a".into(), "b".into()]).unwrap();
        assert_eq!(one, of(vec!["a".into(), "b".into()]).unwrap());
    }

    #[test]
    fn roles_are_a_set() {
        let roles = Roles::WORKER.with(Roles::STORE);
        assert!(roles.contains(Roles::WORKER) && roles.contains(Roles::STORE));
        assert!(!roles.contains(Roles::HUB) && roles.contains(Roles::NONE));
        assert_eq!(Roles::from_bits(0x8001).bits(), 0x8001);
    }
}
