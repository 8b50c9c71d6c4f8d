use super::inode::SECTOR;
use super::*;
use crate::seed::stream;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn disk(seed: u64) -> Disk {
    Disk::new(stream(seed, "disk/test"), stream(seed, "disk-kernel/test"))
}

/// A disk with an open file, `/f`, whose name and content are durable.
fn with_file(seed: u64, bytes: &[u8]) -> (Disk, u64) {
    let mut disk = disk(seed);
    disk.create_new(Path::new("/f"), bytes).unwrap();
    let file = disk.open(Path::new("/f")).unwrap();
    (disk, file)
}

fn content(disk: &mut Disk) -> Vec<u8> {
    disk.read(Path::new("/f"), 1 << 20).unwrap()
}

const EIO: Option<i32> = Some(5);

#[test]
fn the_content_of_a_disk_is_its_names_and_their_bytes() {
    let with = |path: &str, bytes: &[u8]| {
        let mut disk = disk(1);
        disk.create_new(Path::new(path), bytes).unwrap();
        disk.content()
    };
    assert_eq!(with("/f", b"one"), with("/f", b"one"));
    assert_ne!(with("/f", b"one"), with("/f", b"two"));
    assert_ne!(with("/f", b"one"), with("/g", b"one"));
}

#[test]
fn synced_bytes_survive_every_power_loss() {
    for seed in 0..50 {
        let (mut disk, file) = with_file(seed, &[1; 2000]);
        disk.write_at(file, &[2; 100], 1500).unwrap();
        disk.power_loss();
        let after = disk.read(Path::new("/f"), 4096).unwrap();
        assert_eq!(after.len(), 2000);
        assert_eq!(after[..1024], [1; 1024]);
    }
}

#[test]
fn unsynced_sectors_survive_by_lot_each_for_itself() {
    let mut seen = BTreeSet::new();
    for seed in 0..60 {
        let (mut disk, file) = with_file(seed, &[1; 1024]);
        disk.write_at(file, &[2; 1024], 0).unwrap();
        disk.power_loss();
        let after = disk.read(Path::new("/f"), 4096).unwrap();
        assert!(after[..512].iter().all(|byte| *byte == after[0]));
        seen.insert((after[0], after[512]));
    }
    assert_eq!(seen, BTreeSet::from([(1, 1), (1, 2), (2, 1), (2, 2)]));
}

#[test]
fn a_new_name_and_a_removal_need_a_sync_too() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..60 {
        let mut disk = disk(seed);
        disk.create_new(Path::new("/old"), b"x").unwrap();
        disk.open(Path::new("/new")).unwrap();
        disk.remove(Path::new("/old")).unwrap();
        assert!(!disk.exists(Path::new("/old")));
        disk.power_loss();
        outcomes.insert((disk.exists(Path::new("/old")), disk.exists(Path::new("/new"))));
    }
    assert_eq!(outcomes.len(), 4);
}

#[test]
fn a_whole_replacement_is_all_or_nothing() {
    for seed in 0..20 {
        let mut disk = disk(seed);
        disk.create_new(Path::new("/f"), b"one").unwrap();
        disk.replace(Path::new("/f"), b"three").unwrap();
        disk.power_loss();
        assert_eq!(disk.read(Path::new("/f"), 9).unwrap(), b"three");
    }
}

#[test]
fn a_renamed_file_has_its_new_name_after_a_crash_and_replaces_nothing() {
    let (a, b) = (Path::new("/a"), Path::new("/b"));
    for seed in 0..20 {
        let mut disk = disk(seed);
        disk.create_new(a, b"one").unwrap();
        disk.rename(a, b).unwrap();
        disk.create_new(a, b"two").unwrap();
        assert_eq!(disk.rename(a, b).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        disk.power_loss();
        assert_eq!((disk.read(a, 9).unwrap(), disk.read(b, 9).unwrap()), (b"two".into(), b"one".into()));
    }
}

#[test]
fn an_unlinked_file_lives_as_long_as_its_handle_and_until_its_directory_is_synced() {
    let (mut disk, file) = with_file(1, b"abc");
    disk.remove(Path::new("/f")).unwrap();
    let mut buffer = [0; 3];
    disk.read_at(file, &mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"abc");
    disk.create_new(Path::new("/g"), b"").unwrap();
    assert_eq!(disk.inodes.len(), 2);
    disk.close(file, false);
    assert_eq!(disk.inodes.len(), 1);
}

/// POSIX, write(2): "if there is not enough space, write() transfers as many bytes as there is room for", and the next
/// call fails with ENOSPC.
#[test]
fn a_full_disk_takes_what_fits_and_keeps_what_it_has() {
    let mut disk = disk(1);
    disk.set_capacity(100);
    let (a, b) = (Path::new("/a"), Path::new("/b"));
    let is_full = |done: io::Result<()>| done.unwrap_err().kind() == io::ErrorKind::StorageFull;
    disk.create_new(a, &[1; 60]).unwrap();
    assert!(is_full(disk.create_new(b, &[2; 41])));
    assert!(!disk.exists(b));
    assert!(is_full(disk.replace(a, &[2; 50])), "old and new bytes stand beside each other");
    let file = disk.open(a).unwrap();
    assert!(is_full(disk.set_len(file, 101)));
    assert_eq!(disk.read(a, 100).unwrap(), [1; 60]);
    assert!(is_full(disk.write_at(file, &[3; 50], 51)));
    assert_eq!(disk.read(a, 100).unwrap(), [[1; 51].as_slice(), &[3; 49]].concat());
    assert!(is_full(disk.open(b).map(drop)), "a name needs room too");
    disk.write_at(file, &[4; 100], 0).unwrap();
    disk.close(file, false);
    disk.remove(a).unwrap();
    assert!(is_full(disk.create_new(b, &[2; 10])), "the removal is not durable");
}

#[test]
fn a_filled_disk_has_room_again_when_the_trouble_ends() {
    let (mut disk, file) = with_file(1, &[1; 1000]);
    disk.fill(7, 10);
    disk.write_at(file, &[2; 10], 1000).unwrap();
    assert_eq!(disk.write_at(file, &[2; 10], 1010).unwrap_err().kind(), io::ErrorKind::StorageFull);
    disk.write_at(file, &[2; 1010], 0).unwrap();
    disk.troubles.end(7);
    disk.write_at(file, &[2; 10], 1010).unwrap();
    assert_eq!(content(&mut disk), [2; 1020]);
}

/// Rebello et al., "Can Applications Recover from fsync Failures?" (2020), on ext4 and XFS, and "fsyncgate" on
/// PostgreSQL's list (2018): pages are marked clean after a failed fsync, so the next fsync succeeds without having
/// written them. Reads are served from the page cache until it is gone.
#[test]
fn after_a_failed_sync_the_next_succeeds_and_the_data_are_read_but_lost_with_the_power() {
    let mut partly = 0;
    for seed in 0..30 {
        let (mut disk, file) = with_file(seed, &[1; 2048]);
        disk.write_at(file, &[2; 2048], 0).unwrap();
        disk.troubles.fail(1, DiskCall::Sync, 1);
        assert_eq!(disk.sync(file).unwrap_err().raw_os_error(), EIO);
        disk.sync(file).unwrap();
        disk.process_ends();
        assert_eq!(content(&mut disk), [2; 2048], "a new process reads it from the page cache");
        let file = disk.open(Path::new("/f")).unwrap();
        disk.sync(file).unwrap();
        disk.power_loss();
        let after = content(&mut disk);
        assert!(after.contains(&1), "seed {seed}");
        partly += u32::from(after.contains(&2));
    }
    assert!(partly > 0, "some of it was written");
}

#[test]
fn what_is_written_again_after_a_failed_sync_is_synced() {
    for seed in 0..10 {
        let (mut disk, file) = with_file(seed, &[1; 2048]);
        disk.write_at(file, &[2; 2048], 0).unwrap();
        disk.troubles.fail(1, DiskCall::Sync, 1);
        disk.sync(file).unwrap_err();
        disk.write_at(file, &[3; 2048], 0).unwrap();
        disk.sync(file).unwrap();
        disk.power_loss();
        assert_eq!(content(&mut disk), [3; 2048]);
    }
}

#[test]
fn a_failed_write_has_written_some_first_pages_and_a_failed_read_nothing() {
    let mut pages = BTreeSet::new();
    for seed in 0..30 {
        let (mut disk, file) = with_file(seed, &[1; 3 * PAGE]);
        disk.troubles.fail(1, DiskCall::Write, 1);
        assert_eq!(disk.write_at(file, &[2; 3 * PAGE], 0).unwrap_err().raw_os_error(), EIO);
        disk.troubles.fail(1, DiskCall::Read, 2);
        let after = content(&mut disk);
        assert_eq!(disk.read(Path::new("/f"), 9).unwrap_err().raw_os_error(), EIO);
        let new = after.iter().filter(|byte| **byte == 2).count();
        assert!(after[..new].iter().all(|byte| *byte == 2));
        pages.insert(new);
    }
    assert_eq!(pages, BTreeSet::from([0, PAGE, 2 * PAGE]));
}

#[test]
fn a_failed_call_on_a_whole_file_leaves_the_names_as_they_were() {
    let (f, g) = (Path::new("/f"), Path::new("/g"));
    for call in [DiskCall::Write, DiskCall::Sync] {
        let (mut disk, _) = with_file(1, b"old");
        let mut fails = |work: &mut dyn FnMut(&mut Disk) -> io::Result<()>| {
            disk.troubles.fail(1, call, 1);
            assert_eq!(work(&mut disk).unwrap_err().raw_os_error(), EIO, "{call:?}");
        };
        fails(&mut |disk| disk.replace(f, b"new"));
        fails(&mut |disk| disk.create_new(g, b"new"));
        fails(&mut |disk| disk.rename(f, g));
        assert_eq!(content(&mut disk), b"old");
        assert!(!disk.exists(g));
    }
}

/// A latent sector error is met by the next read that comes from the disk (Bairavasundaram et al., "An Analysis of Data
/// Corruption in the Storage Stack", 2008).
#[test]
fn a_flipped_bit_is_read_once_the_process_has_ended_unless_its_sector_is_written_again() {
    let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
    let (mut disk, file) = with_file(1, &[0; 1024]);
    assert!(disk.flip(8 * 1024 + 8 * 600 + 3), "counted modulo their number");
    assert_eq!(ones(&content(&mut disk)), 0, "the page cache has the old bytes");
    disk.process_ends();
    assert_eq!((content(&mut disk)[600], ones(&content(&mut disk))), (8, 1));
    disk.power_loss();
    assert_eq!(ones(&content(&mut disk)), 1);
    let file_again = disk.open(Path::new("/f")).unwrap();
    assert_eq!(file, file_again);
    disk.flip(0);
    disk.write_at(file, &[0; 1], 600).unwrap();
    disk.write_at(file, &[0; 1], 0).unwrap();
    disk.sync(file).unwrap();
    disk.power_loss();
    assert_eq!(ones(&content(&mut disk)), 0, "both sectors were written anew");
    assert!(!self::disk(1).flip(5), "nothing is durable");
}

#[test]
fn a_bit_that_flips_below_an_unsynced_write_is_seen_if_the_write_is_lost() {
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        let (mut disk, file) = with_file(seed, &[0; 512]);
        if seed % 2 == 0 {
            disk.flip(8 * 9);
        }
        disk.write_at(file, &[2; 512], 0).unwrap();
        if seed % 2 == 1 {
            disk.flip(8 * 9);
        }
        disk.power_loss();
        seen.insert((seed % 2, content(&mut disk)[9]));
    }
    assert_eq!(seen, BTreeSet::from([(0, 1), (0, 2), (1, 1), (1, 2)]));
}

/// Between two syncs the kernel writes back when it likes: Pillai et al., "All File Systems Are Not Created Equal"
/// (2014), find applications that count on an order.
#[test]
fn each_version_since_the_last_sync_may_be_on_the_disk_and_each_length() {
    let (mut versions, mut lengths) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..200 {
        let (mut disk, file) = with_file(seed, &[1; 512]);
        for version in 2..=4 {
            disk.write_at(file, &[version; 512], 0).unwrap();
            disk.set_len(file, 512 * u64::from(version)).unwrap();
        }
        disk.power_loss();
        let after = content(&mut disk);
        versions.insert(after[0]);
        lengths.insert(after.len() / 512);
    }
    assert_eq!(versions, BTreeSet::from([1, 2, 3, 4]));
    assert_eq!(lengths, BTreeSet::from([1, 2, 3, 4]));
}

/// fsync(2): "Calling fsync() does not necessarily ensure that the entry in the directory containing the file has also
/// reached disk."
#[test]
fn a_synced_file_has_its_name_only_when_its_directory_is_synced() {
    let mut found = BTreeSet::new();
    for seed in 0..40 {
        let mut disk = disk(seed);
        let file = disk.open(Path::new("/f")).unwrap();
        disk.write_at(file, b"abc", 0).unwrap();
        disk.sync(file).unwrap();
        let is_synced = seed % 2 == 0;
        if is_synced {
            disk.create_new(Path::new("/g"), b"").unwrap();
        }
        disk.power_loss();
        let exists = disk.exists(Path::new("/f"));
        assert!(!exists || content(&mut disk) == b"abc");
        found.insert((is_synced, exists));
    }
    assert_eq!(found, BTreeSet::from([(true, true), (false, true), (false, false)]));
}

proptest! {
    #[test]
    fn after_a_power_loss_every_sector_has_a_version_since_the_last_sync(
        seed in 0u64..1000,
        writes in proptest::collection::vec((0usize..5000, 1usize..1500, any::<bool>()), 1..12),
    ) {
        let (mut disk, file) = with_file(seed, b"");
        // The contents since the last sync.
        let mut versions = vec![Vec::new()];
        for (n, (offset, len, sync)) in writes.into_iter().enumerate() {
            let mut now = versions.last().unwrap().clone();
            if n % 4 == 3 {
                disk.set_len(file, offset as u64).unwrap();
                now.resize(offset, 0);
            } else {
                let bytes = vec![n as u8 + 1; len];
                disk.write_at(file, &bytes, offset as u64).unwrap();
                if now.len() < offset + len {
                    now.resize(offset + len, 0);
                }
                now[offset..offset + len].copy_from_slice(&bytes);
            }
            versions.push(now);
            if sync {
                disk.sync(file).unwrap();
                versions.drain(..versions.len() - 1);
            }
        }
        prop_assert_eq!(&content(&mut disk), versions.last().unwrap());
        disk.power_loss();
        let after = content(&mut disk);
        prop_assert!(versions.iter().any(|version| version.len() == after.len()));
        for (at, sector) in after.chunks(SECTOR).enumerate() {
            let of = |version: &Vec<u8>| -> Vec<u8> {
                let start = (at * SECTOR).min(version.len());
                let mut bytes = version[start..(start + sector.len()).min(version.len())].to_vec();
                bytes.resize(sector.len(), 0);
                bytes
            };
            prop_assert!(versions.iter().any(|version| sector == of(version)), "sector {}", at);
        }
    }
}
