//! Sockets that can't receive: the process reports the error and ends; it neither spins nor goes silently deaf.
#![cfg(feature = "sim")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::property::Violation;
use chaos::run;
use nurl::internals::net::reach::hub::{self, HubConfig};
use nurl::internals::net::reach::listen::Listen;
use nurl::internals::node::NodeEvent;
use nurl::rt::{net, time};
use nurl::{Error, SecretKey};
use sim_scenarios::stage::Stage;

const MEET: Duration = Duration::from_secs(30);

/// A datagram has arrived by then.
const NOTICES: Duration = Duration::from_secs(10);

/// The error text of the shim for a missing system call.
fn unsupported() -> String {
    std::io::Error::from(std::io::ErrorKind::Unsupported).to_string()
}

#[test]
fn a_node_whose_socket_cannot_receive_ends_with_the_reason() {
    let outcome = run(1, |world| async move {
        let cluster = Stage::new(world).hub("hub").workers(3).start();
        cluster.converge(MEET).await?;
        let node = cluster.peers[2].node(&world).await;
        let mut events = node.events();
        cluster.peers[2].host.forbid_udp_receive();
        let failed = async {
            loop {
                match events.next().await {
                    Some(NodeEvent::SocketFailed { reason }) => return Some(reason),
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        let reason = time::timeout(NOTICES, failed).await.ok().flatten();
        Ok::<_, Violation>((reason, events.next().await.is_none(), node.members().await.err()))
    });
    let (reason, ended, error) = outcome.result.unwrap().unwrap();
    assert_eq!(reason, Some(unsupported()));
    assert!(ended, "events went on");
    assert!(matches!(&error, Some(Error::Socket(reason)) if *reason == unsupported()), "{error:?}");
}

#[test]
fn a_hub_whose_socket_cannot_receive_says_so() {
    let outcome = run(1, |world| async move {
        let said = Arc::new(Mutex::new(None));
        let heard = said.clone();
        let host = world.host("hub").addr("192.0.2.1");
        host.spawn(move || {
            let heard = heard.clone();
            async move {
                let listen = Listen::Everywhere { port: 4242 };
                let config = HubConfig::new(listen, SecretKey::from_bytes([1; 32]), Vec::new());
                let serving = hub::serve(config).await.expect("the port is free");
                let reason = serving.failed().await;
                *heard.lock().unwrap() = Some(reason);
            }
        });
        host.forbid_udp_receive();
        world.host("client").addr("198.18.0.1").spawn(|| async {
            let socket = net::UdpSocket::bind("0.0.0.0:0".parse().unwrap()).await.unwrap();
            let transmit = net::Transmit {
                destination: "192.0.2.1:4242".parse().unwrap(),
                contents: b"anything",
                segment_size: None,
                src_ip: None,
            };
            time::sleep(Duration::from_secs(1)).await;
            socket.try_send(&transmit).unwrap();
        });
        world.sleep(NOTICES).await;
        let said = said.lock().unwrap().take();
        Ok::<_, Violation>(said)
    });
    assert_eq!(outcome.result.unwrap().unwrap(), Some(unsupported()));
}
