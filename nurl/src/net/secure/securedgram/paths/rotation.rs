//! The turns of the peer's addresses while there is neither a relay nor a session: the first handshake goes to two of
//! them at a time.

use std::time::Instant;

use super::config::{ROTATE_EVERY, ROTATE_TIMES};

#[derive(Debug, Default)]
pub(super) struct AddressRotation {
    /// How many addresses have had their turn.
    offset: usize,
    next: Option<Instant>,
    left: u32,
}

impl AddressRotation {
    pub(super) fn start(&mut self, now: Instant) {
        self.next = Some(now + ROTATE_EVERY);
        self.left = ROTATE_TIMES;
    }

    pub(super) fn stop(&mut self) {
        self.next = None;
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Turns to the next two addresses, if it is time.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.next.is_some_and(|next| next <= now) {
            self.offset = self.offset.wrapping_add(2);
            self.left = self.left.saturating_sub(1);
            self.next = (self.left > 0).then_some(now + ROTATE_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::origin;
    use super::*;

    #[test]
    fn the_turns_end() {
        let mut rotation = AddressRotation::default();
        rotation.start(origin());
        let mut turns = 0;
        while let Some(due) = rotation.due() {
            rotation.handle_timeout(due);
            turns += 1;
            assert_eq!(rotation.offset(), 2 * turns);
        }
        assert_eq!(turns, ROTATE_TIMES as usize);
    }
}
