//! Tasks submitted here and run here: the channels by which their submitters follow them, and the node's events.

use std::collections::BTreeMap;

use crate::compute::job::{Drained, JobEvent, Run, RunId, TaskId};
use crate::compute::pool::Finished;
use crate::error::Error;
use crate::node::command::{Course, Reply};
use crate::node::event::{Bus, NodeEvent};
use crate::node::log;
use crate::node::task::TaskEvent;
use crate::rt;
use crate::rt::sync::mpsc;

/// See the module.
pub(super) struct Tasks {
    /// The submitters' channels.
    courses: BTreeMap<TaskId, Course>,
    /// The runs under way, with the task and the kind of each.
    running: BTreeMap<RunId, (TaskId, String)>,
    /// The caller that waits for the end of a drain.
    drain: Option<Reply<Result<Drained, Error>>>,
    bus: Bus,
}

impl Tasks {
    pub(super) fn new(bus: Bus) -> Tasks {
        Tasks { courses: BTreeMap::new(), running: BTreeMap::new(), drain: None, bus }
    }

    /// Lets a submitter follow its task.
    pub(super) fn follow(&mut self, task: TaskId, course: Course) {
        self.courses.insert(task, course);
    }

    /// Notes that a run starts on the pool.
    pub(super) fn started(&mut self, run: &Run) {
        self.running.insert(run.id, (run.task, run.kind.clone()));
        self.bus.send(&NodeEvent::JobStarted { task: run.task, kind: run.kind.clone() });
    }

    /// Notes that a run has ended.
    pub(super) fn finished(&mut self, finished: &Finished) {
        if let Some((task, kind)) = self.running.remove(&finished.run) {
            let error = finished.result.as_ref().err().map(ToString::to_string);
            self.bus.send(&NodeEvent::JobFinished { task, kind, error });
        }
    }

    /// Takes the caller of a drain, unless another one waits already.
    pub(super) fn await_drain(&mut self, reply: Reply<Result<Drained, Error>>) -> bool {
        if self.drain.is_some() {
            // An error means that the caller gave up.
            let _ = reply.send(Err(Error::Busy("a drain is under way")));
            return false;
        }
        self.drain = Some(reply);
        true
    }

    /// Takes the channel of a task whose end is told in another way.
    pub(super) fn take_course(&mut self, task: TaskId) -> Option<Course> {
        self.courses.remove(&task)
    }

    /// Passes an event on to the task's submitter.
    pub(super) fn on_event(&mut self, event: JobEvent) {
        log::job_event(&event);
        match event {
            JobEvent::Accepted { task, by, .. } => self.notify(task, TaskEvent::Accepted { by }),
            JobEvent::Waiting { task, why } => self.notify(task, TaskEvent::Waiting { why }),
            JobEvent::Progress { task, by, note } => self.notify(task, TaskEvent::Progress { by, note }),
            JobEvent::Done { task, outcome, by, attempts } => {
                self.end(task, TaskEvent::Ended { by, attempts, outcome, file: None });
            }
            JobEvent::Drained(drained) => {
                if let Some(reply) = self.drain.take() {
                    // An error means that the caller gave up.
                    let _ = reply.send(Ok(drained));
                }
            }
            JobEvent::Reassigned { .. }
            | JobEvent::Given { .. }
            | JobEvent::Admitted { .. }
            | JobEvent::NotAllowed { .. }
            | JobEvent::Orphaned { .. }
            | JobEvent::Ran { .. }
            | JobEvent::Duplicate { .. }
            | JobEvent::Fenced { .. } => {}
        }
    }

    fn notify(&self, task: TaskId, notice: TaskEvent) {
        if let Some(course) = self.courses.get(&task) {
            // A slow submitter may miss a notice.
            let _ = course.try_send(notice);
        }
    }

    fn end(&mut self, task: TaskId, end: TaskEvent) {
        let Some(course) = self.courses.remove(&task) else { return };
        if let Err(mpsc::error::TrySendError::Full(end)) = course.try_send(end) {
            // The end must be delivered; it waits in a task of its own.
            rt::task::spawn(async move {
                let _ = course.send(end).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::key::PublicKey;
    use crate::node::task::COURSE;

    #[test]
    fn a_submitter_has_its_handlers_notes() {
        let mut tasks = Tasks::new(Bus::beginning_with(None));
        let (course, mut events) = mpsc::channel(COURSE);
        let (task, by) = (TaskId::from_bytes([1; 16]), PublicKey::from_bytes([2; 32]));
        tasks.follow(task, course);
        let note = Bytes::from_static(b"half of it");
        tasks.on_event(JobEvent::Progress { task, by, note: note.clone() });
        assert_eq!(events.try_recv(), Ok(TaskEvent::Progress { by, note }));
    }
}
