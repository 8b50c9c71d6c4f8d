//! A profile by sampling: this program runs itself once more under `perf`.
//!
//! A sample belongs to the innermost caller whose name matches an owner; an allocation within QUIC counts as
//! QUIC.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Samples a second of CPU time: enough for per cents, and no divisor of a periodic rate.
const SAMPLES: &str = "997";

/// Stack bytes kept of a sample: futures nest deep.
const STACK: &str = "dwarf,40000";

/// Owners by parts of function names. The first owner found in a name counts.
const OWNERS: [(&str, &[&str]); 6] = [
    ("crypto", &["aws_lc", "blake3", "chacha20", "poly1305", "snow::", "sha2", "x25519", "curve25519"]),
    ("QUIC", &["quinn_proto"]),
    ("world", &["chaos::", "smoltcp", "memchr"]),
    ("executor, channels", &["madsim", "async_task", "tokio::"]),
    ("nurl itself", &["nurl::"]),
    ("scenario", &["sim_scenarios", "mesh::"]),
];

/// Samples one run of this program with `arg`, and gives each owner's share in per cent.
pub(super) fn of(arg: &str) -> io::Result<Vec<(&'static str, f64)>> {
    let me = std::env::current_exe()?;
    let data = std::env::temp_dir().join(format!("nurl-mesh-{}.perf", std::process::id()));
    let record = Command::new("perf")
        .args(["record", "-q", "-e", "cpu-clock", "-F", SAMPLES, "--call-graph", STACK, "-o"])
        .args([data.as_path(), Path::new("--"), &me, Path::new(arg)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let shares = record.and_then(|_| read(&data));
    // The file is absent if nothing was recorded.
    let _ = std::fs::remove_file(&data);
    shares
}

fn read(data: &Path) -> io::Result<Vec<(&'static str, f64)>> {
    let mut script = Command::new("perf")
        .args(["script", "--no-inline", "-F", "ip,sym", "-i"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = script.stdout.take().expect("it is piped");
    let (mut counts, mut samples) = (BTreeMap::new(), 0u32);
    let mut owner: Option<&str> = None;
    let mut inside = false;
    for line in BufReader::new(output).lines().chain([Ok(String::new())]) {
        let line = line?;
        if !line.trim().is_empty() {
            inside = true;
            owner = owner.or_else(|| owner_of(&line));
        } else if std::mem::take(&mut inside) {
            samples += 1;
            *counts.entry(owner.take().unwrap_or("not told")).or_insert(0u32) += 1;
        }
    }
    script.wait()?;
    if samples == 0 {
        return Err(io::Error::other("perf recorded nothing"));
    }
    let share = |(owner, count)| (owner, 100.0 * f64::from(count) / f64::from(samples));
    let mut shares: Vec<_> = counts.into_iter().map(share).collect();
    shares.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    Ok(shares)
}

fn owner_of(frame: &str) -> Option<&'static str> {
    let named = |names: &[&str]| names.iter().any(|name| frame.contains(name));
    OWNERS.iter().find(|(_, names)| named(names)).map(|(owner, _)| *owner)
}
