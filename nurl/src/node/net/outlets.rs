//! Where the plane's outputs go: the application's queues, the plane above, the subscribers of events.
//!
//! Every queue is bounded and none is waited for. What doesn't fit is dropped and counted; a verdict on a member is
//! kept instead ([`Levels`]).

use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::levels::Levels;
use crate::authority::credential::Credential;
use crate::authority::pass::Pass;
use crate::authority::revocation::Revocation;
use crate::compute::job::{MemberChange, Submitter};
use crate::key::PublicKey;
use crate::node::command::{View, Waiting, WorkInput, datagram_bytes};
use crate::node::event::{Bus, NodeEvent};
use crate::node::large::LargeStats;
use crate::rt::sync::{mpsc, watch};
use crate::transport::core::Datagram;
use crate::transport::kind;

/// The queues' ends of this plane.
pub(in crate::layers::node) struct Channels {
    pub(in crate::layers::node) work: mpsc::Sender<WorkInput>,
    pub(in crate::layers::node) large: mpsc::Sender<(PublicKey, Bytes)>,
    pub(in crate::layers::node) large_stats: Arc<LargeStats>,
    pub(in crate::layers::node) view: watch::Sender<Arc<View>>,
    pub(in crate::layers::node) datagrams: mpsc::Sender<Vec<Datagram>>,
    pub(in crate::layers::node) messages: mpsc::Sender<(PublicKey, Bytes)>,
    pub(in crate::layers::node) groups: mpsc::Sender<(String, PublicKey, Bytes)>,
    pub(in crate::layers::node) waiting: Waiting,
    pub(in crate::layers::node) bus: Bus,
}

/// The queues, and what didn't fit into them.
pub(super) struct Outlets {
    channels: Channels,
    /// Verdicts that the plane above had no room for.
    untold: Levels,
    /// Datagrams, messages and group bodies that the application didn't take in time.
    pub(super) application_dropped: u64,
    /// Inputs that the plane above didn't take in time.
    pub(super) work_dropped: u64,
}

impl Outlets {
    pub(super) fn new(channels: Channels) -> Outlets {
        Outlets { channels, untold: Levels::default(), application_dropped: 0, work_dropped: 0 }
    }

    /// Tells the subscribers.
    pub(super) fn event(&self, event: &NodeEvent) {
        self.channels.bus.send(event);
    }

    /// Ends every subscription.
    pub(super) fn close(&self) {
        self.channels.bus.close();
    }

    /// Publishes a view of the mesh.
    pub(super) fn view(&self, view: Arc<View>) {
        self.channels.view.send(view);
    }

    /// Passes received datagrams to the application.
    pub(super) fn datagrams(&mut self, datagrams: Vec<Datagram>) {
        if datagrams.is_empty() {
            return;
        }
        let (count, bytes) = (datagrams.len() as u64, datagram_bytes(&datagrams));
        let waiting = &self.channels.waiting.datagrams;
        if !waiting.take(bytes) {
            self.application_dropped += count;
        } else if self.channels.datagrams.try_send(datagrams).is_err() {
            waiting.give(bytes);
            self.application_dropped += count;
        }
    }

    /// Passes a received message to the application.
    pub(super) fn message(&mut self, peer: PublicKey, body: Bytes) {
        let bytes = body.len();
        let waiting = &self.channels.waiting.messages;
        if !waiting.take(bytes) {
            self.application_dropped += 1;
        } else if self.channels.messages.try_send((peer, body)).is_err() {
            waiting.give(bytes);
            self.application_dropped += 1;
        }
    }

    /// Passes a group's body to the application.
    pub(super) fn group(&mut self, group: String, sender: PublicKey, body: Bytes) {
        if self.channels.groups.try_send((group, sender, body)).is_err() {
            self.application_dropped += 1;
        }
    }

    /// Passes a message of jobs or of replicated state to the plane above.
    pub(super) fn work_message(&mut self, from: Submitter, kind: u8, body: Bytes) {
        if kind == kind::LARGE_FILE {
            self.large_file(from.key(), body);
        } else {
            self.tell_work(WorkInput::Message { from, kind, body });
        }
    }

    /// Passes a message about a large file to the driver of these.
    fn large_file(&self, from: PublicKey, body: Bytes) {
        let bytes = body.len();
        let waiting = &self.channels.waiting.large;
        if !waiting.take(bytes) {
            self.channels.large_stats.note_dropped();
        } else if self.channels.large.try_send((from, body)).is_err() {
            waiting.give(bytes);
            self.channels.large_stats.note_dropped();
        }
    }

    /// Tells the plane above that a message of its own is lost.
    pub(super) fn send_failed(&mut self, peer: PublicKey) {
        self.tell_work(WorkInput::SendFailed { peer });
    }

    /// This node has a new pass, which a node with a store keeps.
    pub(super) fn issued(&mut self, credential: &Credential, (issuer, hub): (PublicKey, PublicKey)) {
        self.event(&NodeEvent::Issued { pass: credential.pass().clone(), issuer, hub });
        self.tell_work(WorkInput::Issued(credential.pass().clone()));
    }

    /// This node, an issuer, has signed a pass, which one with a store keeps.
    pub(super) fn signed(&mut self, pass: Pass) {
        self.tell_work(WorkInput::Signed(pass));
    }

    /// The authority revoked something, which a node with a store keeps.
    pub(super) fn revoked(&mut self, news: Vec<Revocation>) {
        self.tell_work(WorkInput::Revoked(news));
    }

    /// The mesh has a new secret, which a node with a store keeps.
    pub(super) fn rotated(&mut self, record: Zeroizing<Vec<u8>>) {
        self.tell_work(WorkInput::Rotated(record));
    }

    fn tell_work(&mut self, input: WorkInput) {
        if self.channels.work.try_send(input).is_err() {
            self.work_dropped += 1;
        }
    }

    /// Tells the plane above a verdict. It is a level: if it doesn't fit now, it is kept and sent when there is room.
    pub(super) fn verdict(&mut self, peer: PublicKey, change: MemberChange) {
        let input = WorkInput::Member { peer, change };
        if !self.untold.is_empty() || self.channels.work.try_send(input).is_err() {
            self.untold.keep(peer, change);
        }
    }

    /// Tells the verdicts for which there was no room.
    pub(super) fn tell_again(&mut self) {
        let work = &self.channels.work;
        self.untold.tell(|peer, change| work.try_send(WorkInput::Member { peer, change }).is_ok());
    }

    /// Whether verdicts wait for room.
    pub(super) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    #[test]
    fn what_does_not_fit_is_counted_and_a_verdict_is_kept() {
        let (work, mut inputs) = mpsc::channel(2);
        let (datagrams, _batches) = mpsc::channel(1);
        let (messages, _messages) = mpsc::channel(1);
        let (groups, _groups) = mpsc::channel(1);
        let (view, _views) = watch::channel(Arc::new(View::default()));
        let (waiting, bus) = (Waiting::new(), Bus::default());
        let (large, mut files) = mpsc::channel(1);
        let large_stats = Arc::new(LargeStats::default());
        let mut outlets = Outlets::new(Channels {
            work,
            large,
            large_stats: large_stats.clone(),
            view,
            datagrams,
            messages,
            groups,
            waiting,
            bus,
        });
        let body = Bytes::from_static(b"abc");
        for _ in 0..3 {
            outlets.message(key(1), body.clone());
            outlets.group("g".to_owned(), key(1), body.clone());
            let datagram = || Datagram { peer: key(1), body: body.clone() };
            outlets.datagrams(vec![datagram(), datagram()]);
            outlets.datagrams(Vec::new());
        }
        assert_eq!(outlets.application_dropped, 2 * (1 + 1 + 2));
        outlets.work_message(Submitter::alone(key(1)), kind::LARGE_FILE, body.clone());
        outlets.work_message(Submitter::alone(key(2)), kind::LARGE_FILE, body.clone());
        assert!(matches!(files.try_recv(), Ok((from, _)) if from == key(1)));
        assert_eq!(large_stats.dropped.get(), 1);
        outlets.work_message(Submitter::alone(key(1)), kind::JOB, body.clone());
        outlets.send_failed(key(2));
        outlets.work_message(Submitter::alone(key(3)), kind::JOB, body);
        outlets.verdict(key(4), MemberChange::Dead);
        assert_eq!((outlets.work_dropped, outlets.has_untold()), (1, true));
        outlets.tell_again();
        assert!(outlets.has_untold(), "there is no room yet");
        assert!(matches!(inputs.try_recv(), Ok(WorkInput::Message { .. })));
        outlets.verdict(key(4), MemberChange::Alive);
        outlets.tell_again();
        assert!(!outlets.has_untold());
        assert!(matches!(inputs.try_recv(), Ok(WorkInput::SendFailed { peer }) if peer == key(2)));
        let last = inputs.try_recv();
        assert!(
            matches!(last, Ok(WorkInput::Member { peer, change: MemberChange::Alive }) if peer == key(4))
        );
    }
}
