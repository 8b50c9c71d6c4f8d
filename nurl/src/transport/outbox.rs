//! Sealed datagrams on their way to the socket, gathered into batches for segmentation offload.
//!
//! Datagrams leave in the order in which they were pushed. Consecutive datagrams to one destination share a
//! batch while they have equal size (the last may be shorter, which is the form that GSO takes). Producers
//! check [`Outbox::is_full`] before they push, and stop taking work at [`CAPACITY_BYTES`], so backpressure
//! reaches the application.

use std::collections::VecDeque;

use crate::rt::{Point, buggify};
use std::net::SocketAddr;

/// At this size the outbox accepts nothing more from applications. It is the amount that one turn of the
/// driver sends: eight whole batches, so a turn's fixed cost is spread over hundreds of datagrams. The queue
/// for a slow link is the socket's own buffer; a larger outbox would only fall out of the cache and add delay.
pub(crate) const CAPACITY_BYTES: usize = 512 << 10;

/// The most segments of one batch; the kernel's own limit (`UDP_MAX_SEGMENTS`) was 64 for a long time.
const MAX_SEGMENTS: usize = 64;

/// The most bytes of one batch: the largest IP packet, less headers.
const MAX_BATCH_BYTES: usize = 65_000;

/// Buffers kept for reuse, so that steady traffic allocates nothing.
const SPARE_BUFFERS: usize = 32;

/// Datagrams of `segment` bytes each (the last may be shorter), all to one destination.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) destination: SocketAddr,
    pub(crate) bytes: Vec<u8>,
    pub(crate) segment: usize,
    /// A shorter segment ended the batch: nothing can be appended.
    closed: bool,
}

impl Batch {
    fn takes(&self, destination: SocketAddr, len: usize) -> bool {
        !self.closed
            && self.destination == destination
            && len <= self.segment
            && self.bytes.len() + len <= MAX_BATCH_BYTES
            && self.bytes.len() / self.segment < MAX_SEGMENTS
    }
}

/// The queue of batches.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    batches: VecDeque<Batch>,
    spare: Vec<Vec<u8>>,
    bytes: usize,
    /// The start of the datagram that is being appended to the last batch.
    begun: usize,
}

impl Outbox {
    /// Whether producers must wait.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= CAPACITY_BYTES || (self.bytes > 0 && buggify(Point::OutboxFull))
    }

    /// Queues a copy of `datagram`.
    pub(crate) fn push(&mut self, destination: SocketAddr, datagram: &[u8]) {
        self.begin(destination, datagram.len()).extend_from_slice(datagram);
        self.commit();
    }

    /// The buffer to which one datagram of `len` bytes is to be appended; [`commit`](Outbox::commit) must follow.
    pub(crate) fn begin(&mut self, destination: SocketAddr, len: usize) -> &mut Vec<u8> {
        let fits = self.batches.back().is_some_and(|batch| batch.takes(destination, len));
        if !fits {
            let bytes = self.spare.pop().unwrap_or_default();
            self.batches.push_back(Batch { destination, bytes, segment: len.max(1), closed: false });
        }
        let batch = self.batches.back_mut().expect("just ensured");
        self.begun = batch.bytes.len();
        &mut batch.bytes
    }

    /// Completes the datagram appended since [`begin`](Outbox::begin). If nothing was appended, there is no datagram.
    pub(crate) fn commit(&mut self) {
        let Some(batch) = self.batches.back_mut() else { return };
        let len = batch.bytes.len() - self.begun;
        if len > 0 {
            batch.closed = len < batch.segment;
            self.bytes += len;
        } else if batch.bytes.is_empty()
            && let Some(batch) = self.batches.pop_back()
        {
            self.keep(batch.bytes);
        }
    }

    /// The batch to send next.
    pub(crate) fn front(&self) -> Option<&Batch> {
        self.batches.front()
    }

    /// Removes the front batch, which was sent or given up.
    pub(crate) fn pop(&mut self) {
        if let Some(batch) = self.batches.pop_front() {
            self.bytes -= batch.bytes.len();
            self.keep(batch.bytes);
        }
    }

    /// Removes the first `sent` bytes of the front batch, which were sent.
    pub(crate) fn advance(&mut self, sent: usize) {
        let Some(batch) = self.batches.front_mut() else { return };
        if sent >= batch.bytes.len() {
            self.pop();
        } else {
            batch.bytes.drain(..sent);
            self.bytes -= sent;
        }
    }

    fn keep(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn shape(outbox: &Outbox) -> Vec<(u16, usize, usize)> {
        outbox.batches.iter().map(|b| (b.destination.port(), b.segment, b.bytes.len())).collect()
    }

    #[test]
    fn equal_sizes_to_one_destination_share_a_batch_and_a_shorter_one_ends_it() {
        let mut outbox = Outbox::default();
        for len in [10, 10, 4, 10, 12] {
            outbox.push(to(1), &vec![0; len]);
        }
        outbox.push(to(2), &[0; 12]);
        outbox.push(to(1), &[0; 12]);
        assert_eq!(shape(&outbox), [(1, 10, 24), (1, 10, 10), (1, 12, 12), (2, 12, 12), (1, 12, 12)]);
    }

    #[test]
    fn a_batch_ends_at_the_kernels_limits() {
        let mut outbox = Outbox::default();
        for _ in 0..MAX_SEGMENTS + 1 {
            outbox.push(to(1), &[0; 10]);
        }
        assert_eq!(shape(&outbox), [(1, 10, 640), (1, 10, 10)]);
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            outbox.push(to(1), &[0; 30_000]);
        }
        assert_eq!(shape(&outbox), [(1, 30_000, 60_000), (1, 30_000, 30_000)]);
    }

    #[test]
    fn it_is_full_at_its_capacity_and_free_again_after_sending() {
        let mut outbox = Outbox::default();
        while !outbox.is_full() {
            outbox.push(to(1), &[0; 1_000]);
        }
        assert!(outbox.bytes < CAPACITY_BYTES + 1_000);
        outbox.advance(1_000);
        let before = outbox.bytes;
        outbox.pop();
        assert!(outbox.bytes < before && !outbox.is_full());
        while outbox.front().is_some() {
            outbox.pop();
        }
        assert!(outbox.batches.is_empty() && outbox.bytes == 0 && outbox.spare.len() <= SPARE_BUFFERS);
    }

    #[test]
    fn what_was_begun_and_not_written_leaves_nothing_behind() {
        let mut outbox = Outbox::default();
        outbox.begin(to(1), 10);
        outbox.commit();
        assert!(outbox.batches.is_empty());
        outbox.push(to(1), &[1; 10]);
        outbox.begin(to(1), 10);
        outbox.commit();
        outbox.push(to(1), &[2; 10]);
        assert_eq!(shape(&outbox), [(1, 10, 20)]);
        assert_eq!(outbox.bytes, 20);
    }
}
