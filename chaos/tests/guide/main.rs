//! The guide of the README: its program, as it stands there, and what that prints.
#![cfg(madsim)]
#![expect(unreachable_pub, reason = "it is what a stranger writes")]

#[cfg(not(test))]
use ::tokio;
#[cfg(test)]
use chaos::tokio;

use std::io;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Adds one for each datagram, and answers with the sum.
pub async fn serve() -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:7000").await?;
    let mut sum = 0u64;
    loop {
        let (_, client) = socket.recv_from(&mut [0; 8]).await?;
        sum += 1;
        socket.send_to(&sum.to_be_bytes(), client).await?;
    }
}

/// Adds one, and returns the sum. Asks again if there is no answer.
pub async fn add(server: &str) -> io::Result<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    socket.connect(server).await?;
    let mut sum = [0; 8];
    loop {
        socket.send(b"add").await?;
        if let Ok(received) = timeout(Duration::from_millis(200), socket.recv(&mut sum)).await {
            received?;
            return Ok(u64::from_be_bytes(sum));
        }
    }
}

#[cfg(test)]
mod tests;

mod fixed;
mod told;
