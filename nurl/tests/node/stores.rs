//! A store that is damaged on the disk.

use std::path::Path;

use nurl::Error;
use nurl::config::Role;
use nurl::events::NodeEvent;
use nurl::rt::disk;

use crate::harness::{Mesh, key, meet, run, soon, until};

const STORE: &str = "nurl.redb";
const KEYS: u32 = 40;

/// A kind of damage to a store's bytes.
type Damage = fn(&mut Vec<u8>);

const DAMAGES: [(&str, Damage); 5] = [
    ("zeros at its head", |bytes| bytes[..9].fill(0)),
    ("garbage at its head", |bytes| bytes[..4096].fill(0x5a)),
    ("garbage in its middle", |bytes| bytes[4096..].fill(0x5a)),
    ("half of it", |bytes| bytes.truncate(bytes.len() / 2)),
    ("nothing", Vec::clear),
];

fn read(path: &Path) -> Vec<u8> {
    disk::read(path, 1 << 30).unwrap()
}

#[test]
fn a_damaged_store_is_set_aside_and_its_node_gets_back_what_others_have() {
    run(async {
        for (what, damage) in DAMAGES {
            let mesh = Mesh::start().await;
            let (dir, key) = (tempfile::tempdir().unwrap(), key());
            let builder = || mesh.builder(Role::Worker).key(key.clone()).store(dir.path());
            let (worker, other) = (mesh.join(builder()).await, mesh.node(Role::Worker).await);
            meet(&[&worker, &other]).await;
            for number in 0..KEYS {
                worker.counter(&format!("key {number}")).add(2).await.unwrap();
            }
            soon("the end", worker.shutdown()).await;
            drop(worker);
            let path = dir.path().join(STORE);
            let mut bytes = read(&path);
            damage(&mut bytes);
            disk::atomic_replace(&path, &bytes).unwrap();

            let refused = builder().store_strict().spawn().await.err();
            assert!(
                matches!(&refused, Some(Error::Store(error)) if error.to_string().contains(STORE)),
                "{what}: {refused:?}"
            );
            assert_eq!(read(&path), bytes, "{what}: it is left as it was");

            let worker = mesh.join(builder()).await;
            let first = soon("the event", async { worker.events().next().await }).await;
            let Some(NodeEvent::StoreSetAside { path: Some(aside), .. }) = first else {
                panic!("{what}: {first:?}")
            };
            assert_eq!(read(&aside), bytes, "{what}: {}", aside.display());
            // Under its old id the worker would make writes that other nodes take for already seen.
            for number in 0..KEYS {
                let counter = worker.counter(&format!("key {number}"));
                until("the write", async || counter.add(1).await.is_ok()).await;
                until("the sum", async || counter.get().await.ok() == Some(3)).await;
            }
            soon("the end", worker.shutdown()).await;
        }
    });
}

#[test]
fn a_store_that_is_gone_is_told_of_and_a_foreign_file_is_never_touched() {
    run(async {
        let mesh = Mesh::start().await;
        let dir = tempfile::tempdir().unwrap();
        let builder = || mesh.builder(Role::Worker).store(dir.path());
        soon("the end", mesh.join(builder()).await.shutdown()).await;
        disk::remove(&dir.path().join(STORE)).unwrap();
        assert!(builder().store_strict().spawn().await.is_err());
        let worker = builder().spawn().await.unwrap();
        let first = worker.events().next().await;
        assert!(matches!(first, Some(NodeEvent::StoreSetAside { path: None, .. })), "{first:?}");
        worker.shutdown().await;

        let foreign = tempfile::tempdir().unwrap();
        let path: &Path = &foreign.path().join(STORE);
        disk::create_new_private(path, b"Dear Alice, this is no database.").unwrap();
        assert!(mesh.builder(Role::Worker).store(foreign.path()).spawn().await.is_err());
        assert_eq!(read(path), b"Dear Alice, this is no database.");
    });
}
