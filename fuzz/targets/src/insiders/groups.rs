//! Groups: an honest sender and an honest receiver, and an insider that holds the mesh's secret.

use std::time::Instant;

use nurl::PublicKey;
use nurl::internals::key::AllowList;
use nurl::internals::transport::group::{GROUP_FRAME, GroupEvent, Groups, MESH_GROUP};

use super::MAX_STEPS;
use crate::draw::Draw;
use crate::ground::{key, millis, now, rng, ticket};

const SENDER: usize = 0;
const RECEIVER: usize = 1;
const INSIDER: usize = 2;

/// A group that everybody may join, and one that only the honest ones are in.
const OPEN: &str = "open";
const CLOSED: &str = "closed";

struct Mesh {
    now: Instant,
    nodes: Vec<Groups>,
    received: Vec<Vec<(String, PublicKey, Vec<u8>)>>,
    /// What was sealed so far.
    frames: Vec<Vec<u8>>,
    /// Messages about keys that the insider received.
    told: Vec<Vec<u8>>,
}

fn key_of(node: usize) -> PublicKey {
    key(node as u8 + 1)
}

fn boot_of(node: usize) -> u64 {
    node as u64 + 11
}

impl Mesh {
    fn new() -> Mesh {
        let node = |node: usize| {
            let mut groups =
                Groups::new(key_of(node), boot_of(node), ticket().generations(), rng(node as u64));
            let honest = AllowList::Only([key_of(SENDER), key_of(RECEIVER)].into());
            groups.join(OPEN, None).expect("there is room");
            groups.join(CLOSED, Some(honest)).expect("there is room");
            (0..3)
                .filter(|other| *other != node)
                .for_each(|other| groups.on_established(key_of(other), boot_of(other)));
            groups
        };
        let nodes = (0..3).map(node).collect();
        Mesh { now: now(), nodes, received: vec![Vec::new(); 3], frames: Vec::new(), told: Vec::new() }
    }

    fn seal(&mut self, from: usize, group: &str, body: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.nodes[from].seal(self.now, group, body, &mut frame).expect("it is joined");
        self.frames.push(frame.clone());
        frame
    }

    fn exchange(&mut self) {
        for _ in 0..64 {
            let mut idle = true;
            for from in 0..3 {
                while let Some((to, message)) = self.nodes[from].poll_transmit() {
                    idle = false;
                    let Some(to) = (0..3).find(|node| key_of(*node) == to) else { continue };
                    if to == INSIDER {
                        self.told.push(message.clone());
                    }
                    self.nodes[to].handle_key_message(self.now, key_of(from), true, &message);
                }
                while let Some(GroupEvent::Received { group, sender, body }) = self.nodes[from].poll_event() {
                    self.received[from].push((group, sender, body));
                }
            }
            if idle {
                return;
            }
        }
        panic!("messages about keys have no end");
    }

    fn pass(&mut self, time_ms: u64) {
        self.now += millis(time_ms);
        self.nodes.iter_mut().for_each(|node| node.handle_timeout(self.now));
        self.exchange();
    }
}

pub(super) fn programs() -> Vec<Vec<u8>> {
    super::plain_programs()
}

pub(super) fn run(bytes: &[u8]) -> bool {
    let mut draw = Draw::new(bytes);
    let mut mesh = Mesh::new();
    let tags: Vec<_> = mesh.nodes[INSIDER].tags().collect();
    for _ in 0..MAX_STEPS {
        if !draw.more() {
            break;
        }
        let to = draw.below(2);
        match draw.u8() % 8 {
            0 => mesh.pass(draw.below(5_000) as u64),
            1 => {
                let frame = mesh.seal(SENDER, draw.of(&[OPEN, CLOSED, MESH_GROUP]), b"hello");
                mesh.nodes[RECEIVER].handle_frame(mesh.now, &frame);
            }
            2 => {
                let frame = mesh.seal(INSIDER, draw.of(&[OPEN, CLOSED, MESH_GROUP]), b"hostile");
                mesh.nodes[to].handle_frame(mesh.now, &frame);
            }
            3 => {
                // A frame again, changed or not.
                let Some(mut frame) = (!mesh.frames.is_empty()).then(|| draw.of(&mesh.frames)) else {
                    continue;
                };
                if draw.flag() {
                    let at = draw.below(frame.len());
                    frame[at] = draw.u8();
                }
                mesh.nodes[to].handle_frame(mesh.now, &frame);
            }
            4 => {
                // A made-up frame in anybody's name.
                let (sender, boot) = (key(draw.u8() % 6), if draw.flag() { 11 } else { draw.u64() });
                let (key_id, counter) = (draw.u64(), draw.u64());
                let mut frame = vec![GROUP_FRAME];
                frame.extend_from_slice(&draw.of(&tags));
                frame.extend_from_slice(sender.as_bytes());
                for number in [boot, key_id, counter] {
                    frame.extend_from_slice(&number.to_le_bytes());
                }
                frame.extend_from_slice(&[0; 24]);
                mesh.nodes[to].handle_frame(mesh.now, &frame);
            }
            5 => {
                let mut message = vec![2];
                message.extend_from_slice(&draw.of(&tags));
                let boot = if draw.flag() { boot_of(INSIDER) } else { draw.u64() };
                for number in [boot, draw.u64(), draw.u64()] {
                    message.extend_from_slice(&number.to_le_bytes());
                }
                message.extend_from_slice(&[draw.u8(); 32]);
                mesh.nodes[to].handle_key_message(mesh.now, key_of(INSIDER), true, &message);
            }
            6 => {
                let message = [&[1][..], &draw.of(&tags)].concat();
                mesh.nodes[to].handle_key_message(mesh.now, key_of(INSIDER), draw.flag(), &message);
            }
            _ => {
                let message = draw.bytes(100);
                mesh.nodes[to].handle_key_message(mesh.now, key_of(INSIDER), true, &message);
            }
        }
        mesh.exchange();
    }
    for received in [SENDER, RECEIVER].map(|node| &mesh.received[node]) {
        for (group, sender, body) in received {
            let hostile = body == b"hostile";
            assert!(hostile == (*sender == key_of(INSIDER)), "{body:?} in the name of {sender:?}");
            assert!(!hostile || group != CLOSED, "it isn't on the list");
        }
    }
    // The insider never got a key of the closed group: no frame of it came up there.
    assert!(mesh.received[INSIDER].iter().all(|(group, ..)| group != CLOSED));
    // Waiting frames and questions of before are over.
    mesh.pass(10_000);
    for (from, to) in [(SENDER, RECEIVER), (RECEIVER, SENDER)] {
        for group in [OPEN, CLOSED, MESH_GROUP] {
            let body = [b"final ", group.as_bytes()].concat();
            // The first frame asks for the key, and the answer is past it.
            for _ in 0..2 {
                let frame = mesh.seal(from, group, &body);
                mesh.nodes[to].handle_frame(mesh.now, &frame);
                mesh.exchange();
            }
            let wanted = (group.to_owned(), key_of(from), body);
            assert!(mesh.received[to].contains(&wanted), "{wanted:?} arrives: {:?}", mesh.nodes[to].stats());
        }
    }
    true
}
