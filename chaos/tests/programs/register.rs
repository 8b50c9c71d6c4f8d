//! A replicated register, written for tokio, with a real bug: a replica acknowledges a write that it hasn't synced.
//!
//! A value is written to all replicas with a version, until a majority has acknowledged it; and read from a majority, of
//! which the highest version counts (Attiya, Bar-Noy, Dolev, "Sharing Memory Robustly in Message-Passing Systems", 1995).

use chaos::tokio;
use chaos::{Host, Targets, Trial, Violation};
use std::io;
use std::time::Duration;

use program::{Client, Durability, replica};

/// The program: nothing in it knows of the world, but for the name `tokio`.
mod program {
    use super::tokio::fs::{self, File};
    use super::tokio::io::AsyncWriteExt as _;
    use super::tokio::net::UdpSocket;
    use super::tokio::time::{Duration, timeout};
    use std::io;

    /// How long a client waits for answers before it asks again.
    const AGAIN: Duration = Duration::from_millis(100);

    const FILE: &str = "register";

    /// What a replica has done before it acknowledges a write.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Durability {
        /// It has written the file. The bug: the kernel has the bytes, and the disk may not.
        Written,
        /// It has also synced the file and its directory.
        Synced,
    }

    /// A value, with the number of the write that it is of.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
    pub(super) struct Versioned {
        pub(super) version: u64,
        pub(super) value: u64,
    }

    impl Versioned {
        fn to_bytes(self) -> [u8; 16] {
            let [version, value] = [self.version, self.value].map(u64::to_le_bytes);
            std::array::from_fn(|n| if n < 8 { version[n] } else { value[n - 8] })
        }

        fn from_bytes(bytes: &[u8]) -> Option<Versioned> {
            let (version, value) = (bytes.first_chunk()?, bytes.get(8..)?.first_chunk()?);
            Some(Versioned { version: u64::from_le_bytes(*version), value: u64::from_le_bytes(*value) })
        }
    }

    /// What a client sends, and what a replica sends back: the number of the request, and a value. A request whose
    /// value has version 0 only asks.
    struct Message {
        request: u64,
        held: Versioned,
    }

    impl Message {
        fn to_bytes(&self) -> Vec<u8> {
            [&self.request.to_le_bytes()[..], &self.held.to_bytes()].concat()
        }

        fn from_bytes(bytes: &[u8]) -> Option<Message> {
            let (request, held) = bytes.split_first_chunk()?;
            Some(Message { request: u64::from_le_bytes(*request), held: Versioned::from_bytes(held)? })
        }
    }

    /// Replaces the file by one with the new value.
    async fn store(held: Versioned, durability: Durability) -> io::Result<()> {
        let mut file = File::create("register.new").await?;
        file.write_all(&held.to_bytes()).await?;
        if durability == Durability::Synced {
            file.sync_all().await?;
        }
        fs::rename("register.new", FILE).await?;
        if durability == Durability::Synced {
            File::open("/").await?.sync_all().await?;
        }
        Ok(())
    }

    /// Holds the value, and answers.
    pub(super) async fn replica(durability: Durability) -> io::Result<()> {
        let mut held = match fs::read(FILE).await {
            Ok(bytes) => Versioned::from_bytes(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Versioned::default(),
            Err(error) => return Err(error),
        };
        let socket = UdpSocket::bind("0.0.0.0:700").await?;
        let mut buffer = [0; 64];
        loop {
            let (len, client) = socket.recv_from(&mut buffer).await?;
            let Some(message) = Message::from_bytes(&buffer[..len]) else { continue };
            if message.held > held {
                store(message.held, durability).await?;
                held = message.held;
            }
            let answer = Message { request: message.request, held };
            // The network may be gone for now; the client asks again.
            let _ = socket.send_to(&answer.to_bytes(), client).await;
        }
    }

    /// The only client of a register.
    pub(super) struct Client {
        pub(super) replicas: Vec<String>,
        pub(super) requests: u64,
        pub(super) version: u64,
    }

    impl Client {
        /// Returns when a majority has the value.
        pub(super) async fn write(&mut self, value: u64) -> io::Result<()> {
            self.version += 1;
            self.ask(Versioned { version: self.version, value }).await.map(|_| ())
        }

        /// The last value that was written.
        pub(super) async fn read(&mut self) -> io::Result<u64> {
            let highest = self.ask(Versioned::default()).await?;
            self.ask(highest).await.map(|held| held.value)
        }

        /// Asks all replicas until a majority has answered; returns the highest version among the answers.
        async fn ask(&mut self, held: Versioned) -> io::Result<Versioned> {
            self.requests += 1;
            let message = Message { request: self.requests, held }.to_bytes();
            let socket = UdpSocket::bind("0.0.0.0:0").await?;
            let mut answers: Vec<(std::net::SocketAddr, Versioned)> = Vec::new();
            let mut buffer = [0; 64];
            loop {
                for replica in &self.replicas {
                    let _ = socket.send_to(&message, replica.as_str()).await;
                }
                while let Ok(received) = timeout(AGAIN, socket.recv_from(&mut buffer)).await {
                    let (len, from) = received?;
                    let answer = Message::from_bytes(&buffer[..len]);
                    let Some(answer) = answer.filter(|answer| answer.request == self.requests) else {
                        continue;
                    };
                    answers.retain(|(replica, _)| *replica != from);
                    answers.push((from, answer.held));
                    if answers.len() > self.replicas.len() / 2 {
                        return Ok(answers.iter().map(|(_, held)| *held).max().unwrap_or_default());
                    }
                }
            }
        }
    }
}

/// Writes and reads while faults come and go, and once the power fails in the whole house.
async fn register(trial: Trial, durability: Durability) -> Result<(), Violation> {
    let world = trial.world;
    let replicas: Vec<Host> = (1..=3)
        .map(|n| world.host(&format!("replica {n}")).addr(&format!("10.0.0.{n}")))
        .map(|host| host.spawn(move || async move { replica(durability).await.unwrap() }))
        .collect();
    let client = world.host("client").addr("10.0.0.9");
    trial.start_faults(&Targets { hosts: replicas.clone(), ..Targets::default() }, Duration::from_secs(20));
    let names = replicas.iter().map(|host| format!("{}:700", host.name())).collect();
    let reading = client.run(async move {
        let mut register = Client { replicas: names, requests: 0, version: 0 };
        for value in 1..=20 {
            register.write(value).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let read = register.read().await?;
            if read != value {
                return io::Result::Ok(Some((value, read)));
            }
        }
        Ok(None)
    });
    world.sleep(Duration::from_millis(9_500)).await;
    replicas.iter().for_each(Host::power_loss);
    world.sleep(Duration::from_secs(1)).await;
    replicas.iter().for_each(Host::restart);
    world.sleep(Duration::from_secs(10)).await;
    trial.heal().await;
    match reading.await.unwrap().unwrap() {
        None => Ok(()),
        Some((written, read)) => {
            let seen = format!("the client wrote {written} and read {read}");
            Err(Violation::safety("a read gives the last value written", seen))
        }
    }
}

/// Ten seeds are enough to find the bug.
#[chaos::test(seeds = 10, faults = [Loss, Latency, Duplicate, Reorder, Partition, Crash, PowerLoss])]
#[should_panic(expected = "safety is broken: a read gives the last value written: the client wrote")]
async fn a_write_that_was_not_synced_is_lost(trial: Trial) -> Result<(), Violation> {
    register(trial, Durability::Written).await
}

/// Without it, the same seeds hold.
#[chaos::test(seeds = 10, faults = [Loss, Latency, Duplicate, Reorder, Partition, Crash, PowerLoss])]
async fn a_synced_write_is_read(trial: Trial) -> Result<(), Violation> {
    register(trial, Durability::Synced).await
}
