//! The watcher: a process beside a worker that kills the worker's programs after the worker has ended.
//!
//! A killed worker can't clean up. Its watcher reads from a pipe which process groups run, one line each (`+ID`
//! begins, `-ID` ended), and kills the remaining groups at the end of the pipe, however the worker ended. A
//! parent-death signal isn't enough: it is set between fork and exec, it fires when the thread that spawned ends, and
//! it doesn't reach the program's own children.

use std::collections::BTreeSet;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};

use crate::group::GroupId;

/// The line for a group that now runs.
pub(crate) fn began(group: GroupId) -> String {
    format!("+{group}\n")
}

/// The line for a group that has ended.
pub(crate) fn ended(group: GroupId) -> String {
    format!("-{group}\n")
}

/// Reads until the worker has ended, then kills its remaining groups.
pub(crate) async fn run() {
    // A service manager that stops a worker signals all of its processes. The worker may continue for a while to end
    // its tasks, and needs its watcher until then.
    let _ignored = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(|kind| signal(kind).ok());
    let mut groups = Groups::default();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        groups.note(&line);
    }
    for group in groups.0 {
        group.kill();
    }
}

/// The running groups: as many as the worker runs programs.
#[derive(Debug, Default)]
struct Groups(BTreeSet<GroupId>);

impl Groups {
    /// Handles one line. The worker is the only writer; an invalid line is ignored.
    fn note(&mut self, line: &str) {
        let group = |digits: &str| digits.parse().ok().and_then(GroupId::new);
        if let Some(begun) = line.strip_prefix('+').and_then(group) {
            self.0.insert(begun);
        } else if let Some(ended) = line.strip_prefix('-').and_then(group) {
            self.0.remove(&ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_watched_from_its_first_line_to_its_last() {
        let (one, two) = (GroupId::new(77).unwrap(), GroupId::new(78).unwrap());
        let mut groups = Groups::default();
        for line in [began(one), began(two), ended(one)] {
            groups.note(line.trim_end());
        }
        assert_eq!(groups.0, BTreeSet::from([two]));
    }

    #[test]
    fn a_line_that_names_no_group_kills_nothing() {
        let mut groups = Groups::default();
        // Group 0 would be this process's own, and 1 would be every process: `kill(-1)`.
        for line in ["", "+", "+0", "+1", "+x", "77", "+-77", "+4294967295"] {
            groups.note(line);
        }
        assert_eq!(groups.0, BTreeSet::new());
    }
}
