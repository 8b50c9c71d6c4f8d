//! Tells an error of one datagram from an error of the socket.
//!
//! A receive may fail because of one datagram that was sent earlier (an ICMP message reports it); the next receive
//! succeeds. If every receive fails, the socket is broken: a sandbox or a kernel lacks the system call, or the
//! descriptor is gone. Such an error never empties the socket, so its reader would be woken for ever and get no
//! data.

use std::io;

/// After so many failed receives in a row the socket counts as broken. An ICMP message fails one receive and each
/// needs a datagram of ours. Between the failures of a burst the reader finds the socket empty, which resets the
/// count.
const IN_A_ROW: u32 = 64;

/// How the receives of one socket end.
#[derive(Debug, Default)]
pub(crate) struct ReceiveFaults {
    in_a_row: u32,
}

impl ReceiveFaults {
    /// Notes how a receive ended. Says whether the socket is broken.
    pub(crate) fn note<T>(&mut self, received: &io::Result<T>) -> bool {
        self.in_a_row = match received {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.in_a_row.saturating_add(1),
            _ => 0,
        };
        self.in_a_row >= IN_A_ROW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: io::ErrorKind) -> io::Result<usize> {
        Err(kind.into())
    }

    #[test]
    fn a_receive_that_always_fails_is_a_broken_socket() {
        let mut faults = ReceiveFaults::default();
        let broken = (1..=IN_A_ROW).map(|_| faults.note(&failed(io::ErrorKind::Unsupported)));
        assert_eq!(broken.filter(|broken| *broken).count(), 1);
        assert!(faults.note(&failed(io::ErrorKind::Unsupported)));
    }

    #[test]
    fn errors_of_datagrams_are_none_of_the_socket() {
        for between in [Ok(1), failed(io::ErrorKind::WouldBlock)] {
            let mut faults = ReceiveFaults::default();
            for _ in 0..10 {
                for _ in 1..IN_A_ROW {
                    assert!(!faults.note(&failed(io::ErrorKind::ConnectionRefused)));
                }
                assert!(!faults.note(&between));
            }
        }
    }
}
