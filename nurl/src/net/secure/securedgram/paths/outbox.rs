//! The queues of a path machine towards its caller: control messages to seal, and events. Both are bounded.

use std::collections::VecDeque;

use super::config::{MAX_QUEUED_CONTROL, MAX_QUEUED_EVENTS};
use super::control::Control;
use super::status::{PathEvent, PathEventKind, PathReason, PathStats};
use crate::net::secure::route::Route;

#[derive(Debug, Default)]
pub(super) struct PathOutbox {
    control: VecDeque<(Route, Control)>,
    events: VecDeque<PathEvent>,
}

impl PathOutbox {
    /// Queues a control message; a full queue refuses it.
    pub(super) fn push(&mut self, stats: &mut PathStats, route: Route, control: Control) {
        if self.control.len() == MAX_QUEUED_CONTROL {
            stats.control_dropped += 1;
            return;
        }
        self.control.push_back((route, control));
    }

    /// Queues an event; a full queue drops the oldest one.
    pub(super) fn emit(
        &mut self,
        stats: &mut PathStats,
        kind: PathEventKind,
        route: Option<Route>,
        reason: PathReason,
    ) {
        if self.events.len() == MAX_QUEUED_EVENTS {
            self.events.pop_front();
            stats.events_dropped += 1;
        }
        self.events.push_back(PathEvent { route, kind, reason });
    }

    /// Forgets the control messages: there is no session to seal them with.
    pub(super) fn clear_control(&mut self) {
        self.control.clear();
    }

    pub(super) fn poll_control(&mut self) -> Option<(Route, Control)> {
        self.control.pop_front()
    }

    pub(super) fn poll_event(&mut self) -> Option<PathEvent> {
        self.events.pop_front()
    }

    #[cfg(test)]
    pub(super) fn queued_control(&self) -> usize {
        self.control.len()
    }
}
