//! `nurl pass show|take`: this machine's standing in a mesh.

use nurl::Ticket;
use nurl::pass::Pass;

use crate::args::{PassArgs, PassCommand};
use crate::client::ticket;
use crate::event::Line;
use crate::identity::{Identity, identities};
use crate::mesh::{line, row, unix_now};
use crate::out::{Code, Failure, Out};

pub(crate) async fn run(command: PassCommand, out: Out<'_>) -> Result<(), Failure> {
    match command {
        PassCommand::Show(args) => show(args, out).await,
        PassCommand::Take { pass, place } => take(&pass, place, out).await,
    }
}

/// Shows each key that this machine has for the mesh, and its pass.
async fn show(args: PassArgs, out: Out<'_>) -> Result<(), Failure> {
    let ticket = ticket(&args.mesh)?;
    let now = unix_now();
    for identity in held(&args, &ticket)? {
        let key = identity.key().public().to_string();
        match identity.pass() {
            Some(pass) => out.line(&line(pass, Some(pass.to_text())), || Some(row(pass, now))).await,
            None => out.line(&Line::Key { key: key.clone() }, || Some(format!("{key}  no pass yet"))).await,
        }
    }
    Ok(())
}

/// Keeps a pass that `nurl mesh admit` printed.
async fn take(text: &str, args: PassArgs, out: Out<'_>) -> Result<(), Failure> {
    let ticket = ticket(&args.mesh)?;
    let pass = Pass::from_text(&ticket.mesh, text).map_err(|error| {
        Failure::new(Code::Usage, format!("{error}: give what `nurl mesh admit` printed"))
    })?;
    for identity in held(&args, &ticket)? {
        if identity.key().public() == pass.grant().key {
            identity.put(&pass)?;
            out.line(&line(&pass, None), || Some(row(&pass, unix_now()))).await;
            return Ok(());
        }
    }
    let message = format!(
        "the pass is for {}, and this machine has no such key for this mesh: name its key file with --key",
        pass.grant().key
    );
    Err(Failure::new(Code::Usage, message))
}

/// The named key file's identity, or all that the home folder has for the mesh.
fn held(args: &PassArgs, ticket: &Ticket) -> Result<Vec<Identity>, Failure> {
    match &args.key {
        Some(file) => Ok(vec![Identity::of_key_file(file, ticket)?]),
        None => identities(args.home.as_deref(), ticket),
    }
}
