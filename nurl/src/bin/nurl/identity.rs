//! This machine's standing in a mesh: keys and passes in a folder of the person's own.
//!
//! `HOME/MESH/client/{key,pass}` is the person's: each command shows a slip that this key signs for a key of its own, so
//! any number of commands at once share one pass. `HOME/MESH/worker-N/{key,pass}` is a worker's, which holds its folder's
//! lock while it runs: the next start has the same key, and two workers have two.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nurl::events::{NodeEvent, ReachedIssuer};
use nurl::hub::MeshId;
use nurl::pass::{Credential, Level, Pass, Slip};
use nurl::rt::{self, disk, task, time};
use nurl::{Builder, Node, SecretKey, Ticket};

use crate::key::bad_key_file;
use crate::out::{Code, Failure, unusable};

/// The most workers on one machine with keys from here.
const MAX_WORKERS: usize = 64;

/// How long a slip counts: as long as one may.
const SLIP_LIFE: Duration = Duration::from_secs(3_600);

/// How often a command that waits for another one's first pass looks again.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A pass file is a few lines at most.
const MAX_PASS_FILE_BYTES: u64 = 1_024;

/// A key, the file of its pass, and the pass that is in it.
pub(crate) struct Identity {
    key: SecretKey,
    pass_file: PathBuf,
    pass: Option<Pass>,
    lock: Option<File>,
}

impl Identity {
    /// The identity of a key file; its pass is beside it.
    pub(crate) fn of_key_file(path: &Path, ticket: &Ticket) -> Result<Identity, Failure> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".pass");
        Identity::open(path, path.with_file_name(name), ticket)
    }

    /// The first worker's identity on this machine that no other process uses.
    pub(crate) fn of_worker(home: Option<&Path>, ticket: &Ticket) -> Result<Identity, Failure> {
        let mesh = mesh_folder(home, &ticket.mesh)?;
        for number in 1..=MAX_WORKERS {
            let folder = mesh.join(format!("worker-{number}"));
            make(&folder)?;
            if let Some(lock) = try_lock(&folder)? {
                let identity = Identity::open(&folder.join("key"), folder.join("pass"), ticket)?;
                return Ok(Identity { lock: Some(lock), ..identity });
            }
        }
        let message = format!("{MAX_WORKERS} workers run on this machine: give this one a key with --key");
        Err(Failure::new(Code::Resource, message))
    }

    /// The issuer's identity on this machine. A copy of the authority's folder has another one elsewhere, so that two
    /// issuers don't replace each other at a hub.
    pub(crate) fn of_issuer(home: Option<&Path>, ticket: &Ticket) -> Result<Identity, Failure> {
        let folder = mesh_folder(home, &ticket.mesh)?.join("issuer");
        make(&folder)?;
        let Some(lock) = try_lock(&folder)? else {
            let message = "this machine issues the mesh's passes already: stop the other `nurl mesh serve`";
            return Err(Failure::new(Code::Resource, message));
        };
        let identity = Identity::open(&folder.join("key"), folder.join("pass"), ticket)?;
        Ok(Identity { lock: Some(lock), ..identity })
    }

    /// The key.
    pub(crate) fn key(&self) -> &SecretKey {
        &self.key
    }

    /// The pass, if there is one.
    pub(crate) fn pass(&self) -> Option<&Pass> {
        self.pass.as_ref()
    }

    /// Keeps a pass for the next start.
    pub(crate) fn put(&self, pass: &Pass) -> Result<(), Failure> {
        disk::atomic_replace(&self.pass_file, pass.as_bytes())
            .map_err(|error| unusable(&self.pass_file, &error, "choose another --home"))
    }

    fn open(key_file: &Path, pass_file: PathBuf, ticket: &Ticket) -> Result<Identity, Failure> {
        let key = SecretKey::load_or_create(key_file, &mut rt::rng("key"))
            .map_err(|error| bad_key_file(key_file, &error))?;
        let pass = load(&pass_file, ticket, &key);
        Ok(Identity { key, pass_file, pass, lock: None })
    }

    /// Sets the key and the pass of a node.
    pub(crate) fn equip(&self, builder: Builder) -> Builder {
        let builder = builder.key(self.key.clone()).name(&host_name());
        match &self.pass {
            Some(pass) => builder.credential(Credential::new(pass.clone())),
            None => builder,
        }
    }

    /// Keeps the passes that the node gets while it runs.
    pub(crate) fn keep_passes(mut self, node: &Node) {
        let mut events = node.events();
        task::spawn(async move {
            while let Some(event) = events.next().await {
                if let NodeEvent::Issued { pass, issuer, hub } = event {
                    let reached = ReachedIssuer { key: issuer, hub, at: time::unix_now() };
                    // For `nurl status` alone.
                    let _ = disk::atomic_replace(&issuer_file(&self.pass_file), line(&reached).as_bytes());
                    // Without it, the next start asks for the same pass again.
                    let _ = disk::atomic_replace(&self.pass_file, pass.as_bytes());
                    if self.pass.replace(pass).is_none() {
                        // A worker holds its lock on; a command's first pass lets the others go.
                        self.lock = self.lock.take().filter(|_| !self.pass_file.ends_with("client/pass"));
                    }
                }
            }
        });
    }
}

/// Every identity that this machine has for a mesh: the person's, made if there is none, and the workers'.
pub(crate) fn identities(home: Option<&Path>, ticket: &Ticket) -> Result<Vec<Identity>, Failure> {
    let mesh = mesh_folder(home, &ticket.mesh)?;
    let client = mesh.join("client");
    make(&client)?;
    let workers = (1..=MAX_WORKERS).map(|number| mesh.join(format!("worker-{number}")));
    std::iter::once(client)
        .chain(workers.filter(|folder| disk::exists(&folder.join("key"))))
        .map(|folder| Identity::open(&folder.join("key"), folder.join("pass"), ticket))
        .collect()
}

/// The issuer from which this machine's commands had their last pass.
pub(crate) fn last_issuer(home: Option<&Path>, mesh: &MeshId) -> Option<ReachedIssuer> {
    let pass_file = mesh_folder(home, mesh).ok()?.join("client").join("pass");
    let bytes = disk::read(&issuer_file(&pass_file), MAX_PASS_FILE_BYTES).ok()?;
    reached(std::str::from_utf8(&bytes).ok()?)
}

/// The file beside a pass that says where it came from: the issuer's key, the hub's, and the second since 1970.
fn issuer_file(pass_file: &Path) -> PathBuf {
    let mut name = pass_file.file_name().unwrap_or_default().to_owned();
    name.push(".issuer");
    pass_file.with_file_name(name)
}

fn line(reached: &ReachedIssuer) -> String {
    format!("{} {} {}\n", reached.key, reached.hub, reached.at.as_secs())
}

fn reached(line: &str) -> Option<ReachedIssuer> {
    let mut words = line.split_whitespace();
    let (key, hub) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(ReachedIssuer { key, hub, at: Duration::from_secs(words.next()?.parse().ok()?) })
}

/// With what a command's node joins.
pub(crate) struct Equipment {
    /// Its own key: a throwaway one, or the person's.
    pub(crate) key: SecretKey,
    /// The person's key, which signs what outlives the command.
    pub(crate) holder: SecretKey,
    /// What it shows.
    pub(crate) credential: Option<Credential>,
    /// The person's identity, if the person's pass is still to come.
    pub(crate) first: Option<Identity>,
}

/// Equips a command's node: with a slip of the person's pass, or with the person's own key if there is no pass yet, or it
/// is due for renewal. Commands that start together without a pass wait for the first one's.
pub(crate) async fn of_command(
    home: Option<&Path>,
    ticket: &Ticket,
    limit: Duration,
) -> Result<Equipment, Failure> {
    let folder = mesh_folder(home, &ticket.mesh)?.join("client");
    make(&folder)?;
    let begun = time::now();
    loop {
        let identity = Identity::open(&folder.join("key"), folder.join("pass"), ticket)?;
        if let Some(pass) = &identity.pass
            && !pass.is_due_for_renewal(unix_now())
        {
            let key = SecretKey::generate(&mut rt::rng("throwaway key"));
            let level = pass.grant().level.min(Level::Submit);
            let not_after = unix_now().saturating_add(SLIP_LIFE.as_secs() as u32);
            let slip = Slip { key: key.public(), level, not_after }.sign(&identity.key, &ticket.mesh);
            let credential = Some(Credential::with_slip(pass.clone(), slip));
            return Ok(Equipment { key, holder: identity.key, credential, first: None });
        }
        let lock = try_lock(&folder)?;
        if lock.is_some() || time::now() - begun >= limit {
            let (key, pass) = (identity.key.clone(), identity.pass.clone());
            let (holder, credential) = (key.clone(), pass.map(Credential::new));
            return Ok(Equipment { key, holder, credential, first: Some(Identity { lock, ..identity }) });
        }
        time::sleep(LOOK_EVERY).await;
    }
}

fn unix_now() -> u32 {
    u32::try_from(time::unix_now().as_secs()).unwrap_or(u32::MAX)
}

/// The pass in a file, if it is one of this mesh and key. A damaged file counts as none: the issuer gives the same again.
fn load(file: &Path, ticket: &Ticket, key: &SecretKey) -> Option<Pass> {
    let bytes = disk::read(file, MAX_PASS_FILE_BYTES).ok()?;
    Pass::decode(&ticket.mesh, &bytes).ok().filter(|pass| pass.grant().key == key.public())
}

/// The folder of this machine's standing in a mesh.
fn mesh_folder(home: Option<&Path>, mesh: &MeshId) -> Result<PathBuf, Failure> {
    let home = match home {
        Some(home) => home.to_owned(),
        None => default_home().ok_or_else(|| {
            let message = "no home directory for keys and passes: give --home or NURL_HOME a folder";
            Failure::new(Code::Usage, message)
        })?,
    };
    let mesh = mesh.to_string();
    Ok(home.join(&mesh[..16]))
}

fn default_home() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").filter(|dir| !dir.is_empty());
    state.or_else(|| home().map(|home| Path::new(&home).join(".local/state"))).map(|dir| dir.join("nurl"))
}

fn make(folder: &Path) -> Result<(), Failure> {
    disk::create_dir_all(folder)
        .and_then(|()| disk::check_private_dir(folder))
        .map_err(|error| unusable(folder, &error, "choose another --home"))
}

/// Takes the folder's lock, if no other process has it. It ends with the process.
#[expect(clippy::disallowed_methods, reason = "the command runs on a real disk only")]
fn try_lock(folder: &Path) -> Result<Option<File>, Failure> {
    let path = folder.join("lock");
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(|error| unusable(&path, &error, "choose another --home"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(unusable(&path, &error, "choose another --home")),
    }
}

/// What a person calls this machine, if the system says.
pub(crate) fn host_name() -> String {
    let name = disk::read(Path::new("/proc/sys/kernel/hostname"), 256).unwrap_or_default();
    String::from_utf8_lossy(&name).trim().to_owned()
}
