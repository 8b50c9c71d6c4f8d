//! UDP with batches, TCP, names, and the interface list.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use quinn_udp::{UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::TcpSocket;

#[doc(no_inline)]
pub use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
#[doc(no_inline)]
pub use tokio::net::{TcpListener, TcpStream};

/// Kernel buffer requested for each direction: a burst of a few thousand datagrams must survive one scheduling delay
/// of the network plane. The kernel may grant less (`net.core.rmem_max`).
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// A UDP socket that sends and receives batches: one call may carry up to
/// [`max_gso_segments`](UdpSocket::max_gso_segments) datagrams of equal size.
#[derive(Debug)]
pub struct UdpSocket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
}

/// One send: a datagram, or several of `segment_size` bytes each (the last may be shorter).
#[derive(Debug, Clone)]
pub struct Transmit<'a> {
    /// The destination.
    pub destination: SocketAddr,
    /// The bytes, segments concatenated.
    pub contents: &'a [u8],
    /// The size of a segment; `None` for a single datagram.
    pub segment_size: Option<usize>,
    /// The local address to send from; `None` lets routing choose.
    pub src_ip: Option<IpAddr>,
}

/// The contents of one receive buffer: `len` bytes in datagrams of `stride` bytes (the last may be shorter), all from
/// one source.
#[derive(Debug, Clone, Copy)]
pub struct RecvMeta {
    /// The source.
    pub addr: SocketAddr,
    /// Bytes in the buffer.
    pub len: usize,
    /// Bytes of each datagram in it.
    pub stride: usize,
    /// The local destination address, where the platform reports it.
    pub dst_ip: Option<IpAddr>,
}

impl Default for RecvMeta {
    fn default() -> Self {
        RecvMeta { addr: SocketAddr::from(([0, 0, 0, 0], 0)), len: 0, stride: 0, dst_ip: None }
    }
}

/// The most buffers that one [`UdpSocket::recv`] fills.
pub const RECV_BATCH: usize = quinn_udp::BATCH_SIZE;

impl UdpSocket {
    /// Binds a socket. A v6 socket accepts v6 only, so that both families can share a port number.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable` and the operating system's other errors.
    pub async fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(addr),
            socket2::Type::DGRAM,
            Some(socket2::Protocol::UDP),
        )?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        // Best effort: a smaller buffer costs drops under load, never correctness.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let io = tokio::net::UdpSocket::from_std(socket.into())?;
        Ok(UdpSocket { io, state })
    }

    /// The address bound.
    ///
    /// # Errors
    /// The operating system's errors.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// The most segments that a [`Transmit`] may have now. Read it again for each batch: if the kernel refuses a
    /// batch, it drops to 1.
    pub fn max_gso_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// The most datagrams in one receive buffer; size the buffers for it.
    pub fn gro_segments(&self) -> usize {
        self.state.gro_segments()
    }

    /// Sends without waiting. Fragmentation is off.
    ///
    /// # Errors
    /// `WouldBlock` when the kernel's buffer is full, or no task has waited for [`writable`](UdpSocket::writable)
    /// yet: wait for it, then try again. Any other error, EMSGSIZE included, concerns this send alone.
    pub fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: None,
            contents: transmit.contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        self.io.try_io(Interest::WRITABLE, || self.state.try_send(UdpSockRef::from(&self.io), &transmit))
    }

    /// Waits until a send may succeed. Cancel safe.
    ///
    /// # Errors
    /// The operating system's errors.
    pub async fn writable(&self) -> io::Result<()> {
        self.io.writable().await
    }

    /// Waits until a receive may succeed. Cancel safe.
    ///
    /// # Errors
    /// The operating system's errors.
    pub async fn readable(&self) -> io::Result<()> {
        self.io.readable().await
    }

    /// Receives without waiting; see [`recv`](UdpSocket::recv).
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing to receive; otherwise the operating system's errors.
    pub fn try_recv(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        let mut raw = [quinn_udp::RecvMeta::default(); RECV_BATCH];
        let batch = buffers.len().min(metas.len()).min(RECV_BATCH);
        let filled = self.io.try_io(Interest::READABLE, || {
            self.state.recv(UdpSockRef::from(&self.io), &mut buffers[..batch], &mut raw[..batch])
        })?;
        for (meta, raw) in metas.iter_mut().zip(&raw[..filled]) {
            *meta = RecvMeta { addr: raw.addr, len: raw.len, stride: raw.stride, dst_ip: raw.dst_ip };
        }
        Ok(filled)
    }

    /// Waits for datagrams and fills up to [`RECV_BATCH`] buffers; returns the number filled. Cancel safe.
    ///
    /// # Errors
    /// The operating system's errors. An error concerns one datagram, sent earlier or received, not the socket.
    pub async fn recv(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        loop {
            self.io.readable().await?;
            match self.try_recv(buffers, metas) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

/// The longest TCP segment to and from other hosts: it fits the smallest IPv6 packet (RFC 8200 section 5). A link
/// narrower than Ethernet (PPPoE, a tunnel, a container's overlay) drops every longer segment if ICMP is filtered on
/// the way, because its router's error can't reach us.
const SEGMENT_BYTES: u32 = 1_220;

/// Connections that wait to be accepted: after a restart a whole mesh reconnects at once.
const BACKLOG: u32 = 1_024;

/// Like [`TcpStream::connect`], with segments that fit narrow links. Dropping the future cancels the attempt.
///
/// # Errors
/// The operating system's errors.
pub async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    tcp_socket(addr)?.connect(addr).await
}

/// Like [`TcpListener::bind`], with segments that fit narrow links in both directions. A v6 listener accepts v6 only,
/// so that both families can share a port number.
///
/// # Errors
/// The operating system's errors.
pub async fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = tcp_socket(addr)?;
    if addr.is_ipv6() {
        socket2::SockRef::from(&socket).set_only_v6(true)?;
    }
    // Connections of the previous process may still linger.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// A socket for `addr`. The limit must be set before the handshake, which announces it to the other side.
fn tcp_socket(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if !addr.ip().to_canonical().is_loopback() {
        // Best effort: without the limit only narrow links are affected.
        let _ = socket2::SockRef::from(&socket).set_tcp_mss(SEGMENT_BYTES);
    }
    Ok(socket)
}

/// The source address that this host's routes select for `remote`. Nothing is sent.
///
/// # Errors
/// `NetworkUnreachable` where no route leads there; otherwise the operating system's errors.
pub fn source_towards(remote: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match remote {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    // Connecting a UDP socket only looks up the route. Any port works.
    socket.connect((remote, 9))?;
    Ok(socket.local_addr()?.ip())
}

/// Resolves `host:port`.
///
/// # Errors
/// The resolver's errors, or `NotFound` when it finds no address.
pub async fn lookup_host(name: &str) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<_> = tokio::net::lookup_host(name).await?.collect();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{name} has no address")));
    }
    Ok(found)
}

/// One address of one network interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    /// The interface's name, as in `eth0`.
    pub name: String,
    /// The address.
    pub addr: IpAddr,
}

/// The addresses of this host, sorted, including loopback. Link-local addresses are left out, because a v6 one can't
/// be used without a scope.
///
/// # Errors
/// The operating system's errors.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut list: Vec<_> = if_addrs::get_if_addrs()?
        .into_iter()
        .filter(|entry| !entry.is_link_local())
        .map(|entry| Interface { addr: entry.ip(), name: entry.name })
        .collect();
    list.sort();
    list.dedup();
    Ok(list)
}

/// The poll interval of the interface list. A laptop that changes its network waits at most this long. A node is awake once
/// a second anyway, for its probes, and a list takes some ten microseconds.
const INTERFACE_POLL: Duration = Duration::from_secs(1);

/// Reports changes of [`interfaces`].
#[derive(Debug)]
pub struct InterfaceWatch {
    last: Vec<Interface>,
    /// Kept across calls: a caller that is woken often and waits anew each time must still reach the next poll.
    next: tokio::time::Instant,
}

impl InterfaceWatch {
    /// Begins with `last`, the current list.
    pub fn new(last: Vec<Interface>) -> InterfaceWatch {
        InterfaceWatch { last, next: tokio::time::Instant::now() + INTERFACE_POLL }
    }

    /// Waits for a list that differs from the last one, and returns it. Cancel safe.
    pub async fn changed(&mut self) -> Vec<Interface> {
        loop {
            tokio::time::sleep_until(self.next).await;
            self.next = tokio::time::Instant::now() + INTERFACE_POLL;
            match interfaces() {
                Ok(list) if list != self.last => {
                    self.last.clone_from(&list);
                    return list;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::contract::run;

    fn segment(socket: impl std::os::fd::AsFd) -> u32 {
        socket2::SockRef::from(&socket).tcp_mss().unwrap()
    }

    #[test]
    fn a_listener_for_other_hosts_limits_the_segments_of_both_ends() {
        run(async {
            let listener = listen("0.0.0.0:0".parse().unwrap()).await.unwrap();
            let addr = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
            let client = connect(addr).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            assert!(segment(&client) <= SEGMENT_BYTES, "{}", segment(&client));
            assert!(segment(&server) <= SEGMENT_BYTES, "{}", segment(&server));
        });
    }

    #[test]
    fn a_connection_to_another_host_tells_its_limit_and_one_within_this_host_has_none() {
        run(async {
            for elsewhere in ["192.0.2.1:1", "[2001:db8::1]:1"] {
                assert_eq!(segment(tcp_socket(elsewhere.parse().unwrap()).unwrap()), SEGMENT_BYTES);
            }
            let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let client = connect(listener.local_addr().unwrap()).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            assert!(segment(&client).min(segment(&server)) > SEGMENT_BYTES);
        });
    }
}
