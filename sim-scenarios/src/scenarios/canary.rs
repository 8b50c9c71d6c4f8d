//! A planted bug, which every sweep must find.
//!
//! A clerk sends numbered letters to an archive, each until the archive acknowledges it. The archive writes every
//! letter to its disk, and answers. It remembers the letters that it has, so a repeated letter isn't written
//! again. The bug: this memory is lost on a restart, while the file stays. A letter is therefore written twice if
//! its answer is lost and the archive is killed before the letter comes again. That takes two coinciding faults,
//! which some seeds draw.
//!
//! The scenario uses nothing of nurl's, so it tests the sweep: that faults are injected, that a broken property
//! is detected, and that a failure can be shrunk and replayed.

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use chaos::link::LinkConfig;
use chaos::plan::{FaultKind, Targets};
use chaos::property::{Violation, fail};
use chaos::scenario::{Knob, KnobKind, Passed, Purpose, RunResult, Scenario, Trial};
use nurl::rt::net::{RecvMeta, Transmit, UdpSocket};
use nurl::rt::{disk, time};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    purpose: Purpose::Canary,
    knobs: &[Knob {
        name: "letters",
        about: "letters to be filed",
        default: 800,
        least: 1,
        turns: KnobKind::Work,
    }],
    faults: &[
        FaultKind::Loss,
        FaultKind::Burst,
        FaultKind::Latency,
        FaultKind::Duplicate,
        FaultKind::Reorder,
        FaultKind::Partition,
        FaultKind::PartitionOneWay,
        FaultKind::Crash,
        FaultKind::PowerLoss,
        FaultKind::Restart,
        FaultKind::Pause,
    ],
    ..Scenario::new("canary", "a planted bug, in a protocol of its own: every sweep must find it", |trial| {
        Box::pin(run(trial))
    })
};

const PORT: u16 = 1_000;
const ARCHIVE: &str = "10.0.0.2";
const FILES: &str = "/files";

/// The clerk sends a letter again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// Time between two letters.
const PAUSE: Duration = Duration::from_millis(20);

const SPAN: Duration = Duration::from_secs(60);

/// Every letter is filed within this after all faults were healed.
const SETTLE: Duration = Duration::from_secs(60);

/// Runs the scenario.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    world.link_default(LinkConfig { latency: Duration::from_millis(20), ..LinkConfig::default() });
    let clerk = world.host("clerk").addr("10.0.0.1");
    let archive = world.host("archive").addr(ARCHIVE).spawn(file_letters);
    let letters = trial.knob("letters") as u32;
    let posted = clerk.run(post_letters(letters));
    let hit = Targets { hosts: vec![archive], spared: vec![clerk], ..Targets::default() };
    trial.start_faults(&hit, SPAN);
    world.sleep(SPAN).await;
    trial.heal().await;
    let posted = time::timeout(SETTLE, posted).await;
    if !matches!(posted, Ok(Ok(()))) {
        return Err(Violation::liveness("every letter is filed", format!("not within {SETTLE:?}")));
    }
    Ok(Passed { state: format!("{letters} letters are filed\n"), notes: String::new() })
}

/// A socket for letters, which are numbers.
struct LetterSocket(UdpSocket);

impl LetterSocket {
    async fn open() -> LetterSocket {
        LetterSocket(UdpSocket::bind(([0, 0, 0, 0], PORT).into()).await.expect("the port is free"))
    }

    fn send(&self, letter: u32, destination: SocketAddr) {
        let contents = &letter.to_le_bytes();
        // A letter that can't be sent is repeated later.
        let _ = self.0.try_send(&Transmit { destination, contents, segment_size: None, src_ip: None });
    }

    async fn receive(&self) -> (u32, SocketAddr) {
        loop {
            let (mut bytes, mut meta) = ([0; 4], [RecvMeta::default()]);
            let received = self.0.recv(&mut [IoSliceMut::new(&mut bytes)], &mut meta).await;
            if received.is_ok() && meta[0].len == bytes.len() {
                return (u32::from_le_bytes(bytes), meta[0].addr);
            }
        }
    }
}

/// Sends one letter after the other, each until it is answered.
async fn post_letters(letters: u32) {
    let post = LetterSocket::open().await;
    let archive = SocketAddr::new(ARCHIVE.parse().expect("an address"), PORT);
    for letter in 0..letters {
        loop {
            post.send(letter, archive);
            let answered = async { while post.receive().await.0 != letter {} };
            if time::timeout(AGAIN, answered).await.is_ok() {
                break;
            }
        }
        time::sleep(PAUSE).await;
    }
}

/// The archive's process.
async fn file_letters() {
    let post = LetterSocket::open().await;
    let mut known = BTreeSet::new();
    loop {
        let (letter, from) = post.receive().await;
        // The bug: the archive should read the known letters from its file.
        if known.insert(letter) {
            let times = file(letter).expect("a disk that nothing happens to");
            if times > 1 {
                let seen = format!("letter {letter} was filed {times} times");
                fail(Violation::safety("a letter is filed once", seen));
            }
        }
        post.send(letter, from);
    }
}

/// Writes a letter to the file, and returns how often the file contains it now.
fn file(letter: u32) -> io::Result<usize> {
    let files = disk::File::open(Path::new(FILES))?;
    let end = files.len()?;
    files.write_all_at(&letter.to_le_bytes(), end)?;
    files.sync()?;
    let mut all = vec![0; end as usize + 4];
    files.read_exact_at(&mut all, 0)?;
    Ok(all.chunks_exact(4).filter(|filed| **filed == letter.to_le_bytes()).count())
}
