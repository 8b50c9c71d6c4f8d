//! The network plane: transport and failure detector on a thread of their own.
//!
//! This plane never waits for the application, a handler or a disk. So a node whose cores are all busy with handlers
//! still answers pings, which serve as its heartbeat. Inputs that another plane doesn't take in time are dropped and
//! counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_core::Rng as _;

use super::command::{NetCommand, Pong, Reply, StateInput, View, Waiting, datagram_bytes};
use super::ending::Cause;
use super::event::{Bus, NodeEvent};
use super::levels::Levels;
use super::{HubInfo, MemberInfo, NetStats, Role, Status, log};
use crate::compute::job::MemberChange;
use crate::error::{Error, HubFailure};
use crate::key::PublicKey;
use crate::membership::{self, Detector, Roles, State, Via};
use crate::mesh::Hub;
use crate::net::reach::hub_client::DownReason;
use crate::ring::RingMember;
use crate::rt::sync::{mpsc, watch};
use crate::rt::{self, Rng, time};
use crate::transport::core::{Datagram, Sent};
use crate::transport::driver::{Driver, Until};
use crate::transport::{
    MessageId, PathInfo, Priority, Transport, TransportEvent, channel, group, kind, reliable,
};

/// How often a hub is pinged: at least twice within the detector's freshness.
const HUB_PING_EVERY: Duration = Duration::from_secs(4);

/// How often the two clocks are compared; a wall clock that is ahead by more than [`SLEPT`] means a suspend.
const CLOCK_CHECK_EVERY: Duration = Duration::from_secs(1);
const SLEPT: Duration = Duration::from_secs(5);

/// Commands taken in one turn, so that a flood of sends doesn't delay an ack.
const COMMANDS_PER_TURN: usize = 64;

/// Messages that wait for room in a peer's budget; further ones fail, and their sender is told.
const DEFERRED: usize = 4_096;

/// Pings under way.
const PINGS: usize = 256;

/// The longest time that a leaving node continues, so that its leave and its last messages reach others. It ends
/// sooner when all of them have been acknowledged.
const LEAVE_FOR: Duration = Duration::from_millis(600);

/// How soon verdicts that the state plane had no room for are sent again.
const TELL_AGAIN: Duration = Duration::from_millis(20);

/// Everything that the plane needs from the builder.
pub(super) struct NetParts {
    pub(super) transport: Transport,
    pub(super) driver: Driver,
    pub(super) detector: Detector,
    pub(super) role: Role,
    pub(super) hubs: Vec<Hub>,
    pub(super) commands: mpsc::Receiver<NetCommand>,
    pub(super) state: mpsc::Sender<StateInput>,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) datagrams: mpsc::Sender<Vec<Datagram>>,
    pub(super) messages: mpsc::Sender<(PublicKey, Bytes)>,
    pub(super) groups: mpsc::Sender<(String, PublicKey, Bytes)>,
    pub(super) waiting: Waiting,
    pub(super) bus: Bus,
}

struct Deferred {
    to: PublicKey,
    priority: Priority,
    kind: u8,
    body: Bytes,
    reply: Option<Reply<Result<(), Error>>>,
}

struct Outstanding {
    kind: u8,
    reply: Option<Reply<Result<(), Error>>>,
}

/// A leave under way.
struct Leaving {
    until: Instant,
    /// Whether the leave has been gossiped.
    departed: bool,
    reply: Reply<()>,
}

/// The plane's state in addition to its parts.
pub(super) struct NetPlane {
    parts: NetParts,
    sent: BTreeMap<(PublicKey, MessageId), Outstanding>,
    deferred: VecDeque<Deferred>,
    pings: BTreeMap<u64, (Instant, Reply<Result<Pong, Error>>)>,
    joining: Vec<Reply<Result<(), Error>>>,
    joined: bool,
    /// Verdicts that the state plane had no room for.
    untold: Levels,
    view_complete: bool,
    view_dirty: bool,
    /// The highest epoch counter in the last published view.
    epoch_told: u64,
    due: Due,
    leaving: Option<Leaving>,
    stats: NetStats,
    rng: Rng,
}

/// The outcome of taking queued commands in one turn.
enum Taken {
    /// The queue is empty.
    All,
    /// The turn's share, or as many as there was room for.
    Some,
    /// Every handle has been dropped.
    Closed,
}

/// The due times of the plane's periodic work.
struct Due {
    hub_ping: Instant,
    clock_check: Instant,
    clocks: (Instant, Duration),
}

impl NetPlane {
    pub(super) fn new(mut parts: NetParts) -> NetPlane {
        let now = time::now();
        parts.detector.join(now);
        NetPlane {
            parts,
            sent: BTreeMap::new(),
            deferred: VecDeque::new(),
            pings: BTreeMap::new(),
            joining: Vec::new(),
            joined: false,
            untold: Levels::default(),
            view_complete: false,
            view_dirty: true,
            epoch_told: 0,
            due: Due { hub_ping: now, clock_check: now + CLOCK_CHECK_EVERY, clocks: (now, time::unix_now()) },
            leaving: None,
            stats: NetStats::default(),
            rng: rt::rng("net plane"),
        }
    }

    /// Runs until the node is shut down or dropped.
    ///
    /// # Errors
    /// [`Cause::Socket`].
    pub(super) async fn run(mut self) -> Result<(), Cause> {
        let mut command = None;
        loop {
            let now = time::now();
            let mut more = self.parts.driver.turn(&mut self.parts.transport, now);
            if let Some(reason) = self.parts.driver.broken().map(str::to_owned) {
                self.parts.driver.close(&mut self.parts.transport).await;
                return Err(Cause::Socket(reason));
            }
            match self.take_commands(now, command.take()) {
                Taken::All => {}
                Taken::Some => more = true,
                Taken::Closed => break,
            }
            self.chores(now);
            self.work(now);
            self.parts.driver.flush(&mut self.parts.transport, now);
            // Events that the flush brought are handled before the plane waits.
            self.work(now);
            if self.is_gone(now) {
                break;
            }
            let deadline = self.poll_timeout();
            // QUIC's pacer releases one burst at a time; at a high rate the next one is due as soon as this one is
            // sent, long before a timer could fire.
            more |= self.parts.driver.has_sent() && deadline.is_some_and(|at| at <= time::now());
            let until = match deadline {
                _ if more => Until::Now,
                Some(deadline) => Until::Deadline(deadline),
                None => Until::Woken,
            };
            if more {
                // This turn doesn't wait, so yield to the plane's other tasks and its poller.
                rt::task::yield_now().await;
            }
            let open = !self.parts.transport.is_full();
            rt::select! {
                next = self.parts.commands.recv(), if open => match next {
                    Some(next) => command = Some(next),
                    // Every handle has been dropped, so no further command can come.
                    None => break,
                },
                () = self.parts.driver.wait(until) => {}
            }
        }
        self.end().await;
        Ok(())
    }

    /// Whether a leaving node has sent everything, or its time is up.
    fn is_gone(&self, now: Instant) -> bool {
        let said = |leaving: &Leaving| leaving.departed && self.parts.transport.is_quiet();
        self.leaving.as_ref().is_some_and(|leaving| now >= leaving.until || said(leaving))
    }

    /// Closes peers and hubs, and replies to the callers that still wait.
    async fn end(mut self) {
        let now = time::now();
        self.parts.transport.close(now);
        self.parts.driver.flush(&mut self.parts.transport, now);
        self.parts.driver.close(&mut self.parts.transport).await;
        self.parts.bus.close();
        for reply in self.joining.drain(..) {
            let _ = reply.send(Err(Error::Closed));
        }
        if let Some(leaving) = self.leaving.take() {
            // An error means that the caller gave up.
            let _ = leaving.reply.send(());
        }
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        [
            self.parts.transport.poll_timeout(),
            self.parts.detector.poll_timeout(),
            Some(self.due.hub_ping.min(self.due.clock_check)),
            self.leaving.as_ref().map(|leaving| leaving.until),
            (!self.untold.is_empty()).then(|| time::now() + TELL_AGAIN),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Takes commands as long as the transport has room.
    fn take_commands(&mut self, now: Instant, first: Option<NetCommand>) -> Taken {
        if let Some(command) = first {
            self.handle_command(now, command);
        }
        for _ in 0..COMMANDS_PER_TURN {
            if self.parts.transport.is_full() {
                return Taken::Some;
            }
            match self.parts.commands.try_recv() {
                Ok(command) => self.handle_command(now, command),
                Err(mpsc::error::TryRecvError::Empty) => return Taken::All,
                Err(mpsc::error::TryRecvError::Disconnected) => return Taken::Closed,
            }
        }
        Taken::Some
    }

    fn handle_command(&mut self, now: Instant, command: NetCommand) {
        if let NetCommand::Datagrams { to: peer, .. }
        | NetCommand::ApplicationMessage { to: peer, .. }
        | NetCommand::Connect { peer, .. }
        | NetCommand::Ping { peer, .. } = &command
        {
            self.look_up_stranger(*peer);
        }
        let transport = &mut self.parts.transport;
        match command {
            NetCommand::Datagrams { to, bodies } => {
                for body in bodies {
                    if transport.send(now, to, channel::APPLICATION, &body).is_err() {
                        self.stats.refused_datagrams += 1;
                    }
                }
            }
            NetCommand::Message { to, priority, kind, body } => {
                self.send_message(now, Deferred { to, priority, kind, body, reply: None });
            }
            NetCommand::ApplicationMessage { to, body, reply } => {
                let (priority, kind) = (Priority::Bulk, kind::APPLICATION);
                self.send_message(now, Deferred { to, priority, kind, body, reply: Some(reply) });
            }
            NetCommand::Broadcast { group, body, reply } => {
                let _ = reply.send(transport.broadcast(now, &group, &body).map_err(Error::from));
            }
            NetCommand::JoinGroup { group, reply } => {
                let _ = reply.send(transport.join_group(&group).map_err(Error::from));
            }
            NetCommand::LeaveGroup { group } => transport.leave_group(&group),
            NetCommand::Connect { peer, reply } => {
                let _ = reply.send(transport.connect(now, peer).map_err(Error::from));
            }
            NetCommand::Ping { peer, reply } => self.ping(now, peer, reply),
            NetCommand::Members { reply } => {
                let _ = reply.send(self.members());
            }
            NetCommand::Status { reply } => {
                let _ = reply.send(self.status());
            }
            NetCommand::Joined { reply } => {
                if self.joined {
                    let _ = reply.send(Ok(()));
                } else {
                    self.joining.push(reply);
                }
            }
            NetCommand::NoteEpoch(counter) => {
                // The counter was taken here, from ones that this node has seen: never a jump.
                let _ = self.parts.detector.note_epoch(counter);
            }
            #[cfg(all(test, not(feature = "sim")))]
            NetCommand::Panic => panic!("a test asked for it"),
            NetCommand::Shutdown { reply } => {
                self.parts.detector.leave(now);
                self.parts.transport.hurry(now);
                let departed = self.parts.role == Role::Observer;
                self.leaving = Some(Leaving { until: now + LEAVE_FOR, departed, reply });
            }
        }
    }

    /// Looks up a key that isn't in the membership at rendezvous.
    fn look_up_stranger(&mut self, peer: PublicKey) {
        if self.parts.detector.member(&peer).is_none() {
            self.parts.transport.look_up(peer);
        }
    }

    // ---- Reliable messages.

    /// Sends now, or later when the peer's budget has room.
    fn send_message(&mut self, now: Instant, message: Deferred) {
        let waits = self.deferred.iter().any(|other| other.to == message.to && other.kind == message.kind);
        if waits {
            self.defer(message);
        } else if let Some(message) = self.try_message(now, message) {
            self.defer(message);
        }
    }

    /// Gives a message to the transport; returns it if the budget is full.
    fn try_message(&mut self, now: Instant, message: Deferred) -> Option<Deferred> {
        let Deferred { to, priority, kind, body, reply } = message;
        if let Err(error) = self.parts.transport.connect(now, to) {
            self.message_failed(to, Outstanding { kind, reply }, error.into());
            return None;
        }
        match self.parts.transport.send_message(now, to, priority, kind, body.clone()) {
            Ok(id) => {
                self.sent.insert((to, id), Outstanding { kind, reply });
                None
            }
            Err(reliable::SendError::Full { .. }) => Some(Deferred { to, priority, kind, body, reply }),
            Err(error) => {
                self.message_failed(to, Outstanding { kind, reply }, error.into());
                None
            }
        }
    }

    fn defer(&mut self, message: Deferred) {
        if self.deferred.len() < DEFERRED {
            self.deferred.push_back(message);
            return;
        }
        self.stats.messages_given_up += 1;
        let error = reliable::SendError::Full { queued_bytes: message.body.len() };
        let sent = Outstanding { kind: message.kind, reply: message.reply };
        self.message_failed(message.to, sent, error.into());
    }

    fn retry_deferred(&mut self, now: Instant, peer: PublicKey) {
        for message in std::mem::take(&mut self.deferred) {
            if message.to != peer {
                self.deferred.push_back(message);
            } else if let Some(message) = self.try_message(now, message) {
                self.deferred.push_back(message);
            }
        }
    }

    /// Fails a peer's deferred messages: the transport has forgotten the peer, so it never reports room for them.
    fn fail_deferred(&mut self, peer: PublicKey) {
        for message in std::mem::take(&mut self.deferred) {
            if message.to == peer {
                let sent = Outstanding { kind: message.kind, reply: message.reply };
                self.message_failed(peer, sent, Error::MessageLost(reliable::FailReason::Forgotten));
            } else {
                self.deferred.push_back(message);
            }
        }
    }

    fn message_failed(&mut self, peer: PublicKey, sent: Outstanding, error: Error) {
        match sent.reply {
            Some(reply) => {
                // An error means that the caller gave up.
                let _ = reply.send(Err(error));
            }
            None if matches!(sent.kind, kind::JOB | kind::STATE) => {
                self.tell_state(StateInput::SendFailed { peer });
            }
            None if sent.kind == kind::MEMBERSHIP => self.parts.detector.on_message_lost(time::now(), peer),
            None => {}
        }
    }

    fn tell_state(&mut self, input: StateInput) {
        if self.parts.state.try_send(input).is_err() {
            self.stats.state_dropped += 1;
        }
    }

    /// A verdict is a level: if it doesn't fit now, it is kept and sent when there is room.
    fn tell_member(&mut self, peer: PublicKey, change: MemberChange) {
        let input = StateInput::Member { peer, change };
        if !self.untold.is_empty() || self.parts.state.try_send(input).is_err() {
            self.untold.keep(peer, change);
        }
    }

    // ---- Events and the detector.

    /// Passes events up and the detector's messages down, until neither has more.
    fn work(&mut self, now: Instant) {
        loop {
            let mut moved = false;
            while let Some(event) = self.parts.transport.poll_event() {
                self.on_event(now, event);
                moved = true;
            }
            while let Some(out) = self.parts.detector.poll_transmit() {
                self.send_membership(now, &out);
                moved = true;
            }
            while let Some(event) = self.parts.detector.poll_event() {
                self.on_membership(now, event);
                moved = true;
            }
            if !moved {
                break;
            }
            self.parts.transport.pump(now);
        }
        let datagrams = self.parts.transport.take_datagrams();
        if !datagrams.is_empty() {
            let count = datagrams.len() as u64;
            let bytes = datagram_bytes(&datagrams);
            if !self.parts.waiting.datagrams.take(bytes) {
                self.stats.application_dropped += count;
            } else if self.parts.datagrams.try_send(datagrams).is_err() {
                self.parts.waiting.datagrams.give(bytes);
                self.stats.application_dropped += count;
            }
        }
        self.view_dirty |= self.parts.detector.highest_epoch() != self.epoch_told;
        if std::mem::take(&mut self.view_dirty) {
            self.publish_view();
        }
    }

    fn send_membership(&mut self, now: Instant, out: &membership::Transmit) {
        let transport = &mut self.parts.transport;
        match out.via {
            Via::Datagram => {
                // If the transport refuses the send, the probe fails.
                if let Ok(Sent::Waiting) = transport.send(now, out.to, channel::MEMBERSHIP, &out.body) {
                    self.parts.detector.on_session_pending(now, out.to);
                }
            }
            Via::Reliable => {
                let body = Bytes::copy_from_slice(&out.body);
                match transport.send_message(now, out.to, Priority::Control, kind::MEMBERSHIP, body) {
                    Ok(id) => {
                        let sent = Outstanding { kind: kind::MEMBERSHIP, reply: None };
                        self.sent.insert((out.to, id), sent);
                    }
                    Err(_) => self.parts.detector.on_message_lost(now, out.to),
                }
            }
        }
    }

    fn on_event(&mut self, now: Instant, event: TransportEvent) {
        log::transport_event(&event);
        match event {
            TransportEvent::Membership { peer, body } => {
                self.parts.detector.handle_message(now, peer, Via::Datagram, &body);
            }
            TransportEvent::Reliable(event) => self.on_reliable(now, event),
            TransportEvent::Group { group, sender, body } if group == group::MESH_GROUP => {
                self.parts.detector.handle_announcement(now, sender, &body);
            }
            TransportEvent::Group { group, sender, body } => {
                if self.parts.groups.try_send((group, sender, body)).is_err() {
                    self.stats.application_dropped += 1;
                }
            }
            TransportEvent::Established { peer, .. } => self.parts.detector.on_session_up(now, peer),
            TransportEvent::Restarted { .. } => {}
            TransportEvent::Unreachable { peer } => self.parts.detector.on_session_failed(now, peer),
            TransportEvent::Forgotten { peer } => self.fail_deferred(peer),
            TransportEvent::Path { peer, path } => self.tell_path(peer, path),
            TransportEvent::Echo { peer, nonce } => {
                if let Some((begun, reply)) = self.pings.remove(&nonce) {
                    let path = self.parts.transport.path(&peer);
                    let rtt = now.saturating_duration_since(begun);
                    let _ = reply.send(Ok(Pong { rtt, direct: path.direct, addr: path.addr }));
                }
            }
            TransportEvent::HubUp { hub } => {
                self.due.hub_ping = now;
                self.parts.detector.on_hub_up(hub);
                self.parts.bus.send(&NodeEvent::HubUp { hub });
            }
            TransportEvent::HubDown { hub, reason } => {
                let last = !self.parts.transport.hubs().values().any(|state| state.up);
                self.parts.detector.on_hub_down(now, hub, last);
                self.parts.bus.send(&NodeEvent::HubDown { hub, reason });
            }
            TransportEvent::NotThere { hub, peer } => {
                if self.parts.detector.on_denied(now, hub, peer) {
                    self.parts.transport.forget(now, &peer);
                }
            }
            TransportEvent::HubPong => self.parts.detector.on_hub_pong(now),
            TransportEvent::Contacts { hub, contacts } => {
                self.parts.detector.on_contacts(now, Some(hub), &contacts)
            }
        }
    }

    fn on_reliable(&mut self, now: Instant, event: reliable::ReliableEvent) {
        use reliable::ReliableEvent;
        match event {
            ReliableEvent::Message { peer, kind: kind::MEMBERSHIP, body } => {
                self.parts.detector.handle_message(now, peer, Via::Reliable, &body);
            }
            ReliableEvent::Message { peer, kind: kind::APPLICATION, body } => {
                let bytes = body.len();
                if !self.parts.waiting.messages.take(bytes) {
                    self.stats.application_dropped += 1;
                } else if self.parts.messages.try_send((peer, body)).is_err() {
                    self.parts.waiting.messages.give(bytes);
                    self.stats.application_dropped += 1;
                }
            }
            ReliableEvent::Message { peer, kind, body } => {
                self.tell_state(StateInput::Message { from: peer, kind, body });
            }
            ReliableEvent::Acked { peer, id } => {
                if let Some(Outstanding { reply: Some(reply), .. }) = self.sent.remove(&(peer, id)) {
                    let _ = reply.send(Ok(()));
                }
            }
            ReliableEvent::Failed { peer, id, reason } => {
                if let Some(sent) = self.sent.remove(&(peer, id)) {
                    self.message_failed(peer, sent, Error::MessageLost(reason));
                }
            }
            ReliableEvent::Writable { peer } => self.retry_deferred(now, peer),
        }
    }

    fn tell_path(&self, peer: PublicKey, path: PathInfo) {
        self.parts.bus.send(&NodeEvent::Path {
            peer,
            direct: path.direct,
            addr: path.addr,
            reason: path.reason,
        });
    }

    fn on_membership(&mut self, now: Instant, event: membership::MembershipEvent) {
        use membership::MembershipEvent as Member;
        match event {
            Member::Alive(member) | Member::Suspect(member) | Member::Dead(member) | Member::Left(member) => {
                self.view_dirty = true;
                let (peer, state, incarnation) = (member.key, member.state, member.incarnation);
                match state {
                    State::Alive | State::Suspect => self.parts.transport.know(now, peer),
                    // A dead member may return, so the transport keeps seeking it until membership reclaims it.
                    State::Dead => {}
                    State::Left => self.parts.transport.dismiss(now, &peer),
                }
                self.parts.bus.send(&NodeEvent::Member { peer, state, incarnation });
                let change = match state {
                    State::Alive => MemberChange::Alive,
                    State::Dead => MemberChange::Dead,
                    State::Left => MemberChange::Left,
                    State::Suspect => return,
                };
                self.tell_member(peer, change);
            }
            Member::Restarted { peer, .. } => {
                self.parts.bus.send(&NodeEvent::Restarted { peer });
                self.tell_member(peer, MemberChange::Restarted);
            }
            Member::Joined | Member::Alone => {
                tracing::info!(target: "nurl::membership", alone = matches!(event, Member::Alone), "joined the mesh");
                (self.view_complete, self.view_dirty) = (true, true);
                self.finish_joining();
            }
            Member::ListDue => self.parts.transport.ask_contacts(),
            Member::WantSession { peer } => {
                // If the transport refuses the peer, the probe fails.
                let _ = self.parts.transport.connect(now, peer);
            }
            Member::Isolated(isolated) => self.parts.bus.send(&NodeEvent::Isolated(isolated)),
            Member::Reclaimed(peer) => {
                self.view_dirty = true;
                self.parts.transport.forget(now, &peer);
            }
            Member::MetaChanged(_) => self.view_dirty = true,
            Member::AnnounceDue => self.announce(now),
            Member::Departed => {
                if let Some(leaving) = &mut self.leaving {
                    leaving.departed = true;
                }
            }
            Member::Refuted { .. } | Member::User { .. } => {}
        }
    }

    fn finish_joining(&mut self) {
        self.joined = true;
        for reply in self.joining.drain(..) {
            let _ = reply.send(Ok(()));
        }
    }

    // ---- Periodic work.

    fn chores(&mut self, now: Instant) {
        self.parts.detector.handle_timeout(now);
        self.fail_hopeless_joins();
        let (untold, state) = (&mut self.untold, &self.parts.state);
        untold.tell(|peer, change| state.try_send(StateInput::Member { peer, change }).is_ok());
        if now >= self.due.hub_ping {
            self.due.hub_ping = now + HUB_PING_EVERY;
            self.parts.transport.ping_hubs(now);
        }
        if now >= self.due.clock_check {
            self.due.clock_check = now + CLOCK_CHECK_EVERY;
            let wall = time::unix_now();
            let (now_before, wall_before) = self.due.clocks;
            let (ran, walked) = (now.saturating_duration_since(now_before), wall.saturating_sub(wall_before));
            self.due.clocks = (now, wall);
            if walked > ran + SLEPT {
                self.parts.detector.on_suspend(now);
                self.parts.transport.on_suspend(now);
            }
            self.pings.retain(|_, (_, reply)| !reply.is_closed());
            self.joining.retain(|reply| !reply.is_closed());
        }
    }

    /// Reads rendezvous again, and announces this node to the mesh group.
    fn announce(&mut self, now: Instant) {
        self.parts.transport.ask_contacts();
        if self.parts.role != Role::Observer {
            let body = self.parts.detector.announce();
            // Without a hub and without direct paths no peer receives it; the next period's announcement may.
            let _ = self.parts.transport.broadcast(now, group::MESH_GROUP, &body);
        }
    }

    /// Fails the callers of `joined` when every hub has refused this node: waiting wouldn't help.
    fn fail_hopeless_joins(&mut self) {
        if self.joining.is_empty() {
            return;
        }
        let states = self.parts.transport.hubs();
        let refuses =
            |hub: &Hub| states.get(&hub.key).and_then(|state| state.down).is_some_and(DownReason::is_refusal);
        if self.parts.hubs.is_empty() || !self.parts.hubs.iter().all(refuses) {
            return;
        }
        let hubs: Vec<HubFailure> = self.hub_infos().filter_map(|hub| hub.failure()).collect();
        for reply in self.joining.drain(..) {
            let _ = reply.send(Err(Error::HubRefused { hubs: hubs.clone() }));
        }
    }

    fn ping(&mut self, now: Instant, peer: PublicKey, reply: Reply<Result<Pong, Error>>) {
        if self.pings.len() >= PINGS {
            let _ = reply.send(Err(Error::Busy("too many pings are under way")));
            return;
        }
        let nonce = self.rng.next_u64();
        match self.parts.transport.echo(now, peer, nonce) {
            Ok(_) => {
                self.pings.insert(nonce, (now, reply));
            }
            Err(error) => {
                let _ = reply.send(Err(error.into()));
            }
        }
    }

    // ---- Views.

    /// All members except this node.
    fn others(&self) -> impl Iterator<Item = &membership::Member> {
        let detector = &self.parts.detector;
        detector.members().filter(|member| member.key != detector.local().key)
    }

    fn publish_view(&mut self) {
        let ring_member = |member: &membership::Member| RingMember {
            key: member.key,
            weight: member.meta.weight(),
            zone: member.meta.zone().to_owned(),
            kinds: member.meta.kinds().to_vec(),
            live: member.state.is_live(),
            placed: member.meta.roles().contains(Roles::WORKER) && member.is_placed(),
        };
        let members = self.parts.detector.members().map(ring_member).collect();
        let epoch = self.parts.detector.highest_epoch();
        self.epoch_told = epoch;
        self.parts.view.send(Arc::new(View { members, complete: self.view_complete, epoch }));
    }

    /// The other members.
    fn members(&self) -> Vec<MemberInfo> {
        self.others()
            .map(|member| MemberInfo {
                key: member.key,
                state: member.state,
                incarnation: member.incarnation,
                boot: member.boot,
                roles: member.meta.roles(),
                kinds: member.meta.kinds().to_vec(),
                weight: member.meta.weight(),
                zone: member.meta.zone().to_owned(),
                version: member.meta.version().to_owned(),
                path: self.parts.transport.path(&member.key),
            })
            .collect()
    }

    /// The hubs in the ticket's order.
    fn hub_infos(&self) -> impl Iterator<Item = HubInfo> {
        let states = self.parts.transport.hubs();
        self.parts.hubs.iter().map(|hub| {
            let state = states.get(&hub.key);
            HubInfo {
                key: hub.key,
                addr: hub.addr.clone(),
                up: state.is_some_and(|state| state.up),
                rtt: state.and_then(|state| state.rtt),
                reflexive: self.parts.transport.reflexive(&hub.key).collect(),
                down: state.and_then(|state| state.down),
            }
        })
    }

    fn status(&self) -> Status {
        let local = self.parts.detector.local();
        Status {
            key: local.key,
            boot: local.boot,
            hubs: self.hub_infos().collect(),
            members: self.members(),
            net: self.stats,
            transport: self.parts.transport.stats(),
            transport_now: self.parts.transport.gauges(),
            obstacle: self.parts.detector.obstacle(),
        }
    }
}
