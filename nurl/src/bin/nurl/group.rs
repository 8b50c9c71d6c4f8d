//! Process groups: a handler program leads one, and the group ends as a whole.
//!
//! No process of a group outlives its task. The group is killed when its leader has exited, when the task is
//! cancelled or exceeds its time limit, when the worker ends, and, by the [`watcher`], after the worker was killed. A
//! process that leaves its group (`setsid`) is out of reach.
//!
//! A group's id is its leader's process id. The system can't reuse that id before the leader is reaped, so every kill
//! and every line to the watcher comes before that.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::watcher;

/// The id of a process group that is neither this process's own nor all processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupId(i32);

impl GroupId {
    /// The group of a leader. 0 and 1 are refused: to `kill`, they mean the caller's own group and every process.
    pub(crate) fn new(leader: u32) -> Option<GroupId> {
        i32::try_from(leader).ok().filter(|id| *id > 1).map(GroupId)
    }

    /// Kills every process of the group.
    pub(crate) fn kill(self) {
        // An error means that the group has no process left.
        let _ = kill_process_group(self.leader(), rustix::process::Signal::KILL);
    }

    fn leader(self) -> Pid {
        Pid::from_raw(self.0).expect("more than 1")
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The groups of a worker, and their watcher. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Groups(Arc<Mutex<Ledger>>);

impl Groups {
    /// Without groups yet. This program's own executable is the watcher.
    pub(crate) fn new() -> io::Result<Groups> {
        Ok(Groups::watched_by(vec![std::env::current_exe()?.into(), "watch-programs".into()]))
    }

    fn watched_by(command: Vec<OsString>) -> Groups {
        Groups(Arc::new(Mutex::new(Ledger { running: BTreeSet::new(), command, watcher: None })))
    }

    /// Starts a program as the leader of a group.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<Group> {
        let unwatched = |error| io::Error::other(format!("no watcher: {error}"));
        self.ledger().watch().map_err(unwatched)?;
        // Registered before the spawn, so that the first exit isn't missed.
        let exits = signal(SignalKind::child())?;
        let leader = command.process_group(0).spawn()?;
        let id = leader.id().and_then(GroupId::new).expect("a child that wasn't waited for has an id");
        let group = Group { id, leader, exits, groups: self.clone(), ended: false };
        // On an error the group is dropped, and thereby killed: no program runs unwatched.
        self.ledger().begin(id).map_err(unwatched)?;
        Ok(group)
    }

    /// Kills all running groups.
    pub(crate) fn kill_all(&self) {
        for group in &self.ledger().running {
            group.kill();
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A program and all processes that it started. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Group {
    id: GroupId,
    pub(crate) leader: Child,
    exits: Signal,
    groups: Groups,
    ended: bool,
}

impl Group {
    /// Waits for the leader's exit, without reaping it: the group keeps its id.
    pub(crate) async fn exited(&mut self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while let Ok(None) = waitid(WaitId::Pid(self.id.leader()), options) {
            // Any child's exit wakes this task.
            self.exits.recv().await;
        }
    }

    /// Ends the group after its leader's exit, and returns the leader's status.
    pub(crate) async fn end(mut self) -> io::Result<ExitStatus> {
        self.kill();
        self.leader.wait().await
    }

    fn kill(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.id.kill();
            self.groups.ledger().end(self.id);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The runtime reaps the leader later.
        self.kill();
    }
}

#[derive(Debug)]
struct Ledger {
    /// The running groups; bounded by the tasks that a worker runs at a time.
    running: BTreeSet<GroupId>,
    /// The command that starts a watcher.
    command: Vec<OsString>,
    watcher: Option<Watcher>,
}

impl Ledger {
    fn begin(&mut self, group: GroupId) -> io::Result<()> {
        self.running.insert(group);
        self.tell(&watcher::began(group))
    }

    fn end(&mut self, group: GroupId) {
        self.running.remove(&group);
        // If this fails, the next program's start tries again, and fails with it.
        let _ = self.tell(&watcher::ended(group));
    }

    fn tell(&mut self, line: &str) -> io::Result<()> {
        if self.watcher.as_mut().is_some_and(|watcher| watcher.tell(line).is_ok()) {
            return Ok(());
        }
        // The watcher was killed, or stopped for so long that its pipe is full.
        if let Some(watcher) = self.watcher.take() {
            watcher.kill();
        }
        self.watch()
    }

    /// Ensures that a watcher runs and knows the running groups.
    fn watch(&mut self) -> io::Result<()> {
        if self.watcher.is_some() {
            return Ok(());
        }
        let watcher = self.watcher.insert(Watcher::start(&self.command)?);
        self.running.iter().try_for_each(|group| watcher.tell(&watcher::began(*group)))
    }
}

/// The process that kills the groups when this process has ended.
#[derive(Debug)]
struct Watcher(std::process::Child);

impl Watcher {
    fn start(command: &[OsString]) -> io::Result<Watcher> {
        let mut process = std::process::Command::new(&command[0]);
        process.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        remove_own_variables(|name| {
            process.env_remove(name);
        });
        // In a group of its own, so that a Ctrl-C at the worker's terminal doesn't reach it.
        let child = process.process_group(0).spawn()?;
        rustix::io::ioctl_fionbio(child.stdin.as_ref().expect("piped"), true)?;
        Ok(Watcher(child))
    }

    /// Writes one line, whole or not at all: it is shorter than `PIPE_BUF`. A full pipe is an error.
    fn tell(&mut self, line: &str) -> io::Result<()> {
        self.0.stdin.as_mut().expect("piped").write_all(line.as_bytes())
    }

    /// Kills the watcher before its pipe closes: at the end of the pipe it would kill the running groups.
    fn kill(mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Calls `remove` for each variable of `nurl` itself: child processes must not see them, as one holds the ticket.
pub(crate) fn remove_own_variables(mut remove: impl FnMut(&std::ffi::OsStr)) {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"NURL_") {
            remove(&name);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Groups with a watcher that only reads, since in a unit test this program is the test.
    pub(crate) fn unwatched() -> Groups {
        Groups::watched_by(vec!["cat".into()])
    }

    impl Groups {
        fn watcher(&self) -> i32 {
            self.ledger().watcher.as_ref().unwrap().0.id().try_into().unwrap()
        }
    }

    #[test]
    fn only_a_group_of_somebody_has_an_id() {
        for none in [0, 1, 1 << 31, u32::MAX] {
            assert_eq!(GroupId::new(none), None, "{none}");
        }
        assert_eq!(GroupId::new(2).unwrap().to_string(), "2");
    }

    #[tokio::test]
    async fn a_watcher_that_died_is_replaced_and_told_of_what_runs() {
        let groups = unwatched();
        let first = groups.spawn(Command::new("sleep").arg("600")).unwrap();
        let killed = groups.watcher();
        kill_process_group(Pid::from_raw(killed).unwrap(), rustix::process::Signal::KILL).unwrap();
        // The first watcher's pipe breaks only when that process has ended.
        let second = (0..1_000)
            .map(|_| groups.spawn(Command::new("sleep").arg("600")).unwrap())
            .find(|_| groups.watcher() != killed)
            .expect("another watcher");
        assert_eq!(groups.ledger().running, BTreeSet::from([first.id, second.id]));
    }
}
