//! The network plane: transport and failure detector on a thread of their own.
//!
//! This plane never waits for the application, a handler or a disk. So a node whose cores are all busy with handlers
//! still answers pings, which serve as its heartbeat. Inputs that another plane doesn't take in time are dropped and
//! counted.
//!
//! The plane is a thin loop: sockets, then commands, then what is due, then events. What it decides is in its parts.
//!
//! | module | content |
//! | --- | --- |
//! | `dispatch` | which part handles a command of the API, or an event of the transport |
//! | `roster` | members and hubs: the detector, the join, the leave and the views |
//! | `mail` | what this node sends, and who is told of a loss |
//! | `revoking` | how this node learns what was revoked, and passes it on |
//! | `rotating` | how this node gets the mesh's next secret |
//! | `issuing` | what this node does if it has the authority's key |
//! | `outlets` | the queues to the application and to the plane above |
//! | `join`, `leave`, `view`, `outgoing`, `pings`, `clocks`, `own_clock`, `levels` | the decisions, pure, each with its table of tests |

mod clocks;
mod dispatch;
mod issuing;
mod join;
mod leave;
mod levels;
mod liars;
mod mail;
mod outgoing;
mod outlets;
mod own_clock;
mod pings;
mod revoking;
mod roster;
mod rotating;
mod view;

use std::time::{Duration, Instant};

use self::clocks::Clocks;
use self::issuing::Issuing;
use self::mail::{Ends, Mail};
use self::outlets::Outlets;
use self::pings::Pings;
use self::revoking::Revoking;
use self::roster::Roster;
use self::rotating::Rotating;
use super::Role;
use super::command::{NetCommand, Pong, Reply};
use super::ending::Cause;
use crate::authority::issuer::Issuer;
use crate::authority::keyring::Keyring;
use crate::authority::pass::Pass;
use crate::error::Error;
use crate::membership::{Detector, MembershipEvent};
use crate::mesh::Hub;
use crate::rt::sync::mpsc;
use crate::rt::{self, Point, buggify, time};
use crate::transport::Transport;
use crate::transport::driver::{Driver, Until};

pub(super) use join::kept_out;
pub(super) use outlets::Channels;

/// Commands taken in one turn, so that a flood of sends doesn't delay an ack.
const COMMANDS_PER_TURN: usize = 64;

/// How soon verdicts that the plane above had no room for are sent again.
const TELL_AGAIN: Duration = Duration::from_millis(20);

/// Everything that the plane needs from the builder.
pub(super) struct NetParts {
    pub(super) transport: Transport,
    pub(super) driver: Driver,
    pub(super) detector: Detector,
    pub(super) role: Role,
    pub(super) pass: Option<Pass>,
    pub(super) keyring: Keyring,
    pub(super) issuer: Option<Issuer>,
    pub(super) hubs: Vec<Hub>,
    pub(super) commands: mpsc::Receiver<NetCommand>,
    pub(super) channels: Channels,
}

/// The plane.
pub(super) struct NetPlane {
    driver: Driver,
    transport: Transport,
    commands: mpsc::Receiver<NetCommand>,
    roster: Roster,
    mail: Mail,
    pings: Pings<Reply<Result<Pong, Error>>>,
    revoking: Revoking,
    rotating: Rotating,
    issuing: Option<Issuing>,
    clocks: Clocks,
    outlets: Outlets,
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

impl NetPlane {
    pub(super) fn new(parts: NetParts) -> NetPlane {
        let (now, mut detector) = (time::now(), parts.detector);
        detector.set_unix_now(time::unix_now());
        let mut transport = parts.transport;
        if parts.issuer.is_some() {
            transport.issue();
        }
        NetPlane {
            driver: parts.driver,
            transport,
            commands: parts.commands,
            roster: Roster::new(detector, (parts.role, parts.pass), parts.hubs, now),
            mail: Mail::new(),
            pings: Pings::new(rt::rng("net plane")),
            revoking: Revoking::new(rt::rng("revocations")),
            rotating: Rotating::new(parts.keyring),
            issuing: parts.issuer.map(|issuer| Issuing::new(issuer, rt::rng("sealing"))),
            clocks: Clocks::new(now, time::unix_now()),
            outlets: Outlets::new(parts.channels),
        }
    }

    /// Runs until the node is shut down or dropped.
    ///
    /// # Errors
    /// [`Cause::Socket`], [`Cause::Revoked`].
    pub(super) async fn run(mut self) -> Result<(), Cause> {
        let mut command = None;
        loop {
            let now = time::now();
            let mut more = self.driver.turn(&mut self.transport, now);
            if let Some(reason) = self.driver.broken().map(str::to_owned) {
                self.driver.close(&mut self.transport).await;
                return Err(Cause::Socket(reason));
            }
            match self.take_commands(now, command.take()) {
                Taken::All => {}
                Taken::Some => more = true,
                Taken::Closed => break,
            }
            self.handle_timeout(now);
            self.work(now);
            self.driver.flush(&mut self.transport, now);
            // Events that the flush brought are handled before the plane waits.
            self.work(now);
            if self.roster.is_gone(now, &self.transport) {
                break;
            }
            // Its own caller is told first that it is known elsewhere.
            if self.transport.is_revoked() && !self.revoking.is_awaited() {
                self.driver.close(&mut self.transport).await;
                return Err(Cause::Revoked(self.roster.detector.local().key));
            }
            let deadline = self.poll_timeout();
            // QUIC's pacer releases one burst at a time; at a high rate the next one is due as soon as this one is
            // sent, long before a timer could fire.
            more |= self.driver.has_sent() && deadline.is_some_and(|at| at <= time::now());
            more |= buggify(Point::NetWakesEarly);
            let until = match deadline {
                _ if more => Until::Now,
                Some(deadline) => Until::Deadline(deadline),
                None => Until::Woken,
            };
            if more {
                // This turn doesn't wait, so yield to the plane's other tasks and its poller.
                rt::task::yield_now().await;
            }
            let open = !self.transport.is_full();
            rt::select! {
                next = self.commands.recv(), if open => match next {
                    Some(next) => command = Some(next),
                    // Every handle has been dropped, so no further command can come.
                    None => break,
                },
                () = self.driver.wait(until) => {}
            }
        }
        self.end().await;
        Ok(())
    }

    /// Closes peers and hubs, and replies to the callers that still wait.
    async fn end(mut self) {
        let now = time::now();
        self.transport.close(now);
        self.driver.flush(&mut self.transport, now);
        self.driver.close(&mut self.transport).await;
        self.outlets.close();
        self.roster.end();
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        [
            self.transport.poll_timeout(),
            self.roster.poll_timeout(),
            self.revoking.poll_timeout(time::now()),
            self.rotating.poll_timeout(),
            Some(self.clocks.poll_timeout()),
            self.outlets.has_untold().then(|| time::now() + TELL_AGAIN),
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
            if self.transport.is_full() {
                return Taken::Some;
            }
            if buggify(Point::OneCommand) {
                return Taken::Some;
            }
            match self.commands.try_recv() {
                Ok(command) => self.handle_command(now, command),
                Err(mpsc::error::TryRecvError::Empty) => return Taken::All,
                Err(mpsc::error::TryRecvError::Disconnected) => return Taken::Closed,
            }
        }
        Taken::Some
    }

    /// Does the periodic work that is due.
    fn handle_timeout(&mut self, now: Instant) {
        self.roster.handle_timeout(now, &self.transport);
        self.outlets.tell_again();
        let (revoking, ends) = self.revoking_and_ends();
        revoking.handle_timeout(now, &ends);
        let (rotating, mut ends) = self.rotating_and_ends();
        rotating.handle_timeout(now, &mut ends);
        if self.clocks.take_hub_ping(now) {
            self.transport.ping_hubs(now);
        }
        if self.clocks.take_comparison(now) {
            let unix_now = time::unix_now();
            self.roster.detector.set_unix_now(unix_now);
            if self.clocks.has_slept(now, unix_now) {
                self.roster.detector.on_suspend(now);
                self.transport.on_suspend(now);
            }
            if self.transport.expire_revocations(now) {
                self.roster.detector.set_revocations(self.transport.revocations());
            }
            self.pings.retain(|reply| !reply.is_closed());
            self.roster.forget_callers();
        }
    }

    /// Passes events up and the detector's messages down, until neither has more.
    fn work(&mut self, now: Instant) {
        loop {
            let mut moved = false;
            while let Some(event) = self.transport.poll_event() {
                self.on_event(now, event);
                moved = true;
            }
            while let Some(out) = self.roster.detector.poll_transmit() {
                let (mail, mut ends) = self.mail_and_ends();
                mail.send_membership(now, &out, &mut ends);
                moved = true;
            }
            while let Some(event) = self.roster.detector.poll_event() {
                if let MembershipEvent::RevocationsDiffer { peer } = event {
                    let (revoking, mut ends) = self.revoking_and_ends();
                    revoking.on_differs(now, peer, &mut ends);
                }
                self.roster.on_event(now, event, &mut self.transport, &mut self.outlets);
                moved = true;
            }
            self.issue(now);
            if !moved {
                break;
            }
            self.transport.pump(now);
        }
        self.outlets.datagrams(self.transport.take_datagrams());
        self.roster.publish(&self.outlets);
    }

    /// An issuer acts on what was revoked.
    fn issue(&mut self, now: Instant) {
        let mut ends = Ends {
            transport: &mut self.transport,
            detector: &mut self.roster.detector,
            outlets: &mut self.outlets,
        };
        match &mut self.issuing {
            Some(issuing) => {
                issuing.on_revocations(now, (&mut self.revoking, &mut self.rotating), &mut ends);
            }
            None => drop(self.revoking.take_revoked_keys()),
        }
    }

    /// The issuer, if this node is one, and the parts between which its answers pass.
    fn issuing_and_ends(&mut self) -> Option<(&mut Issuing, Ends<'_>)> {
        let (detector, transport, outlets) =
            (&mut self.roster.detector, &mut self.transport, &mut self.outlets);
        Some((self.issuing.as_mut()?, Ends { transport, detector, outlets }))
    }

    /// The revocations on their way, and the parts between which they pass.
    fn revoking_and_ends(&mut self) -> (&mut Revoking, Ends<'_>) {
        let (detector, transport, outlets) =
            (&mut self.roster.detector, &mut self.transport, &mut self.outlets);
        (&mut self.revoking, Ends { transport, detector, outlets })
    }

    /// The secret, and the parts between which its messages pass.
    fn rotating_and_ends(&mut self) -> (&mut Rotating, Ends<'_>) {
        let (detector, transport, outlets) =
            (&mut self.roster.detector, &mut self.transport, &mut self.outlets);
        (&mut self.rotating, Ends { transport, detector, outlets })
    }

    /// The messages on their way out, and the parts between which they pass.
    fn mail_and_ends(&mut self) -> (&mut Mail, Ends<'_>) {
        let (detector, transport, outlets) =
            (&mut self.roster.detector, &mut self.transport, &mut self.outlets);
        (&mut self.mail, Ends { transport, detector, outlets })
    }
}
