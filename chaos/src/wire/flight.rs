//! A packet in flight, and the pool of buffers for packets.

use super::link::Class;
use crate::ids::{End, HostId, NetId};

/// The most buffers kept for reuse: enough for the packets in flight in a busy world of 50 hosts.
const POOL: usize = 4096;

/// Larger buffers are not kept.
const POOL_BUFFER_BYTES: usize = 16 << 10;

/// A packet in flight.
pub(crate) struct Flight {
    pub(crate) bytes: Vec<u8>,
    pub(crate) number: u64,
    pub(crate) class: Class,
    /// The host that sent it, and when.
    pub(crate) origin: HostId,
    pub(crate) sent_ns: u64,
    /// The network that it is in, and its next end there.
    pub(crate) net: NetId,
    pub(crate) to: End,
    pub(crate) nic: u8,
    /// The [version](super::nets::Nets::version) of the owners of addresses for which `to` and `nic` hold.
    pub(crate) addrs_version: u32,
    pub(crate) corrupted: bool,
}

impl Flight {
    /// A copy with other bytes.
    pub(crate) fn with_bytes(&self, bytes: Vec<u8>) -> Flight {
        Flight { bytes, ..*self }
    }
}

/// Packet buffers to be used again.
#[derive(Debug, Default)]
pub(crate) struct Pool(Vec<Vec<u8>>);

impl Pool {
    /// A buffer, reused if possible: its content is arbitrary.
    #[inline]
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    #[inline]
    pub(crate) fn give_back(&mut self, buffer: Vec<u8>) {
        if self.0.len() < POOL && buffer.capacity() <= POOL_BUFFER_BYTES {
            self.0.push(buffer);
        }
    }
}
