//! `nurl mesh serve`: a machine with the authority's key issues passes through hubs that don't have it.

use std::sync::Arc;

use nurl::Node;
use nurl::rt;

use crate::args::ServeArgs;
use crate::authority::{self, own_ticket};
use crate::client::state_directory;
use crate::event::Line;
use crate::identity::{Identity, host_name};
use crate::out::{Failure, Out};
use crate::stop::Stop;
use crate::worker::tell_all;

/// The folder within the state folder for what an issuer remembers.
pub(crate) const MEMORY: &str = "issuer";

/// Joins and issues until a stop request.
pub(crate) async fn serve(args: ServeArgs, out: Out<'_>) -> Result<(), Failure> {
    let mut stop = Stop::new(args.exit_with_stdin);
    let authority = authority::open(&args.state, &args.passphrase)?;
    let ticket = own_ticket(&args.state, &authority)?;
    let identity = Identity::of_issuer(args.home.as_deref(), &ticket)?;
    let memory = args.state.join(MEMORY);
    state_directory(&memory)?;
    let mesh = ticket.mesh.to_string();
    let builder = Node::builder(ticket).key(identity.key().clone()).name(&host_name());
    let node = builder.issuer(Arc::new(authority)).store(&memory).spawn().await?;
    let serving = async {
        node.joined(args.join).await?;
        let key = node.key().to_string();
        let human = format!("{key} issues passes for the mesh {mesh}.");
        let line = Line::Ready {
            key,
            addr: None,
            addr_from: None,
            ticket: None,
            meshes: vec![mesh.clone()],
            kinds: Vec::new(),
        };
        out.line(&line, || Some(human)).await;
        tell_all(&node, node.events(), out).await
    };
    let done = rt::select! {
        () = stop.told() => Ok(()),
        ended = serving => ended,
    };
    rt::select! {
        _ = node.shutdown() => {}
        () = stop.told() => {}
    }
    drop(identity);
    done
}
