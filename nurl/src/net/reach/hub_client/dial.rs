//! Chooses among a hub's addresses: the first that accepts wins (RFC 8305, "Happy Eyeballs Version 2").
//!
//! The addresses of a name are tried in the resolver's order, with the families taking turns (section 4). Each
//! attempt begins 250 ms after the previous one, or at once when one has failed; earlier attempts go on (section 5).
//! So a dead first address, or a broken family, costs a quarter of a second. When one address accepts, the other
//! attempts are dropped.
//!
//! While a hub restarts, SYNs to it are lost, and the operating system retransmits them at growing intervals. So the
//! round of addresses begins again. The earlier attempts go on, since their answer may be under way on a slow link.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use crate::rt::net::{TcpStream, connect, lookup_host};
use crate::rt::{self, time};

/// The delay between two attempts (RFC 8305 section 8). It is above the round trip to most hubs, so a working first
/// address rarely costs a second connection.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The delay between the last attempt of a round and the next round. It leaves time for an answer to the first SYN
/// and to its retransmission after a second.
pub const ROUND_DELAY: Duration = Duration::from_secs(2);

/// The most addresses of one name that are tried: a hub has one or two of each family. Two rounds of so many fit into
/// [`DIAL_TIMEOUT`](super::core::DIAL_TIMEOUT).
pub const MAX_ADDRESSES: usize = 8;

/// Connects to `name`, which is `host:port`. Ends when an address accepts or all have failed. While an address gives
/// no answer, the dial goes on until the future is dropped, which drops all attempts.
///
/// # Errors
/// The resolver's error, or that of the last attempt.
pub async fn dial(name: &str) -> io::Result<TcpStream> {
    let addrs = match name.parse() {
        // A literal address needs no resolver.
        Ok(addr) => vec![addr],
        Err(_) => lookup_host(name).await?,
    };
    race(interleave(&addrs), connect).await
}

/// The addresses to try, in order: families take turns, beginning with the family of the first address.
fn interleave(addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addrs.first() else { return Vec::new() };
    let (mut same, mut other): (Vec<_>, Vec<_>) =
        addrs.iter().copied().partition(|addr| addr.is_ipv4() == first.is_ipv4());
    (same, other) = (dedup(same), dedup(other));
    let turns = same.len().max(other.len());
    let turn = |n| [same.get(n).copied(), other.get(n).copied()];
    (0..turns).flat_map(turn).flatten().take(MAX_ADDRESSES).collect()
}

/// The addresses without repetitions, in the same order.
fn dedup(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = Vec::new();
    for addr in addrs {
        if !seen.contains(&addr) {
            seen.push(addr);
        }
    }
    seen
}

/// The first success of staggered attempts, or the last failure when no attempt is left.
async fn race<T, F>(addrs: Vec<SocketAddr>, attempt: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut running = Vec::new();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "no address");
    loop {
        let mut round = addrs.iter().copied().peekable();
        while let Some(addr) = round.next() {
            running.push(Box::pin(attempt(addr)));
            let mut wait =
                Box::pin(time::sleep(if round.peek().is_some() { ATTEMPT_DELAY } else { ROUND_DELAY }));
            while !running.is_empty() {
                rt::select! {
                    ended = next_end(&mut running) => match ended {
                        Ok(stream) => return Ok(stream),
                        Err(error) => failed = error,
                    },
                    () = &mut wait => break,
                }
                if round.peek().is_some() {
                    break;
                }
            }
        }
        if running.is_empty() {
            return Err(failed);
        }
    }
}

/// Waits until one of these attempts ends, and removes it. If several have ended, the earliest begun comes first.
async fn next_end<F: Future>(running: &mut Vec<Pin<Box<F>>>) -> F::Output {
    poll_fn(|cx| {
        for at in 0..running.len() {
            if let Poll::Ready(ended) = running[at].as_mut().poll(cx) {
                drop(running.remove(at));
                return Poll::Ready(ended);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::rt::contract::run;

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_the_resolver_says_which_begins() {
        let cases: [(&[&str], &[&str]); 5] = [
            (&[], &[]),
            (&["192.0.2.1:1", "192.0.2.1:1"], &["192.0.2.1:1"]),
            (
                &["[2001:db8::1]:1", "[2001:db8::2]:1", "192.0.2.1:1", "192.0.2.2:1"],
                &["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1", "192.0.2.2:1"],
            ),
            (
                &["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "[2001:db8::1]:1"],
                &["192.0.2.1:1", "[2001:db8::1]:1", "192.0.2.2:1", "192.0.2.3:1"],
            ),
            (&["192.0.2.1:1", "[2001:db8::1]:1"], &["192.0.2.1:1", "[2001:db8::1]:1"]),
        ];
        for (found, tried) in cases {
            assert_eq!(interleave(&addrs(found)), addrs(tried), "{found:?}");
        }
    }

    #[test]
    fn a_name_with_many_addresses_costs_a_bounded_number_of_attempts() {
        let many: Vec<SocketAddr> = (1..=200).map(|n| SocketAddr::from(([192, 0, 2, n], 1))).collect();
        assert_eq!(interleave(&many), many[..MAX_ADDRESSES]);
        let round = ATTEMPT_DELAY * (MAX_ADDRESSES as u32 - 1) + ROUND_DELAY;
        assert!(round + ROUND_DELAY < crate::net::reach::hub_client::core::DIAL_TIMEOUT);
    }

    /// Races addresses whose ports say how the attempt ends: 1 fails at once, 2 never ends, 3 accepts after 300 ms, 6
    /// after 3 s, 7 at the second attempt, others accept at once. Returns the port that won, the ports tried, and the
    /// duration.
    async fn tried(texts: &[&str]) -> (io::Result<u16>, Vec<u16>, Duration) {
        let ports = Mutex::new(Vec::new());
        let attempts = |port| ports.lock().unwrap().iter().filter(|tried| **tried == port).count();
        let attempt = async |addr: SocketAddr| {
            ports.lock().unwrap().push(addr.port());
            match addr.port() {
                1 => return Err(io::ErrorKind::ConnectionRefused.into()),
                2 => std::future::pending().await,
                3 => time::sleep(Duration::from_millis(300)).await,
                6 => time::sleep(Duration::from_secs(3)).await,
                7 if attempts(7) == 1 => std::future::pending().await,
                _ => {}
            }
            Ok(addr.port())
        };
        let begun = time::now();
        let won = race(addrs(texts), attempt).await;
        let took = time::now() - begun;
        (won, ports.into_inner().unwrap(), took)
    }

    #[test]
    fn a_sound_first_address_is_the_only_one_tried() {
        run(async {
            let (won, ports, _) = tried(&["192.0.2.1:4", "192.0.2.1:5"]).await;
            assert_eq!((won.unwrap(), ports), (4, vec![4]));
        });
    }

    #[test]
    fn a_dead_first_address_costs_a_quarter_of_a_second() {
        run(async {
            let (won, ports, took) = tried(&["192.0.2.1:2", "192.0.2.1:4", "192.0.2.1:5"]).await;
            assert_eq!((won.unwrap(), ports), (4, vec![2, 4]));
            assert!(took >= ATTEMPT_DELAY && took < ROUND_DELAY, "{took:?}");
        });
    }

    #[test]
    fn an_address_that_refuses_costs_nothing() {
        run(async {
            let (won, ports, took) = tried(&["192.0.2.1:1", "192.0.2.1:1", "192.0.2.1:4"]).await;
            assert_eq!((won.unwrap(), ports), (4, vec![1, 1, 4]));
            assert!(took < ATTEMPT_DELAY, "{took:?}");
        });
    }

    #[test]
    fn a_slow_first_address_goes_on_beside_the_next_and_may_win() {
        run(async {
            let (won, ports, _) = tried(&["192.0.2.1:3", "192.0.2.1:2"]).await;
            assert_eq!((won.unwrap(), ports), (3, vec![3, 2]));
        });
    }

    #[test]
    fn an_answer_that_takes_longer_than_a_round_counts_all_the_same() {
        run(async {
            let (won, ports, took) = tried(&["192.0.2.1:6"]).await;
            assert_eq!((won.unwrap(), ports), (6, vec![6, 6]));
            assert!(took < ROUND_DELAY * 2, "the first one's: {took:?}");
        });
    }

    #[test]
    fn who_lost_the_first_attempt_is_tried_again_beside_it() {
        run(async {
            let (won, ports, took) = tried(&["192.0.2.1:1", "192.0.2.1:7"]).await;
            assert_eq!((won.unwrap(), ports), (7, vec![1, 7, 1, 7]));
            assert!(took >= ROUND_DELAY && took < ROUND_DELAY * 2, "{took:?}");
        });
    }

    #[test]
    fn a_name_is_dialled_at_whichever_of_its_addresses_accepts() {
        run(async {
            let listener = crate::rt::net::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            for name in ["localhost", "127.0.0.1"] {
                let stream = dial(&format!("{name}:{port}")).await.unwrap();
                assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
            }
        });
    }

    #[test]
    fn the_last_failure_is_told_when_no_address_accepts() {
        run(async {
            let kind = |(won, ..): (io::Result<u16>, Vec<u16>, Duration)| won.unwrap_err().kind();
            assert_eq!(kind(tried(&["192.0.2.1:1", "192.0.2.1:1"]).await), io::ErrorKind::ConnectionRefused);
            assert_eq!(kind(tried(&["192.0.2.1:1"]).await), io::ErrorKind::ConnectionRefused);
            assert_eq!(kind(tried(&[]).await), io::ErrorKind::NotFound);
        });
    }
}
