//! A hub, a mesh, and waiting with time limits.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nurl::config::Role;
use nurl::events::State;
use nurl::hub::{self, Hub, HubConfig, HubHandle, ServedMesh};
use nurl::pass::{AuthorityKey, Credential, Grant, Level, Revocation, Rotation, Subject};
use nurl::rt::{self, time};
use nurl::{Builder, Error, Node, PublicKey, SecretKey, Ticket};

/// The limit for any operation that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test's body with a time limit for all of it.
pub(crate) fn run(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { time::timeout(2 * PATIENCE, body).await.expect("the test ends in time") });
}

/// Waits for a future, with a time limit.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Polls until a condition holds.
pub(crate) async fn until<Fut: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> Fut) {
    soon(what, async {
        while !holds().await {
            time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

pub(crate) fn key() -> SecretKey {
    SecretKey::generate(&mut rt::rng("test key"))
}

/// A mesh with one hub, which can be stopped and started again.
pub(crate) struct Mesh {
    pub(crate) ticket: Ticket,
    pub(crate) authority: Arc<AuthorityKey>,
    key: SecretKey,
    addr: SocketAddr,
    hub: Option<HubHandle>,
    /// The file of the hub that remembers; it is read at its start.
    pub(crate) remembers: Option<PathBuf>,
    /// Whether the hub has the authority's key; it is read at its start, too.
    pub(crate) issues: bool,
}

impl Mesh {
    pub(crate) async fn start() -> Mesh {
        let key = key();
        let hub = Hub { key: key.public(), addr: String::new() };
        let (authority, ticket) = Ticket::new_mesh(hub, time::unix_now(), &mut rt::rng("test ticket"));
        let (authority, addr) = (authority.into(), ([127, 0, 0, 1], 0).into());
        let mut mesh = Mesh { ticket, authority, key, addr, hub: None, remembers: None, issues: true };
        mesh.start_hub().await;
        mesh
    }

    /// The entry by which the authority revokes a key now.
    pub(crate) fn revocation(&self, key: PublicKey) -> Revocation {
        self.revocation_of(Subject::Key(key))
    }

    /// The entry by which the authority revokes a subject now.
    pub(crate) fn revocation_of(&self, subject: Subject) -> Revocation {
        self.authority.revoke(subject, time::unix_now().as_secs() as u32)
    }

    /// The rotation to this generation, made so many seconds ago.
    pub(crate) fn rotation(&self, generation: u32, ago: u32) -> Rotation {
        self.authority.rotate(generation, time::unix_now().as_secs() as u32 - ago)
    }

    /// A key that the authority admits by hand.
    pub(crate) fn admit(&self) -> (SecretKey, Credential) {
        self.admit_as(Level::Worker, "")
    }

    /// The same at this level, under this name.
    pub(crate) fn admit_as(&self, level: Level, name: &str) -> (SecretKey, Credential) {
        let (key, now) = (key(), time::unix_now().as_secs() as u32);
        let name = name.to_owned();
        let grant = Grant { name, ..Grant::new(key.public(), level, now, now + 3_600) };
        (key, Credential::new(grant.sign(&self.authority).unwrap()))
    }

    /// A node that the authority admitted by hand.
    pub(crate) fn admitted(&self, role: Role) -> Builder {
        let (key, credential) = self.admit();
        self.builder(role).key(key).credential(credential)
    }

    /// Starts the hub, with the same key and port as before.
    pub(crate) async fn start_hub(&mut self) {
        let served = match self.issues {
            true => ServedMesh::issued_by(self.authority.clone()),
            false => ServedMesh::of(self.authority.mesh()),
        };
        let mut config = HubConfig::new(self.addr.into(), self.key.clone(), vec![served]);
        config.issued = self.remembers.clone();
        let hub = hub::serve(config).await.unwrap();
        self.addr = hub.addr();
        self.ticket.hubs[0].addr = hub.addr().to_string();
        self.hub = Some(hub);
    }

    pub(crate) async fn stop_hub(&mut self) {
        self.hub.take().expect("the hub runs").shutdown().await;
    }

    pub(crate) fn hub(&self) -> &HubHandle {
        self.hub.as_ref().expect("the hub runs")
    }

    pub(crate) fn builder(&self, role: Role) -> Builder {
        Node::builder(self.ticket.clone()).role(role)
    }

    /// A node that has joined.
    pub(crate) async fn join(&self, builder: Builder) -> Node {
        let node = builder.spawn().await.unwrap();
        node.joined(PATIENCE).await.unwrap();
        node
    }

    pub(crate) async fn node(&self, role: Role) -> Node {
        self.join(self.builder(role)).await
    }

    /// Starts `N` nodes that see each other.
    pub(crate) async fn nodes<const N: usize>(&self, role: Role) -> [Node; N] {
        let mut nodes = Vec::new();
        for _ in 0..N {
            nodes.push(self.node(role).await);
        }
        meet(&nodes.iter().collect::<Vec<_>>()).await;
        nodes.try_into().unwrap_or_else(|_| unreachable!("so many were made"))
    }
}

/// Waits until all of these nodes see each other alive.
pub(crate) async fn meet(nodes: &[&Node]) {
    for node in nodes {
        for other in nodes.iter().filter(|other| other.key() != node.key()) {
            see(node, other.key(), State::Alive).await;
        }
    }
}

/// Waits until `node` sees `peer` in a state.
pub(crate) async fn see(node: &Node, peer: PublicKey, state: State) {
    until(&format!("{:?} sees {peer:?} {}", node.key(), state.as_str()), async || {
        state_of(node, peer).await == Some(state)
    })
    .await;
}

pub(crate) async fn state_of(node: &Node, peer: PublicKey) -> Option<State> {
    let members = node.members().await.unwrap();
    members.iter().find(|member| member.key == peer).map(|member| member.state)
}

pub(crate) async fn is_direct(node: &Node, peer: PublicKey) -> bool {
    node.members().await.unwrap().iter().any(|member| member.key == peer && member.path.direct)
}

/// Sends a datagram again and again until the other side has received it.
pub(crate) async fn deliver(from: &Node, to: &Node, body: &'static [u8]) {
    let body = Bytes::from_static(body);
    soon("a datagram", async {
        loop {
            from.send(to.key(), body.clone()).await.unwrap();
            let arrived = time::timeout(Duration::from_millis(100), to.recv_many()).await;
            if let Ok(Some(batch)) = arrived
                && batch.iter().any(|datagram| datagram.peer == from.key() && datagram.body == body)
            {
                return;
            }
        }
    })
    .await;
}

/// A metric of a node, by name.
pub(crate) async fn metric(node: &Node, name: &str) -> u64 {
    node.metrics().await.unwrap().get(name).unwrap_or_else(|| panic!("no metric {name}"))
}

pub(crate) async fn ping(from: &Node, to: &Node) -> Result<nurl::events::Pong, Error> {
    from.ping(to.key(), PATIENCE).await
}
