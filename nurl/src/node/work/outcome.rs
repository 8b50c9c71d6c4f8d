//! How a call on replicated state failed, as its caller is told.

use crate::error::{Error, StateError};
use crate::replication::crdt::{CrdtError, Kind};
use crate::replication::replicator::{OperationError, ReadFailure, UpdateError, UpdateFailure};

/// The error of an update that failed.
pub(super) fn of_update(failure: UpdateFailure, key: &[u8]) -> Error {
    match failure {
        UpdateFailure::Here(error) => refused(error, key),
        UpdateFailure::AtMember(OperationError::OtherKind(held)) => other_kind(key, held),
        UpdateFailure::AtMember(OperationError::Busy) => StateError::Busy.into(),
        UpdateFailure::AtMember(OperationError::Refused) => StateError::Refused.into(),
        UpdateFailure::AtMember(OperationError::Unknown) => StateError::Unknown.into(),
        UpdateFailure::Leaving => Error::Closed,
    }
}

/// The error of a read that failed.
pub(super) fn of_read(failure: ReadFailure, key: &[u8]) -> Error {
    match failure {
        ReadFailure::Refused(error) => refused(error, key),
        ReadFailure::NoAnswer => StateError::NoAnswer.into(),
    }
}

fn refused(error: UpdateError, key: &[u8]) -> Error {
    match error {
        UpdateError::Value(CrdtError::WrongKind { held, .. }) => other_kind(key, held),
        UpdateError::Unacknowledged => Error::Unacknowledged,
        other => StateError::Write(other).into(),
    }
}

/// The error of a call on a key that holds a value of another kind.
pub(in super::super) fn other_kind(key: &[u8], held: Kind) -> Error {
    Error::OtherKind { key: String::from_utf8_lossy(key).into_owned(), held: held.as_str() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_becomes_the_error_that_says_what_to_do() {
        let wrong = CrdtError::WrongKind { held: Kind::Counter, wanted: Kind::Set };
        let table = [
            (UpdateFailure::Here(wrong.into()), "k holds a counter: use it as that, or take another key"),
            (
                UpdateFailure::AtMember(OperationError::OtherKind(Kind::Set)),
                "k holds a set: use it as that, or take another key",
            ),
            (UpdateFailure::Here(UpdateError::NoOwners), "nobody owns the key"),
            (
                UpdateFailure::AtMember(OperationError::Busy),
                "the key's owner can't take the write now: try again",
            ),
            (UpdateFailure::AtMember(OperationError::Refused), "the key's owner refused the write"),
            (
                UpdateFailure::AtMember(OperationError::Unknown),
                "the key's owner was lost: the write was made once or not at all",
            ),
            (UpdateFailure::Leaving, "the node has shut down"),
        ];
        for (failure, told) in table {
            assert_eq!(of_update(failure, b"k").to_string(), told);
        }
        let unacknowledged = UpdateFailure::Here(UpdateError::Unacknowledged);
        assert!(matches!(of_update(unacknowledged, b"k"), Error::Unacknowledged));
        assert!(matches!(of_read(ReadFailure::NoAnswer, b"k"), Error::State(StateError::NoAnswer)));
        let full = UpdateError::Full("reads");
        assert!(matches!(
            of_read(ReadFailure::Refused(full), b"k"),
            Error::State(StateError::Write(error)) if error == full
        ));
    }
}
