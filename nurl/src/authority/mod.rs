//! Who belongs to a mesh, what each may do, and how that ends: passes, slips, invitations, revocations.
//!
//! **Guarantees.** Each statement is checked with the mesh id alone, since the id is the authority's public key. A
//! statement of one kind or mesh is never one of another: what is signed begins with a label and the mesh id. Nothing
//! here reads a clock: callers say what time it is.
//!
//! | module | content |
//! | --- | --- |
//! | [`key`] | the authority's key, and the one strict verifier |
//! | [`keyfile`] | the same in a file, perhaps sealed by a passphrase |
//! | [`level`] | what a pass permits |
//! | [`pass`] | a peer's standing in the mesh, signed by the authority |
//! | [`slip`] | a short standing for a throwaway key, signed by a pass's holder |
//! | [`credential`] | what a peer shows: its pass, and perhaps a slip |
//! | [`account`] | who pays for what a peer has of a bounded table |
//! | [`checker`] | the check of what is shown, at each gate |
//! | [`issuer`] | enrols newcomers and renews passes |
//! | [`invitation`] | a ticket's right to enrol new keys |
//! | [`revocation`] | what no longer counts; the newest time for each subject wins |
//! | [`rotation`] | a new secret for the mesh, and how its holders get it |
//! | [`sealed`] | the secret on its way through a hub that mustn't read it |
//! | [`keyring`] | the secrets that a node accepts |
//! | [`peer_signature`] | signatures by a peer's X25519 key (XEdDSA), for facts and slips |

pub mod account;
pub mod checker;
pub mod credential;
pub mod invitation;
pub mod issuer;
pub mod key;
pub mod keyfile;
pub mod keyring;
pub mod level;
pub mod pass;
pub mod peer_signature;
pub mod revocation;
pub mod rotation;
pub mod sealed;
pub mod slip;

/// Seconds since 1970, as signed statements carry them: enough until 2106.
pub type UnixSeconds = u32;

/// The length of a signature in bytes.
pub const SIGNATURE_LEN: usize = 64;
