//! `nurl mesh new|serve|invite|admit|revoke|rotate|list`: what the holder of the authority's key does. Only `serve`
//! ([`issue`](crate::issue)), `revoke` and `rotate` need a connection.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use nurl::config::Role;
use nurl::hub::{Hub, issued_passes};
use nurl::pass::{
    ACCEPTED_FOR, AuthorityKey, Credential, Grant, InvitationId, Level, MAX_LIFE, MAX_NAME_BYTES, MAX_WEIGHT,
    MAX_ZONE_BYTES, Pass, Subject, Terms,
};
use nurl::rt::{self, disk, time};
use nurl::{Node, PublicKey, SecretKey, Ticket};
use rand_core::Rng as _;

use crate::args::{
    AdmitArgs, InviteArgs, MeshCommand, NewMeshArgs, Passphrase, RevokeArgs, RotateArgs, Terms as Wanted,
};
use crate::authority::{self, own_ticket};
use crate::client::{joined, state_directory};
use crate::event::Line;
use crate::issue;
use crate::out::{Code, Failure, Out, shown, unusable};

/// The life of the pass that `revoke` shows, in seconds.
const OWN_LIFE: u32 = 300;

pub(crate) async fn run(command: MeshCommand, out: Out<'_>) -> Result<(), Failure> {
    match command {
        MeshCommand::New(args) => new(args, out).await,
        MeshCommand::Serve(args) => issue::serve(args, out).await,
        MeshCommand::Passphrase(args) => authority::passphrase(args, out).await,
        MeshCommand::Invite(args) => invite(args, out).await,
        MeshCommand::Admit(args) => admit(args, out).await,
        MeshCommand::Revoke(args) => revoke(args, out).await,
        MeshCommand::Rotate(args) => rotate(args, out).await,
        MeshCommand::List { state, passphrase, .. } => list(&state, &passphrase, out).await,
    }
}

/// Makes an authority and its first ticket, for hubs that serve the mesh by its id.
async fn new(args: NewMeshArgs, out: Out<'_>) -> Result<(), Failure> {
    state_directory(&args.state)?;
    let (key_file, mesh_file) = (args.state.join("authority"), args.state.join("mesh"));
    if disk::exists(&key_file) || disk::exists(&mesh_file) {
        let folder = shown(&args.state.to_string_lossy());
        let message =
            format!("{folder} has a mesh already: choose another --state, or invite with `nurl mesh invite`");
        return Err(Failure::new(Code::Resource, message));
    }
    let mut rng = rt::rng("mesh");
    let authority = authority::draw(&mut rng);
    let mut hubs = args.hub.into_iter();
    let first = hubs.next().ok_or_else(|| Failure::new(Code::Usage, "--hub: name at least one"))?;
    let mut ticket = Ticket::generate(authority.mesh(), first, &mut rng);
    ticket.hubs.extend(hubs);
    let text = ticket.to_text().map_err(|error| Failure::new(Code::Usage, format!("--hub: {error}")))?;
    authority::keep_new(&args.state, &authority, &args.passphrase, &mut rng)?;
    disk::atomic_replace(&mesh_file, format!("{}\n", *text).as_bytes())
        .map_err(|error| unusable(&mesh_file, &error, "choose another --state"))?;
    let id = ticket.mesh.to_string();
    let folder = shown(&args.state.to_string_lossy());
    let line = Line::Ticket { mesh: id.clone(), ticket: text.to_string(), level: None, keys: 0, until: 0 };
    out.lines(&line, || {
        vec![
            format!("Made the mesh {id}. Its ticket admits nobody, and is for those who have a pass:"),
            String::new(),
            text.to_string(),
            String::new(),
            format!("Next:  nurl hub --mesh-id {id}   on each hub"),
            format!("       nurl mesh serve --state {folder}   here, or wherever you copy that folder"),
            format!(
                "       nurl mesh invite --state {folder}   for a ticket that admits machines while it runs"
            ),
            "Without it:  nurl mesh admit KEY   for each machine; it shows its key with `nurl pass show`"
                .to_owned(),
        ]
    })
    .await;
    Ok(())
}

/// Prints a ticket with an invitation of its own.
async fn invite(args: InviteArgs, out: Out<'_>) -> Result<(), Failure> {
    let authority = authority::open(&args.state, &args.passphrase)?;
    let mut ticket = own_ticket(&args.state, &authority)?;
    let now = unix_now();
    let Wanted { level, weight, zone } = args.terms;
    let until = now.saturating_add(seconds(args.r#for));
    if until - now > MAX_LIFE {
        return Err(Failure::new(Code::Usage, "--for: an invitation lives 90 days at most"));
    }
    let id = InvitationId::draw(&mut rt::rng("invitation"));
    let terms = Terms { id, level, weight, zone, until, keys: args.keys };
    ticket.invitation = terms.invite(&authority);
    if ticket.invitation.is_none() {
        return Err(Failure::new(Code::Usage, format!("--zone: longer than {MAX_ZONE_BYTES} bytes")));
    }
    let text = ticket.to_text().map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
    let line = Line::Ticket {
        mesh: ticket.mesh.to_string(),
        ticket: text.to_string(),
        level: Some(level.as_str()),
        keys: args.keys,
        until,
    };
    out.note(&format!(
        "A ticket, a secret. It lets in {} machines as {}, for {}. Put it into a file of mode 0600.",
        args.keys,
        level.as_str(),
        days(until, now)
    ))
    .await;
    out.line(&line, || Some(text.to_string())).await;
    Ok(())
}

/// Signs a pass for one key.
async fn admit(args: AdmitArgs, out: Out<'_>) -> Result<(), Failure> {
    let authority = authority::open(&args.state, &args.passphrase)?;
    let now = unix_now();
    let Wanted { level, weight, zone } = args.terms;
    let not_after = now.saturating_add(seconds(args.r#for));
    let mut ring_seed = [0; 8];
    rt::rng("ring seed").fill_bytes(&mut ring_seed);
    let name = args.name.unwrap_or_default();
    // Above a revocation of this very second: who is admitted after it is in.
    let grant = Grant { name, weight, zone, ring_seed, ..Grant::new(args.key, level, now + 1, not_after) };
    let pass = grant.sign(&authority).map_err(|_| {
        let message = format!(
            "a name has at most {MAX_NAME_BYTES} bytes, a zone {MAX_ZONE_BYTES}, a weight is 1 to {MAX_WEIGHT}, and a \
             pass lives 90 days at most"
        );
        Failure::new(Code::Usage, message)
    })?;
    let text = pass.to_text();
    out.note("A pass, no secret. On its machine:  nurl pass take PASS --mesh FILE").await;
    out.line(&line(&pass, Some(text.clone())), || Some(text)).await;
    Ok(())
}

/// Tells the running mesh that passes are out.
async fn revoke(args: RevokeArgs, out: Out<'_>) -> Result<(), Failure> {
    let authority = authority::open(&args.state, &args.passphrase)?;
    let ticket = own_ticket(&args.state, &authority)?;
    let subject = match (args.key, args.invitation) {
        (Some(key), _) => Subject::Key(key),
        (None, Some(invitation)) => Subject::Invitation(invitation),
        (None, None) => Subject::All,
    };
    let now = unix_now();
    let node = node_of_authority(&authority, ticket, now, args.join, out).await?;
    let entry = authority.revoke(subject, now);
    let told = node.revoke(entry).await;
    node.shutdown().await;
    told?;
    let line = Line::Revocation {
        key: args.key.map(|key| key.to_string()),
        invitation: args.invitation.map(|id| id.to_string()),
        up_to: now,
    };
    out.line(&line, || {
        Some(match subject {
            Subject::Key(key) => format!(
                "{key} is out, and the ticket by which it came admits nobody new: `nurl mesh invite` prints another."
            ),
            Subject::Invitation(id) => format!("invitation {id} is closed, and whoever came by it is out."),
            Subject::All | Subject::Secret => "everybody is out. `nurl mesh invite` begins anew.".to_owned(),
        })
    })
    .await;
    Ok(())
}

/// Gives the running mesh its next secret.
async fn rotate(args: RotateArgs, out: Out<'_>) -> Result<(), Failure> {
    let authority = authority::open(&args.state, &args.passphrase)?;
    let mut ticket = own_ticket(&args.state, &authority)?;
    let now = unix_now();
    let node = node_of_authority(&authority, ticket.clone(), now, args.join, out).await?;
    let status = node.status().await?;
    // Another copy of the authority may have rotated it meanwhile.
    let generation = status.generation.max(status.announced).checked_add(1);
    let generation =
        generation.ok_or_else(|| Failure::new(Code::Other, "the mesh has had its last secret"))?;
    let rotation = authority.rotate(generation, now);
    let secret = rotation.secret.clone();
    let handed = node.rotate(rotation).await;
    node.shutdown().await;
    let handed = handed?;
    let file = args.state.join("mesh");
    if ticket.rotate(&secret, now) {
        let text = ticket.to_text().map_err(|error| Failure::new(Code::Other, error.to_string()))?;
        disk::atomic_replace(&file, format!("{}\n", *text).as_bytes()).map_err(|error| {
            unusable(&file, &error, "the mesh has the secret; make room, and rotate again")
        })?;
    }
    let line = Line::Rotation {
        generation,
        until: now.saturating_add(ACCEPTED_FOR),
        by_hub: handed.by_hub,
        members: handed.members,
        missed: handed.missed,
    };
    out.line(&line, || {
        Some(match handed.by_hub {
            true => format!(
                "The mesh has secret {generation}. Whoever is away gets it from the hub; the one before is accepted for 7 days."
            ),
            false => format!(
                "The mesh has secret {generation}, and {} of {} members have it. No hub issues passes here, so the others and \
                 all who are away get it from `nurl mesh serve`, or by the ticket in {}; the one before is accepted for 7 days.",
                handed.members,
                handed.members + handed.missed,
                shown(&file.to_string_lossy())
            ),
        })
    })
    .await;
    Ok(())
}

/// A node with a pass that the authority signs for as long as a command takes: it needs no invitation's place, and no
/// revocation of now takes it out.
async fn node_of_authority(
    authority: &AuthorityKey,
    ticket: Ticket,
    now: u32,
    join: Duration,
    out: Out<'_>,
) -> Result<Node, Failure> {
    let key = SecretKey::generate(&mut rt::rng("throwaway key"));
    let grant = Grant::new(key.public(), Level::Look, now + 1, now + OWN_LIFE);
    let pass = grant.sign(authority).map_err(|error| Failure::new(Code::Other, error.to_string()))?;
    let _waiting = out.waiting("looking for the mesh");
    let builder = Node::builder(ticket).role(Role::Observer).key(key).credential(Credential::new(pass));
    joined(builder.spawn().await?, join).await
}

/// Shows the passes that were issued from this folder: by its hub, or by `nurl mesh serve`.
async fn list(state: &Path, passphrase: &Passphrase, out: Out<'_>) -> Result<(), Failure> {
    let authority = authority::open(state, passphrase)?;
    let mut latest = BTreeMap::new();
    for file in ["issued", "issuer/nurl.redb"] {
        let passes = issued_passes(&state.join(file), &authority.mesh())
            .map_err(|error| Failure::new(Code::Resource, error.to_string()))?;
        for pass in passes {
            let known: &mut Pass = latest.entry(pass.grant().key).or_insert_with(|| pass.clone());
            if known.grant().issued < pass.grant().issued {
                *known = pass;
            }
        }
    }
    let mut passes: Vec<Pass> = latest.into_values().collect();
    passes.sort_by_key(|pass| (pass.grant().issued, pass.grant().key));
    let now = unix_now();
    for pass in &passes {
        out.line(&line(pass, None), || Some(row(pass, now))).await;
    }
    let generation = own_ticket(state, &authority)?.generation;
    out.note(&format!("{} passes were issued here. The mesh has secret {generation}.", passes.len())).await;
    Ok(())
}

/// A pass as a line for machines.
pub(crate) fn line(pass: &Pass, text: Option<String>) -> Line {
    let grant = pass.grant();
    Line::Admitted {
        key: grant.key.to_string(),
        name: grant.name.clone(),
        level: grant.level.as_str(),
        weight: grant.weight,
        zone: grant.zone.clone(),
        invitation: grant.invitation.map(|id| id.to_string()),
        until: grant.not_after,
        pass: text,
    }
}

/// A pass as a row for people.
pub(crate) fn row(pass: &Pass, now: u32) -> String {
    let grant = pass.grant();
    let by = match grant.invitation {
        Some(id) => format!("invitation {id}"),
        None => "admitted by hand".to_owned(),
    };
    let life = days(grant.not_after, now);
    format!("{}  {:<7} {life:<12} {by}  {}", grant.key, grant.level.as_str(), grant.name)
}

/// How long until this second, for people.
fn days(until: u32, now: u32) -> String {
    match until.checked_sub(now) {
        None => "expired".to_owned(),
        Some(left) if left < 2 * 86_400 => format!("{} hours", left / 3_600),
        Some(left) => format!("{} days", left / 86_400),
    }
}

/// `KEY@HOST:PORT`.
pub(crate) fn parse_hub(text: &str) -> Result<Hub, String> {
    let (key, addr) =
        text.split_once('@').ok_or("expected KEY@HOST:PORT, as a hub shows them when it starts")?;
    let key: PublicKey = key.parse().map_err(|error| format!("{error}"))?;
    Ok(Hub { key, addr: crate::args::parse_host_port(addr)? })
}

pub(crate) fn unix_now() -> u32 {
    u32::try_from(time::unix_now().as_secs()).unwrap_or(u32::MAX)
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
