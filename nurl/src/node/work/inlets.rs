//! The channels from which the plane takes its inputs.

use std::sync::Arc;
use std::time::Instant;

use super::committer::Done;
use crate::compute::pool::Report;
use crate::node::command::{View, WorkCommand, WorkInput};
use crate::rt::sync::{mpsc, watch};
use crate::rt::{self, time};
use crate::store::StoreError;

/// Why the plane has something to do.
pub(super) enum Wake {
    /// The disk's thread has done something.
    Disk(Result<Done, StoreError>),
    /// There is a new view.
    View,
    /// A handler reports.
    Report(Report),
    /// The network plane has an input.
    Input(WorkInput),
    /// The application calls.
    Command(WorkCommand),
    /// The deadline has passed.
    Deadline,
}

/// See the module.
pub(super) struct Inlets {
    commands: mpsc::Receiver<WorkCommand>,
    inputs: mpsc::Receiver<WorkInput>,
    views: watch::Receiver<Arc<View>>,
    reports: mpsc::Receiver<Report>,
}

impl Inlets {
    pub(super) fn new(
        commands: mpsc::Receiver<WorkCommand>,
        inputs: mpsc::Receiver<WorkInput>,
        views: watch::Receiver<Arc<View>>,
        reports: mpsc::Receiver<Report>,
    ) -> Inlets {
        Inlets { commands, inputs, views, reports }
    }

    /// The next input, or the deadline. None when the node was dropped or the network plane has ended.
    ///
    /// What the `disk` has done comes first, because callers wait for it; then views, because they decide where everything else
    /// goes. Calls come last, because they are the only inputs whose senders wait.
    pub(super) async fn next(
        &mut self,
        disk: impl Future<Output = Result<Done, StoreError>>,
        deadline: Option<Instant>,
    ) -> Option<Wake> {
        let timer = async {
            match deadline {
                Some(deadline) => time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        rt::select! {
            outcome = disk => Some(Wake::Disk(outcome)),
            changed = self.views.changed() => changed.ok().map(|()| Wake::View),
            Some(report) = self.reports.recv() => Some(Wake::Report(report)),
            Some(input) = self.inputs.recv() => Some(Wake::Input(input)),
            command = self.commands.recv() => command.map(Wake::Command),
            () = timer => Some(Wake::Deadline),
        }
    }

    /// The present view.
    pub(super) fn view(&mut self) -> Arc<View> {
        self.views.borrow_and_update().clone()
    }

    /// The next call, if one waits.
    pub(super) fn waiting_command(&mut self) -> Option<WorkCommand> {
        self.commands.try_recv().ok()
    }

    /// The next input of the network plane, if one waits.
    pub(super) fn waiting_input(&mut self) -> Option<WorkInput> {
        self.inputs.try_recv().ok()
    }
}
