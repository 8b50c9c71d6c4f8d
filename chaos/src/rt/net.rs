//! UDP with batches, TCP, names, and the interface list of a host.

use crate::kernel::process::dead;
use crate::kernel::udp::MAX_SEGMENTS;
use crate::world::sim;
use crate::world::traffic::SocketId;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::time::{now, sleep, sleep_until};

pub use super::dns::lookup_host;
pub use super::tcp::{OwnedReadHalf, OwnedWriteHalf, TcpListener, TcpStream};

/// A UDP socket that sends and receives batches: one call may carry up to
/// [`max_gso_segments`](UdpSocket::max_gso_segments) datagrams of equal size.
#[derive(Debug)]
pub struct UdpSocket {
    id: SocketId,
    local: SocketAddr,
}

/// One send: a datagram, or several of `segment_size` bytes each (the last may be shorter).
#[derive(Debug, Clone)]
pub struct Transmit<'a> {
    /// The destination.
    pub destination: SocketAddr,
    /// The bytes, one segment after the other.
    pub contents: &'a [u8],
    /// The size of a segment; `None` for a single datagram.
    pub segment_size: Option<usize>,
    /// The local address to send from; `None` lets routing choose.
    pub src_ip: Option<IpAddr>,
}

/// The content of one receive buffer: `len` bytes in datagrams of `stride` bytes (the last may be shorter), all from
/// one source. In the simulation it is one datagram.
#[derive(Debug, Clone, Copy)]
pub struct RecvMeta {
    /// The source.
    pub addr: SocketAddr,
    /// Bytes in the buffer.
    pub len: usize,
    /// Bytes of each datagram in it.
    pub stride: usize,
    /// The local address that it was sent to, where the platform reports it.
    pub dst_ip: Option<IpAddr>,
}

impl Default for RecvMeta {
    fn default() -> Self {
        RecvMeta { addr: SocketAddr::from(([0, 0, 0, 0], 0)), len: 0, stride: 0, dst_ip: None }
    }
}

/// The most buffers that one [`UdpSocket::recv`] fills.
pub const RECV_BATCH: usize = 32;

/// How often a writer looks whether there is room: a fault plan may give its link another rate meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl UdpSocket {
    /// Binds a socket. A v6 socket takes v6 only, so that both families can share a port number.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, or the caller isn't on a host whose process runs.
    pub async fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
        let place = sim::live_place()?;
        let (id, local) = sim::with(|sim| sim.udp_bind(place, addr))?;
        Ok(UdpSocket { id, local })
    }

    /// The bound address.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    /// The most segments one [`Transmit`] may have now.
    pub fn max_gso_segments(&self) -> usize {
        MAX_SEGMENTS
    }

    /// The most datagrams that one receive buffer may be filled with: one, in the simulation.
    pub fn gro_segments(&self) -> usize {
        1
    }

    /// Sends without waiting. Each segment travels as a separate datagram.
    ///
    /// # Errors
    /// `WouldBlock` while the send buffer is full, as [`Host::set_udp_send_buffer`](crate::Host::set_udp_send_buffer) has it:
    /// after it, until less than half of the buffer is in use. EMSGSIZE, `NetworkUnreachable`, `AddrNotAvailable`; they concern
    /// this send alone.
    pub fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        sim::try_with(|sim| {
            sim.udp_send(
                self.id,
                transmit.destination,
                transmit.contents,
                transmit.segment_size,
                transmit.src_ip,
            )
        })
        .unwrap_or_else(|| Err(dead()))
    }

    /// Waits until a send may succeed: after a `WouldBlock`, until less than half of the send buffer is in use. Cancel safe.
    ///
    /// # Errors
    /// When the process that bound it is gone.
    pub async fn writable(&self) -> io::Result<()> {
        let room_after = || sim::try_with(|sim| sim.udp_room_after(self.id)).unwrap_or_else(|| Err(dead()));
        while let Some(after) = room_after()? {
            sleep(after.min(LOOK_AGAIN)).await;
        }
        Ok(())
    }

    /// Waits until a receive may succeed. Cancel safe.
    ///
    /// # Errors
    /// When the process that bound it is gone.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| {
            let readable = sim::try_with(|sim| {
                let udp = &mut sim.host_mut(self.id.host).udp;
                let readable = udp.is_readable(self.id.key)?;
                if !readable {
                    udp.wait(self.id.key, cx.waker());
                }
                Ok(readable)
            });
            match readable.unwrap_or_else(|| Err(dead())) {
                Ok(true) => Poll::Ready(Ok(())),
                Ok(false) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            }
        })
        .await
    }

    /// Receives without waiting; see [`recv`](UdpSocket::recv).
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing to receive; `Unsupported` when the kernel forbids it; else the process
    /// that bound it is gone.
    pub fn try_recv(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        match self.receive(buffers, metas, None) {
            Poll::Ready(received) => received,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Receives, or registers the reader: it is woken at the next datagram.
    fn receive(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
        reader: Option<&Waker>,
    ) -> Poll<io::Result<usize>> {
        let received = sim::try_with(|sim| {
            let mut filled = 0;
            for (buffer, meta) in buffers.iter_mut().zip(metas.iter_mut()).take(RECV_BATCH) {
                match sim.udp_receive(self.id, buffer) {
                    Poll::Ready(Ok(got)) => {
                        let dst_ip = Some(got.dst_ip);
                        *meta = RecvMeta { addr: got.src, len: got.len, stride: got.len, dst_ip };
                    }
                    Poll::Ready(Err(error)) if filled == 0 => return Poll::Ready(Err(error)),
                    Poll::Pending if filled == 0 => {
                        if let Some(reader) = reader {
                            sim.host_mut(self.id.host).udp.wait(self.id.key, reader);
                        }
                        return Poll::Pending;
                    }
                    _ => break,
                }
                filled += 1;
            }
            Poll::Ready(Ok(filled))
        });
        received.unwrap_or_else(|| Poll::Ready(Err(dead())))
    }

    /// Waits for datagrams and fills up to [`RECV_BATCH`] buffers; returns how many. Cancel safe.
    ///
    /// # Errors
    /// When the process that bound it is gone.
    pub async fn recv(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        poll_fn(|cx| self.receive(buffers, metas, Some(cx.waker()))).await
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        sim::try_with(|sim| sim.host_mut(self.id.host).udp.close(self.id.key));
    }
}

/// Like [`TcpStream::connect`]: the links of the world determine the segment size.
///
/// # Errors
/// Those of the linked method.
pub async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(addr).await
}

/// Like [`TcpListener::bind`]; a v6 listener takes v6 only.
///
/// # Errors
/// Those of the linked method.
pub async fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// The source address towards `remote`, by this host's routes. Nothing is sent.
///
/// # Errors
/// `NetworkUnreachable` where no interface leads there.
pub fn source_towards(remote: IpAddr) -> io::Result<IpAddr> {
    let place = sim::live_place()?;
    sim::with(|sim| sim.host(place.host).route(None, remote, |_| false)).map(|route| route.src)
}

/// One address of one network interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    /// The interface's name, as in `eth0`.
    pub name: String,
    /// The address.
    pub addr: IpAddr,
}

/// The addresses of this host, sorted, including loopback.
///
/// # Errors
/// When the caller isn't on a host whose process runs.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let place = sim::live_place()?;
    sim::with(|sim| {
        let mut list = vec![
            Interface { name: "lo".to_owned(), addr: Ipv4Addr::LOCALHOST.into() },
            Interface { name: "lo".to_owned(), addr: Ipv6Addr::LOCALHOST.into() },
        ];
        for nic in sim.host(place.host).nics.up() {
            list.extend(nic.addrs.iter().map(|addr| Interface { name: nic.name.clone(), addr: *addr }));
        }
        list.sort();
        list.dedup();
        Ok(list)
    })
}

/// The poll interval of the interface list, as in the real program: what would tell a process of a change is another thing
/// on each system, so it looks again and again.
const INTERFACE_POLL: Duration = Duration::from_secs(1);

/// Watches [`interfaces`] for changes. It sees a change when it next looks, up to a second later, and a change that is
/// taken back before that not at all. There is no timer as long as nothing has changed.
#[derive(Debug)]
pub struct InterfaceWatch {
    last: Vec<Interface>,
    /// The version of the world's addresses when they were last compared with `last`.
    version: u32,
    begun: Instant,
    /// When it next looks, if there is something to see.
    looks: Option<Instant>,
}

impl InterfaceWatch {
    /// Begins with `last`, the list that is known now.
    pub fn new(last: Vec<Interface>) -> InterfaceWatch {
        let version = sim::with(|sim| sim.wire.nets.version());
        InterfaceWatch { last, version, begun: now(), looks: None }
    }

    /// Waits for a list that differs from the last one, and returns it. Cancel safe.
    pub async fn changed(&mut self) -> Vec<Interface> {
        loop {
            let looks = match self.looks {
                Some(looks) => looks,
                None => {
                    self.differs().await;
                    let polls =
                        now().saturating_duration_since(self.begun).as_nanos() / INTERFACE_POLL.as_nanos();
                    let polls = u32::try_from(polls).unwrap_or(u32::MAX - 1);
                    *self.looks.insert(self.begun + INTERFACE_POLL * (polls + 1))
                }
            };
            sleep_until(looks).await;
            self.looks = None;
            if let Ok(list) = interfaces()
                && list != self.last
            {
                self.last.clone_from(&list);
                return list;
            }
        }
    }

    /// Waits until there is something to see.
    async fn differs(&mut self) {
        poll_fn(|cx| {
            let version = sim::with(|sim| sim.wire.nets.version());
            if version != self.version
                && let Ok(list) = interfaces()
            {
                self.version = version;
                if list != self.last {
                    return Poll::Ready(());
                }
            }
            if let Ok(place) = sim::live_place() {
                sim::with(|sim| sim.host_mut(place.host).nics.wait(cx.waker()));
            }
            Poll::Pending
        })
        .await;
    }
}
