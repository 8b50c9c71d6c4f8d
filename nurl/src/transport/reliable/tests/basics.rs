use super::*;

#[test]
fn a_message_from_either_side_arrives_and_is_acknowledged() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut net = Net::pair(1);
        let id = net.send(from, to, Priority::Job, 7, b"hello".to_vec());
        let took = net.run_until(ms(1_000), |net| !net.acked(from).is_empty());
        assert_eq!(net.messages(to), [(7, Bytes::from_static(b"hello"))]);
        assert_eq!(net.acked(from), [id]);
        assert!(took <= ms(130), "{took:?} at a round trip of 20 ms");
    }
}

#[test]
fn an_empty_message_is_a_message() {
    let mut net = Net::pair(1);
    net.send(0, 1, Priority::Control, 3, Vec::new());
    net.run(ms(200));
    assert_eq!(net.messages(1), [(3, Bytes::new())]);
}

#[test]
fn what_was_queued_before_the_session_goes_out_when_it_is_up() {
    let now = crate::rt::time::now();
    let mut reliable = Reliable::new(ReliableConfig::default(), key(1), 1, now, Rng::from_seed([1; 32]));
    reliable.send(now, key(2), Priority::Job, 1, Bytes::from_static(b"early")).unwrap();
    let mut out = Vec::new();
    assert_eq!(reliable.poll_transmit(now, &mut out), None);
    reliable.on_established(now, key(2), 9);
    assert_eq!(reliable.poll_transmit(now, &mut out), Some((key(2), None)));
    assert_eq!(out.len(), DATAGRAM_BYTES);
}

/// The number of QUIC packets in a datagram whose packets all have long headers but perhaps the last (RFC 9000 §17.2).
fn packets(mut datagram: &[u8]) -> usize {
    let number = |bytes: &mut &[u8]| {
        let (first, len) = (bytes[0], 1 << (bytes[0] >> 6));
        let value =
            bytes[1..len].iter().fold(usize::from(first & 0x3f), |n, byte| n << 8 | usize::from(*byte));
        *bytes = &bytes[len..];
        value
    };
    let mut count = 0;
    while !datagram.is_empty() {
        count += 1;
        let kind = datagram[0];
        if kind & 0x80 == 0 {
            return count;
        }
        let mut rest = &datagram[5..];
        for _ in 0..2 {
            rest = &rest[1 + usize::from(rest[0])..];
        }
        if kind & 0x30 == 0 {
            assert_eq!(number(&mut rest), 0, "no token");
        }
        let len = number(&mut rest);
        datagram = &rest[len..];
    }
    count
}

#[test]
fn a_servers_first_datagram_has_an_initial_and_a_handshake_packet() {
    let (now, config) = (crate::rt::time::now(), ReliableConfig::default);
    let mut client = Reliable::new(config(), key(1), 1, now, Rng::from_seed([1; 32]));
    let mut server = Reliable::new(config(), key(2), 2, now, Rng::from_seed([2; 32]));
    client.on_established(now, key(2), 2);
    server.on_established(now, key(1), 1);
    client.send(now, key(2), Priority::Job, 1, Bytes::from_static(b"early")).unwrap();
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    assert_eq!(client.poll_transmit(now, &mut asked), Some((key(2), None)));
    assert_eq!(packets(&asked), 1);
    server.handle_datagram(now, key(1), &asked);
    let (_, size) = server.poll_transmit(now, &mut answered).expect("the server answers");
    let first = &answered[..size.unwrap_or(answered.len())];
    assert!(packets(first) >= 2, "coalesced as RFC 9000 §12.2 says");
}

#[test]
fn sixteen_mebibytes_survive_ten_percent_loss() {
    let mut net = Net::pair(2);
    net.weather = Weather { loss_percent: 10, delay: ms(5), jitter: ms(2), ..Weather::default() };
    let large = body(MAX_MESSAGE_BYTES, 9);
    net.send(0, 1, Priority::Bulk, 4, large.clone());
    net.run_until(Duration::from_secs(300), |net| !net.acked(0).is_empty());
    let messages = net.messages(1);
    assert_eq!(messages.len(), 1);
    assert!(messages[0].1 == large, "the body is the one that was sent");
    assert_eq!(net.longest, DATAGRAM_BYTES);
}

#[test]
fn a_thousand_small_messages_in_both_directions_arrive_once_each() {
    let mut net = Net::pair(3);
    net.weather = Weather { loss_percent: 5, delay: ms(20), jitter: ms(10), ..Weather::default() };
    for n in 0..1_000u32 {
        for (from, to) in [(0, 1), (1, 0)] {
            net.send(from, to, Priority::State, 2, n.to_le_bytes().to_vec());
        }
    }
    net.run_until(Duration::from_secs(60), |net| net.acked(0).len() == 1_000 && net.acked(1).len() == 1_000);
    for host in [0, 1] {
        let mut numbers: Vec<u32> = net
            .messages(host)
            .iter()
            .map(|(_, body)| u32::from_le_bytes(body[..].try_into().unwrap()))
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
    }
}

#[test]
fn a_control_message_overtakes_a_bulk_transfer() {
    let mut net = Net::pair(4);
    net.weather = Weather { rate: 1_000_000, delay: ms(20), ..Weather::default() };
    for n in 0..32 {
        net.send(0, 1, Priority::Bulk, 4, body(CLASS_BUDGET_BYTES / 32, n));
    }
    net.run(ms(1_500));
    let control = net.send(0, 1, Priority::Control, 1, body(200_000, 99));
    // Its own 200 ms, the same for the link's queue, and a round trip. With an equal share among 33 it would be 3 s.
    let took = net.run_until(ms(4_000), |net| net.acked(0).contains(&control));
    assert!(took < ms(700), "{took:?}");
    assert!(net.acked(0).len() < 33);
    net.run_until(Duration::from_secs(20), |net| net.acked(0).len() == 33);
}

#[test]
fn bulk_messages_never_use_up_the_streams_of_control() {
    let mut net = Net::pair(5);
    net.weather = Weather { rate: 1_000_000, delay: ms(20), queue: ms(100), ..Weather::default() };
    // As many messages as the peer admits streams. All of them would end together, after 4 s.
    for n in 0..limits::MAX_STREAMS {
        net.send(0, 1, Priority::Bulk, 4, body(CLASS_BUDGET_BYTES / limits::MAX_STREAMS as usize, n as u8));
    }
    net.run(ms(300));
    let control = net.send(0, 1, Priority::Control, 1, b"now".to_vec());
    net.run_until(ms(300), |net| net.acked(0).contains(&control));
}

#[test]
fn a_message_above_the_limit_is_refused_with_its_length() {
    let mut net = Net::pair(6);
    let len = MAX_MESSAGE_BYTES + 1;
    let refusal = net.hosts[0].reliable.send(net.now, key(2), Priority::Bulk, 1, Bytes::from(vec![0; len]));
    assert_eq!(refusal, Err(SendError::TooLarge { len }));
    assert_eq!(net.hosts[0].reliable.stats().refused_large, 1);
}

#[test]
fn a_full_priority_refuses_then_announces_room_and_leaves_the_others_open() {
    let mut net = Net::pair(7);
    let part = CLASS_BUDGET_BYTES / 4;
    for n in 0..4 {
        net.send(0, 1, Priority::Bulk, 1, body(part, n));
    }
    let send = |net: &mut Net, priority| {
        net.hosts[0].reliable.send(net.now, key(2), priority, 1, Bytes::from_static(b"x"))
    };
    assert_eq!(send(&mut net, Priority::Bulk), Err(SendError::Full { queued_bytes: CLASS_BUDGET_BYTES }));
    assert!(send(&mut net, Priority::Control).is_ok());
    let writable = |net: &mut Net| {
        net.hosts[0].events.iter().any(|(_, event)| *event == ReliableEvent::Writable { peer: key(2) })
    };
    net.run_until(Duration::from_secs(10), writable);
    assert!(send(&mut net, Priority::Bulk).is_ok());
}

#[test]
fn one_larger_message_may_wait_alone() {
    let mut net = Net::pair(7);
    net.send(0, 1, Priority::Bulk, 1, vec![0; MAX_MESSAGE_BYTES]);
    let refusal = net.hosts[0].reliable.send(net.now, key(2), Priority::Bulk, 1, Bytes::new());
    assert!(matches!(refusal, Err(SendError::Full { .. })));
}

#[test]
fn the_number_of_waiting_messages_is_bounded() {
    let mut net = Net::pair(7);
    for _ in 0..CLASS_MESSAGES {
        net.send(0, 1, Priority::Job, 1, Vec::new());
    }
    let refusal = net.hosts[0].reliable.send(net.now, key(2), Priority::Job, 1, Bytes::new());
    assert_eq!(refusal, Err(SendError::Full { queued_bytes: 0 }));
}

#[test]
fn the_send_budget_of_all_peers_refuses_and_announces_room() {
    let config = ReliableConfig { send_budget_bytes: 100_000, ..ReliableConfig::default() };
    let mut net = Net::new(3, 8, &config);
    net.send(0, 1, Priority::Bulk, 1, body(100_000, 1));
    let refusal = net.hosts[0].reliable.send(net.now, key(3), Priority::Control, 1, Bytes::from_static(b"x"));
    assert!(matches!(refusal, Err(SendError::Full { .. })));
    net.run_until(Duration::from_secs(5), |net| {
        net.hosts[0].events.iter().any(|(_, event)| *event == ReliableEvent::Writable { peer: key(3) })
    });
    net.send(0, 2, Priority::Control, 1, b"x".to_vec());
}

#[test]
fn the_table_of_peers_is_bounded() {
    let now = crate::rt::time::now();
    let config = ReliableConfig { max_peers: 2, ..ReliableConfig::default() };
    let mut reliable = Reliable::new(config, key(1), 1, now, Rng::from_seed([1; 32]));
    let mut send = |n| reliable.send(now, key(n), Priority::Job, 1, Bytes::new());
    assert!(send(2).is_ok() && send(3).is_ok());
    assert_eq!(send(4), Err(SendError::TooManyPeers));
    assert_eq!(send(1), Err(SendError::ToSelf));
    reliable.on_established(now, key(4), 9);
    assert_eq!(reliable.stats().refused_peers, 2);
    reliable.forget(now, key(2));
    assert!(reliable.send(now, key(4), Priority::Job, 1, Bytes::new()).is_ok());
}

#[test]
fn beyond_the_receive_budget_one_peer_is_read_at_a_time_and_all_arrive() {
    let config = ReliableConfig { receive_budget_bytes: 1 << 20, ..ReliableConfig::default() };
    let mut net = Net::new(5, 9, &config);
    net.weather = Weather { delay: ms(10), rate: 4_000_000, ..Weather::default() };
    for sender in 1..5 {
        net.send(sender, 0, Priority::Job, 1, body(3 << 20, sender as u8));
    }
    net.run_until(Duration::from_secs(60), |net| net.messages(0).len() == 4);
    assert!(net.hosts[0].reliable.stats().paused > 0);
    assert_eq!(net.hosts[0].reliable.stats().stalled, 0);
}

#[test]
fn messages_that_nobody_takes_stop_the_sender() {
    let config = ReliableConfig { receive_budget_bytes: 1 << 20, ..ReliableConfig::default() };
    let mut net = Net::new(2, 10, &config);
    net.taking = false;
    let mut sent = 0;
    for _ in 0..200 {
        let sent_now =
            net.hosts[0].reliable.send(net.now, key(2), Priority::Job, 1, Bytes::from(vec![1; 1 << 20]));
        sent += usize::from(sent_now.is_ok());
        net.run(ms(200));
    }
    // The budget, the data that QUIC's window admits, and the sender's waiting messages.
    let bound = 1 + (CONNECTION_WINDOW_BYTES as usize >> 20) + (CLASS_BUDGET_BYTES >> 20) + 1;
    assert!(sent <= bound, "{sent} messages of 1 MiB");
    net.taking = true;
    net.run_until(Duration::from_secs(5), |net| net.messages(1).len() == sent);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed| {
        let mut net = Net::pair(seed);
        net.weather = Weather { loss_percent: 7, jitter: ms(5), rate: 2_000_000, ..Weather::default() };
        for n in 0..200 {
            net.send(n % 2, 1 - n % 2, Priority::ALL[n % 4], 1, body(n * 97, n as u8));
        }
        net.run(Duration::from_secs(90));
        assert_eq!(net.messages(0).len() + net.messages(1).len(), 200);
        (net.trace.finalize(), net.sent)
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11), run(12));
}
