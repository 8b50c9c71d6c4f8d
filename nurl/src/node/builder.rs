//! Building a node.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rand_core::Rng as _;
use tracing::Instrument as _;

use super::command::{APPLICATION_QUEUE, NET_QUEUE, View, WORK_QUEUE, Waiting};
use super::event::{Bus, NodeEvent};
use super::large::{self, LargeFiles, LargeParts, LargeStats};
use super::net::{Channels, NetParts, NetPlane};
use super::own_pass::OwnPass;
use super::own_revocations::OwnRevocations;
use super::own_secret::OwnSecret;
use super::signed_passes::SignedPasses;
use super::work::{WorkParts, WorkPlane};
use super::{Datagrams, Inner, Node, Role, ending, log};
use crate::authority::credential::Credential;
use crate::authority::issuer::{Issuer, LIFE, fitting_name};
use crate::authority::key::AuthorityKey;
use crate::authority::keyring::Keyring;
use crate::authority::level::Level;
use crate::authority::pass::{Grant, Pass};
use crate::compute::blob::desk::Desk;
use crate::compute::blob::folder::Folder;
use crate::compute::job::policy::{NotAPolicy, Policy};
use crate::compute::job::{JobError, KindLimits};
use crate::compute::pool::{Content, Handlers, JobContext};
use crate::error::{Error, PolicyError};
use crate::key::{AllowList, PublicKey, SecretKey};
use crate::membership::{self, Detector, Meta, Notary, Roles};
use crate::mesh::Ticket;
use crate::net::reach::listen::Listen;
use crate::net::secure::version::Versions;
use crate::rt::sync::{Mutex, mpsc, watch};
use crate::rt::task::{Plane, Planes};
use crate::rt::{self, time};
use crate::store::{Opened, SetAside};
use crate::transport::driver::Driver;
use crate::transport::{Limits, Transport, TransportConfig};

/// Default number of handler threads: the number of cores, within these bounds.
const POOL_DEFAULT: std::ops::RangeInclusive<usize> = 2..=64;

/// The database within a node's store directory.
const STORE_FILE: &str = "nurl.redb";

/// The folder of large files within a node's store directory.
const LARGE_FOLDER: &str = "large";

/// The space for large files, unless another is given: two of the longest.
const LARGE_SPACE: u64 = 8 << 30;

/// Configuration of a node; see [`Node::builder`].
pub struct Builder {
    ticket: Ticket,
    key: Option<SecretKey>,
    credential: Option<Credential>,
    holder: Option<SecretKey>,
    name: String,
    issuer: Option<Arc<AuthorityKey>>,
    role: Role,
    handlers: Handlers,
    /// The first policy that can't be meant: [`spawn`](Builder::spawn) tells it.
    bad_policy: Option<(String, NotAPolicy)>,
    listen: Listen,
    allow: AllowList,
    weight: u16,
    store: Option<PathBuf>,
    store_strict: bool,
    large_files: Option<PathBuf>,
    large_space: u64,
    pool: usize,
    detector: membership::DetectorConfig,
    limits: Limits,
    versions: Versions,
}

impl Builder {
    pub(super) fn new(ticket: Ticket) -> Builder {
        let cores = std::thread::available_parallelism().map_or(*POOL_DEFAULT.start(), usize::from);
        Builder {
            ticket,
            key: None,
            credential: None,
            holder: None,
            name: String::new(),
            issuer: None,
            role: Role::Worker,
            handlers: Handlers::new(),
            bad_policy: None,
            listen: Listen::default(),
            allow: AllowList::Anyone,
            weight: 1,
            store: None,
            store_strict: false,
            large_files: None,
            large_space: LARGE_SPACE,
            pool: cores.clamp(*POOL_DEFAULT.start(), *POOL_DEFAULT.end()),
            detector: membership::DetectorConfig::default(),
            limits: Limits::default(),
            versions: Versions::SPOKEN,
        }
    }

    /// The node's key; a new random key by default.
    #[must_use]
    pub fn key(mut self, key: SecretKey) -> Builder {
        self.key = Some(key);
        self
    }

    /// What the node shows of its standing in the mesh. Without it, the node has the pass in its store, or gets one by the
    /// ticket's invitation.
    #[must_use]
    pub fn credential(mut self, credential: Credential) -> Builder {
        self.credential = Some(credential);
        self
    }

    /// The key of the pass's holder, for a node that is here by a slip: tasks that outlive it are signed by it. A node with a
    /// pass of its own needs none.
    #[must_use]
    pub fn holder(mut self, holder: SecretKey) -> Builder {
        self.holder = Some(holder);
        self
    }

    /// The name that the node would like in its pass, for people; at most 40 bytes of it count. The pass of an earlier
    /// process keeps its name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Builder {
        self.name = name.to_owned();
        self
    }

    /// Issues the mesh's passes, with its authority's key: hubs that don't have the key hand this node what newcomers ask
    /// for. The node is a member then, with a pass of level [`Level::Issuer`] that it signs itself. With a
    /// [`store`](Builder::store) it remembers whom it gave the places of an invitation. Whoever has this key can admit
    /// anybody; the key of another mesh is refused.
    #[must_use]
    pub fn issuer(mut self, authority: Arc<AuthorityKey>) -> Builder {
        self.role = Role::Member;
        self.issuer = Some(authority);
        self
    }

    /// The node's role in its mesh; worker by default.
    #[must_use]
    pub fn role(mut self, role: Role) -> Builder {
        self.role = role;
        self
    }

    /// Runs the jobs of `kind` by an async function. A second handler for a kind replaces the first.
    #[must_use]
    pub fn handler<F, Fut>(mut self, kind: &str, handler: F) -> Builder
    where
        F: Fn(JobContext, Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Bytes, JobError>> + Send + 'static,
    {
        self.handlers.register(kind, KindLimits::default(), handler);
        self
    }

    /// As [`handler`](Builder::handler), with limits of its own.
    #[must_use]
    pub fn handler_with<F, Fut>(mut self, kind: &str, limits: KindLimits, handler: F) -> Builder
    where
        F: Fn(JobContext, Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Bytes, JobError>> + Send + 'static,
    {
        self.handlers.register(kind, limits, handler);
        self
    }

    /// Runs the jobs of `kind` by an async function whose payloads and results may be files of up to 4 GiB: see
    /// [`Content`], and [`JobContext::spool`] for a result.
    #[must_use]
    pub fn large_handler<F, Fut>(mut self, kind: &str, limits: KindLimits, handler: F) -> Builder
    where
        F: Fn(JobContext, Content) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Content, JobError>> + Send + 'static,
    {
        self.handlers.register_large(kind, limits, handler);
        self
    }

    /// The folder for large payloads and results; by default `large` within that of the [`store`](Builder::store). A node
    /// that has neither takes no large files. What is in it belongs to this node alone: it removes files there.
    #[must_use]
    pub fn large_files(mut self, path: &Path) -> Builder {
        self.large_files = Some(path.to_owned());
        self
    }

    /// The bytes that large files may take on the disk; 8 GiB by default. Files that no task uses go for others, or after a
    /// day. A worker without room for a payload leaves the task to others.
    #[must_use]
    pub fn large_space(mut self, bytes: u64) -> Builder {
        self.large_space = bytes;
        self
    }

    /// Only those whom the policy permits may submit tasks of `kind` to this node; if it is called again for the kind, those
    /// whom any of its policies permits. Without a policy, all whose pass permits to submit. It holds for this node's own
    /// tasks too. Workers may differ: a submitter that one refuses asks the next, and has [`JobError::NotAllowed`] after
    /// the last.
    #[must_use]
    pub fn allow_submit(mut self, kind: &str, policy: Policy) -> Builder {
        if let Err(error) = self.handlers.allow(kind, policy) {
            self.bad_policy.get_or_insert((kind.to_owned(), error));
        }
        self
    }

    /// Where to bind UDP; by default every address of both families and any port.
    #[must_use]
    pub fn listen(mut self, listen: Listen) -> Builder {
        self.listen = listen;
        self
    }

    /// Only these keys may open a session with the node.
    #[must_use]
    pub fn allow(mut self, allow: AllowList) -> Builder {
        self.allow = allow;
        self
    }

    /// The node's share of the keys, relative to others; its pass says how much it may claim.
    #[must_use]
    pub fn weight(mut self, weight: u16) -> Builder {
        self.weight = weight;
        self
    }

    /// The directory for state that survives a restart. A damaged store is set aside under a new name, and the node
    /// begins with a new one, as if it had lost its disk: [`NodeEvent::StoreSetAside`] reports it.
    #[must_use]
    pub fn store(mut self, dir: &Path) -> Builder {
        self.store = Some(dir.to_owned());
        self
    }

    /// Refuses to start with a damaged store: [`spawn`](Builder::spawn) fails with [`Error::Store`], and the disk is
    /// left unchanged.
    #[must_use]
    pub fn store_strict(mut self) -> Builder {
        self.store_strict = true;
        self
    }

    /// Number of handler threads.
    #[must_use]
    pub fn pool(mut self, threads: usize) -> Builder {
        self.pool = threads.max(1);
        self
    }

    /// Overrides the mesh's default timings; all members should run the same.
    #[must_use]
    pub fn detector(mut self, config: membership::DetectorConfig) -> Builder {
        self.detector = config;
        self
    }

    /// Overrides the default limits on resources held for peers.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Builder {
        self.limits = limits;
        self
    }

    /// Speaks other versions than this program does, to try what an upgrade does.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    #[must_use]
    pub fn versions(mut self, versions: Versions) -> Builder {
        self.versions = versions;
        self
    }

    /// Starts the node's threads, binds its sockets and begins to join.
    ///
    /// # Errors
    /// [`Error::Policy`], [`Error::Listen`], [`Error::Store`], [`Error::Threads`], [`Error::Membership`].
    pub async fn spawn(self) -> Result<Node, Error> {
        // Its future is boxed, because it is large, and a caller's stack may be small.
        Box::pin(self.start()).await
    }

    async fn start(self) -> Result<Node, Error> {
        if let Some((kind, error)) = self.bad_policy {
            return Err(PolicyError::NotAPolicy { kind, error }.into());
        }
        if let Some(kind) = self.handlers.policy_without_handler() {
            return Err(PolicyError::NoHandler(kind.to_owned()).into());
        }
        let key = self.key.unwrap_or_else(|| SecretKey::generate(&mut rt::rng("node key")));
        let public = key.public();
        let boot = rt::rng("boot id").next_u64();
        let planes = Planes::start("nurl", self.pool).map_err(Error::Threads)?;
        let opened = match &self.store {
            Some(dir) => {
                let opened = Opened::at(&dir.join(STORE_FILE), self.store_strict, &mut rt::rng("store"));
                Some(opened?)
            }
            None => None,
        };
        let (store, set_aside) = opened.map_or((None, None), |opened| (Some(opened.store), opened.set_aside));

        let folder = self.large_files.or_else(|| Some(self.store.as_ref()?.join(LARGE_FOLDER)));
        let folder = folder.map(|path| Folder::new(&path, self.large_space));

        let kept = match (&self.credential, &store) {
            (None, Some(store)) => OwnPass(store).load(&self.ticket.mesh, &public)?,
            _ => None,
        };
        let credential = self.credential.or(kept.map(Credential::new));
        let (credential, issuer) = match self.issuer {
            Some(authority) if authority.mesh() == self.ticket.mesh => {
                let own = own_pass(&authority, public, &self.name)?;
                let mut issuer = Issuer::new(authority, time::now(), rt::rng("issuer"));
                if let Some(store) = &store {
                    SignedPasses(store).restore(&mut issuer)?;
                }
                (Some(Credential::new(own)), Some(issuer))
            }
            Some(_) => return Err(Error::NotTheAuthority),
            None => (credential, None),
        };

        let revoked = match &store {
            Some(store) => OwnRevocations(store).load(&self.ticket.mesh)?,
            None => Vec::new(),
        };

        let mut keyring = Keyring::new(&self.ticket);
        if let Some(store) = &store {
            OwnSecret(store).restore(&mut keyring, seconds_now())?;
        }
        let mut ticket = self.ticket;
        keyring.fill(&mut ticket);

        let mut roles = Roles::NONE;
        if self.role == Role::Worker {
            roles = roles.with(Roles::WORKER);
        }
        if store.is_some() {
            roles = roles.with(Roles::STORE);
        }
        let meta = Meta::new(
            roles,
            self.handlers.kinds().map(|(kind, _)| kind.to_owned()).collect(),
            self.weight,
            env!("CARGO_PKG_VERSION").to_owned(),
        )?;
        let now = time::now();
        let pass = credential.as_ref().map(|credential| credential.pass().clone());
        let holder = self.holder.unwrap_or_else(|| key.clone());
        let mut detector = Detector::new(
            self.detector,
            Notary::new(ticket.mesh, key.clone(), pass.clone()),
            boot,
            meta,
            self.role == Role::Observer,
            now,
            rt::rng("membership"),
        );
        let config = TransportConfig {
            key,
            ticket,
            credential,
            name: self.name,
            allow: self.allow,
            boot,
            listed: self.role != Role::Observer,
            listen: self.listen,
            limits: self.limits,
            versions: self.versions,
        };
        let addr = config.listen.to_string();
        let mut transport = Transport::new(&config, now, time::unix_now(), rt::rng);
        for entry in &revoked {
            let out = transport.revoke(now, entry).unwrap_or_default();
            out.into_iter().for_each(|peer| detector.shun(peer));
        }
        transport.expire_revocations(now);
        detector.set_revocations(transport.revocations());

        let span = log::span(&public);
        rt::known_as(&public.short());
        rt::known_as(&public.to_string());
        let first = set_aside.map(|SetAside { path, reason }| NodeEvent::StoreSetAside { path, reason });
        let bus = span.in_scope(|| Bus::beginning_with(first));
        let (net, net_commands) = mpsc::channel(NET_QUEUE);
        let (work, work_commands) = mpsc::channel(NET_QUEUE);
        let (work_input, work_inputs) = mpsc::channel(WORK_QUEUE);
        let (view, views) = watch::channel(Arc::new(View::default()));
        let (datagrams_in, datagrams) = mpsc::channel(APPLICATION_QUEUE);
        let (messages_in, messages) = mpsc::channel(APPLICATION_QUEUE);
        let (groups_in, groups) = mpsc::channel(APPLICATION_QUEUE);

        let waiting = Waiting::new();
        let (large_input, large_inputs) = mpsc::channel(large::INPUTS);
        let large_stats = Arc::new(LargeStats::default());
        let (desk, large_orders) = Desk::new(folder.clone(), planes.clone());

        // The sockets belong to the network plane's runtime, so they are opened there.
        let (role, mesh, hubs, net_bus) =
            (self.role, config.ticket.mesh, config.ticket.hubs.clone(), bus.clone());
        let open = async move {
            let driver = Driver::open(&config, &mut transport).await?;
            Ok::<_, std::io::Error>((driver, transport))
        };
        let opened = planes.spawn(Plane::Net, open.instrument(span.clone()));
        let (driver, transport) = match opened.await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Err(Error::Listen { addr, error }),
            Err(error) => {
                return Err(Error::Listen { addr, error: std::io::Error::other(error.to_string()) });
            }
        };
        let local_addrs = driver.local_addrs();
        let parts = NetParts {
            transport,
            driver,
            detector,
            role,
            pass: pass.clone(),
            keyring,
            issuer,
            hubs,
            commands: net_commands,
            channels: Channels {
                work: work_input,
                large: large_input,
                large_stats: large_stats.clone(),
                view,
                datagrams: datagrams_in,
                messages: messages_in,
                groups: groups_in,
                waiting: waiting.clone(),
                bus: net_bus,
            },
        };
        let work_plane = WorkPlane::new(WorkParts {
            key: public,
            boot,
            role,
            pass,
            holder,
            mesh,
            revoked,
            planes: planes.clone(),
            handlers: self.handlers,
            store,
            commands: work_commands,
            inputs: work_inputs,
            views,
            net: net.downgrade(),
            bus: bus.clone(),
            desk: desk.clone(),
            large_stats: large_stats.clone(),
        })?;
        let large_files = LargeFiles::new(LargeParts {
            local: public,
            folder,
            orders: large_orders,
            inputs: large_inputs,
            waiting: waiting.large.clone(),
            net: net.downgrade(),
            planes: planes.clone(),
            stats: large_stats,
        });
        let (net_guard, work_guard, ending) = ending::guards(&bus, &net);
        let net_plane = async move { net_guard.run(NetPlane::new(parts).run()).await };
        planes.spawn(Plane::Net, net_plane.instrument(span.clone()));
        planes.spawn(Plane::Work, work_guard.run(work_plane.run()).instrument(span.clone()));
        planes.spawn(Plane::Work, large_files.run().instrument(span));
        Ok(Node(Arc::new(Inner {
            key: public,
            mesh,
            local_addrs,
            net,
            work,
            desk,
            ending,
            bus,
            datagrams: Mutex::new(Datagrams { batches: datagrams, begun: VecDeque::new() }),
            messages: Mutex::new(messages),
            groups: Mutex::new(groups),
            waiting,
            _planes: planes,
        })))
    }
}

/// An issuer's own pass. It is above a revocation of this very second.
fn own_pass(authority: &AuthorityKey, key: PublicKey, name: &str) -> Result<Pass, Error> {
    let now = seconds_now();
    let grant = Grant::new(key, Level::Issuer, now.saturating_add(1), now.saturating_add(LIFE));
    let grant = Grant { name: fitting_name(name).to_owned(), ..grant };
    grant.sign(authority).map_err(|_| Error::NotTheAuthority)
}

/// The wall clock, as signed statements count.
fn seconds_now() -> u32 {
    u32::try_from(time::unix_now().as_secs()).unwrap_or(u32::MAX)
}
