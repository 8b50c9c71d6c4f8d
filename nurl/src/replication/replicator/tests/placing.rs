//! A node with many keys places them in portions after a change of the ring.

use std::collections::BTreeSet;

use super::mesh::{Mesh, add, peer, ring};
use crate::replication::replicator::message::Range;
use crate::replication::replicator::placing::PORTION;
use crate::replication::replicator::*;

/// Two portions and a key.
const KEYS: usize = 2 * PORTION + 1;

fn key(n: usize) -> Vec<u8> {
    format!("\u{1}{n:06}").into_bytes()
}

/// The only member of a mesh, with many keys, after it has heard of four others.
fn joined() -> Mesh {
    let mut mesh = Mesh::new(1);
    for n in 0..KEYS {
        mesh.update(0, &key(n), &add(1));
        if n % 512 == 0 {
            mesh.deliver();
        }
    }
    mesh.deliver();
    let now = mesh.now;
    mesh.node(0).set_ring(now, ring(0..5));
    mesh
}

/// Lets the node place its next portion, at the time at which it wants to.
fn go_on(mesh: &mut Mesh) {
    let (now, wall) = (mesh.now, mesh.wall);
    assert!(mesh.node(0).poll_timeout() <= Some(now));
    mesh.node(0).handle_timeout(now, wall);
}

#[test]
fn a_ring_that_changes_is_followed_in_portions_and_at_once_where_it_matters() {
    let mut mesh = joined();
    for stretch in 1..=3 {
        let Replicator { shared: sh, held, .. } = mesh.node(0);
        let mut placed = 0;
        for n in 0..KEYS {
            let key = key(n);
            let entry = held.copies.get(&key).unwrap();
            placed += usize::from(*entry.owners() == sh.owners(&key));
            assert_eq!(*held.copies.owners(sh, &key, entry), sh.owners(&key));
            assert!(held.whole(sh, &key).is_none(), "the others may have more");
        }
        assert_eq!(placed, KEYS.min(stretch * PORTION));
        if stretch < 3 {
            go_on(&mut mesh);
        }
    }
    let (now, node) = (mesh.now, mesh.node(0));
    assert!(node.poll_timeout() > Some(now), "it is over");
    let peers: BTreeSet<PublicKey> = (1..5).map(peer).collect();
    assert_eq!(node.held.summaries.peers(), peers);
}

#[test]
fn who_is_compared_before_a_keys_turn_is_compared_as_the_owner_that_it_is() {
    let mut mesh = joined();
    let last = key(KEYS - 1);
    let Replicator { shared: sh, held, .. } = mesh.node(0);
    for owner in sh.other_owners(&last) {
        held.copies.compared(sh, &last, &owner);
    }
    let owned = sh.is_owner(&last);
    assert_eq!(held.whole(sh, &last).is_some(), owned);
    go_on(&mut mesh);
    go_on(&mut mesh);
    let Replicator { shared: sh, held, .. } = mesh.node(0);
    assert_eq!(held.whole(sh, &last).is_some(), owned);
}

#[test]
fn a_summary_before_the_keys_turn_is_answered_by_the_new_owners() {
    let mut mesh = joined();
    mesh.sent(0);
    let after = Some(key(KEYS - 100).into());
    let hash = *blake3::hash(b"").as_bytes().first_chunk::<16>().unwrap();
    // The other one has nothing of the last hundred keys.
    mesh.inject(
        1,
        0,
        &Message::Summary {
            range: Range { after, upto: None },
            hash: hash.into(),
            settling: Some(7),
            digests: true,
        },
    );
    let sent = mesh.sent(0);
    let [(to, Message::Digests { items, .. })] = &sent[..] else { panic!("{sent:?}") };
    assert!(*to == peer(1) && items.len() > 20, "{} keys", items.len());
}

#[test]
fn a_ring_that_changes_again_and_again_keeps_no_key_waiting() {
    let mut mesh = joined();
    for members in [4, 5, 4, 5, 4] {
        let now = mesh.now;
        mesh.node(0).set_ring(now, ring(0..members));
    }
    let Replicator { shared: sh, held, .. } = mesh.node(0);
    let last = key(KEYS - 1);
    assert_ne!(sh.owners(&last), [peer(0)]);
    assert_ne!(held.copies.get(&last).unwrap().owners(), [peer(0)]);
}
