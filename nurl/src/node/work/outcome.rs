//! How a call on replicated state failed, as its caller is told.

use crate::error::{Error, StateError};
use crate::replication::replicator::{Decline, OperationError, ReadFailure, UpdateError, UpdateFailure};

/// The error of an update that failed.
pub(super) fn of_update(failure: UpdateFailure) -> Error {
    match failure {
        UpdateFailure::Here(error) => refused(error),
        UpdateFailure::AtMember(OperationError::Nobody) => StateError::NoAnswer.into(),
        UpdateFailure::AtMember(OperationError::Busy) => StateError::Busy.into(),
        UpdateFailure::AtMember(OperationError::Refused) => StateError::Refused.into(),
        UpdateFailure::AtMember(OperationError::Unknown) => StateError::Unknown.into(),
        UpdateFailure::AtMember(OperationError::Disk) => refused(UpdateError::Declined(Decline::Disk)),
        UpdateFailure::Leaving => Error::Closed,
    }
}

/// The error of a read that failed.
pub(super) fn of_read(failure: ReadFailure) -> Error {
    match failure {
        ReadFailure::Refused(error) => refused(error),
        ReadFailure::NoAnswer => StateError::NoAnswer.into(),
    }
}

/// The error of a call that this node refused.
pub(super) fn refused(error: UpdateError) -> Error {
    match error {
        UpdateError::Unconfirmed(by) => Error::Unconfirmed { by },
        other => StateError::Write(other).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_becomes_the_error_that_says_what_to_do() {
        let table = [
            (UpdateFailure::Here(UpdateError::NoOwners), "nobody owns the key"),
            (
                UpdateFailure::AtMember(OperationError::Busy),
                "the key's owner can't take the write now: try again",
            ),
            (UpdateFailure::AtMember(OperationError::Nobody), "no owner of the key answered"),
            (UpdateFailure::AtMember(OperationError::Refused), "the key's owner refused the write"),
            (
                UpdateFailure::AtMember(OperationError::Unknown),
                "the key's owner was lost: the write was made once or not at all",
            ),
            (
                UpdateFailure::AtMember(OperationError::Disk),
                "the owners of the key refused the write: their disks are full or fail",
            ),
            (
                UpdateFailure::Here(UpdateError::Disk("no room".into())),
                "this node's disk fails (no room), so it takes no writes: write through another node, or mend the \
                 disk first",
            ),
            (UpdateFailure::Leaving, "the node has shut down"),
        ];
        for (failure, told) in table {
            assert_eq!(of_update(failure).to_string(), told);
        }
        let unconfirmed = UpdateFailure::Here(UpdateError::Unconfirmed(Vec::new()));
        assert!(matches!(of_update(unconfirmed), Error::Unconfirmed { by } if by.is_empty()));
        assert!(matches!(of_read(ReadFailure::NoAnswer), Error::State(StateError::NoAnswer)));
        let full = UpdateError::Full("reads");
        assert!(matches!(
            of_read(ReadFailure::Refused(full.clone())),
            Error::State(StateError::Write(error)) if error == full
        ));
    }
}
