//! Drives the hub over sockets: tasks to accept, to answer STUN, to keep time, and one for each connection.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand_core::{Rng as _, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::core::{CLOSE_LINGER, Hub, HubStats, Output, TICK};
use super::issued::IssuedPasses;
use super::limits::{HubLimits, MAX_NAMESPACES};
use super::meshes::ServedMesh;
use crate::authority::rotation::SignedSecret;
use crate::key::{PublicKey, SecretKey};
use crate::kit::wall_clock::WallClock;
use crate::mesh::MeshId;
use crate::net::reach::control::Connection;
use crate::net::reach::faults::ReceiveFaults;
use crate::net::reach::listen::{Listen, ListenError};
use crate::net::reach::relay::{ClientId, Roles};
use crate::net::reach::stun;
use crate::net::secure::securedgram::Origin;
use crate::net::secure::securedgram::budget::{AnswerRates, Answers};
use crate::rt::net::{OwnedReadHalf, RecvMeta, TcpListener, TcpStream, Transmit, UdpSocket};
use crate::rt::sync::{Notify, watch};
use crate::rt::{self, Point, Rng, buggify, task, time};
use crate::store::StoreError;

/// With port 0 the system chooses a TCP port whose number may be taken in UDP. So many ports are tried.
const BIND_ATTEMPTS: usize = 16;

/// The initial size of a connection's read buffer. It doubles while reads fill it, and shrinks when they don't, so
/// thousands of quiet clients cost little.
const READ_MIN_BYTES: usize = 4 * 1024;

/// What a connection's buffers keep while nothing is in them.
const KEPT_BYTES: usize = READ_MIN_BYTES;

/// The most bytes taken by one read: about the size of one Noise message.
const READ_MAX_BYTES: usize = 64 * 1024;

/// The pause of the listener after a failed accept (no file descriptor left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Receive buffers of the STUN socket, each large enough for the datagrams that GRO joins.
const UDP_BUFFERS: usize = 4;
const UDP_BUFFER_BYTES: usize = 64 * 1024;

/// The configuration of a hub.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Where to listen, TCP and UDP; port 0 takes a port that is free in both protocols and both address families.
    pub listen: Listen,
    /// The hub's key, which its clients pin.
    pub key: SecretKey,
    /// The meshes served; at most [`MAX_NAMESPACES`].
    pub meshes: Vec<ServedMesh>,
    /// The file that remembers the passes that this hub issued, and what was revoked; without one, the places of an
    /// invitation are counted anew at each start, and clients tell the hub again what was revoked.
    pub issued: Option<PathBuf>,
    /// The roles that are on.
    pub roles: Roles,
    /// The limits.
    pub limits: HubLimits,
}

impl HubConfig {
    /// A hub with every role and the default limits.
    pub fn new(listen: Listen, key: SecretKey, meshes: Vec<ServedMesh>) -> HubConfig {
        HubConfig { listen, key, meshes, issued: None, roles: Roles::ALL, limits: HubLimits::default() }
    }
}

/// Why a hub can't start.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Another process listens on the port.
    #[error("{protocol} port {addr} is in use: stop the other process or choose another port")]
    PortInUse {
        /// The address.
        addr: SocketAddr,
        /// `TCP` or `UDP`.
        protocol: &'static str,
    },
    /// The operating system refuses the address.
    #[error("can't listen on {protocol} {addr}: {error}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The operating system's error.
        error: io::Error,
    },
    /// More than [`MAX_NAMESPACES`].
    #[error("a hub serves at most {MAX_NAMESPACES} namespaces, not {0}")]
    TooManyNamespaces(usize),
    /// The file of issued passes can't be used.
    #[error("the passes that this hub issued: {0}")]
    Issued(#[from] StoreError),
    /// Every role is off.
    #[error("every role of the hub is off")]
    NoRole,
    /// The places to listen at are invalid.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

impl HubError {
    fn bind(addr: SocketAddr, protocol: &'static str, error: io::Error) -> HubError {
        match error.kind() {
            io::ErrorKind::AddrInUse => HubError::PortInUse { addr, protocol },
            _ => HubError::Bind { addr, protocol, error },
        }
    }
}

/// A running hub. Dropping the handle ends it at once, as a crash would; see
/// [`shutdown`](HubHandle::shutdown).
pub struct HubHandle {
    addrs: Vec<SocketAddr>,
    key: PublicKey,
    shared: Arc<HubShared>,
    stop: watch::Sender<()>,
    tasks: Vec<task::JoinHandle<()>>,
}

impl HubHandle {
    /// The addresses that the hub listens on: one of each family that the host has.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// The first address: the v4 one, if there is one.
    pub fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// Its public key.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// A snapshot of the hub's counters.
    pub fn stats(&self) -> HubStats {
        self.shared.with(|hub| hub.stats())
    }

    /// Takes at most so many registered clients from now on. Registered clients stay, even if they are more: a limit
    /// of 0 drains the hub without harm to them.
    pub fn limit_clients(&self, clients: usize) {
        self.shared.with(|hub| hub.limit_clients(clients));
    }

    /// The present secret of a mesh, if it was rotated and this hub issues the mesh's passes: for its tickets.
    pub fn secret(&self, mesh: &MeshId) -> Option<SignedSecret> {
        self.shared.with(|hub| hub.secret(mesh).cloned())
    }

    /// From now on the hub takes revocations and keeps them to itself: the lie of a hub that withholds them, for
    /// scenarios.
    #[cfg(any(test, feature = "internals"))]
    pub fn withhold_revocations(&self) {
        self.shared.with(Hub::withhold_revocations);
    }

    /// Waits until every receive on a UDP socket of the hub fails, and returns the error. From then on no peer can
    /// learn its own address from the hub. Cancel safe.
    pub async fn failed(&self) -> String {
        let mut broken = self.shared.broken.subscribe();
        loop {
            if let Some(reason) = broken.borrow_and_update() {
                return reason;
            }
            // The hub ends before the watch channel does, and the caller with it.
            let _ = broken.changed().await;
        }
    }

    /// Sends CLOSE to every client, waits until they have read it (2 s at most), and gives the ports back.
    pub async fn shutdown(self) {
        self.shared.with(|hub| hub.shutdown(time::now()));
        let emptied = async {
            loop {
                let ended = self.shared.ended.notified();
                if self.stats().connections == 0 {
                    return;
                }
                ended.await;
            }
        };
        // Clients that didn't read CLOSE in time notice the end of the stream.
        let _ = time::timeout(CLOSE_LINGER, emptied).await;
        drop(self.stop);
        for task in self.tasks {
            // A task that panicked has ended too.
            let _ = task.await;
        }
    }
}

struct HubShared {
    inner: Mutex<Inner>,
    /// Woken by each accept, which may bring a nearer deadline.
    timer: Notify,
    /// Woken by each connection's end.
    ended: Notify,
    /// The error of a UDP socket that can't receive any more.
    broken: watch::Sender<Option<String>>,
}

struct Inner {
    hub: Hub,
    wakers: BTreeMap<ClientId, Arc<Notify>>,
    passes: Option<IssuedPasses>,
}

impl HubShared {
    /// Runs `act` on the hub's state, then wakes the connections that it concerns. The lock is never held over an
    /// await.
    fn with<T>(&self, act: impl FnOnce(&mut Hub) -> T) -> T {
        let mut inner = self.inner();
        let Inner { hub, wakers, passes } = &mut *inner;
        let done = act(hub);
        while let Some((mesh, pass)) = hub.poll_issued() {
            // A pass that isn't remembered takes no place after a restart, which is the smaller harm.
            if let Some(passes) = passes {
                passes.keep(&mesh, &pass);
            }
        }
        while let Some((mesh, entry)) = hub.poll_revocation() {
            // One that isn't remembered comes again with the first client that knows it.
            if let Some(passes) = passes {
                passes.keep_revocation(&mesh, &entry);
            }
        }
        if let Some(passes) = passes
            && let Err(error) = passes.flush(time::now())
        {
            tracing::warn!(target: "nurl::hub", %error, "issued passes and revocations aren't durable: make room");
        }
        while let Some(id) = hub.poll_wake() {
            if let Some(waker) = wakers.get(&id) {
                waker.notify_one();
            }
        }
        done
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every step leaves a consistent state, so a panic elsewhere does no harm.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a connection that has ended.
    fn forget(&self, id: ClientId) {
        self.with(|hub| hub.handle_disconnect(id));
        self.inner().wakers.remove(&id);
        self.ended.notify_one();
    }
}

/// Starts a hub on the caller's plane.
///
/// # Errors
/// [`HubError`].
pub async fn serve(config: HubConfig) -> Result<HubHandle, HubError> {
    if config.meshes.len() > MAX_NAMESPACES {
        return Err(HubError::TooManyNamespaces(config.meshes.len()));
    }
    let Bound { addrs, tcp, udp } = bind(&config.listen, config.roles).await?;
    let mut rng = rt::rng("hub");
    let now = time::now();
    let clock = (now, WallClock::new(now, time::unix_now()));
    let mut hub = Hub::new(config.meshes, config.roles, config.limits, clock, child(&mut rng));
    let passes = match &config.issued {
        Some(path) => Some(IssuedPasses::open(path, &mut hub, &mut rng)?),
        None => None,
    };
    let shared = Arc::new(HubShared {
        inner: Mutex::new(Inner { hub, wakers: BTreeMap::new(), passes }),
        timer: Notify::new(),
        ended: Notify::new(),
        broken: watch::channel(None).0,
    });
    let (stop, stopped) = watch::channel(());
    let key = config.key.public();
    rt::known_as(&key.short());
    rt::known_as(&key.to_string());
    let mut tasks = vec![task::spawn(keep_time(shared.clone(), stopped.clone()))];
    for listener in tcp {
        let (key, rng) = (config.key.clone(), child(&mut rng));
        tasks.push(task::spawn(accept(shared.clone(), listener, key, rng, stopped.clone())));
    }
    for socket in udp {
        tasks.push(task::spawn(answer_stun(shared.clone(), socket, stopped.clone())));
    }
    tracing::info!(target: "nurl::hub", ?addrs, hub = %key.short(), "the hub listens");
    Ok(HubHandle { addrs, key, shared, stop, tasks })
}

/// The sockets of a hub.
#[derive(Default)]
struct Bound {
    addrs: Vec<SocketAddr>,
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

/// Binds TCP and UDP on one port number in each family, if the roles need them and the host has the family.
async fn bind(listen: &Listen, roles: Roles) -> Result<Bound, HubError> {
    if !roles.relay && !roles.rendezvous && !roles.stun {
        return Err(HubError::NoRole);
    }
    let any_port = listen.addrs().iter().any(|addr| addr.port() == 0);
    let mut attempt = 1;
    loop {
        match bind_once(listen, roles).await {
            Err(HubError::PortInUse { .. }) if any_port && attempt < BIND_ATTEMPTS => attempt += 1,
            done => return done,
        }
    }
}

async fn bind_once(listen: &Listen, roles: Roles) -> Result<Bound, HubError> {
    let mut bound = Bound::default();
    let mut lacking = None;
    for mut addr in listen.addrs() {
        if let (0, Some(first)) = (addr.port(), bound.addrs.first()) {
            addr.set_port(first.port());
        }
        match bind_family(addr, roles, &mut bound).await {
            Ok(()) => {}
            Err(HubError::Bind { addr, protocol, error }) if listen.may_lack(&error) => {
                tracing::debug!(target: "nurl::hub", %addr, %error, "not in this family");
                lacking = Some(HubError::Bind { addr, protocol, error });
            }
            Err(error) => return Err(error),
        }
    }
    match lacking {
        Some(error) if bound.addrs.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

async fn bind_family(mut addr: SocketAddr, roles: Roles, bound: &mut Bound) -> Result<(), HubError> {
    let mut listener = None;
    if roles.relay || roles.rendezvous {
        let fail = |error| HubError::bind(addr, "TCP", error);
        let tcp = rt::net::listen(addr).await.map_err(fail)?;
        addr = tcp.local_addr().map_err(fail)?;
        listener = Some(tcp);
    }
    if roles.stun {
        let fail = |error| HubError::bind(addr, "UDP", error);
        let udp = UdpSocket::bind(addr).await.map_err(fail)?;
        addr = udp.local_addr().map_err(fail)?;
        bound.udp.push(udp);
    }
    bound.tcp.extend(listener);
    bound.addrs.push(addr);
    Ok(())
}

/// A separate random generator for a task that is started now.
fn child(rng: &mut Rng) -> Rng {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    Rng::from_seed(seed)
}

async fn keep_time(shared: Arc<HubShared>, mut stopped: watch::Receiver<()>) {
    loop {
        let next = shared.with(|hub| hub.poll_timeout());
        let sleep = async {
            match next {
                // The timer waits at least half a tick: records may expire one after the other.
                Some(at) => time::sleep_until(at.max(time::now() + TICK / 2)).await,
                None => std::future::pending().await,
            }
        };
        rt::select! {
            _ = stopped.changed() => return,
            // The first connection after a pause brings a nearer deadline.
            () = shared.timer.notified() => continue,
            () = sleep => {}
        }
        shared.with(|hub| hub.handle_timeout(time::now()));
    }
}

async fn accept(
    shared: Arc<HubShared>,
    listener: TcpListener,
    key: SecretKey,
    mut rng: Rng,
    mut stopped: watch::Receiver<()>,
) {
    loop {
        let accepted = rt::select! {
            _ = stopped.changed() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                let Ok(id) = shared.with(|hub| hub.handle_accept(time::now(), remote)) else { continue };
                shared.timer.notify_one();
                let waker = Arc::new(Notify::new());
                shared.inner().wakers.insert(id, waker.clone());
                let Ok(noise) = Connection::server(&key, &mut child(&mut rng)) else {
                    shared.forget(id);
                    continue;
                };
                let served = Served { shared: shared.clone(), id, noise, announced: false };
                task::spawn(serve_connection(served, stream, waker, stopped.clone()));
            }
            Err(error) => {
                shared.with(|hub| hub.counters_mut().accept_errors += 1);
                tracing::warn!(target: "nurl::hub", %error, "accept failed");
                rt::select! {
                    _ = stopped.changed() => return,
                    () = time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
}

/// The state of one connection's task.
struct Served {
    shared: Arc<HubShared>,
    id: ClientId,
    noise: Connection,
    announced: bool,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shared.forget(self.id);
    }
}

impl Served {
    /// Handles the bytes of a read; `false`: the connection is over.
    fn handle_bytes(&mut self, bytes: &[u8], plaintext: &mut Vec<u8>) -> bool {
        self.noise.handle_bytes(bytes);
        loop {
            let polled = self.noise.poll_message(plaintext);
            if let (false, Some(key)) = (self.announced, self.noise.peer()) {
                self.announced = true;
                self.shared.with(|hub| hub.handle_handshake(self.id, key));
            }
            match polled {
                Ok(true) => {
                    rt::exposed(plaintext);
                    self.shared.with(|hub| hub.handle_message(time::now(), self.id, plaintext));
                }
                Ok(false) => return true,
                Err(_) => {
                    self.shared.with(|hub| hub.counters_mut().noise_failures += 1);
                    return false;
                }
            }
        }
    }

    /// Fills `out` with the bytes to write next.
    fn fill(&mut self, plaintext: &mut Vec<u8>, out: &mut Vec<u8>) -> Output {
        self.noise.poll_write(out);
        match self.shared.with(|hub| hub.poll_output(self.id, plaintext)) {
            Output::Plaintext => match self.noise.seal(plaintext, out) {
                Ok(()) => Output::Plaintext,
                Err(_) => Output::Gone,
            },
            other => other,
        }
    }
}

/// Reads and writes one connection until it ends. It never waits for another connection: frames for other connections
/// go into their queues.
async fn serve_connection(
    mut served: Served,
    stream: TcpStream,
    waker: Arc<Notify>,
    mut stopped: watch::Receiver<()>,
) {
    // With Nagle's algorithm the last small frame of a burst would wait for an acknowledgement; without it a write is
    // a packet.
    let _ = stream.set_nodelay(true);
    let (mut reader, mut writer) = stream.into_split();
    let mut buffer = vec![0; READ_MIN_BYTES];
    let (mut plaintext, mut out, mut written) = (Vec::new(), Vec::new(), 0);
    // Our last frame is written. Further input is read and dropped until the other side closes too: closing with
    // unread bytes would reset the stream, and our last frame would be lost.
    let mut silent = false;
    let mut read_first = false;
    loop {
        if written == out.len() && !silent {
            out.clear();
            written = 0;
            match served.fill(&mut plaintext, &mut out) {
                Output::Gone => return,
                Output::Close if out.is_empty() => {
                    if writer.shutdown().await.is_err() {
                        return;
                    }
                    silent = true;
                }
                _ => {}
            }
            // Thousands of connections have nothing to say, or to one that doesn't read.
            plaintext.shrink_to(KEPT_BYTES);
            if out.is_empty() {
                out.shrink_to(KEPT_BYTES);
            }
        }
        if std::mem::take(&mut read_first)
            && let Some(read) = read_now(&mut reader, &mut buffer).await
        {
            if !handle_read(&mut served, read, silent, &mut buffer, &mut plaintext) {
                return;
            }
            continue;
        }
        let most = if buggify(Point::HubReadsByte) { 1 } else { buffer.len() };
        rt::select! {
            _ = stopped.changed() => return,
            // Before the stream, because a stream that is always readable must not hide an eviction or a timeout.
            () = waker.notified() => {
                if served.shared.with(|hub| hub.is_gone(served.id)) {
                    return;
                }
            }
            wrote = writer.write(&out[written..]), if written < out.len() => match wrote {
                Ok(0) | Err(_) => return,
                Ok(n) => {
                    written += n;
                    // A writer that is always ready must not starve the reader.
                    read_first = true;
                }
            },
            read = reader.read(&mut buffer[..most]) => {
                if !handle_read(&mut served, read, silent, &mut buffer, &mut plaintext) {
                    return;
                }
            }
        }
    }
}

/// `false`: the connection is over.
fn handle_read(
    served: &mut Served,
    read: io::Result<usize>,
    silent: bool,
    buffer: &mut Vec<u8>,
    plaintext: &mut Vec<u8>,
) -> bool {
    match read {
        Ok(0) | Err(_) => false,
        Ok(_) if silent => true,
        Ok(n) => {
            let open = served.handle_bytes(&buffer[..n], plaintext);
            if n == buffer.len() && n < READ_MAX_BYTES {
                buffer.resize(2 * n, 0);
            } else if n < READ_MIN_BYTES && buffer.len() > READ_MIN_BYTES {
                buffer.truncate(READ_MIN_BYTES);
                buffer.shrink_to_fit();
            }
            open
        }
    }
}

/// Reads the bytes that are available without waiting.
async fn read_now(reader: &mut OwnedReadHalf, buffer: &mut [u8]) -> Option<io::Result<usize>> {
    rt::select! {
        read = reader.read(buffer) => Some(read),
        () = std::future::ready(()) => None,
    }
}

async fn answer_stun(shared: Arc<HubShared>, socket: UdpSocket, mut stopped: watch::Receiver<()>) {
    let mut storage = vec![0; UDP_BUFFERS * UDP_BUFFER_BYTES];
    let mut faults = ReceiveFaults::default();
    let mut metas = [RecvMeta::default(); UDP_BUFFERS];
    let mut answers = Answers::new(AnswerRates::STUN, time::now());
    // `try_send` works only after a wait for writability.
    let _ = socket.writable().await;
    loop {
        let received = {
            let mut buffers: Vec<IoSliceMut<'_>> =
                storage.chunks_mut(UDP_BUFFER_BYTES).map(IoSliceMut::new).collect();
            rt::select! {
                _ = stopped.changed() => return,
                received = socket.recv(&mut buffers, &mut metas) => received,
            }
        };
        let broken = faults.note(&received);
        let received = match received {
            Ok(received) => received,
            Err(error) if broken => {
                shared.broken.send(Some(error.to_string()));
                return;
            }
            // The error concerns one datagram, for example a refused answer of ours.
            Err(_) => continue,
        };
        let (mut answered, mut ignored, mut limited) = (0, 0, 0);
        for (meta, bytes) in metas[..received].iter().zip(storage.chunks(UDP_BUFFER_BYTES)) {
            for datagram in bytes[..meta.len.min(bytes.len())].chunks(meta.stride.max(1)) {
                let Some(answer) = stun::answer(datagram, meta.addr) else {
                    ignored += 1;
                    continue;
                };
                // The source may be a victim's.
                if !answers.admit(time::now(), &Origin::Direct(meta.addr)) {
                    limited += 1;
                    continue;
                }
                let transmit = Transmit {
                    destination: meta.addr,
                    contents: &answer,
                    segment_size: None,
                    src_ip: meta.dst_ip,
                };
                // Best effort: a client repeats its request.
                answered += u64::from(socket.try_send(&transmit).is_ok());
            }
        }
        shared.with(|hub| {
            hub.counters_mut().stun_answered += answered;
            hub.counters_mut().stun_limited += limited;
            hub.counters_mut().udp_ignored += ignored;
        });
    }
}
