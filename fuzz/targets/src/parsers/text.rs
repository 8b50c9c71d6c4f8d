//! Texts: keys, tickets, passes, names and numbers that people type, and the plans of the simulated world.

use std::fmt::Debug;
use std::str::FromStr;
use std::time::Duration;

use bech32::{Bech32m, Hrp};
use chaos::Plan;
use nurl::internals::authority::invitation::{Invitation, InvitationId};
use nurl::internals::authority::level::Level;
use nurl::internals::authority::pass::{Grant, Pass};
use nurl::internals::compute::job::TaskId;
use nurl::internals::mesh::MeshId;
use nurl::internals::net::reach::listen::Listen;
use nurl::{PublicKey, SecretKey, Ticket};

use super::parser;
use crate::Target;
use crate::ground::{UNIX, UNIX_S, authority, key, rng, secret, ticket as full_ticket};

pub(crate) const TARGETS: &[Target] = &[
    parser!(text, text_seeds),
    parser!(bech32_text, bech32_seeds),
    parser!(ticket, ticket_seeds),
    parser!(plan, plan_seeds),
];

/// Reads a value, and asserts that its text is read as the same value.
fn back<T: FromStr + PartialEq + Debug>(text: &str, write: impl Fn(&T) -> String) -> bool {
    let Ok(value) = text.parse::<T>() else { return false };
    let again = write(&value).parse::<T>();
    assert_eq!(again.ok().as_ref(), Some(&value), "{text}");
    true
}

/// Any text for every parser of short texts.
fn text(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let mut accepted = back(text, PublicKey::to_string);
    accepted |= back(text, MeshId::to_string);
    accepted |= back(text, InvitationId::to_string);
    accepted |= back(text, TaskId::to_string);
    accepted |= back(text, |level: &Level| level.as_str().to_owned());
    // A port's text is for people: "port 4242".
    accepted |= text.parse::<Listen>().is_ok_and(|listen| !listen.to_string().is_empty());
    accepted |= text.parse::<SecretKey>().is_ok_and(|key| key.to_text().parse::<SecretKey>().is_ok());
    accepted |= text.parse::<Ticket>().is_ok();
    accepted | Pass::from_text(&authority().mesh(), text).is_ok()
}

fn text_seeds() -> Vec<Vec<u8>> {
    let texts = [
        key(7).to_string(),
        secret(7).to_text().to_string(),
        authority().mesh().to_string(),
        InvitationId([9; 8]).to_string(),
        TaskId::from_bytes([7; 16]).to_string(),
        Level::Worker.as_str().to_owned(),
        "localhost:4242".to_owned(),
        "[::1]:4242".to_owned(),
        full_ticket().to_text().expect("it is short").to_string(),
    ];
    texts.map(String::into_bytes).into()
}

/// The bytes under a right checksum, with each prefix.
fn bech32_text(bytes: &[u8]) -> bool {
    let mut accepted = false;
    for prefix in ["nurl", "nurl-secret-", "nurlpass", "nurlmesh"] {
        if let Ok(encoded) = bech32::encode::<Bech32m>(Hrp::parse_unchecked(prefix), bytes) {
            accepted |= text(encoded.as_bytes());
        }
    }
    accepted
}

fn bech32_seeds() -> Vec<Vec<u8>> {
    let pass = Grant::new(key(7), Level::Worker, UNIX_S, UNIX_S + 1_000).sign(&authority());
    vec![vec![7; 32], pass.expect("a bare grant is within its bounds").as_bytes().to_vec()]
}

/// A ticket's content. What is read has one text.
fn ticket(bytes: &[u8]) -> bool {
    let Ok(text) = bech32::encode::<Bech32m>(Hrp::parse_unchecked("nurlmesh"), bytes) else { return false };
    let Ok(ticket) = text.parse::<Ticket>() else { return false };
    let again = ticket.to_text().expect("it was read from a text");
    assert_eq!(*again, text);
    assert_eq!(ticket.generations().len(), 1 + usize::from(ticket.previous.is_some()));
    true
}

fn ticket_seeds() -> Vec<Vec<u8>> {
    let mut tickets = [full_ticket(), full_ticket(), full_ticket()];
    tickets[0].previous = None;
    tickets[1].invitation = Some(Invitation::standard(&authority(), UNIX, &mut rng(2)));
    tickets[1].hubs.clear();
    tickets[2].hubs = vec![full_ticket().hubs[0].clone(); 4];
    let bytes = |ticket: &Ticket| {
        let text = ticket.to_text().expect("it is short");
        bech32::decode(&text).expect("it was encoded just now").1
    };
    tickets.iter().map(bytes).collect()
}

/// A plan of faults. Its text is read as the same plan.
fn plan(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(plan) = text.parse::<Plan>() else { return false };
    let shown = plan.to_string();
    assert_eq!(shown.parse::<Plan>().as_ref(), Ok(&plan), "{shown}");
    assert!(plan.held_back() >= Duration::ZERO);
    !plan.is_empty()
}

fn plan_seeds() -> Vec<Vec<u8>> {
    let lines = [
        "0s loss * udp=30 tcp=5 for=10s\n1.5s partition a b / c \"hub 1\" for=4s",
        "2s latency box:home add=200ms jitter=50ms way=out for=1.25s\n3s crash a for=2s # why",
        "7.25s roam phone to=cellular ip=10.64.0.9\n1s bandwidth a rate=1000 queue=5000",
        "0s burst * begin=1 end=20 loss=90\n1s mtu box:x bytes=1280\n2s clock-drift a ppm=-200",
        "1s disk-crash a op=3\n2s clock-step a by=-3s\n3s box-renumber home ip=192.0.2.9",
        "1s disk-full a left=9\n2s disk-error a call=sync op=2\n3s disk-flip a bit=8",
        "4s disk-slow a read=1ms write=2ms sync=1s\n5s clock-unset a reads=-3s for=1s",
        "1s reorder * percent=10 by=30ms\n2s nic-down a nic=eth0 for=1s\n3s hub-restart h",
    ];
    lines.map(|text| text.as_bytes().to_vec()).into()
}
