//! A warrant: the holder of a pass lets the mesh submit one task in its name, until the task's end.
//!
//! A detached task is submitted by a node of whom nothing else is known, the custodian. So the task carries its
//! submitter's own word: the pass, and a signature of the pass's holder over the id, the content's digest and the
//! options. Custodians and executors check both, and revocations, before they do anything; a policy then judges the
//! holder of the pass and not the custodian. A custodian can't change what it submits, nor submit anything else.
//!
//! A warrant is judged as a [slip](crate::authority::slip) is: it permits at most what [`Level::Submit`] does.

use std::time::{Duration, Instant};

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::options::{HORIZON, MAX_LIFE, SubmitOptions};
use super::standing::Submitter;
use super::task::{Priority, TaskId};
use super::wire;
use crate::authority::checker::{Checker, NotAdmitted, Standing};
use crate::authority::credential::Credential;
use crate::authority::level::Level;
use crate::authority::pass::{GRACE, Pass};
use crate::authority::revocation::Revocation;
use crate::authority::{SIGNATURE_LEN, peer_signature};
use crate::key::SecretKey;
use crate::kit::wall_clock::WallClock;
use crate::mesh::MeshId;

/// The longest time for which the outcome of a detached task is kept.
pub const MAX_KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

const LABEL: &[u8] = b"nurl/2 task";

/// The task that a warrant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Its id.
    pub task: TaskId,
    /// The [`digest`](super::spec::digest) of its kind, key and payload.
    pub digest: [u8; 32],
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Warrant {
    #[cbor(n(0), with = "wire::bytes")]
    pass: Bytes,
    /// When it was signed, in milliseconds since 1970.
    #[n(1)]
    pub made_ms: u64,
    /// When the task's life ends, in milliseconds since 1970.
    #[n(2)]
    pub until_ms: u64,
    /// How long the outcome is kept after the end, in seconds.
    #[n(3)]
    pub keep_s: u32,
    #[n(4)]
    priority: Priority,
    #[n(5)]
    max_failures: u32,
    #[n(6)]
    max_losses: u32,
    #[n(7)]
    anywhere: bool,
    /// The task that this one tries again.
    #[n(8)]
    pub parent: Option<TaskId>,
    #[cbor(n(9), with = "minicbor::bytes")]
    signature: [u8; SIGNATURE_LEN],
}

/// Why a warrant doesn't count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadWarrant {
    /// Its pass doesn't.
    #[error("{0}")]
    Pass(#[from] NotAdmitted),
    /// Its pass permits only to look.
    #[error("its pass permits no tasks")]
    Level,
    /// Its times are beyond their limits, or over.
    #[error("its times are over or beyond their limits")]
    Times,
    /// The holder of the pass didn't sign it for this task.
    #[error("the holder of the pass did not sign it")]
    Signature,
}

/// The options of a task that outlives its submitter.
#[derive(Debug, Clone)]
pub struct Detached {
    /// The task's own options; its life counts from now on.
    pub options: SubmitOptions,
    /// How long its outcome is kept after its end: at most [`MAX_KEEP`].
    pub keep: Duration,
    /// The task that it tries again.
    pub parent: Option<TaskId>,
}

impl Warrant {
    /// Signs a warrant with the key of the pass's holder; `wall` is the time since 1970.
    pub fn sign(
        named: Named,
        job: &Detached,
        wall: Duration,
        (holder, pass, mesh): (&SecretKey, &Pass, &MeshId),
    ) -> Warrant {
        // A custodian keeps payloads and results, and no files: `large` stays with tasks whose submitter waits.
        let SubmitOptions { life, priority, max_failures, max_losses, anywhere, large: _ } = job.options;
        let mut warrant = Warrant {
            pass: Bytes::copy_from_slice(pass.as_bytes()),
            made_ms: millis(wall),
            until_ms: millis(wall + life),
            keep_s: u32::try_from(job.keep.as_secs()).unwrap_or(u32::MAX),
            priority,
            max_failures,
            max_losses,
            anywhere,
            parent: job.parent,
            signature: [0; SIGNATURE_LEN],
        };
        warrant.signature = peer_signature::sign(holder, LABEL, mesh, &warrant.statement(named));
        warrant
    }

    /// The options with which it lets the task be submitted at `wall`.
    pub(super) fn options(&self, wall: Duration) -> SubmitOptions {
        SubmitOptions {
            life: Duration::from_millis(self.until_ms.saturating_sub(millis(wall))),
            priority: self.priority,
            max_failures: self.max_failures,
            max_losses: self.max_losses,
            anywhere: self.anywhere,
            large: false,
        }
    }

    /// Which of two warrants for one task counts, wherever they meet: the one for longer.
    pub(super) fn rank(&self) -> (u64, &[u8; SIGNATURE_LEN]) {
        (self.until_ms, &self.signature)
    }

    /// The standing that its pass gives it, without any check: it was checked before.
    pub(super) fn standing_unchecked(&self) -> Option<Standing> {
        let pass = Pass::read(&self.pass).ok()?.trust();
        Some(submits(Standing::of(&pass)))
    }

    fn statement(&self, Named { task, digest }: Named) -> Vec<u8> {
        let Warrant {
            made_ms, until_ms, keep_s, priority, max_failures, max_losses, anywhere, parent, ..
        } = self;
        let mut out = task.as_bytes().to_vec();
        out.extend_from_slice(&digest);
        out.extend_from_slice(&made_ms.to_le_bytes());
        out.extend_from_slice(&until_ms.to_le_bytes());
        for number in [keep_s, max_failures, max_losses] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&[priority.to_wire(), u8::from(*anywhere), u8::from(parent.is_some())]);
        out.extend_from_slice(parent.as_ref().map_or(&[0; 16], |parent| parent.as_bytes()));
        out
    }
}

/// At most what a slip may.
fn submits(standing: Standing) -> Standing {
    Standing { level: standing.level.min(Level::Submit), ..standing }
}

pub(super) fn millis(wall: Duration) -> u64 {
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}

/// Checks warrants of one mesh.
#[derive(Debug)]
pub struct Warrants {
    mesh: MeshId,
    checker: Checker,
}

impl Warrants {
    /// A checker that knows these revocations.
    pub fn new(mesh: MeshId, wall: WallClock, revoked: &[Revocation]) -> Warrants {
        let mut checker = Checker::new(mesh, wall);
        for entry in revoked {
            checker.revoke(entry.clone());
        }
        Warrants { mesh, checker }
    }

    /// Takes a revocation.
    pub fn revoke(&mut self, entry: Revocation) {
        self.checker.revoke(entry);
    }

    /// Whether a standing counts no more: its pass has ended, or was revoked.
    pub(super) fn is_over(&self, now: Instant, standing: &Standing) -> bool {
        self.checker.is_over(now, standing)
    }

    /// Checks a warrant for a task, as long as its outcome may be kept.
    ///
    /// # Errors
    /// [`BadWarrant`].
    pub(super) fn check(
        &mut self,
        now: Instant,
        named: Named,
        warrant: &Warrant,
    ) -> Result<Standing, BadWarrant> {
        let kept_until = warrant.until_ms.saturating_add(u64::from(warrant.keep_s) * 1_000);
        self.check_until(now, named, warrant, kept_until.saturating_add(millis(HORIZON)))
    }

    /// Checks a warrant for a task that is to be run.
    ///
    /// # Errors
    /// [`BadWarrant`].
    pub(super) fn check_to_run(
        &mut self,
        now: Instant,
        named: Named,
        warrant: &Warrant,
    ) -> Result<Submitter, BadWarrant> {
        let standing = self.check_until(now, named, warrant, warrant.until_ms)?;
        Ok(Submitter::new(standing.grant.key, Some(standing)))
    }

    fn check_until(
        &mut self,
        now: Instant,
        named: Named,
        warrant: &Warrant,
        until_ms: u64,
    ) -> Result<Standing, BadWarrant> {
        let now_ms = u64::from(self.checker.time(now)) * 1_000;
        let (life_ms, grace_ms) = (millis(MAX_LIFE), u64::from(GRACE) * 1_000);
        let life = warrant.until_ms.checked_sub(warrant.made_ms);
        let fits = life.is_some_and(|life| life <= life_ms)
            && u64::from(warrant.keep_s) <= MAX_KEEP.as_secs()
            && now_ms <= until_ms.saturating_add(grace_ms)
            && warrant.until_ms <= now_ms + life_ms + grace_ms;
        if !fits {
            return Err(BadWarrant::Times);
        }
        let pass = Pass::read(&warrant.pass).map_err(NotAdmitted::Pass)?;
        let key = pass.grant().key;
        // The pass's own signature is checked with the rest of what its holder would show.
        let shown = Credential::new(pass.trust()).show();
        let standing = self.checker.check(now, &key, &shown)?;
        if !standing.level.may_submit() {
            return Err(BadWarrant::Level);
        }
        let statement = warrant.statement(named);
        if !peer_signature::verify(&key, LABEL, &self.mesh, &statement, &warrant.signature) {
            return Err(BadWarrant::Signature);
        }
        Ok(submits(standing))
    }
}

#[cfg(test)]
mod tests;
