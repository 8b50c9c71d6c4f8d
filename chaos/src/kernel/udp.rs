//! UDP sockets of the simulated kernels.

use crate::ids::HostId;
use crate::kernel::host::{bound, release};
use crate::kernel::slab::Key;
use crate::wire::link::{Class, DropCause};
use crate::wire::packet::{self, Headers, MAX_UDP_BODY};
use crate::world::sim::{Flight, Place, Sim, dead};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::Waker;

/// The most segments of one send: Linux's former `UDP_MAX_SEGMENTS`.
pub(crate) const MAX_SEGMENTS: usize = 64;

/// A queued datagram.
struct Waiting {
    bytes: Vec<u8>,
    transport: usize,
    src: SocketAddr,
    dst_ip: IpAddr,
}

/// One socket.
pub(crate) struct Socket {
    host: HostId,
    local: SocketAddr,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    readers: Vec<Waker>,
}

/// A datagram handed to a reader.
pub(crate) struct Received {
    pub(crate) len: usize,
    pub(crate) src: SocketAddr,
    pub(crate) dst_ip: IpAddr,
}

impl Sim {
    pub(crate) fn udp_bind(&mut self, place: Place, addr: SocketAddr) -> io::Result<(Key, SocketAddr)> {
        let host = self.host_mut(place.host);
        let local = host.choose_port(false, addr)?;
        let key = self.udp.insert(Socket {
            host: place.host,
            local,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            readers: Vec::new(),
        });
        self.host_mut(place.host).udp_ports.entry(local.port()).or_default().push((local.ip(), key));
        Ok((key, local))
    }

    /// Closes a socket and wakes its readers, which then get an error.
    pub(crate) fn udp_close(&mut self, key: Key) {
        let Some(socket) = self.udp.remove(key) else { return };
        release(&mut self.host_mut(socket.host).udp_ports, socket.local.port(), key);
        for reader in socket.readers {
            reader.wake();
        }
    }

    pub(crate) fn udp_send(
        &mut self,
        key: Key,
        dst: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
        src_ip: Option<IpAddr>,
    ) -> io::Result<()> {
        let socket = self.udp.get(key).ok_or_else(dead)?;
        let (host, local) = (socket.host, socket.local);
        let segment = segment_size.unwrap_or(contents.len()).max(1);
        if segment > MAX_UDP_BODY || contents.len().div_ceil(segment) > MAX_SEGMENTS {
            return Err(io::Error::from_raw_os_error(EMSGSIZE));
        }
        if dst.port() == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no port 0"));
        }
        if local.is_ipv4() != dst.is_ipv4() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket is of another family"));
        }
        let wanted = if local.ip().is_unspecified() { src_ip } else { Some(local.ip()) };
        let route = self.route(host, wanted, dst.ip())?;
        let src = SocketAddr::new(route.src, local.port());
        let mut rest = contents;
        loop {
            let (body, behind) = rest.split_at(segment.min(rest.len()));
            let ident = self.host_mut(host).ident();
            let mut bytes = self.buffer();
            packet::write_udp(&mut bytes, src, dst, ident, body);
            self.forward(host, route.nic, dst.ip(), bytes, Class::Udp);
            rest = behind;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    pub(crate) fn udp_arrives(&mut self, now_ns: u64, flight: Flight, host: HostId, headers: &Headers) {
        if flight.corrupted && !packet::udp_checksum_holds(&flight.bytes, headers) {
            self.end(now_ns, flight, DropCause::Checksum);
            return;
        }
        let cap = self.host(host).caps.udp_buffer_bytes;
        let socket = bound(&self.host(host).udp_ports, headers.dst);
        let Some(socket) = socket.and_then(|key| self.udp.get_mut(key)) else {
            self.end(now_ns, flight, DropCause::NoSocket);
            return;
        };
        if socket.waiting_bytes + flight.bytes.len() > cap {
            self.end(now_ns, flight, DropCause::BufferFull);
            return;
        }
        socket.waiting_bytes += flight.bytes.len();
        for reader in socket.readers.drain(..) {
            reader.wake();
        }
        let changed = if flight.corrupted { flight.bytes.as_slice() } else { &[] };
        self.trace.delivered(now_ns, flight.to, flight.nic, flight.number, changed);
        self.stats.packets_delivered += 1;
        socket.waiting.push_back(Waiting {
            bytes: flight.bytes,
            transport: headers.transport,
            src: headers.src,
            dst_ip: headers.dst.ip(),
        });
    }

    /// Receives one datagram. Bytes that don't fit into `buffer` are lost, as with any kernel.
    pub(crate) fn udp_recv(&mut self, key: Key, buffer: &mut [u8]) -> io::Result<Received> {
        let socket = self.udp.get(key).ok_or_else(dead)?;
        if !socket.waiting.is_empty() && !self.host(socket.host).caps.udp_receive {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let socket = self.udp.get_mut(key).ok_or_else(dead)?;
        let waiting = socket.waiting.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        socket.waiting_bytes -= waiting.bytes.len();
        let body = packet::udp_body(&waiting.bytes, waiting.transport);
        let len = body.len().min(buffer.len());
        buffer[..len].copy_from_slice(&body[..len]);
        let received = Received { len, src: waiting.src, dst_ip: waiting.dst_ip };
        self.recycle(waiting.bytes);
        Ok(received)
    }

    /// Whether a receive would return at once.
    pub(crate) fn udp_readable(&self, key: Key) -> io::Result<bool> {
        self.udp.get(key).map(|socket| !socket.waiting.is_empty()).ok_or_else(dead)
    }

    /// Registers a reader to be woken at the next datagram.
    pub(crate) fn udp_wait(&mut self, key: Key, waker: &Waker) {
        if let Some(socket) = self.udp.get_mut(key)
            && !socket.readers.iter().any(|reader| reader.will_wake(waker))
        {
            socket.readers.push(waker.clone());
        }
    }
}

/// Linux's number for "message too long".
const EMSGSIZE: i32 = 90;
