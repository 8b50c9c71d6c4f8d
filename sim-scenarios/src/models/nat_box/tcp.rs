//! What a box knows of a TCP connection: which ends have opened and closed it (RFC 5382 §4 and §5).

use chaos::middlebox::TcpFlags;

/// Which way a segment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Out,
    In,
}

/// A connection, as far as its flags tell. Each pair is (from inside, from outside).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Track {
    opened: (bool, bool),
    closed: (bool, bool),
    reset: bool,
}

/// Whether a segment begins a connection.
pub(super) fn opens(flags: TcpFlags) -> bool {
    flags.syn && !flags.ack
}

impl Track {
    /// A connection that was open before the box looked.
    pub(super) fn picked_up() -> Track {
        Track { opened: (true, true), ..Track::default() }
    }

    /// Takes a segment into account. A SYN on a closed connection begins the next one of the same endpoints.
    pub(super) fn see(&mut self, way: Way, flags: TcpFlags) {
        if opens(flags) && self.is_closed() {
            *self = Track::default();
        }
        let (opened, closed) = match way {
            Way::Out => (&mut self.opened.0, &mut self.closed.0),
            Way::In => (&mut self.opened.1, &mut self.closed.1),
        };
        *opened |= flags.syn;
        *closed |= flags.fin;
        self.reset |= flags.rst;
    }

    /// Both ends have closed it, or one has reset it. One FIN alone leaves a direction that may carry data for
    /// hours (RFC 5382 REQ-2: all valid sequences).
    fn is_closed(self) -> bool {
        self.reset || self.closed == (true, true)
    }

    /// Whether the long timeout applies: a SYN was seen from both ends, whichever was first or both at once
    /// (RFC 5382 REQ-2a), and it isn't closed.
    pub(super) fn is_established(self) -> bool {
        self.opened == (true, true) && !self.is_closed()
    }
}
