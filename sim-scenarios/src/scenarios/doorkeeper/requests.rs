//! The parts of `doorkeeper` about what clients ask for: passes that issuers elsewhere sign, and to be let in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use nurl::internals::authority::invitation::Invitation;
use nurl::internals::authority::issuer::EnrolRequest;
use nurl::internals::authority::key::AuthorityKey;
use nurl::internals::authority::level::Level;
use nurl::internals::authority::pass::{Grant, Pass};
use nurl::internals::net::reach::hub_client::{Answer, Ask, DownReason, HubEvent, Joining};
use nurl::internals::net::reach::relay::CloseReason;
use nurl::internals::net::secure::version::Versions;
use nurl::rt::time;
use nurl::{PublicKey, SecretKey};

use super::{ANSWERED, AT_ONCE, BACK, Bench, issued};
use crate::cluster::soon;
use crate::models::guest::{Guest, Mesh, Policy, machine, none_went, seconds};

/// The day has so many seconds.
const DAY: Duration = Duration::from_secs(86_400);

/// A hub looks so often for requests whose issuer is gone.
const LOOKS_EACH: Duration = Duration::from_millis(500);

const NEXT: &str =
    "an issuer that is busy is followed by the next at once, and one that leaves within half a second";
const LEVEL: &str = "only a client whose pass says so is asked for passes";
const RENEWED: &str = "a pass that is due is renewed through a hub without the authority's key";
const STAYS: &str = "a refused renewal leaves a client registered";
const BUSY: &str = "who gets no pass for now tries again, and has it once an issuer answers";
const SENT_AWAY: &str = "who can't be let in is told why, and takes no place";
const LOOKS: &str = "who may only look publishes nothing";

/// What an issuer says that has the authority's key.
fn grant(authority: &Arc<AuthorityKey>, key: PublicKey, ask: &Ask) -> Option<Answer> {
    let now = seconds(time::unix_now());
    let of = match ask {
        Ask::Enrol(request) => {
            let terms = EnrolRequest::decode(request)?.terms;
            Grant { invitation: Some(terms.id), ..Grant::new(key, terms.level, now, now) }
        }
        Ask::Renew(pass) => Pass::decode(&authority.mesh(), pass).ok()?.into_grant(),
    };
    let not_after = now + seconds(30 * DAY);
    let pass = Grant { issued: now, not_after, ..of }.sign(authority).ok()?;
    Some(Ok((pass, Vec::new())))
}

/// Counts what it is asked, and answers by `answer`.
fn asked(
    count: &Arc<AtomicUsize>,
    mut answer: impl FnMut(PublicKey, &Ask) -> Option<Answer> + Send + 'static,
) -> Policy {
    let count = count.clone();
    Box::new(move |key, ask| {
        count.fetch_add(1, Ordering::Relaxed);
        answer(key, &ask)
    })
}

pub(super) async fn hands_on(bench: &mut Bench) -> Result<(), Violation> {
    let world = bench.world;
    let hub = bench.blind("blind");
    let invitation = Invitation::standard(&bench.mesh.authority, time::unix_now(), &mut bench.rng);
    let (key, counts) = (bench.key(), [(); 4].map(|()| Arc::new(AtomicUsize::new(0))));
    let [by_member, by_busy, by_leaving, by_able] = &counts;
    let early = bench.invited("too early", &hub, &key, &invitation);
    early.is_told(BUSY, AT_ONCE, DownReason::Closed(CloseReason::NoIssuer)).await?;
    drop(early);

    let member = {
        let key = bench.key();
        let joining = bench.mesh.with(bench.mesh.pass(&key.public(), Level::Member, None, Duration::ZERO));
        let at = (world, machine(world, "says so"));
        Guest::start_issuer(
            at,
            "says so",
            &hub,
            (&key, joining),
            asked(by_member, |_, _| Some(Err(CloseReason::UsedUp))),
        )
    };
    let busy = bench.issuer("busy", &hub, asked(by_busy, |_, _| Some(Err(CloseReason::Busy))));
    for guest in [&member, &busy] {
        guest.is_in(NEXT, AT_ONCE).await?;
        guest.give(|hub, _| hub.issue()).await;
    }
    world.sleep(ANSWERED).await;
    let waiting = bench.invited("waiting", &hub, &key, &invitation);
    world.sleep(AT_ONCE).await;
    let (asked_member, beyond) = (by_member.load(Ordering::Relaxed), hub.stats().hub.beyond_level);
    if (asked_member, beyond) != (0, 1) {
        return Err(Violation::safety(LEVEL, format!("asked {asked_member} times, {beyond} counted")));
    }
    waiting.is_told(BUSY, Duration::ZERO, DownReason::Closed(CloseReason::Busy)).await?;
    // Two issuers more, of which the first is silent, and leaves when it is asked for the newcomer's pass.
    let newcomer = bench.key();
    let (about, count) = (newcomer.public(), by_leaving.clone());
    let silent = move |key, _: Ask| {
        count.fetch_add(usize::from(key == about), Ordering::Relaxed);
        None
    };
    let leaving = bench.issuer("leaving", &hub, Box::new(silent));
    let authority = bench.mesh.authority.clone();
    let able = bench.issuer("able", &hub, asked(by_able, move |key, ask| grant(&authority, key, ask)));
    for guest in [&leaving, &able] {
        guest.is_in(NEXT, AT_ONCE).await?;
        guest.give(|hub, _| hub.issue()).await;
        world.sleep(ANSWERED).await;
    }
    let newcomer = bench.invited("newcomer", &hub, &newcomer, &invitation);
    soon(world, NEXT, AT_ONCE, || match by_leaving.load(Ordering::Relaxed) {
        0 => Err("the second wasn't asked".to_owned()),
        _ => Ok(()),
    })
    .await?;
    leaving.host.crash();
    newcomer.is_in(NEXT, AT_ONCE + LOOKS_EACH).await?;
    waiting.is_in(BUSY, BACK).await?;
    for guest in [&newcomer, &waiting] {
        let by = guest.count(|event| matches!(event, HubEvent::Issued { issuer, .. } if *issuer == able.key));
        if by != 1 {
            return Err(Violation::safety(NEXT, format!("{} has {by} passes of the able one", guest.name)));
        }
    }
    none_went(NEXT, [&newcomer])?;

    // After two thirds of its life a pass is due.
    let due = bench.with_pass("due", &hub, Level::Worker, 61 * DAY);
    due.is_in(RENEWED, AT_ONCE).await?;
    let renewed = || issued(&due).is_some_and(|pass| pass.pass().grant().level == Level::Worker);
    soon(world, RENEWED, ANSWERED + ANSWERED, || renewed().then_some(()).ok_or("no pass".to_owned())).await?;
    able.host.crash();
    let refused = by_busy.load(Ordering::Relaxed);
    let stays = bench.with_pass("stays", &hub, Level::Worker, 61 * DAY);
    stays.is_in(STAYS, AT_ONCE).await?;
    soon(world, STAYS, ANSWERED + ANSWERED, || match by_busy.load(Ordering::Relaxed) > refused {
        true => Ok(()),
        false => Err("the busy one wasn't asked".to_owned()),
    })
    .await?;
    world.sleep(Duration::from_secs(2)).await;
    none_went(STAYS, [&due, &stays, &busy, &member])?;
    Ok(())
}

pub(super) async fn sends_away(bench: &mut Bench) -> Result<(), Violation> {
    let world = bench.world;
    let hub = bench.issuing("sends away", false);
    let other = Mesh::generate(&mut bench.rng);
    let keys: Vec<SecretKey> = (0..6).map(|_| bench.key()).collect();
    let pass = |mesh: &Mesh, key: &SecretKey, ago| mesh.pass(&key.public(), Level::Worker, None, ago);
    let fresh = Duration::ZERO;
    let good = bench.mesh.with(pass(&bench.mesh, &keys[2], fresh));
    let (theirs, ours) = (Versions::SPOKEN, Versions::made_up(3, 4));
    let closed = DownReason::Closed;
    let cases = [
        ("of another mesh", other.with(pass(&other, &keys[0], fresh)), closed(CloseReason::UnknownNamespace)),
        (
            "with a pass of another mesh",
            bench.mesh.with(pass(&other, &keys[1], fresh)),
            closed(CloseReason::BadPass),
        ),
        (
            "of another version",
            Joining { versions: ours, ..good.clone() },
            DownReason::Versions { theirs, ours },
        ),
        ("with another's pass", good.clone(), closed(CloseReason::BadPass)),
        (
            "with an old pass",
            bench.mesh.with(pass(&bench.mesh, &keys[4], 200 * DAY)),
            closed(CloseReason::Expired),
        ),
        ("with nothing", Joining { credential: None, ..good }, DownReason::NoPass),
    ];
    let mut guests = Vec::new();
    for ((name, joining, reason), key) in cases.into_iter().zip(&keys) {
        let guest = bench.guest(name, &hub, key, joining);
        guest.is_told(SENT_AWAY, AT_ONCE, reason).await?;
        guests.push((guest, reason));
    }
    // They try again all the same: somebody may mend it meanwhile.
    world.sleep(Duration::from_secs(3)).await;
    for (guest, reason) in &guests {
        let downs = guest.downs();
        if !reason.is_refusal() || downs.len() < 2 || downs.iter().any(|down| down != reason) {
            return Err(Violation::safety(SENT_AWAY, format!("one {}: {downs:?}", guest.name)));
        }
    }
    let clients = hub.stats().clients;
    if clients > 0 {
        return Err(Violation::safety(SENT_AWAY, format!("{clients} clients")));
    }
    // Within 90 days after its end a pass is renewed.
    let late = bench.with_pass("with a pass that ended", &hub, Level::Worker, 100 * DAY);
    late.is_in(RENEWED, AT_ONCE).await?;

    let looks = bench.with_pass("looks", &hub, Level::Look, Duration::ZERO);
    looks.is_in(LOOKS, AT_ONCE).await?;
    looks.give(|hub, now| hub.publish(now, 1, Bytes::from_static(b"sealed"))).await;
    world.sleep(ANSWERED).await;
    let (records, beyond) = (hub.stats().records, hub.stats().hub.beyond_level);
    let answers = looks.count(|event| matches!(event, HubEvent::Published { .. }));
    if (records, beyond, answers) != (0, 1, 0) {
        return Err(Violation::safety(
            LOOKS,
            format!("{records} records, {beyond} counted, {answers} answers"),
        ));
    }
    none_went(LOOKS, [&looks])
}
