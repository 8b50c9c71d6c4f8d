//! A box's state of a TCP connection: which ends have opened and closed it (RFC 5382 §4 and §5).

use chaos::middlebox::TcpFlags;

/// The direction of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Out,
    In,
}

/// A connection's state, as far as its flags show it. Each pair is (from inside, from outside).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ConnectionState {
    opened: (bool, bool),
    closed: (bool, bool),
    reset: bool,
}

/// Whether a segment opens a connection.
pub(super) fn opens(flags: TcpFlags) -> bool {
    flags.syn && !flags.ack
}

impl ConnectionState {
    /// A connection that was open before the box saw its first segment.
    pub(super) fn picked_up() -> ConnectionState {
        ConnectionState { opened: (true, true), ..ConnectionState::default() }
    }

    /// Updates the state with a segment. A SYN on a closed connection begins the next one of the same endpoints.
    pub(super) fn update(&mut self, direction: Direction, flags: TcpFlags) {
        if opens(flags) && self.is_closed() {
            *self = ConnectionState::default();
        }
        let (opened, closed) = match direction {
            Direction::Out => (&mut self.opened.0, &mut self.closed.0),
            Direction::In => (&mut self.opened.1, &mut self.closed.1),
        };
        *opened |= flags.syn;
        *closed |= flags.fin;
        self.reset |= flags.rst;
    }

    /// Whether both ends have closed the connection, or one has reset it. After a single FIN the other direction
    /// may carry data for hours (RFC 5382 REQ-2: all valid sequences).
    fn is_closed(self) -> bool {
        self.reset || self.closed == (true, true)
    }

    /// Whether the long timeout applies: both ends have sent a SYN, in either order or at once (RFC 5382 REQ-2a),
    /// and the connection isn't closed.
    pub(super) fn is_established(self) -> bool {
        self.opened == (true, true) && !self.is_closed()
    }
}
