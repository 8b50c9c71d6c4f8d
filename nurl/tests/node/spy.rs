//! A hub that records all that it sees: every plaintext of its control connections, in both directions.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nurl::hub::{Hub, HubLimits, Roles, ServedMesh};
use nurl::internals::kit::wall_clock::WallClock;
use nurl::internals::net::reach::control::Connection;
use nurl::internals::net::reach::hub::Output;
use nurl::internals::net::reach::hub::core::Hub as Core;
use nurl::internals::net::reach::relay::{ClientId, RelayStats};
use nurl::rt::net::{TcpListener, TcpStream};
use nurl::rt::{self, task, time};
use nurl::{SecretKey, Ticket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::key;

/// The interval at which a connection checks whether there is something to write.
const LOOK: Duration = Duration::from_millis(2);

struct Inner {
    core: Core,
    seen: Vec<u8>,
}

/// The recording hub.
pub(crate) struct Spy {
    pub(crate) ticket: Ticket,
    inner: Arc<Mutex<Inner>>,
}

impl Spy {
    /// Starts the hub, with the hub's own core and every role but STUN.
    pub(crate) async fn start() -> Spy {
        let key = key();
        let listener =
            TcpListener::bind("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let hub = Hub { key: key.public(), addr: addr.to_string() };
        let (authority, ticket) = Ticket::new_mesh(hub, time::unix_now(), &mut rt::rng("test ticket"));
        let roles = Roles { stun: false, ..Roles::ALL };
        let mesh = ServedMesh::issued_by(authority.into());
        let now = time::now();
        let clock = (now, WallClock::new(now, time::unix_now()));
        let core = Core::new([mesh], roles, HubLimits::default(), clock, rt::rng("spy"));
        let inner = Arc::new(Mutex::new(Inner { core, seen: Vec::new() }));
        let accepting = inner.clone();
        task::spawn(async move {
            loop {
                let (stream, remote) = listener.accept().await.unwrap();
                let id = accepting.lock().unwrap().core.handle_accept(time::now(), remote).unwrap();
                task::spawn(serve(accepting.clone(), id, stream, key.clone()));
            }
        });
        Spy { ticket, inner }
    }

    /// The relay's counters.
    pub(crate) fn relay(&self) -> RelayStats {
        self.inner.lock().unwrap().core.stats().relay
    }

    /// The number of times that the hub has seen these bytes.
    pub(crate) fn sightings(&self, bytes: &[u8]) -> usize {
        self.inner.lock().unwrap().seen.windows(bytes.len()).filter(|window| *window == bytes).count()
    }
}

async fn serve(inner: Arc<Mutex<Inner>>, id: ClientId, mut stream: TcpStream, key: SecretKey) {
    let mut noise = Connection::server(&key, &mut rt::rng("spy connection")).unwrap();
    let (mut buffer, mut plaintext, mut out) = (vec![0; 65_536], Vec::new(), Vec::new());
    let mut announced = None;
    loop {
        match time::timeout(LOOK, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(n)) => noise.handle_bytes(&buffer[..n]),
            Err(_) => {}
        }
        {
            let mut inner = inner.lock().unwrap();
            loop {
                let polled = noise.poll_message(&mut plaintext).unwrap();
                if let (None, Some(key)) = (announced, noise.peer()) {
                    announced = Some(key);
                    inner.core.handle_handshake(id, key);
                }
                if !polled {
                    break;
                }
                inner.seen.extend_from_slice(&plaintext);
                inner.core.handle_message(time::now(), id, &plaintext);
            }
            noise.poll_write(&mut out);
            while inner.core.poll_output(id, &mut plaintext) == Output::Plaintext {
                inner.seen.extend_from_slice(&plaintext);
                noise.seal(&plaintext, &mut out).unwrap();
            }
        }
        if stream.write_all(&out).await.is_err() {
            break;
        }
        out.clear();
    }
    inner.lock().unwrap().core.handle_disconnect(id);
}
