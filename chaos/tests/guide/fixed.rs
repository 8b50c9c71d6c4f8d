//! The server that counts each request once.

use crate::add;
use crate::tokio::net::UdpSocket;
use chaos::{LinkConfig, Rate, World};
use std::io;

use std::collections::BTreeMap;

pub async fn serve() -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:7000").await?;
    let mut sums = BTreeMap::new();
    loop {
        let (_, client) = socket.recv_from(&mut [0; 8]).await?;
        let next = sums.len() as u64 + 1;
        let sum: u64 = *sums.entry(client).or_insert(next);
        socket.send_to(&sum.to_be_bytes(), client).await?;
    }
}

#[chaos::test]
async fn it_counts_under_loss(world: World) {
    world.link_default(LinkConfig { udp_loss: Rate::percent(10), ..LinkConfig::default() });
    world.host("server").addr("10.0.0.1").spawn(|| async { serve().await.unwrap() });
    let client = world.host("client").addr("10.0.0.2");
    for expected in 1..=10 {
        let sum = client.run(async { add("server:7000").await.unwrap() }).await.unwrap();
        assert_eq!(sum, expected);
    }
}
