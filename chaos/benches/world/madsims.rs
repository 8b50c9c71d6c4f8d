//! The benchmarks of madsim's network.

use crate::bench::{BURST, BURSTS, GAP, HOSTS, LATENCY_MS, PAYLOAD_BYTES, PORT, cpu, ip, rate};
use madsim::net::Endpoint;
use madsim::task;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

fn neighbour(host: usize) -> SocketAddr {
    format!("{}:{PORT}", ip((host + 1) % HOSTS)).parse().unwrap()
}

/// Datagrams per second, sent as `sender` does.
fn datagrams<F, Fut>(sender: F) -> f64
where
    F: Fn(usize, Arc<Endpoint>) -> Fut + Send + Copy + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let began = cpu();
    let run = move || {
        let mut config = madsim::Config::default();
        config.net.send_latency = Duration::from_millis(LATENCY_MS.0)..Duration::from_millis(LATENCY_MS.1);
        let runtime = madsim::runtime::Runtime::with_seed_and_config(1, config);
        runtime.block_on(async {
            let handle = madsim::runtime::Handle::current();
            let peer = |n: usize| {
                let node = handle.create_node().ip(ip(n).parse().unwrap()).build();
                node.spawn(async move {
                    let endpoint = Arc::new(Endpoint::bind(("0.0.0.0", PORT)).await.unwrap());
                    task::spawn(sender(n, endpoint.clone()));
                    let mut buffer = [0; 2048];
                    for _ in 0..BURSTS * BURST {
                        endpoint.recv_from(0, &mut buffer).await.unwrap();
                    }
                })
            };
            let ends: Vec<_> = (0..HOSTS).map(peer).collect();
            for end in ends {
                end.await.unwrap();
            }
        });
    };
    std::thread::spawn(run).join().unwrap();
    rate((HOSTS * BURSTS * BURST) as u64, began)
}

/// Each send waits for a millisecond: the sends of a burst run concurrently.
pub(crate) fn side_by_side() -> f64 {
    datagrams(|n, endpoint| async move {
        madsim::time::sleep(GAP).await;
        let (payload, destination) = ([7; PAYLOAD_BYTES], neighbour(n));
        for _ in 0..BURSTS {
            let sends = (0..BURST).map(|_| Box::pin(endpoint.send_to(destination, 0, &payload))).collect();
            for send in join_all(sends).await {
                send.unwrap();
            }
            madsim::time::sleep(GAP).await;
        }
    })
}

/// Sends one datagram after the other, as a program written for madsim's network would.
pub(crate) fn one_by_one() -> f64 {
    datagrams(|n, endpoint| async move {
        madsim::time::sleep(GAP).await;
        let (payload, destination) = ([7; PAYLOAD_BYTES], neighbour(n));
        for _ in 0..BURSTS * BURST {
            endpoint.send_to(destination, 0, &payload).await.unwrap();
        }
    })
}

async fn join_all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match Pin::new(future).poll(cx) {
                    Poll::Ready(value) => *output = Some(value),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
