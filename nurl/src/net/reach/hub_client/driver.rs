//! Drives the client over a socket: one task, which never waits for the layer above.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::Instrument as _;

use super::core::HubClient;
use super::dial::dial;
use super::{HubClientConfig, HubCommand, HubEvent};
use crate::key::PublicKey;
use crate::rt::net::{Interface, OwnedReadHalf, TcpStream, source_towards};
use crate::rt::sync::mpsc;
use crate::rt::{self, task, time};

/// Capacity of the command queue; when it is full, the sender drops and counts.
pub const COMMAND_QUEUE: usize = 4096;

/// Batches of events that may wait in the channel; further events are joined into fewer, larger batches.
pub const EVENT_QUEUE: usize = 64;

/// Commands taken in one go, so that their datagrams share messages and writes.
const COMMAND_BATCH: usize = 256;

/// How long the last write before the close may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

const READ_MIN_BYTES: usize = 4 * 1024;
const READ_MAX_BYTES: usize = 64 * 1024;

/// Events of one hub.
pub type Batch = (PublicKey, Vec<HubEvent>);

/// Keeps a connection to a hub alive on the caller's plane, until the command sender is dropped.
pub fn spawn(config: HubClientConfig) -> (mpsc::Sender<HubCommand>, mpsc::Receiver<Batch>) {
    let (events, receiver) = mpsc::channel(EVENT_QUEUE);
    (spawn_into(config, events), receiver)
}

/// Does the same as [`spawn`], with an event channel that several hubs share.
pub fn spawn_into(config: HubClientConfig, events: mpsc::Sender<Batch>) -> mpsc::Sender<HubCommand> {
    let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
    // A node with two hubs has two clients, each with its own random stream.
    let rng = rt::rng(&format!("hub-client {}", config.hub.key.short()));
    let core = HubClient::new(config, time::now(), rng);
    let batch = Vec::with_capacity(COMMAND_BATCH);
    let timer = Timer::new(core.poll_timeout());
    // The caller's span says whose connection it is.
    task::spawn(Driver { core, way: None, commands, events, batch, timer }.run().in_current_span());
    sender
}

struct Driver {
    core: HubClient,
    /// The addresses of the stream, while there is one.
    way: Option<Way>,
    commands: mpsc::Receiver<HubCommand>,
    events: mpsc::Sender<Batch>,
    batch: Vec<HubCommand>,
    timer: Timer,
}

impl Driver {
    async fn run(mut self) {
        loop {
            let ended = if self.core.poll_dial() {
                let addr = self.core.hub().addr.clone();
                match self.idle(dial(&addr)).await {
                    Ok(Some(Ok(stream))) => {
                        self.core.handle_dialed(time::now());
                        self.way = Way::of(&stream);
                        let ended = self.serve(stream).await;
                        self.way = None;
                        ended
                    }
                    Ok(Some(Err(error))) => {
                        tracing::debug!(target: "nurl::hub", hub = %self.core.hub().addr, %error, "can't reach the hub");
                        self.core.handle_dial_failed(time::now());
                        Ok(())
                    }
                    Ok(None) => Ok(()),
                    Err(stopped) => Err(stopped),
                }
            } else {
                self.idle(std::future::pending::<()>()).await.map(drop)
            };
            if let Err(Stopped) = ended {
                return;
            }
        }
    }

    /// Does the work that needs no waiting, in every turn. So neither a busy stream nor a busy layer above starves
    /// the other.
    fn turn(&mut self) -> Result<(), Stopped> {
        let now = time::now();
        for _ in 0..COMMAND_BATCH {
            match self.commands.try_recv() {
                Ok(command) => handle_command(&mut self.core, self.way, now, command),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return Err(Stopped),
            }
        }
        if self.core.poll_timeout() <= now {
            self.core.handle_timeout(now);
        }
        if self.core.has_events() {
            match self.events.try_reserve() {
                Ok(permit) => permit.send((self.core.hub().key, self.core.take_events())),
                Err(mpsc::error::TrySendError::Full(())) => {}
                Err(mpsc::error::TrySendError::Closed(())) => return Err(Stopped),
            }
        }
        self.timer.set(self.core.poll_timeout());
        Ok(())
    }

    /// Waits for `work`; `None` when the core wants something else before it ends.
    async fn idle<T>(&mut self, work: impl Future<Output = T>) -> Result<Option<T>, Stopped> {
        tokio::pin!(work);
        let dialing = self.core.wants_dial();
        loop {
            self.turn()?;
            if self.core.wants_dial() != dialing || self.core.is_dial_due() {
                return Ok(None);
            }
            let Driver { core, way, commands, events, batch, timer } = self;
            rt::select! {
                done = &mut work => return Ok(Some(done)),
                taken = commands.recv_many(batch, COMMAND_BATCH) => handle_commands(core, *way, batch, taken)?,
                permit = events.reserve(), if core.has_events() => drop(permit),
                () = timer.fired() => {}
            }
        }
    }

    /// Reads and writes until the core drops the stream or the stream ends.
    async fn serve(&mut self, stream: TcpStream) -> Result<(), Stopped> {
        // With Nagle's algorithm, a small last write would wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let (mut reader, mut writer) = stream.into_split();
        let mut buffer = vec![0; READ_MIN_BYTES];
        let (mut out, mut written) = (Vec::new(), 0);
        let mut read_first = false;
        loop {
            if let Err(stopped) = self.turn() {
                self.core.poll_goodbye(&mut out);
                // Best effort: the hub also notices the end of the stream.
                let _ = time::timeout(GOODBYE_TIMEOUT, writer.write_all(&out[written..])).await;
                let _ = writer.shutdown().await;
                return Err(stopped);
            }
            if !self.core.wants_stream() {
                return Ok(());
            }
            if written == out.len() {
                out.clear();
                written = 0;
                self.core.poll_write(&mut out);
            }
            // A writer that is always ready must not starve the reader.
            if std::mem::take(&mut read_first)
                && let Some(read) = read_now(&mut reader, &mut buffer).await
            {
                handle_read(&mut self.core, read, &mut buffer);
                continue;
            }
            let Driver { core, way, commands, events, batch, timer } = &mut *self;
            rt::select! {
                wrote = writer.write(&out[written..]), if written < out.len() => match wrote {
                    Ok(0) | Err(_) => core.handle_end(time::now()),
                    Ok(n) => {
                        written += n;
                        read_first = true;
                    }
                },
                read = reader.read(&mut buffer) => handle_read(core, read, &mut buffer),
                taken = commands.recv_many(batch, COMMAND_BATCH) => {
                    // If all command senders are gone, the next turn notices it and sends CLOSE.
                    let _ = handle_commands(core, *way, batch, taken);
                }
                permit = events.reserve(), if core.has_events() => drop(permit),
                () = timer.fired() => {}
            }
        }
    }
}

fn handle_commands(
    core: &mut HubClient,
    way: Option<Way>,
    batch: &mut Vec<HubCommand>,
    taken: usize,
) -> Result<(), Stopped> {
    let now = time::now();
    batch.drain(..).for_each(|command| handle_command(core, way, now, command));
    if taken == 0 { Err(Stopped) } else { Ok(()) }
}

/// A change of interfaces that leaves the stream's route intact isn't passed to the core.
fn handle_command(core: &mut HubClient, way: Option<Way>, now: Instant, command: HubCommand) {
    match (&command, way) {
        (HubCommand::InterfacesChanged(list), Some(way)) if way.holds(list, source_towards(way.hub).ok()) => {
            rt::reached("a hub\'s connection outlived a change of interfaces");
        }
        _ => core.handle_command(now, command),
    }
}

fn handle_read(core: &mut HubClient, read: io::Result<usize>, buffer: &mut Vec<u8>) {
    match read {
        Ok(0) | Err(_) => core.handle_end(time::now()),
        Ok(n) => {
            core.handle_bytes(time::now(), &buffer[..n]);
            if n == buffer.len() && n < READ_MAX_BYTES {
                buffer.resize(2 * n, 0);
            }
        }
    }
}

/// The two ends of a stream.
#[derive(Debug, Clone, Copy)]
struct Way {
    local: IpAddr,
    hub: IpAddr,
}

impl Way {
    fn of(stream: &TcpStream) -> Option<Way> {
        let (local, hub) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
        Some(Way { local: local.ip().to_canonical(), hub: hub.ip().to_canonical() })
    }

    /// Whether the local address still exists and traffic to the hub still leaves by its interface. `source` is the
    /// current source address of that traffic. It may be another address of the interface, since temporary addresses
    /// (RFC 8981) take turns.
    fn holds(&self, interfaces: &[Interface], source: Option<IpAddr>) -> bool {
        let interface = |ip| interfaces.iter().find(|entry| entry.addr == ip).map(|entry| &entry.name);
        let own = interface(self.local);
        own.is_some() && own == source.and_then(interface)
    }
}

/// One sleep that lives across turns: a deadline that moves later, the usual case, needs no new timer.
struct Timer {
    at: Instant,
    sleep: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Timer {
    fn new(at: Instant) -> Timer {
        Timer { at, sleep: Box::pin(time::sleep_until(at)) }
    }

    fn set(&mut self, at: Instant) {
        if at < self.at {
            *self = Timer::new(at);
        }
    }

    /// Fires once, perhaps before the deadline last set; [`set`](Timer::set) arms it again.
    async fn fired(&mut self) {
        self.sleep.as_mut().await;
        // The next `set` makes a new sleep, whatever its deadline.
        self.at = time::now() + FAR;
        self.sleep = Box::pin(std::future::pending());
    }
}

/// Later than every deadline of the core.
const FAR: Duration = Duration::from_secs(86_400);

/// All senders of commands, or the receiver of events, are gone.
struct Stopped;

/// Reads the bytes that are available without waiting.
async fn read_now(reader: &mut OwnedReadHalf, buffer: &mut [u8]) -> Option<io::Result<usize>> {
    rt::select! {
        read = reader.read(buffer) => Some(read),
        () = std::future::ready(()) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_stays_as_long_as_its_address_and_its_interface_do() {
        let interface =
            |(name, addr): &(&str, &str)| Interface { name: (*name).to_owned(), addr: addr.parse().unwrap() };
        let way = Way { local: "192.168.1.2".parse().unwrap(), hub: "192.0.2.1".parse().unwrap() };
        let (wifi, cell) = (("wlan0", "192.168.1.2"), ("wwan0", "100.64.0.9"));
        for (interfaces, source, stays, why) in [
            (vec![wifi], Some("192.168.1.2"), true, "nothing has changed"),
            (vec![wifi, ("docker0", "172.17.0.1")], Some("192.168.1.2"), true, "containers came"),
            (
                vec![wifi, ("wlan0", "192.168.1.77")],
                Some("192.168.1.77"),
                true,
                "another address of its interface",
            ),
            (vec![wifi, cell], Some("100.64.0.9"), false, "the route leads elsewhere"),
            (vec![cell], Some("100.64.0.9"), false, "its address went"),
            (vec![("wlan0", "10.0.0.2")], Some("10.0.0.2"), false, "another wifi"),
            (vec![wifi], None, false, "no route"),
            // The route may be newer than the list, so a change in between must count.
            (vec![], Some("192.168.1.2"), false, "its address went and came"),
        ] {
            let list: Vec<_> = interfaces.iter().map(interface).collect();
            let source = source.map(|source| source.parse().unwrap());
            assert_eq!(way.holds(&list, source), stays, "{why}");
        }
    }
}
