//! Writes the packets of a run as a `.pcap` file for Wireshark.
//!
//! The format is the classic one with nanoseconds and link type RAW: each record begins with an IP header. The file
//! is on the machine's own disk and isn't part of the digest.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Marks the byte order and nanosecond stamps.
const MAGIC: u32 = 0xA1B2_3C4D;

/// LINKTYPE_RAW: IPv4 or IPv6, distinguished by the version.
const LINK_TYPE_RAW: u32 = 101;

/// The longest packet that is recorded whole; no packet is longer.
const SNAP_LEN: u32 = 65535;

pub(crate) struct Pcap {
    out: BufWriter<File>,
}

impl Pcap {
    /// Begins a file.
    pub(crate) fn create(path: &Path) -> io::Result<Pcap> {
        let mut out = BufWriter::new(create(path)?);
        out.write_all(&MAGIC.to_le_bytes())?;
        out.write_all(&2u16.to_le_bytes())?;
        out.write_all(&4u16.to_le_bytes())?;
        // Time zone and accuracy: none.
        out.write_all(&[0; 8])?;
        out.write_all(&SNAP_LEN.to_le_bytes())?;
        out.write_all(&LINK_TYPE_RAW.to_le_bytes())?;
        Ok(Pcap { out })
    }

    /// Appends a packet that was sent at `now_ns`.
    pub(crate) fn packet(&mut self, now_ns: u64, bytes: &[u8]) -> io::Result<()> {
        let (seconds, nanos) = ((now_ns / 1_000_000_000) as u32, (now_ns % 1_000_000_000) as u32);
        for field in [seconds, nanos, bytes.len() as u32, bytes.len() as u32] {
            self.out.write_all(&field.to_le_bytes())?;
        }
        self.out.write_all(bytes)
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Creates a file and its folder; an error names the file.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let made = folder.map_or(Ok(()), std::fs::create_dir_all).and_then(|()| File::create(path));
    made.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
