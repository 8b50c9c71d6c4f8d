//! What the authority revokes, ends.

use std::time::Duration;

use nurl::config::Role;
use nurl::events::NodeEvent;
use nurl::pass::{AuthorityKey, Subject};
use nurl::{Error, RefusedBy, RevokeError, rt};

use crate::harness::{Mesh, key, run, soon, state_of, until};

#[test]
fn a_revoked_node_ends_and_is_nobodys_peer_any_more() {
    run(async {
        let mesh = Mesh::start().await;
        let secret = key();
        let [a, b] = mesh.nodes(Role::Worker).await;
        let lost = mesh.join(mesh.builder(Role::Worker).key(secret.clone())).await;
        until("all know it", async || {
            state_of(&a, lost.key()).await.is_some() && state_of(&b, lost.key()).await.is_some()
        })
        .await;
        soon("a session", a.ping(lost.key(), Duration::from_secs(9))).await.unwrap();
        let (mut seen, mut own) = (b.events(), lost.events());

        soon("a hub takes it", a.revoke(mesh.revocation(lost.key()))).await.unwrap();
        soon("the news", async {
            while seen.next().await != Some(NodeEvent::Revoked { peer: lost.key() }) {}
        })
        .await;
        assert_eq!(state_of(&a, lost.key()).await, None, "it acts here at once");
        soon("its end", async { while own.next().await.is_some() {} }).await;
        let ended = lost.members().await;
        assert!(matches!(ended, Err(Error::Refused(RefusedBy::Authority))), "{ended:?}");
        until("nobody knows it", async || {
            state_of(&b, lost.key()).await.is_none() && mesh.hub().stats().clients == 2
        })
        .await;
        let asked = a.ping(lost.key(), Duration::from_millis(300)).await;
        assert!(matches!(asked, Err(Error::Deadline(_))), "{asked:?}");

        // Its key gets no pass again, though the ticket is the same.
        let again = mesh.builder(Role::Worker).key(secret).spawn().await.unwrap();
        let refused = soon("an answer", again.joined(Duration::MAX)).await.unwrap_err();
        assert!(matches!(refused, Error::HubRefused { .. } | Error::Refused(_)), "{refused:?}");
        assert_eq!(refused.hub_reason(), Some("revoked"));
    });
}

#[test]
fn a_revoked_invitation_is_closed_and_ends_those_who_came_by_it() {
    run(async {
        let mesh = Mesh::start().await;
        let keeper = mesh.join(mesh.admitted(Role::Member)).await;
        let guest = mesh.node(Role::Worker).await;
        crate::harness::meet(&[&keeper, &guest]).await;
        let mut own = guest.events();
        let invitation = Subject::Invitation(mesh.ticket.invitation.as_ref().unwrap().terms.id);
        soon("a hub takes it", keeper.revoke(mesh.revocation_of(invitation))).await.unwrap();
        soon("its end", async { while own.next().await.is_some() {} }).await;
        let ended = guest.members().await;
        assert!(matches!(ended, Err(Error::Refused(RefusedBy::Authority))), "{ended:?}");
        until("nobody knows it", async || state_of(&keeper, guest.key()).await.is_none()).await;
        let newcomer = mesh.builder(Role::Worker).spawn().await.unwrap();
        let refused = soon("an answer", newcomer.joined(Duration::MAX)).await.unwrap_err();
        assert_eq!(refused.hub_reason(), Some("revoked"));
        let other = mesh.join(mesh.admitted(Role::Member)).await;
        crate::harness::meet(&[&keeper, &other]).await;
    });
}

#[test]
fn a_hub_with_a_file_and_a_node_with_a_store_remember_what_was_revoked() {
    run(async {
        let (mut mesh, dir) = (Mesh::start().await, tempfile::tempdir().unwrap());
        mesh.stop_hub().await;
        mesh.remembers = Some(dir.path().join("hub.redb"));
        mesh.start_hub().await;
        let ((key, credential), (lost, old)) = (mesh.admit(), mesh.admit());
        let store = tempfile::tempdir().unwrap();
        let keeper = |mesh: &Mesh| {
            mesh.builder(Role::Member).key(key.clone()).credential(credential.clone()).store(store.path())
        };
        let node = mesh.join(keeper(&mesh)).await;
        soon("a hub takes it", node.revoke(mesh.revocation(lost.public()))).await.unwrap();
        node.shutdown().await;
        let refused = async |mesh: &Mesh| {
            let node = mesh.builder(Role::Member).key(lost.clone()).credential(old.clone());
            let node = node.spawn().await.unwrap();
            let error = soon("an answer", node.joined(Duration::MAX)).await.unwrap_err();
            assert!(matches!(error, Error::HubRefused { .. } | Error::Refused(_)), "{error:?}");
        };
        mesh.stop_hub().await;
        mesh.start_hub().await;
        refused(&mesh).await;

        // Without its file the hub knows nothing, until a node tells it.
        mesh.stop_hub().await;
        mesh.remembers = None;
        mesh.start_hub().await;
        assert_eq!(mesh.hub().stats().hub.revocations, 0);
        let _node = mesh.join(keeper(&mesh)).await;
        until("the hub is told", async || mesh.hub().stats().hub.revocations == 1).await;
        refused(&mesh).await;
    });
}

#[test]
fn an_authoritys_key_is_read_from_its_file() {
    let (dir, key) = (tempfile::tempdir().unwrap(), key());
    let file = dir.path().join("authority.key");
    key.save_new(&file).unwrap();
    let loaded = AuthorityKey::load(&file).unwrap();
    assert_eq!(loaded.seed(), key.as_bytes());
    assert!(AuthorityKey::load(&dir.path().join("another")).is_err());
}

#[test]
fn a_revocation_of_another_mesh_is_refused_and_without_a_hub_a_member_is_enough() {
    run(async {
        let mut mesh = Mesh::start().await;
        let [a, b] = mesh.nodes(Role::Member).await;
        let stranger = AuthorityKey::generate(&mut rt::rng("another authority"));
        let refused = a.revoke(stranger.revoke(Subject::All, 1)).await;
        assert!(matches!(refused, Err(Error::Revoke(RevokeError::AnotherMesh))), "{refused:?}");
        until("a direct path", async || crate::harness::is_direct(&a, b.key()).await).await;
        mesh.stop_hub().await;
        let gone = key().public();
        soon("a member takes it", a.revoke(mesh.revocation(gone))).await.unwrap();
        until("it is taken there", async || b.metrics().await.unwrap().get("node.revocations") == Some(1))
            .await;
    });
}
