//! The log lines of a mesh on real sockets. One test in a process of its own: its subscriber is that of the process,
//! since a node's threads are its own.
#![cfg(not(feature = "sim"))]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use nurl::config::{AllowList, Role};
use nurl::hub::{Hub, MeshSecret};
use nurl::job::{Policy, SubmitOptions};
use nurl::{Builder, Node, SecretKey, rt};
use tracing_subscriber::filter::LevelFilter;

const PATIENCE: Duration = Duration::from_secs(20);
const PAYLOAD: &str = "a payload that nobody logs";

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Waits for a line with all of these texts.
    async fn wait_for(&self, texts: &[&str]) {
        let limit = rt::time::now() + PATIENCE;
        while !self.text().lines().any(|line| texts.iter().all(|text| line.contains(text))) {
            assert!(rt::time::now() < limit, "no line with {texts:?} in\n{}", self.text());
            rt::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[test]
fn lines_name_the_node_the_peer_and_the_task_and_tell_refusals_but_no_secret() {
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(LevelFilter::DEBUG)
        .with_writer(move || writer.clone())
        .init();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(mesh(lines));
}

async fn mesh(lines: Lines) {
    let (_hub, ticket) = nurl::hub::serve_new_mesh("127.0.0.1:0").await.unwrap();

    // A damaged store is set aside, and a hub that isn't there is told by the node that seeks it.
    let dir = tempfile::tempdir().unwrap();
    rt::disk::atomic_replace(&dir.path().join("nurl.redb"), b"this is no database").unwrap();
    // Beside it the mark of a store that was made here: without it, the file would be another program's.
    rt::disk::atomic_replace(&dir.path().join("nurl.redb.made"), b"").unwrap();
    let mut two_hubs = ticket.clone();
    two_hubs.hubs.push(Hub { key: key().public(), addr: "127.0.0.1:1".to_owned() });
    let handler = |_, _| async {
        tracing::info!("the handler's own line");
        Ok(Bytes::from_static(b"done"))
    };
    let friend = key();
    let allowed = AllowList::Only([friend.public()].into());
    let builder = Node::builder(two_hubs).store(dir.path()).handler("work", handler).allow(allowed);
    let builder = builder.handler("kept", handler).allow_submit("kept", Policy::Name("nobody".to_owned()));
    let worker = joined(builder).await;
    let node = format!("node{{node={}}}", worker.key().short());
    lines.wait_for(&["WARN", &node, "the store was damaged and is set aside", "nurl.redb.damaged-"]).await;
    lines.wait_for(&["DEBUG", &node, "nurl::hub", "can't reach the hub", "127.0.0.1:1"]).await;

    let client = joined(Node::builder(ticket.clone()).key(friend).role(Role::Observer)).await;
    let task = client.submit("work", b"key", PAYLOAD.into(), SubmitOptions::default()).await.unwrap();
    let id = task.id();
    assert_eq!(task.outcome().await.unwrap(), "done");
    lines.wait_for(&["INFO", &node, &format!("task{{task={id} kind=work}}"), "the handler's own line"]).await;
    let key = format!("key={}", client.key());
    lines
        .wait_for(&[&node, "audit", "a task is admitted", &format!("task={id}"), "kind=\"work\"", &key])
        .await;
    let kept = client.submit("kept", b"key", PAYLOAD.into(), SubmitOptions::default()).await.unwrap();
    let refused = format!("task={}", kept.id());
    assert!(kept.outcome().await.is_err());
    lines.wait_for(&[&node, "audit", "a policy refused a task", &refused, &key, "level=\"worker\""]).await;
    let (by, client_node) = (worker.key().short(), format!("node{{node={}}}", client.key().short()));
    let taken = [&client_node[..], "nurl::job", &format!("task={id}"), &format!("by={by}")];
    lines.wait_for(&taken).await;
    lines.wait_for(&[&node, "a session is up", &format!("peer={}", client.key().short())]).await;

    // A stranger is refused by the allow-list, and one with another secret by the ticket.
    let stranger = Node::builder(ticket.clone()).role(Role::Observer).spawn().await.unwrap();
    let refused = format!("peer={} reason=\"not-allowed\"", stranger.key().short());
    lines.wait_for(&["DEBUG", &node, "nurl::session", "a peer is refused", &refused]).await;
    let mut other_secret = ticket.clone();
    other_secret.current = MeshSecret::generate(&mut rt::rng("other secret"));
    let _stranger = Node::builder(other_secret).role(Role::Observer).spawn().await.unwrap();
    lines.wait_for(&["DEBUG", &node, "nurl::session", "a handshake is refused", "reason=\"bad-mac1\""]).await;

    let (text, secret) = (lines.text(), ticket.to_text().unwrap());
    assert!(!text.contains(PAYLOAD) && !text.contains(&secret[..40]), "{text}");
}

fn key() -> SecretKey {
    SecretKey::generate(&mut rt::rng("test key"))
}

async fn joined(builder: Builder) -> Node {
    let node = builder.spawn().await.unwrap();
    node.joined(PATIENCE).await.unwrap();
    node
}
