//! Making the plane of what the builder gives.

use std::sync::Arc;

use super::WorkPlane;
use super::calls::Calls;
use super::committer::Committer;
use super::detached::DetachedCalls;
use super::durable::{self, Durable};
use super::inlets::Inlets;
use super::large::LargeTasks;
use super::leaving::Leaving;
use super::outputs::Outputs;
use super::placing::Placing;
use super::recipe::Recipe;
use super::tasks::Tasks;
use crate::authority::checker::Standing;
use crate::authority::pass::Pass;
use crate::authority::revocation::Revocation;
use crate::compute::blob::desk::Desk;
use crate::compute::job::custody::{Custody, Signer};
use crate::compute::job::warrant::Warrants;
use crate::compute::job::{self, Jobs};
use crate::compute::pool::{Handlers, Pool};
use crate::error::Error;
use crate::key::{PublicKey, SecretKey};
use crate::kit::wall_clock::WallClock;
use crate::mesh::MeshId;
use crate::node::Role;
use crate::node::command::{NetCommand, View, WorkCommand, WorkInput};
use crate::node::event::Bus;
use crate::node::large::LargeStats;
use crate::rt::sync::{mpsc, watch};
use crate::rt::task::Planes;
use crate::rt::{self, time};
use crate::store::Store;

/// Results and notes of handlers queued for this plane; a full channel makes handlers wait before they end.
const REPORTS: usize = 1_024;

/// Everything that the plane needs from the builder.
pub(in super::super) struct WorkParts {
    pub(in super::super) key: PublicKey,
    pub(in super::super) boot: u64,
    pub(in super::super) role: Role,
    /// Its pass, if it has one already; that of another holder, if it is here by a slip.
    pub(in super::super) pass: Option<Pass>,
    /// The key of the pass's holder, as far as this node has it.
    pub(in super::super) holder: SecretKey,
    pub(in super::super) mesh: MeshId,
    pub(in super::super) revoked: Vec<Revocation>,
    pub(in super::super) planes: Planes,
    pub(in super::super) handlers: Handlers,
    pub(in super::super) store: Option<Store>,
    pub(in super::super) commands: mpsc::Receiver<WorkCommand>,
    pub(in super::super) inputs: mpsc::Receiver<WorkInput>,
    pub(in super::super) views: watch::Receiver<Arc<View>>,
    pub(in super::super) net: mpsc::WeakSender<NetCommand>,
    pub(in super::super) bus: Bus,
    pub(in super::super) desk: Desk,
    pub(in super::super) large_stats: Arc<LargeStats>,
}

impl WorkPlane {
    /// The plane of a node that begins, with what its store remembers.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(in super::super) fn new(parts: WorkParts) -> Result<WorkPlane, Error> {
        let now = time::now();
        let store = parts.store.as_ref();
        let config = job::Config { initial_epoch: durable::epoch(store)?, ..job::Config::default() };
        let mut jobs = Jobs::new(config, parts.key, parts.boot, now, rt::rng("jobs"));
        jobs.set_unix_now(time::unix_now());
        for (kind, limits) in parts.handlers.kinds() {
            jobs.register(kind, limits.clone());
        }
        for (kind, needs) in parts.handlers.policies() {
            jobs.allow(kind, needs.clone());
        }
        if let Some(pass) = &parts.pass {
            jobs.set_standing(Standing::of(pass));
        }
        let recipe = Recipe { key: parts.key, boot: parts.boot, observer: parts.role == Role::Observer };
        let replicator = recipe.replicator(store, None)?;
        let warrants = || {
            let wall = WallClock::new(now, time::unix_now());
            Warrants::new(parts.mesh, wall, &parts.revoked)
        };
        jobs.set_warrants(warrants());
        let signer = Signer { holder: parts.holder.clone(), pass: parts.pass.clone(), mesh: parts.mesh };
        let whose = (parts.key, parts.boot, store.is_some());
        let mut custody = Custody::new(whose, signer, warrants(), time::unix_now());
        if let Some(store) = store {
            durable::restore_detached(store, &mut custody, now)?;
            durable::reserve_epochs(store, &mut jobs)?;
        }
        let committer = parts.store.map(|store| Committer::start(store, recipe, &parts.planes));
        let (reports_in, reports) = mpsc::channel(REPORTS);
        Ok(WorkPlane {
            jobs,
            pool: Pool::new(parts.planes, parts.handlers, reports_in).with_desk(parts.desk.clone()),
            large: LargeTasks::new(parts.desk),
            large_stats: parts.large_stats,
            custody,
            replicator,
            durable: Durable::new(committer),
            waiting: Outputs::default(),
            inlets: Inlets::new(parts.commands, parts.inputs, parts.views, reports),
            net: parts.net,
            tasks: Tasks::new(parts.bus.clone()),
            bus: parts.bus,
            calls: Calls::default(),
            detached: DetachedCalls::default(),
            placing: Placing::default(),
            leaving: Leaving::default(),
        })
    }
}
