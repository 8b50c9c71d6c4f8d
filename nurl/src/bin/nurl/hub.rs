//! `nurl hub`.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use nurl::hub::{
    self, Hub, HubConfig, HubError, HubLimits, MeshId, Roles, ServedMesh, Why, advertise, default_sources,
};
use nurl::pass::AuthorityKey;
use nurl::rt::{self, disk, net, time};
use nurl::{PublicKey, SecretKey, Ticket};

use crate::args::{HubArgs, HubRole, Passphrase, listen};
use crate::authority;
use crate::client::{state_directory, ticket};
use crate::event::Line;
use crate::key::bad_key_file;
use crate::mesh::unix_now;
use crate::out::{Code, Failure, Out, shown, unusable};
use crate::stop::Stop;

pub(crate) async fn run(args: HubArgs, out: Out<'_>) -> Result<(), Failure> {
    let mut stop = Stop::new(args.exit_with_stdin);
    let listen = listen(args.listen)?;
    state_directory(&args.state)?;
    let mut rng = rt::rng("hub");
    let mesh_file = args.state.join("mesh");
    let known = match &args.mesh {
        Some(text) => Some(ticket(text)?),
        None if disk::exists(&mesh_file) => Some(ticket(&mesh_file.to_string_lossy())?),
        None => None,
    };
    // The mesh in the state directory names the hub that created it.
    let made = known.as_ref().filter(|_| args.mesh.is_none());
    let key = own_key(&args.state, made, &mut rng)?;
    let mut served = Vec::new();
    for text in &args.mesh_id {
        let id = text.parse().map_err(|error| Failure::new(Code::Usage, format!("--mesh-id: {error}")))?;
        served.push(ServedMesh::of(id));
    }
    // Without a ticket and without an id the hub creates a mesh. Its id is needed before the socket is bound; the
    // address goes into the ticket afterwards.
    let minted = known.is_none() && served.is_empty();
    let authority = own_authority(&args.state, (minted, &args.passphrase), &mut rng)?;
    let mut mesh = match (known, &authority) {
        (Some(mesh), _) => Some(mesh),
        (None, Some(authority)) if minted => {
            let unnamed = Hub { key: key.public(), addr: String::new() };
            Some(Ticket::first(authority, unnamed, time::unix_now(), &mut rng))
        }
        (None, _) => None,
    };
    if let Some(mesh) = &mesh {
        served.push(match authority.filter(|authority| authority.mesh() == mesh.mesh) {
            Some(authority) => ServedMesh::issued_by(authority),
            None => ServedMesh::of(mesh.mesh),
        });
    }
    let ids: Vec<MeshId> = served.iter().map(|mesh| mesh.id).collect();
    let issues = served.iter().any(|mesh| mesh.authority.is_some());
    let serving = hub::serve(HubConfig {
        roles: Roles {
            relay: args.roles.contains(&HubRole::Relay),
            rendezvous: args.roles.contains(&HubRole::Rendezvous),
            stun: args.roles.contains(&HubRole::Stun),
        },
        listen,
        key: key.clone(),
        meshes: served,
        issued: issues.then(|| args.state.join("issued")),
        limits: HubLimits::default(),
    })
    .await
    .map_err(|error| match error {
        HubError::PortInUse { .. } | HubError::Bind { .. } | HubError::Issued(_) => {
            Failure::new(Code::Resource, error.to_string())
        }
        other => Failure::new(Code::Usage, other.to_string()),
    })?;
    let advertised = match args.advertise {
        Some(addr) => Advertised { addr, from: "option", remark: None },
        None => reachable(serving.addrs()),
    };
    if let Some(mesh) = &mut mesh {
        name_this_hub(mesh, key.public(), &advertised.addr);
        // A rotation since the ticket was written: by another copy of the authority, or by a command that was cut short.
        if let Some(secret) = serving.secret(&mesh.mesh) {
            mesh.rotate(&secret, unix_now());
        }
        if args.mesh.is_none() {
            keep(mesh, &mesh_file)?;
        }
    }
    let key = key.public();
    let announcement = async {
        announce(&key, advertised, mesh.as_ref(), &ids, out).await?;
        Err(Failure::new(
            Code::Resource,
            format!("the hub's UDP socket can't receive: {}", serving.failed().await),
        ))
    };
    let done = rt::select! {
        // A hanging reader holds up the announcement, not the end.
        () = stop.told() => Ok(()),
        failed = announcement => failed,
    };
    rt::select! {
        () = serving.shutdown() => {}
        () = stop.told() => {}
    }
    done
}

/// The hub's key, created at its first start. It isn't created beside a mesh that names another key: every ticket of
/// that mesh would lead to a hub that can't prove its identity.
fn own_key(state: &Path, made: Option<&Ticket>, rng: &mut rt::Rng) -> Result<SecretKey, Failure> {
    let file = state.join("key");
    let lost = |fate: &str| {
        let mesh = state.join("mesh");
        let (file, mesh) = (shown(&file.to_string_lossy()), shown(&mesh.to_string_lossy()));
        let hubs = made.map_or_else(Vec::new, |made| made.hubs.iter().map(|hub| hub.key.short()).collect());
        let hubs = hubs.join(", ");
        Failure::new(
            Code::Resource,
            format!(
                "{file} {fate}, and {mesh} is a mesh of hub {hubs}: put that key back, or serve the mesh as a further \
                 hub with --mesh {mesh}, or make another mesh with another --state"
            ),
        )
    };
    if made.is_some() && !disk::exists(&file) {
        return Err(lost("is gone"));
    }
    let key = SecretKey::load_or_create(&file, rng).map_err(|error| bad_key_file(&file, &error))?;
    if made.is_some_and(|made| made.hubs.iter().all(|hub| hub.key != key.public())) {
        return Err(lost("is another key"));
    }
    Ok(key)
}

/// The authority's key of a mesh that this hub made.
fn own_authority(
    state: &Path,
    (mint, by): (bool, &Passphrase),
    rng: &mut rt::Rng,
) -> Result<Option<Arc<AuthorityKey>>, Failure> {
    let known = authority::open_if_any(state, by)?;
    if known.is_some() || !mint {
        return Ok(known.map(Arc::new));
    }
    let new = authority::draw(rng);
    authority::keep_new(state, &new, by, rng)?;
    Ok(Some(Arc::new(new)))
}

/// The address at which others find this hub.
struct Advertised {
    /// `host:port`, as in the ticket.
    addr: String,
    /// How it was found, in one word for machines.
    from: &'static str,
    /// The same, in a sentence for a person.
    remark: Option<String>,
}

/// The address for a hub that listens at `bound`: a specific one among them, or this host's best one.
fn reachable(bound: &[SocketAddr]) -> Advertised {
    if let Some(addr) = bound.iter().find(|addr| !addr.ip().is_unspecified()) {
        return Advertised { addr: addr.to_string(), from: "listen", remark: None };
    }
    let (v4, v6) = (bound.iter().any(SocketAddr::is_ipv4), bound.iter().any(SocketAddr::is_ipv6));
    let sources = default_sources();
    let choice = advertise(&net::interfaces().unwrap_or_default(), &sources, v4, v6);
    let port = bound.iter().find(|addr| addr.is_ipv4() == choice.ip.is_ipv4()).or(bound.first());
    let addr = SocketAddr::new(choice.ip, port.map_or(0, SocketAddr::port)).to_string();
    let interface = choice.interface.map(|name| format!(" of {name}")).unwrap_or_default();
    let why = match choice.why {
        Why::DefaultRoute => "this host's default route leaves from it",
        Why::Interface => "this host has no default route",
        Why::Bridge => "only bridges of containers have addresses here",
        Why::Loopback => "this host has no other, so only its own processes reach the hub",
    };
    // The ticket holds one address per hub; a DNS name can stand for several.
    let both = sources.iter().any(IpAddr::is_ipv4) && sources.iter().any(IpAddr::is_ipv6) && v4 && v6;
    let names = if both { " (a name may stand for IPv4 and IPv6 alike)" } else { "" };
    let remark =
        format!("The ticket says {addr}{interface}: {why}. --advertise HOST:PORT says otherwise{names}.");
    Advertised { addr, from: choice.why.as_str(), remark: Some(remark) }
}

/// Puts this hub's current address into the ticket.
fn name_this_hub(mesh: &mut Ticket, key: PublicKey, addr: &str) {
    match mesh.hubs.iter_mut().find(|hub| hub.key == key) {
        Some(hub) => hub.addr = addr.to_owned(),
        None => mesh.hubs.push(Hub { key, addr: addr.to_owned() }),
    }
}

/// Writes the ticket beside the key, so that a restart prints the same one.
fn keep(mesh: &Ticket, path: &Path) -> Result<(), Failure> {
    let text = mesh.to_text().map_err(|error| Failure::new(Code::Usage, format!("--advertise: {error}")))?;
    let unchanged = disk::read(path, 4_096).is_ok_and(|old| old.trim_ascii() == text.as_bytes());
    if unchanged {
        return Ok(());
    }
    disk::atomic_replace(path, format!("{}\n", *text).as_bytes())
        .map_err(|error| unusable(path, &error, "choose another --state"))
}

async fn announce(
    key: &PublicKey,
    advertised: Advertised,
    mesh: Option<&Ticket>,
    meshes: &[MeshId],
    out: Out<'_>,
) -> Result<(), Failure> {
    let text = match mesh {
        Some(mesh) => {
            Some(mesh.to_text().map_err(|error| Failure::new(Code::Usage, error.to_string()))?.to_string())
        }
        None => None,
    };
    let Advertised { addr, from, remark } = advertised;
    if let Some(remark) = remark {
        out.note(&remark).await;
    }
    let line = Line::Ready {
        key: key.to_string(),
        addr: Some(addr.clone()),
        addr_from: Some(from),
        ticket: text.clone(),
        meshes: meshes.iter().map(ToString::to_string).collect(),
        kinds: Vec::new(),
    };
    out.lines(&line, || match text {
        Some(ticket) => vec![
            format!("Serving at {addr} (TCP and UDP)."),
            String::new(),
            "The mesh's ticket, a secret. It lets in 64 machines, for 90 days:".to_owned(),
            String::new(),
            ticket,
            String::new(),
            "Next:  nurl worker --mesh FILE, where FILE holds the ticket (mode 0600)".to_owned(),
        ],
        None => {
            vec![format!("Serving {} mesh(es) at {addr} (TCP and UDP), as {key}.", meshes.len())]
        }
    })
    .await;
    Ok(())
}
