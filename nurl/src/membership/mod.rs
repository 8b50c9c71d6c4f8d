//! Membership and failure detection: SWIM (Das et al., 2002) keyed by public key, with all of Lifeguard (Dadgar et
//! al., 2018).
//!
//! **Guarantees.** Every member learns of every join, leave, death and restart, in time logarithmic in the number of
//! members and at a cost per member that doesn't grow with it. One slow, disconnected, suspended or starved node
//! doesn't make other nodes declare a healthy member dead. A member that was wrongly declared dead comes back without
//! intervention, and so do two halves of a mesh that declared each other dead.
//!
//! **How.** One [`Detector`] per node, a pure state machine that combines parts: each has its data, its file and its
//! deadline ([`detector`] lists them).
//!
//! - *Probe*: one member per period, round-robin over a shuffled list ([`probe`]). Direct pings at 0, 300 and 600 ms;
//!   from 300 ms also through three other members and over the reliable leg. [`awareness`] stretches period and
//!   timeouts while this node itself seems to be slow. Accused or denied members are probed outside the rounds, so
//!   that many simultaneous deaths are found together.
//! - *Suspect, then dead*: a failed probe makes a suspect. Each independent accuser shortens its suspicion time
//!   ([`suspicion`]). A suspect is told, is probed further, and refutes with a higher incarnation.
//! - *Joining* ([`join`]): a newcomer asks three of the hubs' contacts at a time; a denied contact is replaced at
//!   once.
//! - *Facts* spread by piggyback, least sent first ([`gossip`]), and whole tables by push-pull ([`pushpull`]). The
//!   [`table`] merges them by a rule that is commutative, associative and idempotent.
//! - *Isolation* ([`isolation`]): a node that hears no peer and no hub suspects itself and doesn't publish its
//!   verdicts.
//! - *Healing*: every push-pull period the node announces itself and probes one dead member, preferably one that a
//!   hub names as connected.
//!
//! - *Evidence* ([`profile`], [`notary`]): that it is there, what it is and that it leaves, a member says itself, signed
//!   with its key and with the pass that permits it. What nobody has signed changes no table.
//! - *Hearsay* ([`detector`]): a node asks the subject before it believes that a live member is dead. The failure of its
//!   own probe is the least evidence for a death.
//!
//! **Limits.** Refused and counted in [`DetectorStats`]: malformed messages, incarnations and epochs too far ahead of the
//! clock ([`limit`]), claims against members beyond a teller's share, members beyond [`table::MAX_MEMBERS`]. Nothing here
//! is consensus: two nodes may disagree about a third for a while, and the layers above allow for it.

pub mod awareness;
pub mod config;
pub mod detector;
pub mod event;
pub mod forgotten;
pub mod gossip;
pub mod isolation;
pub mod join;
pub mod limit;
pub mod message;
pub mod meta;
pub mod notary;
mod per_second;
pub mod probe;
pub mod profile;
pub mod pushpull;
pub mod suspicion;
pub mod table;
mod told;

pub use config::DetectorConfig;
pub use detector::{Detector, Transmit, Via};
pub use event::{DetectorStats, MembershipError, MembershipEvent};
pub use meta::{Meta, Roles};
pub use notary::Notary;
pub use table::{Member, State};
