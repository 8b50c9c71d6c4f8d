//! Small changes of an input, by a seed: what a fuzzer does, without its feedback, and the same on each machine.

/// A generator of mutations: SplitMix64 (Steele and others, 2014), since it has to be neither good nor secret.
pub struct Mutator(u64);

/// Numbers at which lengths and counters overflow.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 62,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

impl Mutator {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Mutator {
        Mutator(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// A changed copy of one of these inputs.
    pub fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, corpus);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        match self.below(9) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, self.next() as u8),
            2 => {
                // A part twice.
                let end = at + self.below(bytes.len() - at + 1).min(64);
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            3 => {
                let end = at + self.below(bytes.len() - at + 1).min(16);
                bytes.drain(at..end);
            }
            4 => {
                // The end of another input.
                let other = &corpus[self.below(corpus.len())];
                let from = self.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            5 => {
                let edge = EDGES[self.below(EDGES.len())];
                let width = 1 << self.below(4);
                let number = if self.below(2) == 0 {
                    edge.to_le_bytes()
                } else {
                    edge.rotate_left(8 * (8 - width)).to_be_bytes()
                };
                let end = (at + width as usize).min(bytes.len());
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            6 | 7 => {
                let bit = self.below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            _ => {
                let new = self.next() as u8;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = new;
                }
            }
        }
    }
}
