//! The disk operations of a process, for the trace and for the faults that count them.

use std::path::Path;

/// An operation that changes the disk.
pub(crate) enum Op<'a> {
    Write { inode: u64, offset: u64, bytes: &'a [u8] },
    SetLen { inode: u64, len: u64 },
    Sync { inode: u64 },
    Whole { path: &'a Path, bytes: &'a [u8] },
    Remove { path: &'a Path },
    Rename { from: &'a Path, to: &'a Path },
    RenameOver { from: &'a Path, to: &'a Path },
    SyncDirectory { path: &'a Path },
}

impl Op<'_> {
    pub(crate) fn is_sync(&self) -> bool {
        matches!(self, Op::Sync { .. } | Op::Whole { .. } | Op::Rename { .. } | Op::SyncDirectory { .. })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut head = |tag: u8, a: u64, b: u64| {
            out.push(tag);
            out.extend_from_slice(&a.to_le_bytes());
            out.extend_from_slice(&b.to_le_bytes());
        };
        match self {
            Op::Write { inode, offset, bytes } => {
                head(1, *inode, *offset);
                out.extend_from_slice(bytes);
            }
            Op::SetLen { inode, len } => head(2, *inode, *len),
            Op::Sync { inode } => head(3, *inode, 0),
            Op::Whole { path, bytes } => {
                let path = path.to_string_lossy();
                head(4, path.len() as u64, bytes.len() as u64);
                out.extend_from_slice(path.as_bytes());
                out.extend_from_slice(bytes);
            }
            Op::Remove { path } => {
                let path = path.to_string_lossy();
                head(5, path.len() as u64, 0);
                out.extend_from_slice(path.as_bytes());
            }
            Op::SyncDirectory { path } => {
                let path = path.to_string_lossy();
                head(8, path.len() as u64, 0);
                out.extend_from_slice(path.as_bytes());
            }
            Op::Rename { from, to } | Op::RenameOver { from, to } => {
                let tag = if matches!(self, Op::Rename { .. }) { 6 } else { 7 };
                let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
                head(tag, from.len() as u64, to.len() as u64);
                out.extend_from_slice(from.as_bytes());
                out.extend_from_slice(to.as_bytes());
            }
        }
    }
}
