//! A fuzzer's bytes as a stream of choices.

use arbitrary::Unstructured;
use bytes::Bytes;

/// Draws choices from the input. Once the input is used up, every choice is zero, and [`more`](Draw::more) is false.
pub(crate) struct Draw<'a>(Unstructured<'a>);

impl<'a> Draw<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Draw<'a> {
        Draw(Unstructured::new(bytes))
    }

    /// Whether there is input left.
    pub(crate) fn more(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub(crate) fn u16(&mut self) -> u16 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub(crate) fn u32(&mut self) -> u32 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// True once in so many draws; `n` divides 256.
    pub(crate) fn one_in(&mut self, n: u8) -> bool {
        self.u8().is_multiple_of(n)
    }

    /// A number below `bound`, which is positive.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.u16()) % bound
    }

    /// One of these.
    pub(crate) fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// A number of any size. The sizes at which something overflows are as likely as the small ones.
    pub(crate) fn u64(&mut self) -> u64 {
        match self.u8() % 8 {
            0 => self.u8().into(),
            1 => self.u16().into(),
            2 => self.u32().into(),
            3 => u64::MAX - u64::from(self.u8()),
            4 => 1 << (self.u8() % 64),
            5 => (1u64 << (self.u8() % 64)).wrapping_sub(1),
            _ => self.0.arbitrary().unwrap_or_default(),
        }
    }

    /// At most `max` bytes of the input.
    pub(crate) fn bytes(&mut self, max: usize) -> Bytes {
        let len = self.below(max + 1).min(self.0.len());
        Bytes::copy_from_slice(self.0.bytes(len).unwrap_or_default())
    }

    /// An array of the input's next bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        // It fails only if there are no bytes at all, and zeros are as good.
        let _ = self.0.fill_buffer(&mut bytes);
        bytes
    }
}
