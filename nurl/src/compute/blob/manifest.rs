//! What a file is made of: its length, and the BLAKE3 hash of each of its chunks.
//!
//! The length of a chunk follows from that of the file, so equal files have equal manifests: the smallest power of two
//! from [`MIN_CHUNK_LEN`] on with which the file has at most [`MAX_CHUNKS`]. So a manifest has at most 128 KiB, and a
//! chunk at most 1 MiB. Small chunks keep a slow link responsive.
//!
//! On the wire it is `len:8 (LE) ‖ hash:32 …`.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

/// The longest file.
pub const MAX_FILE_LEN: u64 = 4 << 30;
/// The most chunks of a file.
pub const MAX_CHUNKS: u64 = 4_096;
/// The shortest chunks, but for the last of a file.
pub const MIN_CHUNK_LEN: u64 = 64 << 10;
/// The longest chunks.
pub const MAX_CHUNK_LEN: usize = (MAX_FILE_LEN / MAX_CHUNKS) as usize;

const LEN_BYTES: usize = 8;
const HASH_BYTES: usize = 32;

/// Bytes that aren't a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the manifest of a file")]
pub struct NotAManifest;

/// A file that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a file of {len} bytes is longer than {MAX_FILE_LEN}")]
pub struct TooLong {
    /// Its length.
    pub len: u64,
}

/// The name of a file's content: the BLAKE3 hash of its manifest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobName([u8; HASH_BYTES]);

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// See the module. A clone shares the hashes.
#[derive(Clone, PartialEq, Eq)]
pub struct Manifest {
    len: u64,
    chunks: Arc<[[u8; HASH_BYTES]]>,
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manifest({:?}, {} bytes)", self.name(), self.len)
    }
}

/// The length of the chunks of a file of `len` bytes.
const fn chunk_len_for(len: u64) -> u64 {
    let mut chunk_len = MIN_CHUNK_LEN;
    while len.div_ceil(chunk_len) > MAX_CHUNKS {
        chunk_len *= 2;
    }
    chunk_len
}

impl Manifest {
    /// The manifest of a file of `len` bytes; `read` fills a buffer with each chunk in turn.
    ///
    /// # Errors
    /// Those of `read`; `FileTooLarge` with [`TooLong`].
    pub fn of(
        len: u64,
        mut read: impl FnMut(&mut [u8], u64) -> std::io::Result<()>,
    ) -> std::io::Result<Manifest> {
        if len > MAX_FILE_LEN {
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, TooLong { len }));
        }
        let mut manifest = Manifest { len, chunks: Arc::new([]) };
        let mut buffer = vec![0; usize::try_from(manifest.chunk_len().min(len)).unwrap_or(MAX_CHUNK_LEN)];
        let mut chunks = Vec::with_capacity(manifest.count() as usize);
        for index in 0..manifest.count() {
            let (offset, chunk_len) = manifest.place(index);
            read(&mut buffer[..chunk_len], offset)?;
            chunks.push(*blake3::hash(&buffer[..chunk_len]).as_bytes());
        }
        manifest.chunks = chunks.into();
        Ok(manifest)
    }

    /// The file's length in bytes.
    pub fn file_len(&self) -> u64 {
        self.len
    }

    /// The number of chunks.
    pub fn count(&self) -> u32 {
        u32::try_from(self.len.div_ceil(self.chunk_len())).expect("at most MAX_CHUNKS")
    }

    /// The length of each chunk but the last.
    pub fn chunk_len(&self) -> u64 {
        chunk_len_for(self.len)
    }

    /// Where a chunk begins, and how many bytes it has; none for a chunk that the file doesn't have.
    pub fn place(&self, index: u32) -> (u64, usize) {
        let offset = u64::from(index).saturating_mul(self.chunk_len());
        let len = self.len.saturating_sub(offset).min(self.chunk_len());
        (offset, usize::try_from(len).unwrap_or(MAX_CHUNK_LEN))
    }

    /// Whether these bytes are that chunk.
    pub fn is_chunk(&self, index: u32, bytes: &[u8]) -> bool {
        let (_, len) = self.place(index);
        let hash = self.chunks.get(index as usize);
        bytes.len() == len && hash.is_some_and(|hash| blake3::hash(bytes) == *hash)
    }

    /// The name of the content.
    pub fn name(&self) -> BlobName {
        BlobName(*blake3::hash(&self.encode()).as_bytes())
    }

    /// Its bytes on the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(LEN_BYTES + self.chunks.len() * HASH_BYTES);
        out.put_u64_le(self.len);
        self.chunks.iter().for_each(|hash| out.put_slice(hash));
        out.freeze()
    }

    /// Reads it back. It has exactly the hashes that its length needs.
    ///
    /// # Errors
    /// [`NotAManifest`].
    pub fn decode(bytes: &[u8]) -> Result<Manifest, NotAManifest> {
        let (len, hashes) = bytes.split_first_chunk::<LEN_BYTES>().ok_or(NotAManifest)?;
        let len = u64::from_le_bytes(*len);
        let (hashes, rest) = hashes.as_chunks::<HASH_BYTES>();
        let whole = len <= MAX_FILE_LEN && rest.is_empty();
        if !whole || hashes.len() as u64 != len.div_ceil(chunk_len_for(len)) {
            return Err(NotAManifest);
        }
        Ok(Manifest { len, chunks: hashes.into() })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The manifest of these bytes.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Manifest {
        let read = |buffer: &mut [u8], offset: u64| {
            let at = usize::try_from(offset).unwrap();
            buffer.copy_from_slice(&bytes[at..at + buffer.len()]);
            Ok(())
        };
        Manifest::of(bytes.len() as u64, read).unwrap()
    }

    /// Bytes of which no two chunks are alike.
    pub(crate) fn some_bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at ^ (at >> 8) ^ ((at >> 16) * 31)) as u8).collect()
    }

    #[test]
    fn the_longest_file_fits_and_a_longer_one_does_not() {
        assert_eq!(chunk_len_for(MAX_FILE_LEN), MAX_CHUNK_LEN as u64);
        assert_eq!(MAX_FILE_LEN.div_ceil(chunk_len_for(MAX_FILE_LEN)), MAX_CHUNKS);
        assert_eq!(chunk_len_for(256 << 20), MIN_CHUNK_LEN);
        assert_eq!(chunk_len_for((256 << 20) + 1), 2 * MIN_CHUNK_LEN);
        let longer = Manifest::of(MAX_FILE_LEN + 1, |_, _| Ok(())).unwrap_err();
        assert_eq!(longer.kind(), std::io::ErrorKind::FileTooLarge);
        let longest = LEN_BYTES + MAX_CHUNKS as usize * HASH_BYTES;
        assert_eq!(longest, (128 << 10) + 8);
    }

    #[test]
    fn a_manifest_reads_back_and_names_its_content() {
        for len in [0, 1, MIN_CHUNK_LEN as usize, MIN_CHUNK_LEN as usize + 1, 300_000] {
            let manifest = of_bytes(&some_bytes(len));
            assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest.clone()));
            assert_eq!(manifest.count() as usize, len.div_ceil(MIN_CHUNK_LEN as usize));
            let total: usize = (0..manifest.count()).map(|index| manifest.place(index).1).sum();
            assert_eq!(total, len);
        }
        assert_eq!(of_bytes(b"same").name(), of_bytes(b"same").name());
        assert_ne!(of_bytes(b"same").name(), of_bytes(b"sane").name());
    }

    #[test]
    fn a_manifest_with_other_hashes_than_its_length_needs_is_refused() {
        let good = of_bytes(&some_bytes(100_000)).encode();
        assert_eq!(Manifest::decode(&good[..good.len() - 1]), Err(NotAManifest));
        assert_eq!(Manifest::decode(&good[..good.len() - 32]), Err(NotAManifest));
        assert_eq!(Manifest::decode(&[&good[..], &[0; 32]].concat()), Err(NotAManifest));
        assert_eq!(Manifest::decode(&good[..7]), Err(NotAManifest));
        assert_eq!(Manifest::decode(&u64::MAX.to_le_bytes()), Err(NotAManifest));
    }

    #[test]
    fn only_the_very_bytes_are_a_chunk() {
        let bytes = some_bytes(100_000);
        let manifest = of_bytes(&bytes);
        let (first, second) = bytes.split_at(MIN_CHUNK_LEN as usize);
        assert!(manifest.is_chunk(0, first) && manifest.is_chunk(1, second));
        assert!(!manifest.is_chunk(1, first) && !manifest.is_chunk(0, second));
        assert!(!manifest.is_chunk(0, &first[1..]) && !manifest.is_chunk(2, &[]));
        let mut wrong = first.to_vec();
        wrong[77] ^= 1;
        assert!(!manifest.is_chunk(0, &wrong));
    }
}
