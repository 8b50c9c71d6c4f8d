//! The parts of `full` about what is kept for clients, and sent to them: records, waiting bytes, requests, groups.

use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::world::World;
use nurl::PublicKey;
use nurl::internals::net::reach::hub::HubLimits;
use nurl::internals::net::reach::hub_client::HubEvent;
use nurl::internals::net::reach::relay::{GroupTag, RelayLimits};
use nurl::internals::net::reach::rendezvous::PublishResult;

use super::{ANSWERED, AT_ONCE, Bench, FULL, exactly};
use crate::cluster::{Deadline, soon};
use crate::models::guest::{Guest, none_went};

const RECORDS: usize = 4;

/// A record lives so long, and is refreshed at a third.
const RECORD_LIFE: Duration = Duration::from_secs(30);

const ALL_BYTES: usize = 192 << 10;

const DATAGRAM: usize = 4 << 10;

const RECORD: &str = "a record finds room in a full hub at the cost of the invitation that has most";
const WITHDRAWN: &str = "a withdrawn record is gone, and its place is taken at the next refresh";
const BYTES: &str = "when all queues are full, the client loses for which most waits";
const RATE: &str = "a pass's requests beyond its rate delay nobody else's";
const GROUPS: &str = "a group beyond the limit is refused until another is left";

/// What the hub answered last to a record.
fn published(guest: &Guest) -> Option<PublishResult> {
    guest.heard(Duration::ZERO).into_iter().rev().find_map(|(_, event)| match event {
        HubEvent::Published { result, .. } => Some(result),
        _ => None,
    })
}

/// Publishes a record, and waits for the answer.
async fn publish(bench: &Bench, guest: &Guest, property: &'static str) -> Result<PublishResult, Violation> {
    guest.is_in(property, AT_ONCE).await?;
    guest.give(|hub, now| hub.publish(now, 1, Bytes::from_static(b"sealed"))).await;
    let answer = || published(guest).map(|_| ()).ok_or_else(|| format!("{} has no answer", guest.name));
    soon(bench.world, property, ANSWERED, answer).await?;
    Ok(published(guest).expect("it was answered"))
}

/// The keys of these whose record a client finds.
async fn found(bench: &Bench, asker: &Guest, of: &[&Guest]) -> Result<Vec<PublicKey>, Violation> {
    let begun = bench.world.elapsed();
    for guest in of {
        let key = guest.key;
        asker.give(move |hub, _| hub.look_up(key)).await;
    }
    let answers = || {
        let heard = asker.heard(begun).into_iter().map(|(_, event)| event);
        heard.filter(|event| matches!(event, HubEvent::Record(_) | HubEvent::NoRecord { .. })).count()
    };
    let all = || (answers() == of.len()).then_some(()).ok_or_else(|| format!("{} answers", answers()));
    soon(bench.world, RECORD, ANSWERED, all).await?;
    let heard = asker.heard(begun).into_iter();
    let key = |event| if let HubEvent::Record(record) = event { Some(record.key) } else { None };
    Ok(heard.filter_map(|(_, event)| key(event)).collect())
}

pub(super) async fn records(bench: &mut Bench) -> Result<(), Violation> {
    let limits = HubLimits { records: RECORDS, record_ttl: RECORD_LIFE, ..HubLimits::default() };
    let hub = bench.hub("records", limits);
    let first = bench.by_hand("first", &hub);
    exactly(
        RECORD,
        "stored",
        usize::from(publish(bench, &first, RECORD).await? == PublishResult::Stored),
        1,
    )?;
    let mut crowd = Vec::new();
    for number in 0..RECORDS {
        let guest = bench.of_the_crowd(&format!("record {number}"), &hub);
        let answer = publish(bench, &guest, RECORD).await?;
        let wanted = if number < RECORDS - 1 { PublishResult::Stored } else { PublishResult::Full };
        if answer != wanted {
            return Err(Violation::safety(RECORD, format!("{}: {answer:?}, not {wanted:?}", guest.name)));
        }
        crowd.push(guest);
    }
    exactly(FULL, "records", hub.stats().records, RECORDS)?;
    let second = bench.by_hand("second", &hub);
    let answer = publish(bench, &second, RECORD).await?;
    if answer != PublishResult::Stored {
        return Err(Violation::safety(RECORD, format!("{}: {answer:?}", second.name)));
    }
    let own: Vec<&Guest> = [&first, &second].into_iter().collect();
    exactly(RECORD, "records of those alone are found", found(bench, &crowd[0], &own).await?.len(), 2)?;
    let theirs: Vec<&Guest> = crowd.iter().collect();
    let left = found(bench, &first, &theirs).await?;
    exactly(RECORD, "records of the crowd are found", left.len(), RECORDS - 2)?;

    first.give(|hub, _| hub.withdraw()).await;
    bench.world.sleep(ANSWERED).await;
    exactly(WITHDRAWN, "records of it are found", found(bench, &crowd[0], &[&first]).await?.len(), 0)?;
    let full = || {
        let records = hub.stats().records;
        (records == RECORDS).then_some(()).ok_or_else(|| format!("{records} records"))
    };
    soon(bench.world, WITHDRAWN, RECORD_LIFE / 3 + ANSWERED, full).await?;
    bench.world.sleep(RECORD_LIFE).await;
    exactly(WITHDRAWN, "records of it are found", found(bench, &crowd[0], &[&first]).await?.len(), 0)?;
    none_went(WITHDRAWN, [&first, &second])
}

/// Numbers of the datagrams that a guest received.
fn received(guest: &Guest) -> usize {
    guest.count(|event| matches!(event, HubEvent::Datagram { .. }))
}

/// Sends so many datagrams, a few at a time, as a link takes them.
async fn send(world: World, from: &Guest, to: PublicKey, count: usize) {
    for _ in 0..count {
        from.give(move |hub, _| hub.forward(&to, &[7; DATAGRAM])).await;
        world.sleep(Duration::from_millis(2)).await;
    }
    world.sleep(ANSWERED).await;
}

pub(super) async fn bytes(bench: &mut Bench) -> Result<(), Violation> {
    let world = bench.world;
    let relay = RelayLimits { all_bytes: ALL_BYTES, ..RelayLimits::default() };
    let hub = bench.hub("bytes", HubLimits { relay, ..HubLimits::default() });
    let [sender, few, many, reader] =
        ["sender", "few wait", "many wait", "reader"].map(|name| bench.by_hand(name, &hub));
    for guest in [&sender, &few, &many, &reader] {
        guest.is_in(BYTES, AT_ONCE).await?;
    }
    few.host.pause();
    many.host.pause();
    // What the stream takes before anything waits at the hub; then 40 KiB wait.
    let mut taken = 0;
    while hub.stats().fullest_queue_bytes < 40 << 10 {
        send(world, &sender, few.key, 1).await;
        taken += 1;
        if taken > 1_000 {
            return Err(Violation::safety(FULL, "nothing waits for one that doesn't read".to_owned()));
        }
    }
    send(world, &sender, many.key, taken + 2 * ALL_BYTES / DATAGRAM).await;
    let dropped = hub.stats().relay.dropped_all_full;
    if dropped == 0 {
        return Err(Violation::safety(FULL, "no datagram had to go".to_owned()));
    }
    // Another one for the client for which little waits finds room.
    send(world, &sender, few.key, 4).await;
    send(world, &sender, reader.key, 20).await;
    exactly(BYTES, "datagrams reached one that reads", received(&reader), 20)?;
    few.host.resume();
    many.host.resume();
    let deadline = Deadline::new(world, BYTES, Duration::from_secs(2));
    let missing = || {
        let lacks = received(&few) != taken + 4;
        lacks
            .then(|| format!("{} of {} for which little waits", received(&few), taken + 4))
            .into_iter()
            .collect()
    };
    while deadline.still_missing(missing()).await? {}
    let told = sender.count(|event| *event == HubEvent::QueueFull { peer: many.key });
    let wrongly = sender.count(|event| *event == HubEvent::QueueFull { peer: few.key });
    exactly(BYTES, "times its sender was told of the wrong one", wrongly, 0)?;
    if told == 0 {
        return Err(Violation::liveness(BYTES, "the sender wasn't told".to_owned()));
    }
    none_went(BYTES, [&sender, &few, &many, &reader])
}

pub(super) async fn requests_and_groups(bench: &mut Bench) -> Result<(), Violation> {
    const BURST: usize = 8;
    let world = bench.world;
    let relay = RelayLimits { groups: 2, ..RelayLimits::default() };
    let (requests_per_second, requests_burst) = (1, BURST as u64);
    let limits = HubLimits { relay, requests_per_second, requests_burst, ..HubLimits::default() };
    let hub = bench.hub("requests", limits);
    let [eager, other] = ["eager", "calm"].map(|name| bench.by_hand(name, &hub));
    for guest in [&eager, &other] {
        guest.is_in(RATE, AT_ONCE).await?;
    }
    for _ in 0..4 * BURST {
        let key = other.key;
        eager.give(move |hub, _| hub.look_up(key)).await;
    }
    exactly(RATE, "records of one without any", found(bench, &other, &[&eager]).await?.len(), 0)?;
    world.sleep(ANSWERED).await;
    let answered = eager.count(|event| matches!(event, HubEvent::NoRecord { .. }));
    exactly(RATE, "requests of one pass at once are answered", answered, BURST)?;

    let tags = [1u8, 2, 3].map(|n| -> GroupTag { [n; 16] });
    for tag in tags {
        eager.give(move |hub, _| hub.join(tag)).await;
    }
    world.sleep(ANSWERED).await;
    let refused = eager.count(|event| *event == HubEvent::GroupRefused { tag: tags[2] });
    exactly(GROUPS, "refusals of a third group", refused, 1)?;
    eager.give(move |hub, _| (hub.leave(tags[0]), hub.join(tags[2])).1).await;
    world.sleep(ANSWERED).await;
    for tag in tags {
        other.give(move |hub, _| hub.group_send(tag, b"to all")).await;
    }
    world.sleep(ANSWERED).await;
    let heard: Vec<_> = eager.heard(Duration::ZERO).into_iter().collect();
    let heard = heard.into_iter().filter_map(|(_, event)| match event {
        HubEvent::Group { tag, .. } => Some(tag),
        _ => None,
    });
    let heard: Vec<GroupTag> = heard.collect();
    if heard != tags[1..] {
        return Err(Violation::safety(GROUPS, format!("it heard {} groups", heard.len())));
    }
    none_went(GROUPS, [&eager, &other])
}
