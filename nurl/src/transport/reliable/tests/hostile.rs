use super::*;
use crate::authority::account::{Account, Party};
use crate::authority::invitation::InvitationId;
use crate::kit::shares::Holder as _;
use crate::rt::Rng;
use proptest::prelude::*;

#[test]
fn a_restarted_peer_fails_what_is_unacknowledged_and_its_new_boot_is_served() {
    for (a, b) in [(0, 1), (1, 0)] {
        let mut net = Net::pair(1);
        net.send(a, b, Priority::Job, 1, b"first".to_vec());
        net.run(ms(500));
        net.weather.blackout = true;
        let lost = net.send(a, b, Priority::Job, 1, b"second".to_vec());
        net.run(ms(500));
        net.restart(b);
        net.hosts[b].events.clear();
        net.weather.blackout = false;
        net.establish(a, b);
        net.establish(b, a);
        net.run(ms(10));
        assert_eq!(net.failed(a), [(lost, FailReason::PeerRestarted)]);
        let new = net.send(a, b, Priority::Job, 1, b"third".to_vec());
        net.send(b, a, Priority::Job, 1, b"back".to_vec());
        net.run_until(ms(2_000), |net| net.acked(a).contains(&new) && net.acked(b).len() == 1);
        assert_eq!(net.messages(b), [(1, Bytes::from_static(b"third"))]);
    }
}

#[test]
fn datagrams_of_an_old_boot_are_ignored() {
    let mut net = Net::pair(2);
    // All datagrams of host 0's first process are recorded.
    let mut old = Vec::new();
    let mut out = Vec::new();
    net.send(0, 1, Priority::Job, 1, b"old".to_vec());
    for _ in 0..50 {
        while let Some((_, segment)) = net.hosts[0].reliable.poll_transmit(net.now, &mut out) {
            for datagram in out.chunks(segment.unwrap_or(out.len())) {
                old.push(datagram.to_vec());
                net.transmit(0, 1, datagram);
            }
        }
        let until = net.now + ms(10);
        net.step(until);
    }
    assert_eq!(net.messages(1).len(), 1);
    net.restart(0);
    net.establish(0, 1);
    net.establish(1, 0);
    net.hosts[1].events.clear();
    let before = net.hosts[1].reliable.stats().connections;
    for datagram in &old {
        net.hosts[1].reliable.handle_datagram(net.now, key(1), datagram);
    }
    net.run(ms(1_000));
    assert!(net.messages(1).is_empty());
    assert_eq!(net.hosts[1].reliable.stats().connections, before);
    assert!(net.hosts[1].reliable.stats().stale >= old.len() as u64);
    net.send(0, 1, Priority::Job, 1, b"new".to_vec());
    net.run(ms(1_000));
    assert_eq!(net.messages(1), [(1, Bytes::from_static(b"new"))]);
}

#[test]
fn a_peer_that_forgot_us_is_reached_again_from_either_side() {
    for (forgets, sends) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut net = Net::pair(3);
        net.send(0, 1, Priority::Job, 1, b"before".to_vec());
        net.run(ms(500));
        let other = net.hosts[1 - forgets].key;
        net.hosts[forgets].reliable.forget(net.now, other);
        net.establish(forgets, 1 - forgets);
        net.hosts[1 - sends].events.clear();
        net.hosts[sends].events.clear();
        // A message on a connection that the peer has forgotten may fail; the next one arrives.
        net.send(sends, 1 - sends, Priority::Job, 1, b"one".to_vec());
        net.run(Duration::from_secs(3));
        let lost = net.failed(sends);
        assert!(lost.iter().all(|(_, reason)| *reason == FailReason::ConnectionLost));
        net.send(sends, 1 - sends, Priority::Job, 1, b"two".to_vec());
        net.run(Duration::from_secs(3));
        let messages = net.messages(1 - sends);
        assert_eq!(messages.len() + lost.len(), 2, "{forgets} forgets, {sends} sends: {lost:?}");
        assert_eq!(messages.last().unwrap().1, Bytes::from_static(b"two"));
    }
}

#[test]
fn forgetting_a_peer_fails_its_messages_and_frees_its_bytes() {
    let mut net = Net::pair(4);
    net.weather.blackout = true;
    let id = net.send(0, 1, Priority::Bulk, 1, body(100_000, 1));
    net.run(ms(500));
    net.hosts[0].reliable.forget(net.now, key(2));
    net.run(ms(1));
    assert_eq!(net.failed(0), [(id, FailReason::Forgotten)]);
    assert_eq!(net.hosts[0].reliable.queued_bytes(&key(2)), 0);
    assert_eq!(net.hosts[0].reliable.poll_timeout(), None, "nothing is left to do");
}

#[test]
fn the_server_side_gets_its_connection_under_loss() {
    for seed in 0..10 {
        let mut net = Net::pair(seed);
        net.weather = Weather { loss_percent: 40, ..Weather::default() };
        net.send(1, 0, Priority::Job, 1, b"from the server".to_vec());
        net.run_until(Duration::from_secs(40), |net| !net.acked(1).is_empty());
    }
}

#[test]
fn open_requests_back_off() {
    let mut net = Net::pair(5);
    net.weather.blackout = true;
    net.send(1, 0, Priority::Job, 1, b"anyone?".to_vec());
    net.run(Duration::from_secs(60));
    let opens = net.hosts[1].reliable.stats().opens_sent;
    assert!((55..=65).contains(&opens), "{opens} requests in a minute");
}

#[test]
fn a_datagram_before_the_session_is_counted_and_dropped() {
    let now = crate::rt::time::now();
    let mut reliable = Reliable::new(ReliableConfig::default(), key(2), 1, now, Rng::from_seed([1; 32]));
    reliable.handle_datagram(now, key(1), &[0xC0; 1_200]);
    reliable.handle_datagram(now, key(1), &[0x40; 100]);
    reliable.handle_datagram(now, key(1), &[0x02]);
    reliable.handle_datagram(now, key(1), &[]);
    let stats = reliable.stats();
    assert_eq!((stats.garbage, stats.unknown_peer), (3, 1));
    assert_eq!(reliable.poll_event(), None);
}

/// Two peers with a connection, opened by host 0.
fn connected(config: &ReliableConfig) -> Net {
    let mut net = Net::new(2, 6, config);
    net.send(0, 1, Priority::Job, 1, b"hello".to_vec());
    net.run(ms(200));
    net.hosts[1].events.clear();
    net
}

#[test]
fn a_peer_that_breaks_the_rules_of_messages_loses_its_connection_and_may_come_back() {
    let too_long = wire::header(1, MAX_MESSAGE_BYTES + 1).to_vec();
    let more_than_announced = [&wire::header(1, 3)[..], b"four"].concat();
    let ends_early = [&wire::header(1, 3)[..], b"2."].concat();
    let half_a_header = vec![1, 2];
    for bytes in [too_long, more_than_announced, ends_early, half_a_header] {
        let mut net = connected(&ReliableConfig::default());
        net.hosts[0].reliable.raw_stream(net.now, key(2), &bytes, true);
        net.run(ms(200));
        assert_eq!(net.hosts[1].reliable.stats().violations, 1);
        assert_eq!(net.hosts[0].reliable.stats().connections_ended, 1, "it was told");
        assert!(net.messages(1).is_empty());
        assert_eq!(net.hosts[1].reliable.receiving().now, 0);
        net.send(0, 1, Priority::Job, 1, b"sorry".to_vec());
        net.run(ms(500));
        assert_eq!(net.messages(1).len(), 1);
    }
}

#[test]
fn announcing_more_than_the_bound_ends_the_connection_and_announcing_costs_nothing() {
    let mut net = connected(&ReliableConfig::default());
    let announcement = wire::header(1, MAX_MESSAGE_BYTES);
    let admitted = MAX_INCOMPLETE_BYTES / MAX_MESSAGE_BYTES;
    for _ in 0..admitted {
        net.hosts[0].reliable.raw_stream(net.now, key(2), &announcement, false);
    }
    net.run(ms(200));
    assert_eq!(net.hosts[1].reliable.stats().violations, 0);
    assert_eq!(net.hosts[1].reliable.receiving().now, 0, "nothing is reserved for what is announced");
    net.hosts[0].reliable.raw_stream(net.now, key(2), &announcement, false);
    net.run(ms(200));
    assert_eq!(net.hosts[1].reliable.stats().violations, 1);
}

/// Hosts of which all but the last two hoard: they begin messages to the last one, as many as fit, and then send a byte
/// each 3 s.
fn hoarded(hoarders: u8, config: &ReliableConfig, each: usize) -> Net {
    hoarded_in(Net::new(hoarders + 2, 7, config), each)
}

fn hoarded_in(mut net: Net, each: usize) -> Net {
    let victim = net.hosts.len() - 1;
    let hoarders = victim as u8 - 1;
    for sender in 0..victim {
        net.send(sender, victim, Priority::Job, 1, b"hello".to_vec());
    }
    net.run(ms(500));
    net.hosts[victim].events.clear();
    let to = net.hosts[victim].key;
    for sender in 0..usize::from(hoarders) {
        let mut left = each;
        while left > 0 {
            let length = left.min(MAX_MESSAGE_BYTES / 2);
            let begun = [&wire::header(1, MAX_MESSAGE_BYTES)[..], &vec![0; length]].concat();
            net.hosts[sender].reliable.raw_stream(net.now, to, &begun, false);
            left -= length;
        }
        net.run(ms(200));
    }
    net
}

/// Lets the hoarders send a byte each 3 s, for this time.
fn trickle(net: &mut Net, hoarders: u8, seconds: u64) {
    let to = net.hosts.last().unwrap().key;
    for _ in 0..seconds / 3 {
        for sender in 0..usize::from(hoarders) {
            net.hosts[sender].reliable.raw_trickle(net.now, to);
        }
        net.run(Duration::from_secs(3));
    }
}

#[test]
fn eighteen_hoarders_keep_nobody_out_and_lose_what_is_above_their_share() {
    const MIB: usize = 1 << 20;
    let budget = 32 * MIB;
    let config = ReliableConfig { receive_budget_bytes: budget, ..ReliableConfig::default() };
    let mut net = hoarded(18, &config, 2 * MIB);
    let (honest, victim) = (18, 19);
    // A newcomer's message of half a share arrives as if nobody else was there.
    net.send(honest, victim, Priority::Control, 2, body(budget / 2 / 20 / 2, 1));
    net.run_until(Duration::from_secs(1), |net| net.messages(victim).len() == 1);
    trickle(&mut net, 18, 180);
    let reliable = &net.hosts[victim].reliable;
    assert!(reliable.stats().stalled + reliable.stats().evicted > 0);
    assert!(reliable.receiving().now <= budget / 2, "{}", reliable.receiving().now);
    // One that is larger than a share completes, too.
    net.hosts[victim].events.clear();
    net.send(honest, victim, Priority::Job, 3, body(4 * MIB, 2));
    for _ in 0..10 {
        trickle(&mut net, 18, 3);
    }
    assert_eq!(net.messages(victim).len(), 1);
}

#[test]
fn a_newcomer_of_another_invitation_is_heard_at_once_while_64_keys_of_one_hold_all_they_can() {
    const MIB: usize = 1 << 20;
    let config = ReliableConfig { receive_budget_bytes: 16 * MIB, ..ReliableConfig::default() };
    let mut net = Net::new(66, 7, &config);
    let (honest, victim) = (64, 65);
    for n in 0..=64 {
        let key = net.hosts[n].key;
        let invitation = Party::Invitation(InvitationId([if n == 64 { 2 } else { 1 }; 8]));
        let account = Account::of(&[invitation, Party::Key(key), Party::Key(key)]);
        net.hosts[victim].reliable.set_account(account);
    }
    let mut net = hoarded_in(net, MIB / 2);
    // 8 MiB are divided: half of them are its invitation's, and not a 65th part.
    net.send(honest, victim, Priority::Job, 2, body(4 * MIB - (64 << 10), 1));
    net.run_until(Duration::from_secs(5), |net| net.messages(victim).len() == 1);
}

#[test]
fn a_newcomer_is_heard_while_the_others_fill_the_budget() {
    let config = ReliableConfig { receive_budget_bytes: 1 << 20, ..ReliableConfig::default() };
    let mut net = hoarded(1, &config, 900 << 10);
    net.send(1, 2, Priority::Job, 2, body(50_000, 1));
    net.run_until(Duration::from_secs(1), |net| net.messages(2).len() == 1);
}

#[test]
fn many_honest_senders_that_need_more_than_the_budget_all_get_through() {
    let config = ReliableConfig { receive_budget_bytes: 16 << 20, ..ReliableConfig::default() };
    let mut net = Net::new(13, 9, &config);
    net.weather = Weather { rate: 8_000_000, shared: true, ..Weather::default() };
    let ids: Vec<_> =
        (0..12).map(|sender| net.send(sender, 12, Priority::Job, 1, body(3 << 20, sender as u8))).collect();
    net.run_until(Duration::from_secs(60), |net| net.messages(12).len() == 12);
    net.run(ms(500));
    for (sender, id) in ids.into_iter().enumerate() {
        assert_eq!(net.acked(sender), [id]);
    }
    let stats = net.hosts[12].reliable.stats();
    assert_eq!((stats.stalled, stats.evicted), (0, 0));
}

#[test]
fn a_small_chunk_never_keeps_its_datagram_alive_and_the_body_is_whole() {
    let mut net = connected(&ReliableConfig::default());
    // Priorities interleave streams, so that chunks of all sizes arrive.
    for n in 0..60 {
        net.send(0, 1, Priority::ALL[n % 4], n as u8, body(n * 41, n as u8));
    }
    net.run(Duration::from_secs(2));
    let mut messages = net.messages(1);
    messages.sort_by_key(|(kind, _)| *kind);
    for (n, (kind, received)) in messages.iter().enumerate() {
        assert_eq!((usize::from(*kind), &received[..]), (n, &body(n * 41, n as u8)[..]));
    }
    assert_eq!(messages.len(), 60);
}

#[test]
fn bytes_beyond_a_gap_count_and_come_back_when_the_gap_closes_or_the_peer_goes() {
    const BEGINNING: &[u8] = b"the first datagram of the message";
    for closes in [true, false] {
        let mut net = connected(&ReliableConfig::default());
        net.censored = Some(BEGINNING);
        let message = [BEGINNING, &body(1 << 20, 1)].concat();
        net.send(0, 1, Priority::Bulk, 1, message.clone());
        net.run(Duration::from_secs(5));
        let held = net.hosts[1].reliable.receiving().now;
        assert!(held > 1 << 20, "{held} bytes count");
        assert!(held < 5 << 18, "{held} bytes count");
        if closes {
            net.censored = None;
            net.run(Duration::from_secs(3));
            assert_eq!(net.messages(1), [(1, Bytes::from(message))]);
        } else {
            net.hosts[1].reliable.forget(net.now, key(1));
        }
        assert_eq!(net.hosts[1].reliable.receiving().now, 0);
    }
}

#[test]
fn single_bytes_with_gaps_between_them_count_for_what_they_occupy() {
    let mut inbox = inbox::Inbox::default();
    for n in 1..=100 {
        inbox.insert(quinn_proto::StreamId::new(quinn_proto::Side::Client, quinn_proto::Dir::Uni, 0), 2 * n);
    }
    assert_eq!(inbox.held(), 100 * (1 + limits::PART_OVERHEAD_BYTES));
}

#[test]
fn the_windows_of_many_peers_share_the_receive_budget() {
    const BEGINNING: &[u8] = b"the first datagram of the message";
    const BUDGET: usize = 8 << 20;
    let config = ReliableConfig { receive_budget_bytes: BUDGET, ..ReliableConfig::default() };
    let mut net = Net::new(33, 8, &config);
    for sender in 0..32 {
        net.send(sender, 32, Priority::Control, 1, b"hello".to_vec());
    }
    net.run(Duration::from_secs(1));
    net.censored = Some(BEGINNING);
    let message = [BEGINNING, &body((4 << 20) - BEGINNING.len(), 1)].concat();
    for sender in 0..32 {
        net.send(sender, 32, Priority::Bulk, 1, message.clone());
    }
    let before = net.sent_bytes;
    net.run(Duration::from_secs(5));
    let sent = net.sent_bytes - before;
    // The engine reads as much as the budget. QUIC holds as much again, plus the larger windows granted to the first
    // peers while they were few: a half for each doubling of their number. Another tenth is QUIC's overhead.
    let bound = (BUDGET * 2 + BUDGET / 2 * 5) * 11 / 10;
    assert!(sent < bound, "{sent} bytes of 128 MiB");
    net.censored = None;
    for sender in 0..32 {
        net.hosts[32].reliable.forget(net.now, key(sender + 1));
    }
    assert_eq!(net.hosts[32].reliable.receiving().now, 0);
}

/// Two connected peers, and the datagrams that host 0 sent.
fn recorded(seed: u8) -> (Net, Vec<Vec<u8>>) {
    let mut net = Net::pair(seed);
    let mut sent = Vec::new();
    let mut out = Vec::new();
    net.send(0, 1, Priority::Job, 1, body(20_000, seed));
    for _ in 0..20 {
        while let Some((_, segment)) = net.hosts[0].reliable.poll_transmit(net.now, &mut out) {
            for datagram in out.chunks(segment.unwrap_or(out.len())) {
                sent.push(datagram.to_vec());
                net.transmit(0, 1, datagram);
            }
        }
        let until = net.now + ms(10);
        net.step(until);
    }
    (net, sent)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_refused_without_a_panic(
        datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1_300), 1..20),
    ) {
        let (mut net, _) = recorded(1);
        for datagram in &datagrams {
            net.hosts[0].reliable.handle_datagram(net.now, key(2), datagram);
            net.hosts[1].reliable.handle_datagram(net.now, key(1), datagram);
        }
        net.run(ms(200));
    }

    #[test]
    fn a_peer_that_garbles_its_packets_hurts_only_its_own_connection(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut net, sent) = recorded(2);
        for (which, at, value) in changes {
            let mut datagram = sent[which.index(sent.len())].clone();
            let at = at.index(datagram.len());
            datagram[at] = value;
            // Past the header of a short packet: a new packet number, so that its frames are read.
            datagram[at.min(9)] = datagram[at.min(9)].wrapping_add(value);
            if value % 4 == 0 {
                datagram.truncate(cut.index(datagram.len()) + 1);
            }
            net.hosts[1].reliable.handle_datagram(net.now, key(1), &datagram);
        }
        net.run(ms(500));
        let receiving = net.hosts[1].reliable.receiving().now;
        prop_assert!(receiving <= 25_000 * 60, "{receiving} bytes held");
        // The two peers recover from any damage.
        net.send(0, 1, Priority::Job, 9, b"after".to_vec());
        net.run(Duration::from_secs(8));
        if !net.messages(1).iter().any(|(kind, _)| *kind == 9) {
            net.send(0, 1, Priority::Job, 9, b"again".to_vec());
            net.run(Duration::from_secs(8));
            prop_assert!(net.messages(1).iter().any(|(kind, _)| *kind == 9), "{:?} {:?}",
                net.hosts[0].reliable.stats(), net.hosts[1].reliable.stats());
        }
    }
}
