//! The process of a host: its boot number, whether it runs, and what stops it.
//!
//! A process has a boot number. Sockets, files and tasks belong to a boot, and those of an earlier boot have no effect.

use crate::ids::HostId;
use madsim::runtime::NodeHandle;
use madsim::task::NodeId;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;

/// The main function of a host's process, kept for restarts.
#[derive(Clone)]
pub(crate) struct Main {
    pub(crate) make: Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>,
    /// The place of the call that gave it.
    pub(crate) spawned: &'static Location<'static>,
}

/// The host and the boot in which a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: HostId,
    pub(crate) boot: u32,
}

/// The role of a scheduling node of a process: one of its planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The main thread, or a network plane: it runs on when the CPU is pinned.
    Net,
    /// The work plane.
    Work,
    /// The plane that waits for the disk.
    Disk,
    /// The compute plane, with so many threads.
    Compute(usize),
}

impl Role {
    /// The threads that it has.
    pub(crate) fn threads(self) -> usize {
        match self {
            Role::Net | Role::Work | Role::Disk => 1,
            Role::Compute(threads) => threads,
        }
    }
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcessEnd {
    /// Its main future returned: the kernel closes its sockets, nothing unsynced is lost.
    Exit,
    /// Killed: the kernel keeps all that it wrote, and closes its sockets.
    Crash,
    /// The whole host has lost its power: unsynced bytes may be lost, and no peer is notified.
    PowerLoss,
}

/// A crash or power loss armed at a disk operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Armed {
    /// Disk operations left, including the one that triggers it.
    pub(crate) left: u64,
    pub(crate) how: ProcessEnd,
    /// The number of the plan's fault that armed it; `None` if the scenario did.
    pub(crate) fault: Option<usize>,
}

/// The state of a host's process.
pub(crate) struct Process {
    /// Counts processes. A handle of another boot is dead.
    pub(crate) boot: u32,
    pub(crate) alive: bool,
    pub(crate) paused: bool,
    pub(crate) pinned: bool,
    /// Whether it makes progress, and the time of the last change of that.
    pub(crate) progress: (bool, u64),
    /// Crashes and power losses armed at a disk operation, in the order of arming.
    pub(crate) armed: Vec<Armed>,
    pub(crate) main: Option<Main>,
    /// Its scheduling nodes; the first is that of the main future.
    pub(crate) nodes: Vec<(NodeHandle, Role)>,
    /// How many random streams of each label the host's processes have opened.
    pub(crate) streams: BTreeMap<String, u64>,
}

/// The error of a handle whose process is gone.
pub(crate) fn dead() -> io::Error {
    io::Error::other("the process that had this handle is gone")
}

impl Process {
    pub(crate) fn new() -> Process {
        Process {
            boot: 1,
            alive: true,
            paused: false,
            pinned: false,
            progress: (true, 0),
            armed: Vec::new(),
            main: None,
            nodes: Vec::new(),
            streams: BTreeMap::new(),
        }
    }

    /// Whether `boot` is the process that runs now.
    pub(crate) fn runs(&self, boot: u32) -> bool {
        self.alive && self.boot == boot
    }

    /// Records whether it makes progress from `now_ns` on.
    pub(crate) fn note_progress(&mut self, now_ns: u64, is_suspended: bool) {
        let runs = self.alive && !self.paused && !is_suspended;
        if runs != self.progress.0 {
            self.progress = (runs, now_ns);
        }
    }

    /// Arms a crash or power loss. Each fault of a plan, and the scenario itself, has one at a time, so arming another
    /// replaces it.
    pub(crate) fn arm(&mut self, armed: Armed) {
        self.disarm(armed.fault);
        self.armed.push(armed);
    }

    /// Disarms the crash or power loss of a plan's fault, or of the scenario.
    pub(crate) fn disarm(&mut self, fault: Option<usize>) {
        self.armed.retain(|other| other.fault != fault);
    }

    /// Counts a disk operation; returns the armed crash or power loss that is due at it.
    pub(crate) fn disk_operation(&mut self) -> Option<Armed> {
        self.armed.iter_mut().for_each(|armed| armed.left -= 1);
        self.armed.iter().find(|armed| armed.left == 0).copied()
    }

    /// Removes the scheduling nodes `gone`, and returns them.
    pub(crate) fn forget_nodes(&mut self, gone: &[NodeId]) -> Vec<(NodeHandle, Role)> {
        let nodes = std::mem::take(&mut self.nodes);
        let (gone, kept) = nodes.into_iter().partition(|(node, _)| gone.contains(&node.id()));
        self.nodes = kept;
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_armed_end_that_is_due_happens_and_a_fault_has_one_at_a_time() {
        let mut process = Process::new();
        let armed = |left, fault| Armed { left, how: ProcessEnd::Crash, fault };
        process.arm(armed(9, Some(1)));
        process.arm(armed(2, None));
        process.arm(armed(3, Some(1)));
        assert!(process.disk_operation().is_none());
        assert_eq!(process.disk_operation().unwrap().fault, None);
        process.disarm(None);
        assert_eq!(process.disk_operation().unwrap().fault, Some(1));
    }

    #[test]
    fn progress_has_the_time_of_its_last_change() {
        let mut process = Process::new();
        process.note_progress(5, false);
        assert_eq!(process.progress, (true, 0));
        process.note_progress(7, true);
        process.note_progress(8, true);
        assert_eq!(process.progress, (false, 7));
    }
}
