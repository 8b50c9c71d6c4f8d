//! A replicated counter: several processes add to it concurrently, without a server, and all reach the same sum.
//!
//! The counter is a CRDT. Every process writes under its own id, so an addition needs no lock and waits for no other
//! process, and copies that were merged in any order, any number of times, are equal. A few members keep each key
//! (its owners on the ring); a read asks them.
//!
//! The program starts itself once for each member of the mesh. A child ends when its standard input is closed, so no
//! child remains, however this process ends.
//!
//! `cargo run -p nurl-examples --bin replicated_counter`

use std::process::Stdio;
use std::time::Duration;

use nurl::config::Role;
use nurl::events::State;
use nurl::rt::{self, time};
use nurl::{Node, Ticket};
use nurl_examples::{Outcome, PATIENCE, soon};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

/// The number of processes, and how often each of them adds its number.
const PROCESSES: i64 = 4;
const ROUNDS: i64 = 25;

#[tokio::main]
async fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(ticket), Some(number)) => child(ticket.parse()?, number.parse()?).await,
        _ => parent().await,
    }
}

async fn parent() -> Outcome {
    let (hub, ticket) = nurl::hub::serve_new_mesh("127.0.0.1:0").await?;
    let text = ticket.to_text()?;
    let mut children = Vec::new();
    for number in 1..=PROCESSES {
        let mut command = Command::new(std::env::current_exe()?);
        // Other users can see the secret on the command line, which is acceptable for a mesh that lives for seconds.
        command.arg(text.as_str()).arg(number.to_string());
        children.push(command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?);
    }
    let expected = ROUNDS * (1..=PROCESSES).sum::<i64>();
    println!(
        "{PROCESSES} processes add their numbers 1 to {PROCESSES}, {ROUNDS} times each: {expected} in all"
    );
    for (number, child) in (1..).zip(&mut children) {
        let sum = soon("a child's sum", first_line(child)).await??;
        println!("process {number} sees {sum}");
        assert_eq!(sum, expected.to_string());
    }

    // An observer that has written nothing, and owns nothing, reads the same value.
    let observer = Node::builder(ticket).role(Role::Observer).spawn().await?;
    observer.joined(PATIENCE).await?;
    assert_eq!(observer.counter("visits").get().await?, i128::from(expected));
    println!("and so does an observer that came later");
    observer.shutdown().await;

    for mut child in children {
        drop(child.stdin.take());
        assert!(soon("a child's end", child.wait()).await??.success());
    }
    hub.shutdown().await;
    Ok(())
}

async fn first_line(child: &mut Child) -> std::io::Result<String> {
    let mut line = String::new();
    let stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    BufReader::new(stdout).read_line(&mut line).await?;
    Ok(line.trim().to_owned())
}

async fn child(ticket: Ticket, number: i64) -> Outcome {
    let node = Node::builder(ticket).spawn().await?;
    rt::select! {
        done = count(&node, number) => done?,
        () = end_of_input() => return Ok(()),
    }
    end_of_input().await;
    node.shutdown().await;
    Ok(())
}

async fn end_of_input() {
    let mut byte = [0];
    while matches!(tokio::io::stdin().read(&mut byte).await, Ok(1)) {}
}

/// Adds, then reads until the additions of all processes are there.
async fn count(node: &Node, number: i64) -> Outcome {
    let alive = |node: Node| async move {
        let members = node.members().await?;
        Ok::<_, nurl::Error>(members.iter().filter(|member| member.state == State::Alive).count())
    };
    while alive(node.clone()).await? + 1 < PROCESSES as usize {
        time::sleep(Duration::from_millis(20)).await;
    }
    let counter = node.counter("visits");
    for _ in 0..ROUNDS {
        counter.add(number).await?;
    }
    let expected = i128::from(ROUNDS * (1..=PROCESSES).sum::<i64>());
    while counter.get().await? != expected {
        time::sleep(Duration::from_millis(20)).await;
    }
    println!("{expected}");
    Ok(())
}
