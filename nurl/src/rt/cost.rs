//! What computation costs on a desktop: constants, never a clock. In the simulated world they keep the caller's thread
//! busy, so that overload exists there; in a real build the calls do nothing, because there the work itself takes the time.
//!
//! The constants are rounded figures of this repository's benchmarks (`benches/handshake`, `benches/seal`) on one core of
//! a server of 2020; a phone needs about eight times as long.

/// What takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// An X25519 exchange.
    KeyExchange,
    /// A signature is made.
    Sign,
    /// A signature is verified.
    Verify,
    /// A datagram passes the operating system.
    Datagram,
    /// A byte is sealed or opened.
    SealedByte,
    /// A byte of a CRDT is merged into another one.
    MergedByte,
    /// A transaction is committed; the disk takes time of its own.
    Commit,
    /// A byte goes through a built-in handler.
    HandledByte,
}

#[cfg(feature = "sim")]
impl Cost {
    /// Nanoseconds for one.
    const fn nanos(self) -> u64 {
        match self {
            Cost::KeyExchange => 22_000,
            Cost::Sign => 20_000,
            Cost::Verify => 43_000,
            Cost::Datagram => 2_000,
            Cost::SealedByte => 1,
            Cost::MergedByte => 10,
            Cost::Commit => 50_000,
            Cost::HandledByte => 2,
        }
    }
}

/// The caller does so many of these.
#[inline]
#[cfg_attr(not(feature = "sim"), expect(unused_variables, reason = "the work itself takes the time"))]
pub fn cost(of: Cost, units: usize) {
    #[cfg(feature = "sim")]
    super::task::spend(std::time::Duration::from_nanos(of.nanos().saturating_mul(units as u64)));
}
