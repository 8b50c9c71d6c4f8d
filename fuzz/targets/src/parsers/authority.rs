//! Signed statements: passes, slips, invitations, enrolments, revocations.

use std::sync::Arc;

use ed25519_dalek::{Signer as _, SigningKey};
use nurl::internals::authority::checker::Checker;
use nurl::internals::authority::credential::{Credential, SHOWN_BYTES};
use nurl::internals::authority::invitation::{Invitation, InvitationId, Terms};
use nurl::internals::authority::issuer::{EnrolRequest, Issuer};
use nurl::internals::authority::level::Level;
use nurl::internals::authority::pass::{Grant, MAX_PASS_BYTES, Pass};
use nurl::internals::authority::revocation::{Revocation, Revocations, Subject};
use nurl::internals::authority::slip::Slip;
use nurl::internals::kit::reader::Reader;
use nurl::internals::kit::wall_clock::WallClock;

use super::parser;
use crate::Target;
use crate::draw::Draw;
use crate::ground::{UNIX, UNIX_S, authority, key, now, rng, secret};

pub(crate) const TARGETS: &[Target] = &[
    parser!(pass, pass_seeds),
    parser!(shown, shown_seeds),
    parser!(terms, terms_seeds),
    parser!(revocations, revocations_seeds),
];

/// Signs a statement as the authority does, but whatever it says.
fn signed(label: &[u8], body: &[u8]) -> Vec<u8> {
    let mesh = authority().mesh();
    let statement = [label, &[0], mesh.as_bytes(), body].concat();
    let signature = SigningKey::from_bytes(authority().seed()).sign(&statement);
    [body, &signature.to_bytes()].concat()
}

/// The body of a pass, signed. What is read has one encoding; without the signature nothing is read.
fn pass(bytes: &[u8]) -> bool {
    let mesh = authority().mesh();
    assert!(Pass::decode(&mesh, bytes).is_err(), "nobody signed this");
    // A signature costs more than all else, so it is made only for what may be a pass.
    if bytes.len() > MAX_PASS_BYTES {
        return false;
    }
    let bytes = signed(b"nurl/2 pass", bytes);
    let Ok(pass) = Pass::decode(&mesh, &bytes) else { return false };
    let again = pass.grant().clone().sign(&authority()).expect("what was read is within its bounds");
    assert_eq!(again.as_bytes(), bytes);
    assert_eq!(Pass::from_text(&mesh, &pass.to_text()).as_ref(), Ok(&pass));
    let _ = (pass.is_due_for_renewal(UNIX_S), pass.is_current(UNIX_S));
    let credential = Credential::new(pass.clone());
    let mut checker = Checker::new(mesh, WallClock::new(now(), UNIX));
    let admitted = checker.check(now(), &pass.grant().key, &credential.show());
    assert_eq!(admitted.is_ok(), pass.is_current(UNIX_S), "{admitted:?}");
    true
}

fn grants() -> Vec<Grant> {
    let plain = Grant::new(key(7), Level::Worker, UNIX_S, UNIX_S + 86_400);
    let full = Grant {
        name: "nas in the cellar".into(),
        zone: "home".into(),
        invitation: Some(InvitationId([9; 8])),
        ring_seed: [5; 8],
        weight: 2,
        ..plain.clone()
    };
    vec![plain, full]
}

fn minted() -> Vec<Pass> {
    grants().into_iter().map(|grant| grant.sign(&authority()).expect("it is within its bounds")).collect()
}

fn pass_seeds() -> Vec<Vec<u8>> {
    let body = |pass: &Pass| pass.as_bytes()[..pass.as_bytes().len() - 64].to_vec();
    minted().iter().map(body).collect()
}

/// The area that a peer shows. Only the very pass that the authority signed, and a slip of its holder, is admitted.
fn shown(bytes: &[u8]) -> bool {
    let mut area = [0; SHOWN_BYTES];
    let len = bytes.len().min(SHOWN_BYTES);
    area[..len].copy_from_slice(&bytes[..len]);
    let mut checker = Checker::new(authority().mesh(), WallClock::new(now(), UNIX));
    let _ = checker.against(&area);
    let mut accepted = false;
    for holder in [key(7), secret(7).public(), secret(8).public()] {
        if let Ok(standing) = checker.check(now(), &holder, &area) {
            accepted = true;
            assert!(credentials().iter().any(|made| made.show() == area), "nobody made this: {standing:?}");
            assert!(standing.level <= standing.grant.level);
        }
    }
    accepted
}

fn credentials() -> Vec<Credential> {
    let mut made: Vec<Credential> = minted().into_iter().map(Credential::new).collect();
    let mesh = authority().mesh();
    let grant = Grant::new(secret(7).public(), Level::Member, UNIX_S, UNIX_S + 86_400);
    let pass = grant.sign(&authority()).expect("a bare grant is within its bounds");
    let slip = Slip { key: secret(8).public(), level: Level::Submit, not_after: UNIX_S + 600 };
    made.push(Credential::new(pass.clone()));
    made.push(Credential::with_slip(pass, slip.sign(&secret(7), &mesh)));
    made
}

fn shown_seeds() -> Vec<Vec<u8>> {
    credentials().iter().map(|credential| credential.show().to_vec()).collect()
}

/// An enrolment. What is read has one encoding, and only the proof of its own invitation gets a pass.
fn terms(bytes: &[u8]) -> bool {
    let mut reader = Reader(bytes);
    let Some(terms) = Terms::decode(&mut reader) else { return false };
    assert_eq!(terms.encode(), bytes[..bytes.len() - reader.rest().len()]);
    let Some(request) = EnrolRequest::decode(bytes) else { return true };
    assert_eq!(request.encode(), bytes);
    let mut issuer = Issuer::new(Arc::new(authority()), now(), rng(1));
    let none = Revocations::default();
    let issued = issuer.enrol((now(), UNIX_S), &key(7), &request, &none);
    let invitation = terms.clone().invite(&authority()).expect("what was read is within its bounds");
    let proved = EnrolRequest::new(&invitation, &key(7), request.name);
    if proved != request {
        assert!(issued.is_err(), "nobody has this proof");
    }
    if let Ok(pass) = issuer.enrol((now(), UNIX_S), &key(7), &proved, &none) {
        assert_eq!((pass.grant().level, pass.grant().weight), (terms.level, terms.weight));
        assert_eq!(Pass::decode(&issuer.mesh(), pass.as_bytes()).as_ref(), Ok(&pass));
        let again = issuer.enrol((now(), UNIX_S), &key(7), &proved, &none);
        assert_eq!(again.as_ref(), Ok(&pass), "one key has one pass");
    }
    true
}

fn terms_seeds() -> Vec<Vec<u8>> {
    let invitation = Invitation::standard(&authority(), UNIX, &mut rng(2));
    let zoned = Terms { zone: "cellar".into(), weight: 2, keys: 1, ..invitation.terms.clone() };
    let zoned = zoned.invite(&authority()).expect("it is within its bounds");
    let request = |invitation: &Invitation| EnrolRequest::new(invitation, &key(7), "nas").encode();
    vec![request(&invitation), request(&zoned), invitation.terms.encode()]
}

/// The input's first byte says what to do: entries as they are, or entries that the authority signed, in two orders.
fn revocations(bytes: &[u8]) -> bool {
    let Some((first, rest)) = bytes.split_first() else { return false };
    if *first == 0 { entries(rest) } else { merged(Draw::new(rest)) }
}

/// Entries one after another. Each that counts was signed, and has one encoding.
fn entries(bytes: &[u8]) -> bool {
    let mesh = authority().mesh();
    let mut reader = Reader(bytes);
    let mut read = 0;
    while let Some(entry) = Revocation::decode(&mesh, &mut reader) {
        let encoded = entry.encode();
        assert!(Revocation::decode(&mesh, &mut Reader(&encoded)).as_ref() == Some(&entry));
        read += 1;
    }
    let mut known = Revocations::default();
    let mut checks = 0;
    let may_check = || {
        checks += 1;
        checks <= 16
    };
    let (news, _) = known.read_news((&mesh, UNIX_S), bytes, may_check);
    assert!(news.len() <= 16);
    for entry in news {
        assert!(known.merge(entry), "it was news");
    }
    read > 0
}

/// Signed entries with any times: all orders give the same map, and its pages lead through all of it.
fn merged(mut draw: Draw<'_>) -> bool {
    let mut made = Vec::new();
    while draw.more() && made.len() < 24 {
        let n = draw.u8() % 4;
        let subject = match draw.u8() % 3 {
            0 => Subject::All,
            1 => Subject::Invitation(InvitationId([n; 8])),
            _ => Subject::Key(key(n)),
        };
        let (up_to, age) = (draw.u32(), draw.u32());
        made.push(Revocation::sign(&authority(), subject, up_to, if draw.flag() { age } else { UNIX_S }));
    }
    let mut maps = [Revocations::default(), Revocations::default()];
    for entry in &made {
        maps[0].merge(entry.clone());
    }
    for entry in made.iter().rev().chain(&made) {
        maps[1].merge(entry.clone());
    }
    assert_eq!(maps[0].digest(), maps[1].digest(), "the order doesn't matter");

    let (mut copy, mut after) = (Revocations::default(), None);
    for _ in 0..=made.len() {
        let (page, last) = maps[0].page(after.as_ref(), 300);
        assert!(page.len() <= 300);
        let mut reader = Reader(&page);
        while let Some(entry) = Revocation::decode(&authority().mesh(), &mut reader) {
            copy.merge(entry);
        }
        after = last;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(copy.digest(), maps[0].digest(), "the pages are the map");

    for made in minted() {
        let grant = made.grant();
        assert_eq!(maps[0].revokes(grant), maps[1].revokes(grant));
        assert_eq!(maps[0].revokes(grant), !maps[0].against(grant).is_empty());
    }
    maps[0].expire(UNIX_S);
    !made.is_empty()
}

fn revocations_seeds() -> Vec<Vec<u8>> {
    let sign = |subject, up_to| Revocation::sign(&authority(), subject, up_to, UNIX_S).encode();
    let all = [
        sign(Subject::All, 5),
        sign(Subject::Invitation(InvitationId([9; 8])), UNIX_S),
        sign(Subject::Key(key(7)), UNIX_S),
    ];
    let mut many = vec![1];
    many.extend((0..120u8).map(|n| n.wrapping_mul(37)));
    vec![[&[0][..], &all.concat()].concat(), [&[0][..], &all[2]].concat(), many]
}
