//! Tests of a hub that hands requests for passes to issuers: with real issuers, and with ones that lie.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_core::SeedableRng as _;

use crate::authority::invitation::Invitation;
use crate::authority::issuer::{EnrolRequest, Issuer};
use crate::authority::key::AuthorityKey;
use crate::authority::level::Level;
use crate::authority::pass::Pass;
use crate::authority::revocation::Revocations;
use crate::key::PublicKey;
use crate::kit::wall_clock::WallClock;
use crate::net::reach::control::frames::{Counted, split};
use crate::net::reach::hub::ServedMesh;
use crate::net::reach::hub::core::{Hub, Output};
use crate::net::reach::hub::limits::HubLimits;
use crate::net::reach::relay::frame::VERSION;
use crate::net::reach::relay::{ClientId, CloseReason, Frame, Roles};
use crate::net::secure::version::Versions;
use crate::rt::Rng;

const UNIX: Duration = Duration::from_secs(1_800_000_000);
const TIME: u32 = 1_800_000_000;

fn authority() -> AuthorityKey {
    AuthorityKey::from_seed(&[1; 32])
}

fn key(n: u8) -> PublicKey {
    PublicKey::from_bytes([n; 32])
}

struct Bench {
    hub: Hub,
    now: Instant,
}

impl Bench {
    fn new() -> Bench {
        let now = crate::rt::test_now();
        let (clock, rng) = ((now, WallClock::new(now, UNIX)), Rng::from_seed([1; 32]));
        let mesh = ServedMesh::of(authority().mesh());
        Bench { hub: Hub::new([mesh], Roles::ALL, HubLimits::default(), clock, rng), now }
    }

    fn connect(&mut self, n: u8) -> ClientId {
        let id = self.hub.handle_accept(self.now, SocketAddr::from(([192, 0, 2, n], 1000))).unwrap();
        self.hub.handle_handshake(id, key(n));
        id
    }

    fn say(&mut self, id: ClientId, frame: &Frame<'_>) {
        self.hub.handle_message(self.now, id, &frame.to_vec());
    }

    /// A client with a pass of this level that says it issues.
    fn issuer(&mut self, n: u8, level: Level) -> ClientId {
        let id = self.connect(n);
        let shown = authority().mint(key(n), level, TIME).show();
        let namespace = authority().mesh().namespace();
        self.say(
            id,
            &Frame::Register {
                version: VERSION,
                namespace,
                boot: 0,
                shown: &shown,
                versions: Versions::SPOKEN,
            },
        );
        self.say(id, &Frame::Issues);
        assert_eq!(self.kinds(id), [0x02]);
        id
    }

    fn newcomer(&mut self, n: u8, by: u8) -> ClientId {
        let id = self.connect(n);
        let request = EnrolRequest::new(&invitation(), &key(by), "nas").encode();
        let namespace = authority().mesh().namespace();
        self.say(id, &Frame::Enrol { version: VERSION, namespace, request: &request });
        id
    }

    /// The frames that a client gets, each with its kind and its body.
    fn heard(&mut self, id: ClientId) -> Vec<(u8, Vec<u8>)> {
        let (mut heard, mut plaintext) = (Vec::new(), Vec::new());
        while self.hub.poll_output(id, &mut plaintext) == Output::Plaintext {
            let frames = split(&plaintext).map(Result::unwrap);
            heard.extend(frames.map(|(kind, body)| (kind, body.to_vec())));
        }
        heard
    }

    fn kinds(&mut self, id: ClientId) -> Vec<u8> {
        self.heard(id).into_iter().map(|(kind, _)| kind).collect()
    }

    fn closed(&mut self, id: ClientId) -> Option<CloseReason> {
        let heard = self.heard(id);
        let (kind, body) = heard.last()?;
        match Frame::decode(*kind, body) {
            Ok(Some(Frame::Close(reason))) => Some(reason),
            _ => None,
        }
    }

    /// What an issuer is asked: the number, the key and the request.
    fn asked(&mut self, issuer: ClientId) -> Option<(u64, PublicKey, Vec<u8>)> {
        let (kind, body) = self.heard(issuer).pop()?;
        let Ok(Some(Frame::Asked { number, key, kind, body })) = Frame::decode(kind, &body) else {
            panic!("kind {kind:#x}");
        };
        let Ok(Some(Frame::Enrol { request, .. })) = Frame::decode(kind, body) else { panic!("no ENROL") };
        Some((number, key, request.to_vec()))
    }

    fn grant(&mut self, issuer: ClientId, number: u64, pass: &Pass, sealed: &[u8]) {
        self.say(issuer, &Frame::Granted { number, pass: Counted(pass.as_bytes()), sealed });
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(500);
            self.hub.handle_timeout(self.now);
        }
    }
}

fn invitation() -> Invitation {
    Invitation::standard(&authority(), UNIX, &mut Rng::from_seed([3; 32]))
}

/// What somebody with the authority's key answers.
fn issue(now: Instant, (_, key, request): &(u64, PublicKey, Vec<u8>)) -> Option<Pass> {
    let mut issuer = Issuer::new(authority().into(), now, Rng::from_seed([2; 32]));
    let request = EnrolRequest::decode(request)?;
    issuer.enrol((now, TIME), key, &request, &Revocations::default()).ok()
}

#[test]
fn a_newcomers_request_reaches_an_issuer_as_it_came_and_its_pass_comes_back() {
    let mut bench = Bench::new();
    let nobody = bench.newcomer(8, 8);
    assert_eq!(bench.closed(nobody), Some(CloseReason::NoIssuer));
    let issuer = bench.issuer(1, Level::Issuer);
    let newcomer = bench.newcomer(9, 9);
    let asked = bench.asked(issuer).unwrap();
    assert_eq!(asked.1, key(9));
    let pass = issue(bench.now, &asked).unwrap();
    // The issuer takes longer than a newcomer has for its handshake.
    bench.pass(Duration::from_millis(4_500));
    bench.grant(issuer, asked.0, &pass, b"sealed");
    let heard = bench.heard(newcomer);
    assert_eq!(heard.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [0x0c, 0x0d, 0x08]);
    assert_eq!((&heard[0].1[..], &heard[2].1[..]), (&key(1).as_bytes()[..], pass.as_bytes()));
    bench.pass(Duration::from_secs(3));
    let namespace = authority().mesh().namespace();
    let shown = crate::authority::credential::Credential::new(pass).show();
    bench.say(
        newcomer,
        &Frame::Register { version: VERSION, namespace, boot: 0, shown: &shown, versions: Versions::SPOKEN },
    );
    assert_eq!(bench.kinds(newcomer), [0x02]);
    let stats = bench.hub.stats().hub;
    assert_eq!((stats.handed, stats.issued, stats.not_issued), (1, 1, 1));
}

#[test]
fn only_a_client_whose_pass_says_issuer_is_asked() {
    let mut bench = Bench::new();
    for (n, level) in [(1, Level::Look), (2, Level::Submit), (3, Level::Member), (4, Level::Worker)] {
        let id = bench.issuer(n, level);
        let newcomer = bench.newcomer(10 + n, 10 + n);
        assert_eq!((bench.asked(id), bench.closed(newcomer)), (None, Some(CloseReason::NoIssuer)), "{level}");
    }
    assert_eq!(bench.hub.stats().hub.beyond_level, 4);
}

#[test]
fn a_silent_issuer_is_followed_by_the_next_and_a_false_answer_is_none() {
    let mut bench = Bench::new();
    let [silent, liar, good] = [1, 2, 3].map(|n| bench.issuer(n, Level::Issuer));
    let newcomer = bench.newcomer(9, 9);
    let first = bench.asked(silent).unwrap();
    bench.pass(Duration::from_secs(6));
    let second = bench.asked(liar).unwrap();
    // Another key's pass, and another mesh's.
    let others = authority().mint(key(7), Level::Worker, TIME).pass().clone();
    bench.grant(liar, second.0, &others, &[]);
    assert_eq!(bench.heard(newcomer), []);
    let third = bench.asked(good).unwrap();
    assert_eq!((first.2.clone(), second.2), (third.2.clone(), third.2.clone()));
    let pass = issue(bench.now, &third).unwrap();
    bench.grant(silent, first.0, &pass, &[]);
    assert_eq!(bench.heard(newcomer), [], "too late");
    bench.grant(liar, third.0, &pass, &[]);
    assert_eq!(bench.heard(newcomer), [], "it wasn't asked that");
    bench.grant(good, third.0, &pass, &[]);
    assert_eq!(bench.kinds(newcomer), [0x0c, 0x08]);
    let stats = bench.hub.stats().hub;
    assert_eq!((stats.bad_answers, stats.late_answers, stats.issued), (1, 2, 1));
}

#[test]
fn a_refusal_ends_the_wait_and_a_busy_issuer_is_followed_by_the_next() {
    let mut bench = Bench::new();
    let [busy, other] = [1, 2].map(|n| bench.issuer(n, Level::Issuer));
    let newcomer = bench.newcomer(9, 9);
    let (number, ..) = bench.asked(busy).unwrap();
    bench.say(busy, &Frame::Denied { number, reason: CloseReason::Busy });
    let (number, ..) = bench.asked(other).unwrap();
    bench.say(other, &Frame::Denied { number, reason: CloseReason::UsedUp });
    assert_eq!(bench.closed(newcomer), Some(CloseReason::UsedUp));
    // One whose issuers are all silent ends, too, and before its client gives up.
    let patient = bench.newcomer(10, 10);
    bench.pass(Duration::from_secs(11));
    assert_eq!(bench.closed(patient), Some(CloseReason::Busy));
}

#[test]
fn a_hub_that_rewrites_a_request_gets_no_pass() {
    let mut bench = Bench::new();
    let issuer = bench.issuer(1, Level::Issuer);
    bench.newcomer(9, 9);
    let asked = bench.asked(issuer).unwrap();
    assert!(issue(bench.now, &asked).is_some());
    assert_eq!(issue(bench.now, &(0, key(66), asked.2.clone())), None, "its own key");
    for at in 0..asked.2.len() {
        let mut request = asked.2.clone();
        request[at] ^= 1;
        assert_eq!(issue(bench.now, &(0, key(9), request)), None, "byte {at}");
    }
    // A newcomer that replays another's request is refused by the issuer likewise.
    bench.newcomer(10, 9);
    let replayed = bench.asked(issuer).unwrap();
    assert_eq!((replayed.1, issue(bench.now, &replayed)), (key(10), None));
}

#[test]
fn a_connection_asks_once_and_a_member_renews_without_being_closed() {
    let mut bench = Bench::new();
    let issuer = bench.issuer(1, Level::Issuer);
    let twice = bench.newcomer(9, 9);
    let request = EnrolRequest::new(&invitation(), &key(9), "nas").encode();
    let namespace = authority().mesh().namespace();
    bench.say(twice, &Frame::Enrol { version: VERSION, namespace, request: &request });
    assert_eq!(bench.closed(twice), Some(CloseReason::Protocol));
    let malformed = bench.connect(11);
    bench.say(malformed, &Frame::Enrol { version: VERSION, namespace, request: b"short" });
    assert_eq!(bench.closed(malformed), Some(CloseReason::Protocol));
    let thief = bench.connect(12);
    let pass = authority().mint(key(7), Level::Worker, TIME).pass().clone();
    bench.say(thief, &Frame::Renew { version: VERSION, namespace, pass: pass.as_bytes() });
    assert_eq!(bench.closed(thief), Some(CloseReason::BadInvitation), "another's pass");
    bench.heard(issuer);

    let member = bench.issuer(7, Level::Member);
    bench.say(member, &Frame::Renew { version: VERSION, namespace, pass: pass.as_bytes() });
    let (kind, body) = bench.heard(issuer).pop().unwrap();
    let Ok(Some(Frame::Asked { number, kind: 0x07, .. })) = Frame::decode(kind, &body) else { panic!() };
    bench.say(issuer, &Frame::Denied { number, reason: CloseReason::Revoked });
    assert_eq!(bench.heard(member), []);
    bench.say(member, &Frame::Renew { version: VERSION, namespace, pass: pass.as_bytes() });
    let (kind, body) = bench.heard(issuer).pop().unwrap();
    let Ok(Some(Frame::Asked { number, .. })) = Frame::decode(kind, &body) else { panic!() };
    bench.grant(issuer, number, &pass, &[]);
    assert_eq!(bench.kinds(member), [0x0c, 0x08]);
}
