//! The tables of a node whose bounds a scenario of the simulated world can make smaller, so that a run fills them with a
//! few entries instead of thousands. In a real build each has its usual bound, and nothing is left of the question.

macro_rules! tables {
    ($($table:ident = $name:literal: $about:literal,)*) => {
        /// A table with a bound.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Table {
            $(#[doc = $about] $table,)*
        }

        #[cfg(feature = "sim")]
        impl Table {
            /// The name under which a scenario sets its bound.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Table::$table => $name,)*
                }
            }
        }
    };
}

tables! {
    // Jobs.
    Submissions = "submissions": "A submitter's tasks without an outcome.",
    Executions = "executions": "An executor's tasks: asked about, queued or running.",
    Forwarded = "forwarded": "An executor's forwarded tasks that wait for their submitters' word, and such words.",
    Records = "records": "A replica's outcomes and hashes.",
    RecordBytes = "record-bytes": "The bytes of a replica's outcomes.",
    Tenures = "tenures": "The keys for which an executor holds a tenure.",
    // Replicated state.
    HeldKeys = "held-keys": "The keys that an owner holds.",
    OwnKeys = "own-keys": "The keys of others that a node has written.",
    Marks = "marks": "The deleted keys whose marks a node keeps.",
    MarkLife = "mark-life": "The seconds for which it keeps them.",
    PendingWrites = "pending-writes": "A node's writes that no owner has acknowledged.",
    Reads = "reads": "The reads under way.",
    Watchers = "watchers": "The nodes that wait for changes of what a member keeps.",
    Operations = "operations": "Observers' writes that a member remembers.",
    // Membership.
    Members = "members": "The members that a node remembers.",
    UserEvents = "user-events": "The user events that a member's queue of gossip holds.",
}

/// The bound of a table: `usual`, unless a scenario has set another one for this host.
#[cfg(feature = "sim")]
#[inline]
pub fn bound(table: Table, usual: usize) -> usize {
    chaos::rt::bound(table.name(), usual)
}

/// The bound of a table: `usual`, in a real build.
#[cfg(not(feature = "sim"))]
#[inline]
pub const fn bound(_: Table, usual: usize) -> usize {
    usual
}
