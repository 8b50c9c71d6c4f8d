//! A file under examination: what is written to it stays in memory.
//!
//! redb repairs a database that was not closed while it opens it, before anybody knows whether it is sound. A damaged one
//! would be another file then, and worth less to whoever wants to read what is left of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::rt::disk;

/// The unit in which written bytes are kept.
const BLOCK_BYTES: u64 = 4096;

type Block = [u8; BLOCK_BYTES as usize];

/// redb's storage on a file that doesn't change.
#[derive(Debug)]
pub(super) struct Overlay {
    file: Arc<disk::File>,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// The bytes of the file below this count. Those above were cut off; where the length grew again, there are zeros.
    of_file: u64,
    /// By the number of the block.
    blocks: BTreeMap<u64, Box<Block>>,
}

impl Overlay {
    /// The file with nothing written to it.
    pub(super) fn on(file: Arc<disk::File>) -> io::Result<Overlay> {
        let len = file.len()?;
        Ok(Overlay { file, written: Mutex::new(Written { len, of_file: len, blocks: BTreeMap::new() }) })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block as it is now.
    fn block(&self, written: &Written, number: u64) -> io::Result<Box<Block>> {
        if let Some(block) = written.blocks.get(&number) {
            return Ok(block.clone());
        }
        let mut block = Box::new([0; BLOCK_BYTES as usize]);
        let from = number * BLOCK_BYTES;
        let have = written.of_file.saturating_sub(from).min(BLOCK_BYTES) as usize;
        self.file.read_exact_at(&mut block[..have], from)?;
        Ok(block)
    }
}

/// The parts of the range from `offset` on, of `len` bytes: the block's number, where it begins in the block, its length.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + len as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        let (number, within) = (at / BLOCK_BYTES, at % BLOCK_BYTES);
        let count = (BLOCK_BYTES - within).min(end - at);
        at += count;
        (count > 0).then_some((number, within as usize, count as usize))
    })
}

impl redb::StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().len)
    }

    fn read(&self, offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > written.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, within, count) in parts(offset, out.len()) {
            let (part, rest) = out.split_at_mut(count);
            part.copy_from_slice(&self.block(&written, number)?[within..within + count]);
            out = rest;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written();
        if len < written.len {
            written.of_file = written.of_file.min(len);
            written.blocks.split_off(&len.div_ceil(BLOCK_BYTES));
            if let Some(block) = written.blocks.get_mut(&(len / BLOCK_BYTES)) {
                block[(len % BLOCK_BYTES) as usize..].fill(0);
            }
        }
        written.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, mut data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        let end = offset.checked_add(data.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        for (number, within, count) in parts(offset, data.len()) {
            let mut block = self.block(&written, number)?;
            let (part, rest) = data.split_at(count);
            block[within..within + count].copy_from_slice(part);
            written.blocks.insert(number, block);
            data = rest;
        }
        written.len = written.len.max(end);
        Ok(())
    }
}

#[cfg(all(test, not(feature = "sim")))]
mod tests {
    use proptest::prelude::*;
    use redb::StorageBackend as _;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u16, Vec<u8>),
        SetLen(u16),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let write = (0..20_000u16, 1..9_000usize, any::<u8>());
        let step = prop_oneof![
            3 => write.prop_map(|(offset, count, byte)| Step::Write(offset, vec![byte; count])),
            1 => (0..20_000u16).prop_map(Step::SetLen),
        ];
        proptest::collection::vec(step, 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_reads_as_a_file_with_these_writes_and_the_file_stays_as_it_was(steps in steps(), len in 0..15_000usize) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            let bytes: Vec<u8> = (0..len).map(|at| at as u8 | 1).collect();
            disk::create_new_private(&path, &bytes).unwrap();
            let overlay = Overlay::on(Arc::new(disk::File::open(&path).unwrap())).unwrap();
            let mut expected = bytes.clone();
            for step in steps {
                match step {
                    Step::Write(offset, data) => {
                        let end = usize::from(offset) + data.len();
                        expected.resize(expected.len().max(end), 0);
                        expected[usize::from(offset)..end].copy_from_slice(&data);
                        overlay.write(offset.into(), &data).unwrap();
                    }
                    Step::SetLen(len) => {
                        expected.resize(len.into(), 0);
                        overlay.set_len(len.into()).unwrap();
                    }
                }
                let mut read = vec![0; expected.len()];
                overlay.read(0, &mut read).unwrap();
                prop_assert!(read == expected && overlay.len().unwrap() == expected.len() as u64);
                prop_assert!(overlay.read(1, &mut read).is_err() || read.is_empty(), "nothing is behind its end");
            }
            prop_assert!(disk::read(&path, 1 << 20).unwrap() == bytes);
        }
    }
}
