//! The immutable ring and its lookups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::points::{MAX_WEIGHT, RingSeed, points_of, points_per_weight, position};
use super::preference::Preference;
use crate::key::PublicKey;

/// A member's data in the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingMember {
    /// The member's public key.
    pub key: PublicKey,
    /// The boot id of its process, as far as it is known. It says nothing about the member's place.
    pub boot: u64,
    /// What its points are made of.
    pub seed: RingSeed,
    /// Its share relative to others. With 0 it owns nothing; [`MAX_WEIGHT`](super::MAX_WEIGHT) is the
    /// effective maximum.
    pub weight: u16,
    /// Its failure domain. A member with an empty zone is a failure domain of its own.
    pub zone: String,
    /// The job kinds that it advertises.
    pub kinds: Vec<String>,
    /// Alive or suspect: it may act now.
    pub live: bool,
    /// Whether it is on the placement ring: a worker that joined, and neither left, nor is dead without a
    /// store, nor was reclaimed.
    pub placed: bool,
}

/// A snapshot of the placement ring. Cheap to share behind an `Arc`; a change of membership makes a new one.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    /// Placed members by key.
    pub(super) members: Vec<RingMember>,
    /// Zone number of each member: the members of a named zone share one, each other member has its own.
    pub(super) zones: Vec<u32>,
    /// `zones_deeper[k]`: how many zones have more than k members. Falls with k; its sum is `members.len()`.
    pub(super) zones_deeper: Vec<u32>,
    /// (position, index into `members`), sorted. Equal positions are ordered by key, as the index is.
    pub(super) points: Arc<[(u64, u32)]>,
    /// Points for each unit of weight.
    per_weight: usize,
    /// The job kinds that any member of the view advertises, placed or not, live or not.
    kinds: BTreeSet<String>,
}

impl Ring {
    /// Builds the ring of the members that are placed and have weight. The order of the input doesn't matter;
    /// if two entries have the same key, the first counts.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn new(members: impl IntoIterator<Item = RingMember>) -> Ring {
        Ring::default().followed_by(members)
    }

    /// The same ring as [`Ring::new`] makes of `members`, at the cost of the differences only: the points of
    /// remaining members are reused, and shared if the members and their weights are the same.
    #[must_use]
    pub fn followed_by(&self, members: impl IntoIterator<Item = RingMember>) -> Ring {
        let mut kinds = BTreeSet::new();
        let mut placed: Vec<RingMember> = Vec::new();
        for member in members {
            for kind in &member.kinds {
                if !kinds.contains(kind) {
                    kinds.insert(kind.clone());
                }
            }
            if member.placed && member.weight > 0 {
                placed.push(member);
            }
        }
        placed.sort_by_key(|member| member.key);
        placed.dedup_by_key(|member| member.key);

        for member in &mut placed {
            member.weight = member.weight.min(MAX_WEIGHT);
        }
        let per_weight = points_per_weight(placed.iter().map(|member| usize::from(member.weight)).sum());

        let (zones, zones_deeper) = number_zones(&placed);
        let points = self.points_for(&placed, per_weight);
        Ring { points, members: placed, zones, zones_deeper, per_weight, kinds }
    }

    fn points_for(&self, placed: &[RingMember], per_weight: usize) -> Arc<[(u64, u32)]> {
        let all_move = per_weight != self.per_weight;
        if !all_move && self.members.iter().map(place).eq(placed.iter().map(place)) {
            return self.points.clone();
        }
        let same = |member: &&RingMember| {
            !all_move && self.member(&member.key).is_some_and(|before| place(before) == place(member))
        };
        // The index among `placed` of each member of this ring, if its points are the same there.
        let moved: Vec<Option<u32>> = self
            .members
            .iter()
            .map(|member| {
                let at = placed.binary_search_by_key(&member.key, |other| other.key).ok()?;
                same(&&placed[at]).then_some(at as u32)
            })
            .collect();
        let taken = self.points.iter().filter_map(|(at, member)| Some((*at, moved[*member as usize]?)));
        let mut points: Vec<_> = taken.collect();
        let sorted = points.len();
        for (index, member) in placed.iter().enumerate().filter(|(_, member)| !same(member)) {
            let at = points_of(&member.seed, member.weight, per_weight);
            points.extend(at.map(|at| (at, index as u32)));
        }
        points[sorted..].sort_unstable();
        // Two sorted runs, which the stable sort detects and merges.
        points.sort();
        points.into()
    }

    /// Whether every key has the same preference list in both rings.
    pub fn places_as(&self, other: &Ring) -> bool {
        self.zones == other.zones && self.members.iter().map(place).eq(other.members.iter().map(place))
    }

    /// The number of points: the ring's size in memory, at 16 bytes each.
    pub fn points_len(&self) -> usize {
        self.points.len()
    }

    /// The placed members, by key.
    pub fn members(&self) -> &[RingMember] {
        &self.members
    }

    /// The ring's data on a placed member.
    pub fn member(&self, key: &PublicKey) -> Option<&RingMember> {
        self.members.binary_search_by_key(key, |member| member.key).ok().map(|at| &self.members[at])
    }

    /// Whether any member that the view knows advertises `kind`, including dead members and those that left.
    pub fn has_kind(&self, kind: &str) -> bool {
        self.kinds.contains(kind)
    }

    /// Whether no member is placed.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All placed members, each once, in preference order for `key`.
    pub fn preference(&self, key: &[u8]) -> Preference<'_> {
        self.preference_at(position(key))
    }

    /// Like [`preference`](Ring::preference), for a position.
    pub fn preference_at(&self, position: u64) -> Preference<'_> {
        Preference::new(self, position)
    }

    /// The first `replicas` of the preference list, live or not: the holders of state and results.
    pub fn owners(&self, key: &[u8], replicas: usize) -> Vec<PublicKey> {
        self.preference(key).take(replicas).map(|member| member.key).collect()
    }

    /// Like [`owners`](Ring::owners), for a position.
    pub fn owners_at(&self, position: u64, replicas: usize) -> Vec<PublicKey> {
        self.preference_at(position).take(replicas).map(|member| member.key).collect()
    }

    /// Whether `member` is among the first `replicas` for `key`.
    pub fn owns(&self, member: &PublicKey, key: &[u8], replicas: usize) -> bool {
        self.preference(key).take(replicas).any(|owner| owner.key == *member)
    }

    /// The member that acts for a job: the first live entry that advertises `kind`.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn owner(&self, kind: &str, key: &[u8]) -> Option<PublicKey> {
        self.acting(kind, key).next().map(|member| member.key)
    }

    /// The live entries that advertise `kind`, in preference order: attempt n goes to the n-th.
    pub fn executors(&self, kind: &str, key: &[u8]) -> Vec<PublicKey> {
        self.acting(kind, key).map(|member| member.key).collect()
    }

    pub(super) fn acting<'a>(&'a self, kind: &'a str, key: &[u8]) -> impl Iterator<Item = &'a RingMember> {
        self.preference(key).filter(move |member| member.live && member.kinds.iter().any(|have| have == kind))
    }
}

/// What a member's points follow from.
fn place(member: &RingMember) -> (PublicKey, RingSeed, u16) {
    (member.key, member.seed, member.weight)
}

/// Numbers the zones in order of their first member, and counts the zones with more than k members for each k.
fn number_zones(members: &[RingMember]) -> (Vec<u32>, Vec<u32>) {
    let mut named = BTreeMap::new();
    let mut sizes: Vec<u32> = Vec::new();
    let mut zones = Vec::with_capacity(members.len());
    for member in members {
        let fresh = sizes.len() as u32;
        let zone =
            if member.zone.is_empty() { fresh } else { *named.entry(member.zone.as_str()).or_insert(fresh) };
        if zone == fresh {
            sizes.push(0);
        }
        sizes[zone as usize] += 1;
        zones.push(zone);
    }
    let deepest = sizes.iter().copied().max().unwrap_or(0);
    let deeper = (0..deepest).map(|k| sizes.iter().filter(|size| **size > k).count() as u32).collect();
    (zones, deeper)
}
