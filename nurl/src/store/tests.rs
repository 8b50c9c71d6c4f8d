//! Stores in memory and on disk, damaged in many ways.

use rand_core::SeedableRng;

#[cfg(not(feature = "sim"))]
use super::faulty::Faulty;
#[cfg(not(feature = "sim"))]
use super::opening::{MADE_TEXT, made};
use super::*;

fn rng(seed: u8) -> Rng {
    Rng::from_seed([seed; 32])
}

fn put(store: &Store, records: &[(Vec<u8>, Option<Vec<u8>>)]) {
    store.write(|write| write.put_all(Table::STATE, records)).unwrap();
}

fn exercise(store: &Store) {
    assert_eq!(store.meta("a number").unwrap(), None);
    store.write(|write| write.set_meta("a number", &42u64.to_le_bytes())).unwrap();
    let record = |n: u8| (vec![n], Some(vec![n; 100]));
    put(store, &[record(1), record(2), record(3)]);
    put(store, &[(vec![2], None)]);
    let write = store.begin().unwrap();
    for (name, bytes) in [(1, b"early"), (2, b"later")] {
        write.put(Table::COURSES, &[name], bytes).unwrap();
        assert_eq!(write.get(Table::COURSES, &[name]).unwrap(), Some(bytes.to_vec()), "its own write");
    }
    write.remove(Table::COURSES, &[1]).unwrap();
    write.put(Table::EFFECTS, b"gone", b"again").unwrap();
    write.remove(Table::EFFECTS, b"gone").unwrap();
    assert_eq!(store.get(Table::COURSES, &[2]).unwrap(), None, "not before the commit");
    write.commit().unwrap();
    let undone = store.begin().unwrap();
    undone.put(Table::EFFECTS, b"never", b"committed").unwrap();
    drop(undone);
}

fn verify(store: &Store) {
    let bytes = store.meta("a number").unwrap().unwrap();
    assert_eq!(number(&bytes, "a number").unwrap(), 42);
    assert!(matches!(number(&bytes[1..], "a number"), Err(StoreError::Damaged("a number"))));
    assert_eq!(records(store), [(vec![1], Some(vec![1; 100])), (vec![3], Some(vec![3; 100]))]);
    assert_eq!(store.get(Table::COURSES, &[1]).unwrap(), None);
    assert_eq!(store.get(Table::COURSES, &[2]).unwrap(), Some(b"later".to_vec()));
    let mut effects = 0;
    store.each(Table::EFFECTS, |_, _| effects += 1).unwrap();
    assert_eq!(effects, 0);
}

fn records(store: &Store) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut records = Vec::new();
    store.each(Table::STATE, |key, record| records.push((key.to_vec(), Some(record.to_vec())))).unwrap();
    records
}

#[test]
fn a_store_in_memory_gives_back_what_it_took() {
    let store = Store::in_memory(&mut rng(1)).unwrap();
    exercise(&store);
    verify(&store);
    let other = Store::in_memory(&mut rng(2)).unwrap();
    assert_ne!(store.incarnation(), other.incarnation());
}

#[cfg(not(feature = "sim"))]
#[test]
fn a_store_on_disk_outlives_the_process_and_keeps_its_incarnation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::open(&path, &mut rng(1)).unwrap();
    let incarnation = store.incarnation();
    exercise(&store);
    drop(store);
    let store = Store::open(&path, &mut rng(2)).unwrap();
    assert_eq!(store.incarnation(), incarnation, "drawn once, at creation");
    verify(&store);
    drop(store);
    disk::remove(&path).unwrap();
    let refused = Store::open(&path, &mut rng(3)).unwrap_err();
    assert!(matches!(refused, StoreError::Unsound { .. }), "{refused}");
    let Opened { store, set_aside } = Opened::at(&path, false, &mut rng(3)).unwrap();
    assert_eq!(set_aside.unwrap().path, None);
    assert_ne!(store.incarnation(), incarnation, "a lost disk is another replica");
}

#[cfg(not(feature = "sim"))]
#[test]
fn a_file_that_another_store_has_open_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::open(&path, &mut rng(1)).unwrap();
    exercise(&store);
    let refused = Store::open(&path, &mut rng(2)).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    verify(&store);
    drop(store);
    verify(&Store::open(&path, &mut rng(2)).unwrap());
}

#[cfg(not(feature = "sim"))]
#[test]
#[expect(clippy::disallowed_methods, reason = "a copy is made while another thread writes")]
fn a_copy_of_a_store_in_use_is_a_state_that_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::open(&path, &mut rng(1)).unwrap();
    let write = |number: u32| {
        let record = Some(number.to_le_bytes().repeat(500));
        put(&store, &[(vec![1], record.clone()), (vec![2], record)]);
    };
    write(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 1;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                write(number);
                number += 1;
            }
        });
        for _ in 0..20 {
            // A busy disk may tear all of its copies; what is told is then an error.
            if let Ok(copy) = Store::copy_of(&path, &mut rng(2)) {
                let records = records(&copy);
                assert_eq!((records.len(), &records[0].1), (2, &records[1].1));
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let copy = Store::copy_of(&path, &mut rng(2)).unwrap();
    assert_eq!((records(&copy), copy.incarnation()), (records(&store), store.incarnation()));
}

#[cfg(not(feature = "sim"))]
#[test]
fn an_unfinished_creation_is_begun_anew_and_another_file_is_never_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    disk::create_new_private(&path, &[0; 70_000]).unwrap();
    exercise(&Store::open(&path, &mut rng(1)).unwrap());
    let other = dir.path().join("letter");
    disk::create_new_private(&other, b"Dear Alice, this is no database.").unwrap();
    assert!(matches!(Store::open(&other, &mut rng(1)), Err(StoreError::Database(_))));
    assert_eq!(disk::read(&other, 100).unwrap(), b"Dear Alice, this is no database.");
}

/// A closed store of several blocks, and its records.
#[cfg(not(feature = "sim"))]
fn filled(path: &Path) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let store = Store::open(path, &mut rng(1)).unwrap();
    let record = |n: u32| (n.to_be_bytes().to_vec(), Some(vec![n as u8; 700]));
    let records: Vec<_> = (0..200).map(record).collect();
    for some in records.chunks(20) {
        put(&store, some);
    }
    records
}

#[cfg(not(feature = "sim"))]
fn whole_file(path: &Path) -> Vec<u8> {
    disk::read(path, 1 << 30).unwrap()
}

#[cfg(not(feature = "sim"))]
#[test]
fn a_damaged_block_is_found_when_the_store_is_opened_or_holds_nothing() {
    const BLOCK: usize = 4096;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let records_before = filled(&path);
    let whole = whole_file(&path);
    let (mut found, mut harmless) = (0, 0);
    for block in 0..whole.len() / BLOCK {
        for (way, fill) in [0u8, 0xa5].into_iter().enumerate() {
            let mut bytes = whole.clone();
            bytes[block * BLOCK..(block + 1) * BLOCK].fill(fill);
            if bytes == whole {
                continue;
            }
            disk::atomic_replace(&path, &bytes).unwrap();
            match Store::open(&path, &mut rng(2)) {
                Err(StoreError::Unsound { .. }) => found += 1,
                Ok(store) => {
                    assert_eq!(records(&store), records_before, "block {block}, {way}");
                    harmless += 1;
                }
                Err(other) => panic!("block {block}, {way}: {other}"),
            }
        }
    }
    assert!(found > 40 && harmless < found, "{found} found, {harmless} harmless");
}

/// So the records need no digests of their own: at each start, all of them are read once, right after this check.
#[cfg(not(feature = "sim"))]
#[test]
fn every_flipped_byte_is_found_when_the_store_is_opened_or_is_in_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::open(&path, &mut rng(1)).unwrap();
    exercise(&store);
    // As a process leaves it that is killed, and as one that ends in good order.
    let unclosed = whole_file(&path);
    drop(store);
    let closed = whole_file(&path);
    for (file, mut bytes) in [("unclosed", unclosed), ("closed", closed)] {
        verify(&opening::in_memory(&bytes, &mut rng(2)).unwrap());
        // Beside those that are far from any byte that isn't 0: these are of no page in use.
        let is_used = |at: &usize| bytes[at / 64 * 64..].iter().take(64).any(|byte| *byte != 0);
        let used: Vec<usize> = (0..bytes.len()).filter(is_used).collect();
        let mut found = 0;
        for at in used {
            let flipped = 1 << (at % 8);
            bytes[at] ^= flipped;
            match opening::in_memory(&bytes, &mut rng(2)) {
                Err(_) => found += 1,
                // Pages that earlier commits have freed keep their bytes.
                Ok(store) => verify(&store),
            }
            bytes[at] ^= flipped;
        }
        assert!(found > 800, "{file}: {found} found");
    }
}

#[cfg(not(feature = "sim"))]
#[test]
fn a_store_of_which_the_head_or_the_tail_is_gone_is_set_aside_and_a_strict_opening_leaves_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    filled(&path);
    let incarnation = Store::open(&path, &mut rng(1)).unwrap().incarnation();
    let whole = whole_file(&path);
    let zero_head = [&[0; 9], &whole[9..]].concat();
    let garbage_head = [&[0x5a; 64], &whole[64..]].concat();
    let cut = whole[..whole.len() / 2].to_vec();
    // As a process leaves it that is killed: opening it repairs it.
    let (killed, store) = (dir.path().join("killed"), Store::open(&path, &mut rng(1)).unwrap());
    put(&store, &[(b"the last".to_vec(), Some(vec![1; 700]))]);
    let unclosed = whole_file(&path);
    drop(store);
    disk::create_new_private(&killed, &unclosed).unwrap();
    assert_eq!(records(&Store::open(&killed, &mut rng(1)).unwrap()).len(), 201);
    assert_ne!(whole_file(&killed), unclosed);
    let cut_unclosed = unclosed[..unclosed.len() / 2].to_vec();
    let mut bits = unclosed;
    bits.chunks_mut(4096).for_each(|page| page[1365] ^= 8);
    let ways = [Vec::new(), zero_head, garbage_head, vec![0; whole.len()], cut, cut_unclosed, bits];
    let mut kept = Vec::new();
    for (way, bytes) in ways.iter().enumerate() {
        disk::atomic_replace(&path, bytes).unwrap();
        disk::remove(&made(&path)).unwrap();
        disk::create_new_private(&made(&path), MADE_TEXT).unwrap();
        let refused = Opened::at(&path, true, &mut rng(2)).unwrap_err();
        assert!(matches!(refused, StoreError::Unsound { .. }), "{way}: {refused}");
        assert_eq!(&whole_file(&path), bytes, "{way}: it is left as it was");
        let Opened { store, set_aside } = Opened::at(&path, false, &mut rng(2)).unwrap();
        let aside = set_aside.unwrap().path.unwrap();
        assert_eq!(&whole_file(&aside), bytes, "{way}: {}", aside.display());
        assert_ne!(store.incarnation(), incarnation, "{way}: it writes under another id");
        assert_eq!(records(&store), [], "{way}");
        kept.push((aside, bytes.clone()));
        drop(store);
        let again = Opened::at(&path, true, &mut rng(3)).unwrap();
        assert_eq!(again.set_aside, None, "{way}: once");
    }
    for (aside, bytes) in kept {
        assert_eq!(whole_file(&aside), bytes, "no damaged store replaced another");
    }
}

#[cfg(not(feature = "sim"))]
#[test]
fn a_last_commit_that_became_damaged_is_found_and_not_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let [path, killed] = ["store", "killed"].map(|name| dir.path().join(name));
    let store = Store::open(&path, &mut rng(1)).unwrap();
    put(&store, &[(b"first".to_vec(), Some(vec![0x11; 700]))]);
    put(&store, &[(b"last".to_vec(), Some(vec![0xb7; 700]))]);
    // As a process leaves it that is killed.
    let sound = whole_file(&path);
    let mut damaged = sound.clone();
    let last = sound.windows(700).position(|bytes| bytes == [0xb7; 700]).unwrap();
    damaged[last + 300] ^= 1;
    disk::create_new_private(&killed, &damaged).unwrap();
    let refused = Store::open(&killed, &mut rng(2)).map(|store| records(&store).len());
    assert!(matches!(refused, Err(StoreError::Unsound { .. })), "{refused:?}");
    disk::atomic_replace(&killed, &sound).unwrap();
    assert_eq!(records(&Store::open(&killed, &mut rng(2)).unwrap()).len(), 2);
}

#[test]
fn a_record_or_a_name_over_its_limit_is_refused() {
    // The sizes of the name and of the record; whether they are taken.
    let table = [
        (0, 0, true),
        (MAX_NAME_BYTES, 1, true),
        (MAX_NAME_BYTES + 1, 1, false),
        (1, MAX_RECORD_BYTES, true),
        (1, MAX_RECORD_BYTES + 1, false),
    ];
    for (name, record, taken) in table {
        assert_eq!(check(&vec![0; name], &vec![0; record]).is_ok(), taken, "{name} {record}");
    }
}

#[cfg(not(feature = "sim"))]
#[test]
fn nothing_of_a_commit_whose_sync_failed_is_told_before_the_store_is_opened_again() {
    let record = |n: u8| (vec![n], Some(vec![n; 100]));
    let (mut before, mut unknown) = (0, 0);
    for sync in 1..=2 {
        let disk = Faulty::default();
        let store = disk.store(&mut rng(1));
        put(&store, &[record(1)]);
        disk.fail_sync(sync);
        let failed = store.write(|write| write.put_all(Table::STATE, &[record(2)]));
        assert!(matches!(failed, Err(StoreError::Database(_))), "{sync}: {failed:?}");
        let closed = store.fail();
        match closed.view(&mut rng(2)) {
            Ok(view) => {
                assert_eq!(records(&view), [record(1)], "{sync}");
                before += 1;
            }
            // The file names it as the last one, and the disk perhaps doesn't.
            Err(error) => {
                assert!(matches!(error, StoreError::Unsynced), "{sync}: {error}");
                unknown += 1;
            }
        }
        let store = closed.reopen(&mut rng(2)).unwrap();
        put(&store, &[record(3)]);
        let kept = records(&store);
        assert!(
            kept == [record(1), record(3)] || kept == [record(1), record(2), record(3)],
            "{sync}: {kept:?}"
        );
    }
    assert_eq!((before, unknown), (1, 1));
}

#[cfg(not(feature = "sim"))]
#[test]
fn a_store_that_failed_keeps_its_file_from_others_until_it_is_open_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::open(&path, &mut rng(1)).unwrap();
    exercise(&store);
    let closed = store.fail();
    assert!(matches!(Store::open(&path, &mut rng(2)), Err(StoreError::InUse { .. })));
    verify(&closed.view(&mut rng(2)).unwrap());
    let store = closed.reopen(&mut rng(2)).unwrap();
    verify(&store);
    drop((store, closed));
    verify(&Store::open(&path, &mut rng(3)).unwrap());
}
