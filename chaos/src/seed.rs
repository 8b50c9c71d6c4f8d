//! Labelled random streams derived from one seed.
//!
//! Every draw of the world comes from a ChaCha20 stream of its own label, so that a draw added in one place
//! doesn't shift the draws of another. A label names a purpose and an owner, as in `link/a`; the stream's key
//! is BLAKE3 in key-derivation mode over the seed and the label.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng};

/// BLAKE3's context string: a change of it changes every run of every seed.
const CONTEXT: &str = "chaos 2026 world stream v1";

/// The generator behind every random draw.
pub type Rng = ChaCha20Rng;

/// The stream of `label` under `seed`.
pub fn stream(seed: u64, label: &str) -> Rng {
    let mut key = blake3::Hasher::new_derive_key(CONTEXT);
    key.update(&seed.to_le_bytes());
    key.update(label.as_bytes());
    ChaCha20Rng::from_seed(*key.finalize().as_bytes())
}

/// A derived seed, for a generator outside of this crate (the scheduler's, smoltcp's).
pub fn subseed(seed: u64, label: &str) -> u64 {
    stream(seed, label).next_u64()
}

/// Moves a generator to the stream of `label` under another seed, at its position.
pub(crate) fn rekey(rng: &mut Rng, seed: u64, label: &str) {
    let mut fresh = stream(seed, label);
    fresh.set_stream(rng.get_stream());
    fresh.set_word_pos(rng.get_word_pos());
    *rng = fresh;
}

/// A number in `0..bound`, uniform enough for a simulation (bias below `bound / 2^64`).
pub(crate) fn below(draw: u64, bound: u64) -> u64 {
    ((u128::from(draw) * u128::from(bound)) >> 64) as u64
}

/// Further bits from a draw (the finaliser of SplitMix64), where a stream must not be drawn from again.
pub(crate) fn mix(draw: u64) -> u64 {
    let mut bits = draw.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_selects_a_stream_and_so_does_the_seed() {
        let first = |seed, label: &str| stream(seed, label).next_u64();
        assert_eq!(first(1, "a"), first(1, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
        assert_ne!(first(1, "a"), first(2, "a"));
    }

    #[test]
    fn a_moved_generator_goes_on_at_its_position() {
        let (mut moved, mut other) = (stream(1, "a"), stream(2, "a"));
        let _ = (moved.next_u64(), other.next_u64());
        rekey(&mut moved, 2, "a");
        assert_eq!((moved.get_word_pos(), moved.next_u64()), (2, other.next_u64()));
    }

    #[test]
    fn a_bounded_draw_stays_below_its_bound() {
        assert_eq!(below(u64::MAX, 10), 9);
        assert_eq!(below(0, 10), 0);
        assert_eq!(below(u64::MAX, 0), 0);
    }
}
