//! UDP sockets of a kernel. They hold datagrams until they are read; the world writes and carries the packets.

use super::ports::Ports;
use super::process::dead;
use super::slab::{Key, Slab};
use crate::ids::{End, NetId};
use crate::seed::Rng;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Poll, Waker};

/// The most segments of one send: Linux's former `UDP_MAX_SEGMENTS`.
pub(crate) const MAX_SEGMENTS: usize = 64;

/// The largest body of a UDP datagram over IPv4 (65,535 bytes without the headers of IP and UDP), and the limit for
/// both families here.
pub(crate) const MAX_BODY: usize = 65535 - 20 - 8;

/// The receive buffer that the real `rt` requests from its kernel.
const BUFFER_BYTES: usize = 4 << 20;

/// The send buffer of a socket on Linux (`net.core.wmem_default`).
const SEND_BUFFER_BYTES: u64 = 212_992;

/// Linux's number for "message too long".
const EMSGSIZE: i32 = 90;

/// A datagram in a socket's queue, as the whole packet.
pub(crate) struct Datagram {
    pub(crate) packet: Vec<u8>,
    /// Where the body begins.
    pub(crate) body_at: usize,
    pub(crate) src: SocketAddr,
    pub(crate) dst_ip: IpAddr,
}

/// One socket.
pub(crate) struct Socket {
    local: SocketAddr,
    waiting: VecDeque<Datagram>,
    waiting_bytes: usize,
    readers: Vec<Waker>,
    /// The network, and the end there, of the link whose queue filled its send buffer, until there is room again.
    full_towards: Option<(NetId, End)>,
}

impl Socket {
    /// Queues a datagram and wakes the readers.
    #[inline]
    pub(crate) fn deliver(&mut self, datagram: Datagram) {
        self.waiting_bytes += datagram.packet.len();
        self.waiting.push_back(datagram);
        for reader in self.readers.drain(..) {
            reader.wake();
        }
    }

    /// Datagrams in its queue.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

/// A datagram that was copied to a reader.
pub(crate) struct Received {
    pub(crate) len: usize,
    pub(crate) src: SocketAddr,
    pub(crate) dst_ip: IpAddr,
}

/// A send that a socket permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sending {
    /// The source address, if the socket or its user chose one.
    pub(crate) wanted: Option<IpAddr>,
    pub(crate) port: u16,
    /// The size of each datagram in bytes; the last may be shorter.
    pub(crate) segment: usize,
}

/// Why a socket doesn't take a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unwanted {
    NoSocket,
    BufferFull,
}

/// The UDP sockets of a host.
pub(crate) struct UdpSockets {
    sockets: Slab<Socket>,
    ports: Ports,
    last_ident: u16,
    /// The most bytes of datagrams queued in one socket.
    buffer_bytes: usize,
    /// The most bytes that may wait on the first link when one socket sends.
    send_buffer_bytes: u64,
    /// Whether the kernel supports receiving datagrams, and permits it to its processes.
    may_receive: bool,
}

impl UdpSockets {
    pub(crate) fn new() -> UdpSockets {
        UdpSockets {
            sockets: Slab::new(),
            ports: Ports::default(),
            last_ident: 0,
            buffer_bytes: BUFFER_BYTES,
            send_buffer_bytes: SEND_BUFFER_BYTES,
            may_receive: true,
        }
    }

    pub(crate) fn set_buffer_bytes(&mut self, bytes: usize) {
        self.buffer_bytes = bytes;
    }

    pub(crate) fn set_send_buffer_bytes(&mut self, bytes: u64) {
        self.send_buffer_bytes = bytes;
    }

    pub(crate) fn forbid_receive(&mut self) {
        self.may_receive = false;
    }

    /// Binds a socket to an address of the host, or to a wildcard.
    pub(crate) fn bind(&mut self, addr: SocketAddr, rng: &mut Rng) -> io::Result<(Key, SocketAddr)> {
        let local = self.ports.choose(addr, rng, |_| false)?;
        let key = self.sockets.insert(Socket {
            local,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            readers: Vec::new(),
            full_towards: None,
        });
        self.ports.insert(local, key);
        Ok((key, local))
    }

    /// Closes a socket and wakes its readers, which then get an error.
    pub(crate) fn close(&mut self, key: Key) {
        let Some(socket) = self.sockets.remove(key) else { return };
        self.ports.release(socket.local.port(), key);
        for reader in socket.readers {
            reader.wake();
        }
    }

    /// Closes every socket: the process has ended.
    pub(crate) fn close_all(&mut self) {
        for key in self.ports.sockets() {
            self.close(key);
        }
    }

    /// Checks a send of `len` bytes in datagrams of `segment_size` bytes to `dst`, from `src_ip` if its user chose an
    /// address.
    #[inline]
    pub(crate) fn send(
        &self,
        key: Key,
        dst: SocketAddr,
        len: usize,
        segment_size: Option<usize>,
        src_ip: Option<IpAddr>,
    ) -> io::Result<Sending> {
        let local = self.sockets.get(key).ok_or_else(dead)?.local;
        let segment = segment_size.unwrap_or(len).max(1);
        if segment > MAX_BODY || len.div_ceil(segment) > MAX_SEGMENTS {
            return Err(io::Error::from_raw_os_error(EMSGSIZE));
        }
        if dst.port() == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no port 0"));
        }
        if local.is_ipv4() != dst.is_ipv4() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket is of another family"));
        }
        let wanted = if local.ip().is_unspecified() { src_ip } else { Some(local.ip()) };
        Ok(Sending { wanted, port: local.port(), segment })
    }

    /// Whether a socket's send buffer takes a send over the first link `towards`, where `waiting_bytes` wait. As on Linux, a
    /// buffer that has been full takes a send again when it is less than half full (`sock_writeable`). tokio tries none
    /// before that.
    pub(crate) fn takes_send(&mut self, key: Key, towards: (NetId, End), waiting_bytes: u64) -> bool {
        let limit_bytes = self.send_buffer_bytes;
        let Some(socket) = self.sockets.get_mut(key) else { return true };
        let was_full = socket.full_towards == Some(towards);
        let limit_bytes = if was_full { limit_bytes / 2 } else { limit_bytes };
        let takes = waiting_bytes < limit_bytes.max(1);
        if !takes {
            socket.full_towards = Some(towards);
        } else if was_full {
            socket.full_towards = None;
        }
        takes
    }

    /// The link that a socket with a full send buffer waits for, and how many bytes may wait there at most when it goes on.
    pub(crate) fn full_towards(&self, key: Key) -> io::Result<Option<((NetId, End), u64)>> {
        let socket = self.sockets.get(key).ok_or_else(dead)?;
        Ok(socket.full_towards.map(|towards| (towards, (self.send_buffer_bytes / 2).saturating_sub(1))))
    }

    /// The identification of the next packet.
    #[inline]
    pub(crate) fn ident(&mut self) -> u16 {
        self.last_ident = self.last_ident.wrapping_add(1);
        self.last_ident
    }

    /// The socket that takes a packet of `len` bytes for `dst`.
    #[inline]
    pub(crate) fn taker(&mut self, dst: SocketAddr, len: usize) -> Result<&mut Socket, Unwanted> {
        let key = self.ports.bound(dst).ok_or(Unwanted::NoSocket)?;
        let socket = self.sockets.get_mut(key).ok_or(Unwanted::NoSocket)?;
        if socket.waiting_bytes + len > self.buffer_bytes { Err(Unwanted::BufferFull) } else { Ok(socket) }
    }

    /// Receives one datagram, if there is one; its packet's buffer can be used again. Bytes that don't fit into `buffer`
    /// are lost, as with any kernel.
    #[inline]
    pub(crate) fn receive(&mut self, key: Key, buffer: &mut [u8]) -> Poll<io::Result<(Received, Vec<u8>)>> {
        let Some(socket) = self.sockets.get_mut(key) else { return Poll::Ready(Err(dead())) };
        if !socket.waiting.is_empty() && !self.may_receive {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        }
        let Some(datagram) = socket.waiting.pop_front() else { return Poll::Pending };
        socket.waiting_bytes -= datagram.packet.len();
        let body = &datagram.packet[datagram.body_at..];
        let len = body.len().min(buffer.len());
        buffer[..len].copy_from_slice(&body[..len]);
        let received = Received { len, src: datagram.src, dst_ip: datagram.dst_ip };
        Poll::Ready(Ok((received, datagram.packet)))
    }

    /// Whether a receive would return at once.
    pub(crate) fn is_readable(&self, key: Key) -> io::Result<bool> {
        self.sockets.get(key).map(|socket| !socket.waiting.is_empty()).ok_or_else(dead)
    }

    /// Registers a reader to be woken at the next datagram.
    #[inline]
    pub(crate) fn wait(&mut self, key: Key, waker: &Waker) {
        if let Some(socket) = self.sockets.get_mut(key)
            && !socket.readers.iter().any(|reader| reader.will_wake(waker))
        {
            socket.readers.push(waker.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::stream;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn datagram(body: &[u8]) -> Datagram {
        let packet = [&[0; 28], body].concat();
        Datagram { packet, body_at: 28, src: addr("10.0.0.2:5"), dst_ip: addr("10.0.0.1:7").ip() }
    }

    #[test]
    fn a_full_buffer_takes_nothing_until_a_reader_has_made_room() {
        let mut udp = UdpSockets::new();
        udp.set_buffer_bytes(40);
        let (key, local) = udp.bind(addr("10.0.0.1:7"), &mut stream(1, "port/a")).unwrap();
        let refusal = |udp: &mut UdpSockets, dst, len| udp.taker(dst, len).err();
        assert_eq!(refusal(&mut udp, addr("10.0.0.1:8"), 10), Some(Unwanted::NoSocket));
        assert_eq!(refusal(&mut udp, local, 41), Some(Unwanted::BufferFull));
        udp.taker(local, 31).ok().unwrap().deliver(datagram(b"abc"));
        assert_eq!(refusal(&mut udp, local, 10), Some(Unwanted::BufferFull));
        let mut buffer = [0; 2];
        let Poll::Ready(Ok((got, _))) = udp.receive(key, &mut buffer) else { panic!("one waits") };
        assert_eq!((got.len, &buffer), (2, b"ab"), "the rest is lost");
        assert!(udp.receive(key, &mut buffer).is_pending());
        assert_eq!(refusal(&mut udp, local, 10), None);
        udp.close_all();
        assert!(udp.is_readable(key).is_err());
    }

    #[test]
    fn a_send_buffer_that_was_full_takes_a_send_when_it_is_less_than_half_full() {
        let mut udp = UdpSockets::new();
        let (key, _) = udp.bind(addr("0.0.0.0:7"), &mut stream(1, "port/a")).unwrap();
        let [here, there] = [1, 2].map(|net| (NetId(net), End::Box(NetId(net))));
        let half = SEND_BUFFER_BYTES / 2;
        for (towards, waiting_bytes, expected) in [
            (here, SEND_BUFFER_BYTES - 1, true),
            (here, SEND_BUFFER_BYTES, false),
            (here, half, false),
            (there, half, true),
            (here, half, false),
            (here, half - 1, true),
            (here, half, true),
        ] {
            assert_eq!(udp.takes_send(key, towards, waiting_bytes), expected, "{towards:?} {waiting_bytes}");
            let full = udp.full_towards(key).unwrap();
            assert_eq!(full.is_some(), !expected || towards == there, "{towards:?} {waiting_bytes}");
        }
        udp.set_send_buffer_bytes(0);
        assert_eq!([1, 1, 0].map(|waiting| udp.takes_send(key, here, waiting)), [false, false, true]);
    }

    #[test]
    fn a_send_is_checked_before_it_leaves() {
        let mut udp = UdpSockets::new();
        let (any, _) = udp.bind(addr("0.0.0.0:7"), &mut stream(1, "port/a")).unwrap();
        let (own, _) = udp.bind(addr("10.0.0.1:8"), &mut stream(1, "port/a")).unwrap();
        let chosen = Some(addr("10.0.0.9:0").ip());
        let table = [
            (any, "10.0.0.2:5", 100, None, Ok((chosen, 7, 100))),
            (own, "10.0.0.2:5", 100, Some(40), Ok((Some(addr("10.0.0.1:0").ip()), 8, 40))),
            (any, "10.0.0.2:5", 65, Some(1), Err(Some(EMSGSIZE))),
            (any, "10.0.0.2:5", MAX_BODY + 1, None, Err(Some(EMSGSIZE))),
            (any, "10.0.0.2:0", 1, None, Err(None)),
            (any, "[fd00::1]:5", 1, None, Err(None)),
        ];
        for (key, dst, len, segment, expected) in table {
            let got = udp.send(key, addr(dst), len, segment, chosen);
            let got = got.map(|send| (send.wanted, send.port, send.segment));
            assert_eq!(got.map_err(|error| error.raw_os_error()), expected, "{dst} {len}");
        }
    }
}
