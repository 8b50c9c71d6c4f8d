//! Shared by the tests: sockets, and an observer that reports the source address of a datagram.

use chaos::rt::net::{RecvMeta, Transmit, UdpSocket};
use chaos::rt::time;
use chaos::{Host, RunOutcome, World};
use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The port of every host.
pub(crate) const PORT: u16 = 4000;

/// The observer's address.
pub(crate) const OBSERVER: &str = "198.51.100.1:4000";

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn ok<T>(outcome: RunOutcome<T>) -> T {
    outcome.result.unwrap_or_else(|failure| panic!("{failure}"))
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A UDP socket that is owned by the test, and used on its host.
#[derive(Clone)]
pub(crate) struct Port {
    pub(crate) host: Host,
    socket: Arc<UdpSocket>,
}

/// Binds the v4 wildcard.
pub(crate) async fn open(host: Host) -> Port {
    open_at(host, &format!("0.0.0.0:{PORT}")).await
}

pub(crate) async fn open_at(host: Host, at: &str) -> Port {
    let at = addr(at);
    let socket = host.run(async move { UdpSocket::bind(at).await.unwrap() }).await.unwrap();
    Port { host, socket: Arc::new(socket) }
}

impl Port {
    pub(crate) async fn send(&self, to: SocketAddr, contents: &[u8]) {
        self.send_from(None, to, contents).await;
    }

    pub(crate) async fn send_from(&self, src_ip: Option<IpAddr>, to: SocketAddr, contents: &[u8]) {
        let (socket, contents) = (self.socket.clone(), contents.to_vec());
        let sent = self.host.run(async move {
            socket.try_send(&Transmit { destination: to, contents: &contents, segment_size: None, src_ip })
        });
        sent.await.unwrap().unwrap();
    }

    /// Sends from the host of the calling task.
    pub(crate) fn try_send(&self, to: SocketAddr, contents: &[u8]) -> std::io::Result<()> {
        self.socket.try_send(&Transmit { destination: to, contents, segment_size: None, src_ip: None })
    }

    /// Waits on the host of the calling task.
    pub(crate) async fn writable(&self) -> std::io::Result<()> {
        self.socket.writable().await
    }

    /// The next datagram within a second, and its source address.
    pub(crate) async fn receive(&self) -> Option<(String, SocketAddr)> {
        let (bytes, from) = self.receive_bytes(ms(1000)).await?;
        Some((String::from_utf8(bytes).unwrap(), from))
    }

    pub(crate) async fn receive_bytes(&self, within: Duration) -> Option<(Vec<u8>, SocketAddr)> {
        let socket = self.socket.clone();
        let received = self.host.run(async move {
            let mut buffer = vec![0; 2048];
            let mut meta = [RecvMeta::default()];
            let received = {
                let mut buffers = [IoSliceMut::new(&mut buffer)];
                time::timeout(within, socket.recv(&mut buffers, &mut meta)).await
            };
            received.ok()?.unwrap();
            buffer.truncate(meta[0].len);
            Some((buffer, meta[0].addr))
        });
        received.await.unwrap()
    }

    /// All datagrams until none arrives for a second.
    pub(crate) async fn receive_all(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some((bytes, _)) = self.receive_bytes(ms(1000)).await {
            all.push(bytes);
        }
        all
    }

    /// The reflexive address of this socket, as seen by the observer.
    pub(crate) async fn reflexive(&self) -> Option<SocketAddr> {
        self.send(addr(OBSERVER), b"who am I?").await;
        let (answer, from) = self.receive().await?;
        assert_eq!(from, addr(OBSERVER));
        Some(addr(&answer))
    }
}

/// A host of the internet that answers each datagram with the address from which it came.
pub(crate) fn observer(world: World) -> Host {
    let at = addr(OBSERVER);
    world.host("observer").addr(&at.ip().to_string()).spawn(move || async move {
        let socket = UdpSocket::bind(at).await.unwrap();
        let mut buffer = [0; 2048];
        loop {
            let mut meta = [RecvMeta::default()];
            socket.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta).await.unwrap();
            let contents = meta[0].addr.to_string().into_bytes();
            let destination = meta[0].addr;
            let answer =
                Transmit { destination, contents: &contents, segment_size: None, src_ip: meta[0].dst_ip };
            socket.try_send(&answer).unwrap();
        }
    })
}
