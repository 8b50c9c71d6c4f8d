//! Open files.

use super::options::OpenOptions;
use crate::rt::disk;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

/// What may be done with an open file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rights {
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) append: bool,
}

/// An open file, with a position; or a directory, which can only be synced.
#[derive(Debug)]
pub struct File {
    what: Opened,
    rights: Rights,
    at: u64,
}

#[derive(Debug)]
enum Opened {
    File(disk::File),
    Directory(PathBuf),
}

/// What is known about a file or a directory.
#[derive(Debug, Clone)]
pub struct Metadata {
    len: u64,
    is_dir: bool,
}

impl Metadata {
    /// Its length in bytes; 0 for a directory.
    #[expect(clippy::len_without_is_empty, reason = "these are the standard library's names")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.is_dir
    }

    /// Whether it is a file.
    pub fn is_file(&self) -> bool {
        !self.is_dir
    }
}

/// EBADF: the file wasn't opened for this.
fn not_opened_so() -> io::Error {
    io::Error::from_raw_os_error(9)
}

impl File {
    pub(super) fn new(file: disk::File, rights: Rights) -> File {
        File { what: Opened::File(file), rights, at: 0 }
    }

    pub(super) fn directory(path: &Path) -> File {
        File { what: Opened::Directory(path.to_owned()), rights: Rights::default(), at: 0 }
    }

    /// Opens a file for reading, or a directory to be synced.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().read(true).open(path).await
    }

    /// Opens a file for writing: makes it, or empties it.
    ///
    /// # Errors
    /// `NotFound` when its directory doesn't exist; `StorageFull` and EIO under a fault.
    pub async fn create(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path).await
    }

    /// Makes a file, for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` when its directory doesn't exist; `StorageFull` and EIO under a fault.
    pub async fn create_new(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path).await
    }

    /// Options with which a file can be opened.
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    fn file(&self) -> io::Result<&disk::File> {
        match &self.what {
            Opened::File(file) => Ok(file),
            Opened::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn writable(&self) -> io::Result<&disk::File> {
        let file = self.file()?;
        if self.rights.write || self.rights.append { Ok(file) } else { Err(not_opened_so()) }
    }

    /// Makes all that was written durable; of a directory, the names in it.
    ///
    /// # Errors
    /// EIO under a fault: then some of it is lost with the power, also if a later sync succeeds.
    pub async fn sync_all(&self) -> io::Result<()> {
        match &self.what {
            Opened::File(file) => file.sync(),
            Opened::Directory(path) => disk::sync_directory(path),
        }
    }

    /// Like [`sync_all`](File::sync_all).
    ///
    /// # Errors
    /// Those of the linked method.
    pub async fn sync_data(&self) -> io::Result<()> {
        self.sync_all().await
    }

    /// Truncates the file, or extends it with zeros.
    ///
    /// # Errors
    /// EBADF if it wasn't opened for writing; `FileTooLarge`; `StorageFull` and EIO under a fault.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?.set_len(len)
    }

    /// What is known about it.
    ///
    /// # Errors
    /// When the process that opened it is gone.
    pub async fn metadata(&self) -> io::Result<Metadata> {
        match &self.what {
            Opened::File(file) => Ok(Metadata { len: file.len()?, is_dir: false }),
            Opened::Directory(_) => Ok(Metadata { len: 0, is_dir: true }),
        }
    }

    fn read(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let file = self.file()?;
        if !self.rights.read {
            return Err(not_opened_so());
        }
        let left = file.len()?.saturating_sub(self.at);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buf.remaining());
        if wanted > 0 {
            file.read_exact_at(buf.initialize_unfilled_to(wanted), self.at)?;
            buf.advance(wanted);
            self.at += wanted as u64;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = self.writable()?;
        let at = if self.rights.append { file.len()? } else { self.at };
        file.write_all_at(bytes, at)?;
        self.at = at + bytes.len() as u64;
        Ok(bytes.len())
    }

    fn seek(&mut self, to: SeekFrom) -> io::Result<()> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.file()?.len()?.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "the position is before the beginning");
        self.at = at.ok_or_else(before)?;
        Ok(())
    }
}

impl AsyncRead for File {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(self.read(buf))
    }
}

impl AsyncWrite for File {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for File {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        self.seek(to)
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.at))
    }
}
