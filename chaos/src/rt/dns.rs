//! The resolver of a host, with tokio's signature.

use super::time;
use crate::ids::HostId;
use crate::kernel::names::{ASK_ATTEMPTS, ASK_TIMEOUT};
use crate::world::dns::{self, Reply};
use crate::world::sim;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

/// Resolves `host:port`, in which the host is `localhost`, the name of a host of the world, or an address.
///
/// The name of a host is asked from a name server in the internet: the answer takes a round trip of the caller's way out.
/// It has all addresses of the host's interfaces that are up, those of IPv6 first if the caller has an IPv6 address, else
/// those of IPv4. Without an answer the resolver asks again after 5 s, and gives up after 10 s, as glibc's does
/// (resolv.conf(5)). The scenario itself gets its answer at once. Cancel safe.
///
/// # Errors
/// `NotFound` when no host has the name, or it has no address; `InvalidInput` when there is no port. `Other` as
/// getaddrinfo's EAI_AGAIN: at once if no interface leads out, as glibc's resolver can't send its question; after 10 s
/// without an answer.
pub async fn lookup_host(name: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(addr) = name.parse() {
        return Ok(vec![addr]);
    }
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is not host:port"));
    let (host, port) = name.rsplit_once(':').ok_or_else(invalid)?;
    let port: u16 = port.parse().map_err(|_| invalid())?;
    if host == "localhost" {
        return Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))]);
    }
    let asker = sim::place().map(|place| place.host);
    let may_exist = match asker {
        Some(asker) => ask(asker).await?,
        None => true,
    };
    let found = if may_exist { sim::with(|sim| dns::addresses(sim, asker, host)) } else { Vec::new() };
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{name} has no address")));
    }
    Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

/// Waits for an answer; returns whether the name may exist.
async fn ask(asker: HostId) -> io::Result<bool> {
    for attempts_left in (1..=ASK_ATTEMPTS).rev() {
        match sim::with(|sim| dns::ask(sim, asker)) {
            Reply::NoRoute => return Err(try_again()),
            // An answer to an earlier question is taken too, until the resolver has given up.
            Reply::After(after, may_exist) if after < ASK_TIMEOUT * attempts_left => {
                time::sleep(after).await;
                return Ok(may_exist);
            }
            Reply::After(..) | Reply::Silence => time::sleep(ASK_TIMEOUT).await,
        }
    }
    Err(try_again())
}

/// The error of a lookup without an answer, in the words that the standard library has for EAI_AGAIN.
fn try_again() -> io::Error {
    io::Error::other("failed to lookup address information: Temporary failure in name resolution")
}
