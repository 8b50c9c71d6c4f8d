//! The mesh gets another secret, and nobody notices but those who were revoked.

use std::time::Duration;

use bytes::Bytes;
use nurl::config::Role;
use nurl::events::{HandedOver, NodeEvent};
use nurl::pass::{ACCEPTED_FOR, AuthorityKey};
use nurl::{Error, Node, RefusedBy, RevokeError, rt};

use crate::harness::{Mesh, key, metric, run, soon, until};

async fn generation(node: &Node) -> u32 {
    node.status().await.unwrap().generation
}

#[test]
fn all_with_a_pass_get_the_next_secret_and_no_message_is_lost() {
    run(async {
        let mesh = Mesh::start().await;
        let [a, b, lost] = mesh.nodes(Role::Worker).await;
        let (store, own) = (tempfile::tempdir().unwrap(), key());
        let keeper = || mesh.builder(Role::Member).key(own.clone()).store(store.path());
        let away = mesh.join(keeper()).await;
        away.shutdown().await;
        soon("a hub takes it", a.revoke(mesh.revocation(lost.key()))).await.unwrap();

        let mut seen = b.events();
        let talk = async {
            for number in 0..60u8 {
                a.send_message(b.key(), Bytes::from(vec![number])).await.unwrap();
                let (from, body) = b.recv_message().await.unwrap();
                assert_eq!((from, &body[..]), (a.key(), &[number][..]));
                rt::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let rotate = async {
            rt::time::sleep(Duration::from_millis(50)).await;
            a.rotate(mesh.rotation(1, 0)).await
        };
        let ((), handed) = soon("both", async { tokio::join!(talk, rotate) }).await;
        assert_eq!(handed.unwrap(), HandedOver { by_hub: true, members: 0, missed: 0 });
        soon("the news", async { while seen.next().await != Some(NodeEvent::Rotated { generation: 1 }) {} })
            .await;
        assert_eq!((generation(&a).await, generation(&b).await), (1, 1));
        assert_eq!(metric(&b, "node.secrets").await, 1);

        // Whoever was away comes with the old ticket and the old secret, and so does a newcomer.
        let away = mesh.join(keeper()).await;
        assert_eq!(generation(&away).await, 1);
        let newcomer = mesh.join(mesh.admitted(Role::Member)).await;
        assert_eq!(generation(&newcomer).await, 1);
        crate::harness::meet(&[&b, &away, &newcomer]).await;
        crate::harness::ping(&newcomer, &away).await.unwrap();
    });
}

#[test]
fn a_node_with_a_store_and_a_hub_with_a_file_know_the_secret_again() {
    run(async {
        let mut mesh = Mesh::start().await;
        let (dir, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        mesh.stop_hub().await;
        mesh.remembers = Some(dir.path().join("hub.redb"));
        mesh.start_hub().await;
        let (own, credential) = mesh.admit();
        let keeper = |mesh: &Mesh| {
            mesh.builder(Role::Member).key(own.clone()).credential(credential.clone()).store(store.path())
        };
        let node = mesh.join(keeper(&mesh)).await;
        assert!(soon("a hub takes it", node.rotate(mesh.rotation(7, 0))).await.unwrap().by_hub);
        node.shutdown().await;
        mesh.stop_hub().await;
        let alone = keeper(&mesh).spawn().await.unwrap();
        assert_eq!(generation(&alone).await, 7);
        alone.shutdown().await;
        mesh.start_hub().await;
        let other = mesh.join(mesh.admitted(Role::Member)).await;
        assert_eq!(generation(&other).await, 7);
        let secret = mesh.hub().secret(&mesh.ticket.mesh).unwrap();
        let mut printed = mesh.ticket.clone();
        assert!(printed.rotate(&secret, secret.made));
        assert_eq!((printed.generation, printed.previous), (7, None));
    });
}

#[test]
fn without_an_issuing_hub_those_who_are_there_get_it_and_the_old_one_opens_nothing_after_seven_days() {
    run(async {
        let mut mesh = Mesh::start().await;
        mesh.stop_hub().await;
        mesh.issues = false;
        mesh.start_hub().await;
        let [a, b] =
            [mesh.join(mesh.admitted(Role::Member)).await, mesh.join(mesh.admitted(Role::Member)).await];
        crate::harness::meet(&[&a, &b]).await;
        let handed = soon("the members", a.rotate(mesh.rotation(1, 100))).await.unwrap();
        assert_eq!(handed, HandedOver { by_hub: false, members: 1, missed: 0 });
        assert_eq!(generation(&b).await, 1);
        assert!(mesh.hub().secret(&mesh.ticket.mesh).is_none(), "a hub without the key stays blind");

        // Within the seven days: with the old secret, and nobody to get the new one from.
        let late = mesh.join(mesh.admitted(Role::Member)).await;
        crate::harness::meet(&[&late, &b]).await;
        assert_eq!((generation(&late).await, late.status().await.unwrap().announced), (0, 1));
        late.shutdown().await;

        let again = mesh.rotation(2, ACCEPTED_FOR + 100);
        soon("the members", a.rotate(again.clone())).await.unwrap();
        until("the other has it", async || generation(&b).await == 2).await;
        let late = mesh.admitted(Role::Member).spawn().await.unwrap();
        let error = soon("an answer", late.joined(Duration::from_secs(4))).await.unwrap_err();
        assert!(matches!(error, Error::Refused(RefusedBy::Members)), "{error:?}");

        // A ticket that was printed since leads in.
        let mut printed = mesh.ticket.clone();
        printed.rotate(&again.secret, again.secret.made);
        let (own, credential) = mesh.admit();
        let came = mesh.join(Node::builder(printed).role(Role::Member).key(own).credential(credential)).await;
        assert_eq!(generation(&came).await, 2);
        let stranger = AuthorityKey::generate(&mut rt::rng("another authority")).rotate(9, 9);
        let refused = a.rotate(stranger).await;
        assert!(matches!(refused, Err(Error::Revoke(RevokeError::AnotherMesh))), "{refused:?}");
    });
}
