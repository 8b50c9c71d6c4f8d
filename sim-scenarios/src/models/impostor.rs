//! Services that may answer on a hub's port without being the hub.

use std::net::SocketAddr;

use chaos::rt::net::{TcpListener, TcpStream};
use chaos::rt::task;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A service that accepts connections at a hub's address in the ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Impostor {
    /// A captive portal: every connection gets a page, whatever it sends.
    Portal,
    /// A proxy whose hub isn't up: it accepts, and closes.
    Proxy,
    /// A service that accepts, reads, and never answers.
    Mute,
}

impl Impostor {
    /// Answers on `listen` until its process ends.
    ///
    /// # Panics
    /// If the port isn't free.
    pub async fn serve(self, listen: SocketAddr) {
        let listener = TcpListener::bind(listen).await.expect("the hub's port is free on its own host");
        while let Ok((stream, _)) = listener.accept().await {
            task::spawn(self.answer(stream));
        }
    }

    async fn answer(self, mut stream: TcpStream) {
        let mut heard = [0; 256];
        match self {
            Impostor::Portal => {
                // It doesn't matter how much of the request has arrived, nor whether the client reads the page.
                let _ = stream.read(&mut heard).await;
                let _ = stream.write_all(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n").await;
                let _ = stream.shutdown().await;
            }
            Impostor::Proxy => {}
            Impostor::Mute => while matches!(stream.read(&mut heard).await, Ok(n) if n > 0) {},
        }
    }
}
