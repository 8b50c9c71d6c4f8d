//! The positions of members and keys on the ring.

/// What a member's points are made of: drawn by the issuer of its pass, so no member chooses its places by choosing its
/// key, and no key's owners can be chosen by a member.
pub type RingSeed = [u8; 8];

/// Points of a member per unit of weight. The spread of the members' shares is about 1/√points: 128 gives 9
/// %. More points would smooth further, but cost 16 bytes and a sort step each. With fewer, one member in a
/// hundred carries 1.5 times its share.
pub const POINTS_PER_WEIGHT: usize = 128;

/// The greatest effective weight; a greater one is clamped to it. No pass permits more.
pub const MAX_WEIGHT: u16 = crate::authority::pass::MAX_WEIGHT as u16;

/// Points on a ring in total: 16 MiB per snapshot, 8,192 members of weight 1, twice the number of peers that
/// a node keeps sessions with. With greater weights each unit of weight gets fewer points, for all members alike, so
/// that no member is left out.
pub const MAX_POINTS: usize = 1 << 20;

/// The points for each unit of weight on a ring with this total weight: half as many as often as needed to stay within
/// [`MAX_POINTS`].
pub(super) fn points_per_weight(total: usize) -> usize {
    let mut points = POINTS_PER_WEIGHT;
    while points > 1 && total * points > MAX_POINTS {
        points /= 2;
    }
    points
}

const POINT_CONTEXT: &str = "nurl 2026 ring point of a member";
const KEY_CONTEXT: &str = "nurl 2026 ring position of a key";

/// The position of a key: the first 8 bytes, little-endian, of BLAKE3's key derivation. Keys have a context
/// of their own, so nobody can choose a key that falls onto a member's point.
pub fn position(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    blake3::Hasher::new_derive_key(KEY_CONTEXT).update(key).finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The points of a member: consecutive 8-byte words of one extendable output, so a higher weight adds points
/// and moves none. Of each unit's words the first `per_weight` count.
pub(super) fn points_of(seed: &RingSeed, weight: u16, per_weight: usize) -> impl Iterator<Item = u64> {
    let mut stream = blake3::Hasher::new_derive_key(POINT_CONTEXT).update(seed).finalize_xof();
    (0..weight).flat_map(move |_| {
        // One unit of weight at a time: BLAKE3 computes many output blocks in parallel, but a whole block for
        // each word requested alone.
        let mut words = [0; POINTS_PER_WEIGHT * 8];
        stream.fill(&mut words);
        let word = move |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| words[at * 8 + byte]));
        (0..per_weight).map(word)
    })
}
