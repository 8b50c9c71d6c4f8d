//! `nurl hub`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use nurl::mesh::{Hub, Namespace, Ticket};
use nurl::net::hub::{self, HubConfig, HubError, HubLimits};
use nurl::net::relay::Roles;
use nurl::rt::{self, disk, net};
use nurl::{PublicKey, SecretKey};

use crate::args::{HubArgs, HubRole};
use crate::client::ticket;
use crate::event::Line;
use crate::key::bad_key_file;
use crate::out::{Code, Failure, Out, unusable};
use crate::stop::Stop;

pub(crate) async fn run(args: HubArgs, out: Out<'_>) -> Result<(), Failure> {
    let mut stop = Stop::new(args.exit_with_stdin);
    disk::create_dir_all(&args.state)
        .map_err(|error| unusable(&args.state, &error, "choose another --state"))?;
    let mut rng = rt::rng("hub");
    let key_file = args.state.join("key");
    let key =
        SecretKey::load_or_create(&key_file, &mut rng).map_err(|error| bad_key_file(&key_file, &error))?;
    let mesh_file = args.state.join("mesh");
    let known = match &args.mesh {
        Some(text) => Some(ticket(text)?),
        None if disk::exists(&mesh_file) => Some(ticket(&mesh_file.to_string_lossy())?),
        None => None,
    };
    let mut namespaces = Vec::new();
    for text in &args.namespace {
        namespaces
            .push(text.parse().map_err(|error| Failure::new(Code::Usage, format!("--namespace: {error}")))?);
    }
    // Without a ticket and without a namespace the hub makes a mesh. The id is needed before the socket is
    // bound; the address goes into the ticket after.
    let minted = known.is_none() && namespaces.is_empty();
    let mut mesh = match known {
        Some(mesh) => Some(mesh),
        None if minted => Some(Ticket::generate(Hub { key: key.public(), addr: String::new() }, &mut rng)),
        None => None,
    };
    namespaces.extend(mesh.as_ref().map(|mesh| mesh.mesh.namespace()));
    let serving = hub::serve(HubConfig {
        roles: Roles {
            relay: args.roles.contains(&HubRole::Relay),
            rendezvous: args.roles.contains(&HubRole::Rendezvous),
            stun: args.roles.contains(&HubRole::Stun),
        },
        listen: args.listen,
        key: key.clone(),
        namespaces: namespaces.clone(),
        limits: HubLimits::default(),
    })
    .await
    .map_err(|error| match error {
        HubError::PortInUse { .. } | HubError::Bind { .. } => Failure::new(Code::Resource, error.to_string()),
        other => Failure::new(Code::Usage, other.to_string()),
    })?;
    let advertised = args.advertise.clone().unwrap_or_else(|| reachable(serving.addr()).to_string());
    if let Some(mesh) = &mut mesh {
        name_this_hub(mesh, key.public(), &advertised);
        if args.mesh.is_none() {
            keep(mesh, &mesh_file)?;
        }
    }
    let key = key.public();
    rt::select! {
        announced = announce(&key, &advertised, mesh.as_ref(), &namespaces, out) => {
            announced?;
            stop.told().await;
        }
        // A reader that hangs holds up the announcement, not the end.
        () = stop.told() => {}
    }
    rt::select! {
        () = serving.shutdown() => {}
        () = stop.told() => {}
    }
    Ok(())
}

/// Where others find a hub that listens on every address: this host's first one that isn't loopback.
fn reachable(addr: SocketAddr) -> SocketAddr {
    if !addr.ip().is_unspecified() {
        return addr;
    }
    let interfaces = net::interfaces().unwrap_or_default();
    let mut usable = interfaces.iter().map(|interface| interface.addr).filter(|ip| !ip.is_loopback());
    let same_family = usable.find(|ip| ip.is_ipv4() == addr.is_ipv4());
    let loopback: IpAddr =
        if addr.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    SocketAddr::new(same_family.unwrap_or(loopback), addr.port())
}

/// Puts this hub's present address into the ticket.
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
    addr: &str,
    mesh: Option<&Ticket>,
    namespaces: &[Namespace],
    out: Out<'_>,
) -> Result<(), Failure> {
    let text = match mesh {
        Some(mesh) => {
            Some(mesh.to_text().map_err(|error| Failure::new(Code::Usage, error.to_string()))?.to_string())
        }
        None => None,
    };
    let line = Line::Ready {
        key: key.to_string(),
        addr: Some(addr.to_owned()),
        ticket: text.clone(),
        namespaces: namespaces.iter().map(ToString::to_string).collect(),
        kinds: Vec::new(),
    };
    out.lines(&line, || match text {
        Some(ticket) => vec![
            format!("Serving at {addr} (TCP and UDP)."),
            String::new(),
            "The mesh's ticket, a secret. Whoever has it may join:".to_owned(),
            String::new(),
            ticket,
            String::new(),
            "Next:  nurl worker --mesh TICKET".to_owned(),
        ],
        None => {
            vec![format!("Serving {} namespace(s) at {addr} (TCP and UDP), as {key}.", namespaces.len())]
        }
    })
    .await;
    Ok(())
}
