use super::core::COUNTED_BYTES;
use super::frame::MAX_DATAGRAM_BYTES;
use super::*;
use crate::authority::account::{Account, ClientAccount};
use crate::key::PublicKey;
use crate::mesh::Namespace;
use crate::net::reach::control::MAX_PLAINTEXT_BYTES;
use crate::net::reach::control::frames::split;
use std::time::{Duration, Instant};

const HOME: Namespace = Namespace::from_bytes([1; 32]);
const ELSEWHERE: Namespace = Namespace::from_bytes([2; 32]);

fn key(n: u64) -> PublicKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    PublicKey::from_bytes(bytes)
}

struct Bench {
    relay: Relay,
    now: Instant,
}

impl Bench {
    fn new(limits: RelayLimits) -> Bench {
        Bench { relay: Relay::new(limits), now: crate::rt::time::now() }
    }

    fn register(&mut self, id: u64, namespace: Namespace, n: u64) -> Option<ClientId> {
        self.relay.open(ClientId(id));
        self.register_as(id, namespace, Account::alone(key(n)))
    }

    fn register_as(&mut self, id: u64, mesh: Namespace, account: Account) -> Option<ClientId> {
        self.relay.register(self.now, ClientId(id), ClientAccount { mesh, account }, (64, 1_024))
    }

    fn send(&mut self, id: u64, frame: Frame<'_>) {
        assert!(self.relay.handle_frame(self.now, ClientId(id), frame));
    }

    /// All frames that wait for a connection, as text.
    fn drain(&mut self, id: u64) -> Vec<String> {
        let mut seen = Vec::new();
        let mut plaintext = Vec::new();
        while self.relay.poll_plaintext(ClientId(id), MAX_PLAINTEXT_BYTES, &mut plaintext) {
            assert!(plaintext.len() <= MAX_PLAINTEXT_BYTES);
            for frame in split(&plaintext) {
                let (kind, body) = frame.unwrap();
                seen.push(match Frame::decode(kind, body).unwrap().unwrap() {
                    Frame::Deliver { src, payload } => format!("{} from {}", show(payload), number(src)),
                    Frame::GroupDeliver { src, payload, .. } => {
                        format!("{} to the group from {}", show(payload), number(src))
                    }
                    Frame::PeerGone { peer } => format!("{} is gone", number(peer)),
                    Frame::QueueFull { peer } => format!("{} is full", number(peer)),
                    other => format!("{other:?}"),
                });
            }
            plaintext.clear();
        }
        seen
    }
}

fn number(key: PublicKey) -> u64 {
    u64::from_be_bytes(*key.as_bytes().first_chunk().unwrap())
}

fn show(payload: &[u8]) -> String {
    match payload {
        short if short.len() <= 8 => String::from_utf8_lossy(short).into_owned(),
        long => format!("{} bytes", long.len()),
    }
}

#[test]
fn a_datagram_reaches_its_destination_with_the_senders_proven_key() {
    let mut bench = Bench::new(RelayLimits::default());
    bench.register(1, HOME, 10);
    bench.register(2, HOME, 20);
    bench.send(1, Frame::Forward { dst: key(20), payload: b"hi" });
    assert_eq!(bench.relay.poll_wake(), Some(ClientId(2)));
    assert_eq!(bench.relay.poll_wake(), None);
    assert_eq!(bench.drain(2), ["hi from 10"]);
    bench.send(2, Frame::Forward { dst: key(10), payload: b"back" });
    assert_eq!(bench.drain(1), ["back from 20"]);
}

#[test]
fn the_newest_registration_wins_and_the_old_one_is_named() {
    let mut bench = Bench::new(RelayLimits::default());
    assert_eq!(bench.register(1, HOME, 10), None);
    bench.register(2, HOME, 20);
    bench.send(2, Frame::Forward { dst: key(10), payload: b"old" });
    assert_eq!(bench.register(3, HOME, 10), Some(ClientId(1)));
    bench.send(2, Frame::Forward { dst: key(10), payload: b"new" });
    assert_eq!(bench.drain(3), ["new from 20"]);
    assert_eq!(bench.drain(1), [] as [&str; 0]);
    // The end of the old connection isn't announced: the key is still registered.
    bench.relay.close(ClientId(1));
    assert_eq!(bench.drain(2), [] as [&str; 0]);
    bench.send(2, Frame::Forward { dst: key(10), payload: b"still" });
    assert_eq!(bench.drain(3), ["still from 20"]);
    assert_eq!(bench.relay.counters().replaced, 1);
    assert_eq!(bench.relay.counters().dropped_closed, 1);
}

#[test]
fn an_old_connection_sends_nothing_under_the_key_it_lost() {
    let mut bench = Bench::new(RelayLimits::default());
    bench.register(1, HOME, 10);
    bench.register(2, HOME, 20);
    bench.register(3, HOME, 10);
    bench.send(1, Frame::Forward { dst: key(20), payload: b"ghost" });
    assert_eq!(bench.drain(2), [] as [&str; 0]);
}

#[test]
fn everything_stays_inside_one_namespace() {
    let mut bench = Bench::new(RelayLimits::default());
    bench.register(1, HOME, 10);
    bench.register(2, ELSEWHERE, 20);
    bench.send(1, Frame::Forward { dst: key(20), payload: b"hi" });
    assert_eq!(bench.drain(1), ["20 is gone"]);
    assert_eq!(bench.drain(2), [] as [&str; 0]);
    let tag = [5; 16];
    bench.send(2, Frame::GroupJoin { tag });
    bench.send(1, Frame::GroupSend { tag, payload: b"all" });
    assert_eq!(bench.drain(2), [] as [&str; 0]);
    // The same key in two namespaces is two registrations.
    assert_eq!(bench.register(3, ELSEWHERE, 10), None);
    bench.relay.close(ClientId(2));
    assert_eq!(bench.drain(1), [] as [&str; 0]);
}

#[test]
fn a_group_reaches_all_others_of_it_and_nobody_after_leaving() {
    let mut bench = Bench::new(RelayLimits::default());
    for n in 1..=4 {
        bench.register(n, HOME, n * 10);
    }
    let tag = [5; 16];
    for n in 1..=3 {
        bench.send(n, Frame::GroupJoin { tag });
    }
    bench.send(1, Frame::GroupSend { tag, payload: b"all" });
    assert_eq!(bench.drain(1), [] as [&str; 0]);
    assert_eq!(bench.drain(2), ["all to the group from 10"]);
    assert_eq!(bench.drain(3), ["all to the group from 10"]);
    assert_eq!(bench.drain(4), [] as [&str; 0]);
    bench.send(2, Frame::GroupLeave { tag });
    bench.relay.close(ClientId(3));
    bench.send(1, Frame::GroupSend { tag, payload: b"all" });
    assert_eq!(bench.drain(2), [] as [&str; 0]);
    bench.send(1, Frame::GroupLeave { tag });
    assert_eq!(bench.relay.groups(), 0);
}

#[test]
fn groups_per_client_are_bounded_and_joining_twice_costs_nothing() {
    let mut bench = Bench::new(RelayLimits { groups: 2, ..RelayLimits::default() });
    bench.register(1, HOME, 10);
    for tag in [[1; 16], [1; 16], [2; 16], [3; 16]] {
        bench.send(1, Frame::GroupJoin { tag });
    }
    assert_eq!(bench.relay.groups(), 2);
    assert_eq!(bench.relay.counters().refused_groups, 1);
}

#[test]
fn a_full_queue_drops_the_oldest_and_tells_the_sender_once() {
    let mut bench = Bench::new(RelayLimits { queue_bytes: 10_640, ..RelayLimits::default() });
    bench.register(1, HOME, 10);
    bench.register(2, HOME, 20);
    for n in 0..20u8 {
        let payload = [&[b'0' + n % 10][..], &[0; 999]].concat();
        bench.send(1, Frame::Forward { dst: key(20), payload: &payload });
    }
    assert_eq!(bench.drain(1), ["20 is full"]);
    let left = bench.drain(2).len() as u64;
    assert_eq!(left + bench.relay.counters().dropped_queue_full, 20);
    assert_eq!(left, 9);
    // The row is empty again, so the next overflow is reported again.
    for _ in 0..20 {
        bench.send(1, Frame::Forward { dst: key(20), payload: &[0; 1000] });
    }
    assert_eq!(bench.drain(1), ["20 is full"]);
}

#[test]
fn the_memory_of_a_client_that_never_reads_is_bounded() {
    let limits = RelayLimits::default();
    let mut bench = Bench::new(limits);
    bench.register(1, HOME, 10);
    bench.register(2, HOME, 20);
    for n in 0..20_000 {
        bench.send(1, Frame::Forward { dst: key(20), payload: b"" });
        bench.send(2, Frame::Ping { nonce: n });
    }
    assert!(bench.relay.queued_bytes(ClientId(2)) <= limits.queue_bytes + limits.control_bytes);
    assert!(bench.relay.counters().dropped_control > 0);
}

#[test]
fn a_client_that_reads_nothing_fits_half_a_mebibyte_and_all_clients_of_a_hub_fit_two_gibibytes() {
    let limits = RelayLimits::default();
    // Beside its queues one message is on its way out, and 16 KiB are for its task and the read buffer.
    let connection = MAX_PLAINTEXT_BYTES + (16 << 10);
    assert!(limits.queue_bytes + limits.control_bytes + connection <= 512 << 10);
    let clients = crate::net::reach::hub::HubLimits::default().clients;
    assert!(limits.all_bytes + clients * (COUNTED_BYTES + connection) <= 2 << 30);
}

#[test]
fn clients_that_read_nothing_pay_out_of_one_budget_and_others_get_their_datagrams() {
    let limits = RelayLimits { all_bytes: 1 << 20, ..RelayLimits::default() };
    let mut bench = Bench::new(limits);
    let [sender, honest] = [(1, Account::for_tests(2, 1, 1)), (2, Account::for_tests(3, 2, 2))];
    for (id, account) in [sender, honest] {
        bench.relay.open(ClientId(id));
        bench.register_as(id, HOME, account);
    }
    for slip in 100..164u32 {
        let account = Account::for_tests(1, slip as u16 % 8, slip);
        bench.relay.open(ClientId(slip.into()));
        bench.register_as(slip.into(), HOME, account);
        for n in 0..250 {
            bench.send(1, Frame::Forward { dst: account.key(), payload: &[0; 1000] });
            bench.send(slip.into(), Frame::Ping { nonce: n });
        }
    }
    let all: usize = (100..164).map(|slip| bench.relay.queued_bytes(ClientId(slip))).sum();
    assert!(all <= limits.all_bytes + 64 * COUNTED_BYTES, "{all}");
    for _ in 0..100 {
        bench.send(1, Frame::Forward { dst: honest.1.key(), payload: &[1; 1000] });
        bench.send(2, Frame::Ping { nonce: 1 });
    }
    assert_eq!(bench.drain(2).len(), 200, "each datagram and each answer");
    assert!(bench.relay.counters().dropped_all_full > 0);
    // What is drained isn't counted any more.
    (100..164).for_each(|slip| drop(bench.drain(slip)));
    bench.drain(1);
    assert_eq!(bench.relay.waiting_bytes(), 0);
}

#[test]
fn the_slips_of_one_pass_share_its_rate() {
    let mut bench = Bench::new(RelayLimits { bytes_per_second: 65_536, ..RelayLimits::default() });
    bench.register(1, HOME, 10);
    for slip in 100..110u32 {
        bench.relay.open(ClientId(slip.into()));
        bench.register_as(slip.into(), HOME, Account::for_tests(1, 1, slip));
        bench.send(slip.into(), Frame::Forward { dst: key(10), payload: &[0; 10_000] });
    }
    assert_eq!((bench.drain(1).len(), bench.relay.counters().dropped_rate), (1, 9));
    let asked = (100..110)
        .map(|slip| (0..200).filter(|_| bench.relay.take_request(bench.now, ClientId(slip))).count());
    assert_eq!(asked.sum::<usize>(), 1_024);
}

#[test]
fn a_datagram_over_the_limit_or_the_rate_is_counted_and_dropped() {
    let mut bench = Bench::new(RelayLimits { bytes_per_second: 16_384, ..RelayLimits::default() });
    bench.register(1, HOME, 10);
    bench.register(2, HOME, 20);
    bench.send(1, Frame::Forward { dst: key(20), payload: &[0; MAX_DATAGRAM_BYTES + 1] });
    assert_eq!(bench.relay.counters().dropped_too_large, 1);
    bench.send(1, Frame::Forward { dst: key(20), payload: &[0; MAX_DATAGRAM_BYTES] });
    bench.send(1, Frame::Forward { dst: key(20), payload: &[0; 10] });
    bench.send(1, Frame::GroupSend { tag: [0; 16], payload: &[0; 10] });
    assert_eq!(bench.relay.counters().dropped_rate, 2);
    bench.now += Duration::from_secs(1);
    bench.send(1, Frame::Forward { dst: key(20), payload: &[0; 10] });
    assert_eq!(bench.drain(2), ["16384 bytes from 10", "10 bytes from 10"]);
}

#[test]
fn those_who_sent_to_a_client_learn_that_it_went() {
    let mut bench = Bench::new(RelayLimits::default());
    bench.register(1, HOME, 10);
    bench.register(2, HOME, 20);
    bench.register(3, HOME, 30);
    bench.send(1, Frame::Forward { dst: key(20), payload: b"hi" });
    bench.relay.close(ClientId(2));
    assert_eq!(bench.drain(1), ["20 is gone"]);
    assert_eq!(bench.drain(3), [] as [&str; 0]);
    // One notice covers many datagrams.
    for _ in 0..5 {
        bench.send(1, Frame::Forward { dst: key(20), payload: b"hi" });
    }
    assert_eq!(bench.drain(1), ["20 is gone"]);
    assert_eq!(bench.relay.counters().dropped_no_peer, 5);
    assert_eq!(bench.relay.registered(), 2);
}

#[test]
fn correspondents_are_bounded() {
    let mut bench = Bench::new(RelayLimits::default());
    bench.register(0, HOME, 0);
    for n in 1..=MAX_CORRESPONDENTS as u64 + 3 {
        bench.register(n, HOME, n);
        bench.send(n, Frame::Forward { dst: key(0), payload: b"hi" });
    }
    assert_eq!(bench.relay.counters().dropped_correspondents, 3);
}

#[test]
fn a_frame_that_only_a_hub_sends_is_refused_from_a_client() {
    let mut bench = Bench::new(RelayLimits::default());
    bench.register(1, HOME, 10);
    let forged = Frame::Deliver { src: key(20), payload: b"forged" };
    assert!(!bench.relay.handle_frame(bench.now, ClientId(1), forged));
}

#[test]
fn a_burst_fills_one_plaintext_after_the_other() {
    let mut bench = Bench::new(RelayLimits::default());
    bench.register(1, HOME, 10);
    bench.register(2, HOME, 20);
    for _ in 0..150 {
        bench.send(1, Frame::Forward { dst: key(20), payload: &[0; 1200] });
    }
    let mut plaintext = Vec::new();
    assert!(bench.relay.poll_plaintext(ClientId(2), MAX_PLAINTEXT_BYTES, &mut plaintext));
    assert_eq!(plaintext.len() / 1235, MAX_PLAINTEXT_BYTES / 1235);
}
