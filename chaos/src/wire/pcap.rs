//! Writes the packets of a run as a `.pcapng` file for Wireshark (draft-ietf-opsawg-pcapng).
//!
//! All packets are of one interface of link type RAW: each begins with an IP header. A packet's comment tells who sent it
//! and what is in it, so `tshark -Y 'frame.comment contains "SUBMIT"'` finds what the bytes themselves hide. The file is on
//! the machine's own disk and isn't part of the digest.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// The types of block.
const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

/// Marks the byte order.
const MAGIC: u32 = 0x1A2B_3C4D;

/// LINKTYPE_RAW: IPv4 or IPv6, distinguished by the version.
const LINK_TYPE_RAW: u32 = 101;

/// The longest packet that is recorded whole; no packet is longer.
const SNAP_LEN: u32 = 65535;

/// An option's code: a comment; the exponent of the time stamps' unit.
const OPT_COMMENT: u16 = 1;
const IF_TSRESOL: u16 = 9;

/// Time stamps are in units of 10^-9 s.
const NANOSECONDS: &[u8] = &[9];

pub(crate) struct Pcap {
    out: BufWriter<File>,
}

impl Pcap {
    /// Begins a file.
    pub(crate) fn create(path: &Path) -> io::Result<Pcap> {
        let mut pcap = Pcap { out: BufWriter::new(create(path)?) };
        // Version 1.0; the section's length is not said.
        let version = 1u32.to_le_bytes();
        pcap.block(SECTION_HEADER, &[&MAGIC.to_le_bytes()[..], &version, &u64::MAX.to_le_bytes()].concat())?;
        let mut interface = [LINK_TYPE_RAW.to_le_bytes(), SNAP_LEN.to_le_bytes()].concat();
        options(&mut interface, IF_TSRESOL, NANOSECONDS);
        pcap.block(INTERFACE_DESCRIPTION, &interface)?;
        Ok(pcap)
    }

    /// Appends a packet that was sent at `now_ns`.
    pub(crate) fn packet(&mut self, now_ns: u64, bytes: &[u8], comment: &str) -> io::Result<()> {
        let mut body = Vec::with_capacity(bytes.len() + comment.len() + 40);
        let len = bytes.len() as u32;
        for field in [0, (now_ns >> 32) as u32, now_ns as u32, len, len] {
            body.extend_from_slice(&field.to_le_bytes());
        }
        body.extend_from_slice(bytes);
        pad(&mut body);
        options(&mut body, OPT_COMMENT, &comment.as_bytes()[..comment.len().min(u16::MAX.into())]);
        self.block(ENHANCED_PACKET, &body)
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Appends a block: its type, its length, its body, its length once more.
    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let len = (body.len() as u32 + 12).to_le_bytes();
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&len)?;
        self.out.write_all(body)?;
        self.out.write_all(&len)
    }
}

/// Appends one option, and the end of options.
fn options(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&(value.len() as u16).to_le_bytes());
    body.extend_from_slice(value);
    pad(body);
    body.extend_from_slice(&[0; 4]);
}

/// Fields are aligned to 32 bits.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Creates a file and its folder; an error names the file.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let made = folder.map_or(Ok(()), std::fs::create_dir_all).and_then(|()| File::create(path));
    made.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
