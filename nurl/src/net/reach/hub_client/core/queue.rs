//! Frames that wait for the stream: requests, which go first, and datagrams.
//!
//! Datagrams lose value with age, so the oldest ones are dropped from a full queue. They are written here once, as
//! frames one after another, and leave in one copy to the message that seals them.

use std::collections::VecDeque;

/// Bytes of datagrams that wait for the stream; the hub's queue for us is as large. The oldest datagrams go first.
pub const OUTBOX_BYTES: usize = 256 * 1024;

/// Requests that wait for the stream.
pub const MAX_REQUESTS: usize = 1024;

/// The queue of one connection.
#[derive(Debug, Default)]
pub(super) struct Queue {
    requests: VecDeque<Vec<u8>>,
    /// The datagrams' frames, the oldest at `at`; the bytes before it have left.
    frames: Vec<u8>,
    at: usize,
    /// The length of each frame.
    lens: VecDeque<usize>,
    /// Where the frame that is being written begins.
    begun: usize,
    /// The stream takes no bytes for now.
    stalled: bool,
}

impl Queue {
    /// Queues a request. Returns whether there was room.
    pub(super) fn request(&mut self, frame: Vec<u8>) -> bool {
        let fits = self.requests.len() < MAX_REQUESTS;
        if fits {
            self.requests.push_back(frame);
        }
        fits
    }

    /// The buffer to which one datagram's frame is to be appended; [`commit`](Queue::commit) must follow.
    pub(super) fn begin(&mut self) -> &mut Vec<u8> {
        if self.at >= OUTBOX_BYTES || self.at == self.frames.len() {
            // As many bytes have left as are moved at most.
            self.frames.drain(..self.at);
            self.at = 0;
        }
        self.begun = self.frames.len();
        &mut self.frames
    }

    /// Completes the frame appended since [`begin`](Queue::begin), or takes it back if it hasn't `len` bytes. Returns
    /// how many of the oldest datagrams were dropped for it.
    pub(super) fn commit(&mut self, len: usize) -> u64 {
        if self.frames.len() - self.begun != len {
            self.frames.truncate(self.begun);
            return 0;
        }
        self.lens.push_back(len);
        let mut dropped = 0;
        while self.frames.len() - self.at > OUTBOX_BYTES
            && let Some(oldest) = self.lens.pop_front()
        {
            self.at += oldest;
            dropped += 1;
        }
        dropped
    }

    /// Moves frames to `out`, `room` bytes at most. Returns the number of datagrams among them.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>, room: usize) -> u64 {
        let end = out.len() + room;
        while let Some(frame) = self.requests.front()
            && out.len() + frame.len() <= end
        {
            out.extend_from_slice(frame);
            self.requests.pop_front();
        }
        let (mut bytes, mut datagrams) = (0, 0);
        while let Some(len) = self.lens.front()
            && out.len() + bytes + len <= end
        {
            bytes += len;
            datagrams += 1;
            self.lens.pop_front();
        }
        out.extend_from_slice(&self.frames[self.at..self.at + bytes]);
        self.at += bytes;
        datagrams
    }

    /// Drops everything. Returns the numbers of datagrams and requests.
    pub(super) fn clear(&mut self) -> (u64, u64) {
        let dropped = (self.lens.len() as u64, self.requests.len() as u64);
        *self = Queue::default();
        dropped
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.lens.is_empty()
    }

    /// Sets whether the stream takes no bytes for now.
    pub(super) fn set_stalled(&mut self, stalled: bool) {
        self.stalled = stalled;
    }

    /// Whether bulk data should wait until the stream has taken some bytes. For a stream that takes none nothing
    /// waits: one slow hub must not stop what other paths carry.
    pub(super) fn holds_back(&self) -> bool {
        !self.stalled && self.frames.len() - self.at >= OUTBOX_BYTES / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut Queue, byte: u8, len: usize) -> u64 {
        queue.begin().extend(std::iter::repeat_n(byte, len));
        queue.commit(len)
    }

    #[test]
    fn requests_leave_before_datagrams_and_a_message_holds_whole_frames() {
        let mut queue = Queue::default();
        push(&mut queue, 1, 40);
        push(&mut queue, 2, 40);
        assert!(queue.request(vec![9; 10]) && !queue.is_empty());
        let mut out = Vec::new();
        assert_eq!(queue.fill(&mut out, 60), 1);
        assert_eq!(out, [vec![9; 10], vec![1; 40]].concat());
        out.clear();
        assert_eq!(queue.fill(&mut out, 60), 1);
        assert_eq!(out, [2; 40]);
        assert!(queue.is_empty());
        assert_eq!(queue.fill(&mut out, 60), 0);
    }

    #[test]
    fn a_full_queue_drops_its_oldest_datagrams_and_its_memory_is_bounded() {
        let mut queue = Queue::default();
        let mut dropped = 0;
        for n in 0..1_000u32 {
            dropped += push(&mut queue, n as u8, 1_200);
        }
        let left = OUTBOX_BYTES / 1_200;
        assert_eq!(dropped, 1_000 - left as u64);
        assert!(queue.frames.capacity() <= 4 * OUTBOX_BYTES, "{}", queue.frames.capacity());
        let mut out = Vec::new();
        assert_eq!(queue.fill(&mut out, usize::MAX / 2), left as u64);
        assert_eq!(out[0], (1_000 - left) as u8, "the newest are kept");
        assert_eq!(queue.clear(), (0, 0));
    }

    #[test]
    fn what_was_begun_and_not_written_leaves_nothing_behind() {
        let mut queue = Queue::default();
        push(&mut queue, 1, 10);
        queue.begin().extend_from_slice(b"header");
        assert_eq!(queue.commit(20), 0);
        push(&mut queue, 2, 10);
        let mut out = Vec::new();
        queue.fill(&mut out, 100);
        assert_eq!(out, [[1; 10], [2; 10]].concat());
    }

    #[test]
    fn a_half_full_queue_holds_back_bulk_data_only_while_the_stream_moves() {
        let mut queue = Queue::default();
        while !queue.holds_back() {
            assert_eq!(push(&mut queue, 0, 1_000), 0);
        }
        queue.set_stalled(true);
        assert!(!queue.holds_back());
        queue.set_stalled(false);
        queue.fill(&mut Vec::new(), 10_000);
        assert!(!queue.holds_back());
    }
}
