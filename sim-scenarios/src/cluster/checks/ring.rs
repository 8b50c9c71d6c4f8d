//! The checks of owner sets and executors, on the ring that follows from a node's members.

use std::collections::BTreeSet;
use std::time::Duration;

use chaos::property::Violation;
use nurl::PublicKey;
use nurl::internals::membership::{Roles, State};
use nurl::internals::node::MemberInfo;
use nurl::internals::ring::{Ring, RingMember};

use crate::cluster::copies::REPLICAS;

/// Keys whose owner sets are checked in each sample. Each sample takes other keys, so that in a sweep they cover
/// the whole ring, also where it wraps.
const SAMPLED_KEYS: u8 = 4;

/// Checks the owner sets that follow from a node's members, at the world's time `at`.
///
/// # Errors
/// The property that they break.
pub(super) fn check_owners(
    at: Duration,
    by: &str,
    local: PublicKey,
    members: &[MemberInfo],
) -> Result<(), Violation> {
    let placed = |member: &MemberInfo| RingMember {
        key: member.key,
        boot: member.boot,
        seed: member.ring_seed,
        weight: member.weight,
        zone: member.zone.clone(),
        kinds: member.kinds.clone(),
        live: member.state.is_live(),
        placed: member.roles.contains(Roles::WORKER) && member.state != State::Left,
    };
    let me = RingMember {
        key: local,
        boot: 0,
        seed: [0; 8],
        weight: 1,
        zone: String::new(),
        kinds: Vec::new(),
        live: true,
        placed: true,
    };
    let ring = Ring::new(members.iter().map(placed).chain([me]));
    let kinds: BTreeSet<_> = members.iter().flat_map(|member| &member.kinds).collect();
    for number in 0..SAMPLED_KEYS {
        // The ring hashes the key.
        let key = [at.as_nanos().to_le_bytes().as_slice(), &[number]].concat();
        check_distinct(by, &ring.owners(&key, REPLICAS))?;
        for kind in &kinds {
            check_live(by, members, kind, &ring.executors(kind, &key))?;
        }
    }
    Ok(())
}

/// Checks that all executors for a job of a kind are live, as this node sees them.
fn check_live(
    by: &str,
    members: &[MemberInfo],
    kind: &str,
    executors: &[PublicKey],
) -> Result<(), Violation> {
    let gone = |key: &&PublicKey| members.iter().any(|of| of.key == **key && !of.state.is_live());
    match executors.iter().find(gone) {
        None => Ok(()),
        Some(key) => Err(Violation::safety(
            "a job goes to a member that is live",
            format!("{by} would give a job of {kind} to {key:?}, which it doesn't hold live"),
        )),
    }
}

/// Checks that no owner is named twice.
fn check_distinct(by: &str, owners: &[PublicKey]) -> Result<(), Violation> {
    let set: BTreeSet<_> = owners.iter().collect();
    if set.len() == owners.len() {
        return Ok(());
    }
    Err(Violation::safety("an owner set has no duplicates", format!("{by} has the owners {owners:?}")))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{key, member};
    use super::*;

    fn property(found: Result<(), Violation>) -> String {
        found.expect_err("the check goes red").property
    }

    #[test]
    fn an_owner_twice_is_seen() {
        check_distinct("a", &[key(1), key(2), key(3)]).unwrap();
        assert_eq!(
            property(check_distinct("a", &[key(1), key(2), key(1)])),
            "an owner set has no duplicates"
        );
    }

    #[test]
    fn a_job_for_a_dead_member_is_seen() {
        let members = [member(1, State::Suspect), member(2, State::Dead)];
        check_live("a", &members, "work", &[key(1)]).unwrap();
        let found = check_live("a", &members, "work", &[key(1), key(2)]);
        assert_eq!(property(found), "a job goes to a member that is live");
    }
}
