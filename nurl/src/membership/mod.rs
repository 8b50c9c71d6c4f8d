//! Who is alive: SWIM (Das et al., 2002) keyed by public key, with Lifeguard (Dadgar et al., 2018) whole.
//!
//! **What it promises.** Every member learns of every join, leave, death and restart, in time logarithmic in
//! the number of members and at a cost per member that doesn't grow with it. A healthy member is not held
//! dead by others because one node is slow, cut off, asleep or starved. A member that was wrongly held dead
//! comes back by itself, and so do two halves that held each other dead.
//!
//! **How.** One [`Detector`] per node, a pure state machine.
//!
//! - *Probe*: once per period one member, round-robin over a shuffled list ([`probe`]). Direct pings at 0, 300
//!   and 600 ms; from 300 ms also through three others and over the reliable leg. [`awareness`] stretches
//!   period and timeouts while this node itself seems to be the slow one. Beside the rounds those are probed of whom
//!   there is a bad word, so that many deaths at one moment are found together.
//! - *Suspect, then dead*: a failed probe makes a suspect, whose time shrinks with each independent accuser
//!   ([`suspicion`]). A suspect is told, goes on being probed, and refutes with a higher incarnation.
//! - *Joining* ([`join`]): contacts that hubs name are asked three at a time; a denied one is replaced at once.
//! - *Facts* spread by piggyback, least sent first ([`gossip`]), and whole tables by push-pull ([`pushpull`]).
//!   The [`table`] merges them by a rule that is commutative, associative and idempotent.
//! - *Isolation* ([`isolation`]): a node that hears nobody blames itself. Its verdicts stay at home.
//! - *Healing*: every push-pull period one dead member is probed, first one that a hub names as connected, and the node
//!   announces itself.
//!
//! **What it refuses.** Bytes that are no message, facts that jump an incarnation by more than 2^20, epochs
//! that jump by more than 2^32, members beyond [`table::MAX_MEMBERS`]: each is a counter in [`Stats`].
//! Nothing here is consensus: two nodes may disagree about a third for a while, and the layers above know.

pub mod awareness;
pub mod config;
pub mod detector;
pub mod event;
pub mod gossip;
pub mod isolation;
pub mod join;
pub mod message;
pub mod meta;
pub mod probe;
pub mod pushpull;
mod random;
pub mod suspicion;
pub mod table;

pub use config::Config;
pub use detector::{Detector, Transmit, Via};
pub use event::{Event, MembershipError, Stats};
pub use meta::{Meta, Roles};
pub use table::{Member, State};
