//! A program whose runs are worth a picture: shops send orders to an archive, two of them from behind a modem, while faults
//! come and go. Its planted bug: the archive remembers the last three orders only.
//! `cargo run -p chaos --features cli --example pictured -- run orders --seed 3 --html orders.html`

use chaos::middlebox::{Modem, Protocol};
use chaos::rt::net::{RecvMeta, Transmit, UdpSocket};
use chaos::rt::time;
use chaos::scenario::{Knob, KnobKind, Passed, RunResult, Scenario, Trial};
use chaos::{FaultKind, Labels, Targets, sometimes};
use std::collections::{BTreeSet, VecDeque};
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ARCHIVE: &str = "198.51.100.1:7000";

/// The orders that were filed, and the first one that was filed twice.
type Filed = Arc<Mutex<(BTreeSet<String>, Option<String>)>>;

async fn receive(socket: &UdpSocket) -> Option<(String, SocketAddr)> {
    let (mut buffer, mut meta) = ([0; 64], [RecvMeta::default()]);
    socket.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta).await.ok()?;
    Some((String::from_utf8_lossy(&buffer[..meta[0].len]).into_owned(), meta[0].addr))
}

fn send(socket: &UdpSocket, destination: SocketAddr, text: &str) {
    let contents = text.as_bytes();
    let _ = socket.try_send(&Transmit { destination, contents, segment_size: None, src_ip: None });
}

async fn archive(filed: Filed) {
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], 7000))).await.unwrap();
    let mut known = VecDeque::new();
    while let Some((text, from)) = receive(&socket).await {
        let Some(order) = text.strip_prefix("ORDER ") else { continue };
        if !known.iter().any(|other| other == order) {
            known.push_front(order.to_owned());
            known.truncate(3);
            tracing::info!(order, "an order is filed");
            let (all, twice) = &mut *filed.lock().unwrap();
            if !all.insert(order.to_owned()) {
                twice.get_or_insert(order.to_owned());
            }
        }
        send(&socket, from, &format!("FILED {order}"));
    }
}

/// Sends its orders one after the other, each until it is said to be filed.
async fn shop(name: String, orders: u64) {
    let archive: SocketAddr = ARCHIVE.parse().unwrap();
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await.unwrap();
    for number in 0..orders {
        let order = format!("{number} of {name}");
        for attempt in 1.. {
            send(&socket, archive, &format!("ORDER {order}"));
            let answer = time::timeout(Duration::from_millis(250), receive(&socket)).await;
            if matches!(answer, Ok(Some((text, _))) if text.strip_prefix("FILED ") == Some(&order)) {
                break;
            }
            sometimes!(true, "an order is sent again");
            tracing::info!(order, attempt, "no answer, so it is sent again");
        }
        time::sleep(Duration::from_millis(120)).await;
    }
}

async fn orders_are_filed_once(trial: Trial) -> RunResult {
    let (world, orders) = (trial.world, trial.knob("orders"));
    let filed = Filed::default();
    let filing = filed.clone();
    let archive = world.host("archive").addr("198.51.100.1").spawn(move || archive(filing.clone()));
    let mall = world.internet().nat("mall", &[], Modem);
    let shops = [
        world.host("bakery").addr("198.51.100.2"),
        world.host("florist").addr("198.51.100.3"),
        mall.host("butcher", "203.0.113.2"),
        mall.host("tailor", "203.0.113.3"),
    ];
    let checked = filed.clone();
    world.always("an order is filed once", move || match &checked.lock().unwrap().1 {
        Some(order) => Err(format!("order {order} was filed twice")),
        None => Ok(()),
    });
    let targets =
        Targets { hosts: [&[archive], &shops[..]].concat(), nets: vec![mall], ..Targets::default() };
    trial.start_faults(&targets, Duration::from_secs(8));
    // A shop that is killed stays away, since its orders are a task of the scenario.
    for host in shops {
        let name = host.name();
        drop(host.run(shop(name, orders)));
    }
    world.sleep(Duration::from_secs(8).max(Duration::from_millis(150) * orders as u32)).await;
    trial.heal().await;
    Ok(Passed { state: format!("{} orders\n", filed.lock().unwrap().0.len()), notes: String::new() })
}

const ORDERS: Scenario = Scenario {
    knobs: &[Knob { name: "orders", about: "of each shop", default: 40, least: 1, turns: KnobKind::Work }],
    faults: &[
        FaultKind::Loss,
        FaultKind::Latency,
        FaultKind::Duplicate,
        FaultKind::Partition,
        FaultKind::Suspend,
        FaultKind::Pause,
        FaultKind::Crash,
        FaultKind::BoxReboot,
    ],
    time_limit: Duration::from_secs(3_600),
    ..Scenario::new("orders", "an order is filed once; it isn't", |trial| {
        Box::pin(orders_are_filed_once(trial))
    })
};

fn decode(_: Protocol, bytes: &[u8], _: &Labels) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn main() -> ExitCode {
    let invocation = "cargo run -p chaos --features cli --example pictured --";
    chaos::cli::Program { invocation, scenarios: &[ORDERS], decoder: Some(decode), logs: &["pictured"] }
        .main()
}
