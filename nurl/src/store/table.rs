//! The tables of a database. A table's owner says what its names and bytes mean.

use redb::TableDefinition;

/// Single records, by name.
pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");

/// A table of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Table(&'static str);

impl Table {
    /// The replicator's records.
    pub(crate) const STATE: Table = Table("state");
    /// Detached tasks: what is to be done.
    pub(crate) const TASKS: Table = Table("detached tasks");
    /// What has become of them.
    pub(crate) const COURSES: Table = Table("courses of detached tasks");
    /// Fencing tokens.
    pub(crate) const LEASE_TOKENS: Table = Table("lease tokens");
    /// Tasks that a resource has admitted.
    pub(crate) const LEASE_TASKS: Table = Table("lease tasks");
    /// Effects that a resource keeps in the store.
    pub(crate) const EFFECTS: Table = Table("effects");

    /// Passes that a hub issued.
    pub(crate) const PASSES: Table = Table("passes");

    /// What the authority has revoked.
    pub(crate) const REVOCATIONS: Table = Table("revocations");

    /// All tables, in the order in which a new database gets them: a table must exist before it can be read.
    pub(super) const ALL: [Table; 8] = [
        Table::STATE,
        Table::TASKS,
        Table::COURSES,
        Table::LEASE_TOKENS,
        Table::LEASE_TASKS,
        Table::EFFECTS,
        Table::PASSES,
        Table::REVOCATIONS,
    ];

    pub(super) const fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.0)
    }
}
