//! A distributed map: a mesh of workers counts the words of a text, and this program adds up the counts.
//!
//! Each task has a key, and the key decides which worker runs it, by a consistent-hash ring of the live workers. So
//! equal keys go to one worker without a central list. If a worker dies, its tasks go to the next one on the ring
//! automatically (`cargo demo` shows that with real processes).
//!
//! `cargo run -p nurl-examples --bin distributed_map`

use std::collections::BTreeMap;

use bytes::Bytes;
use nurl::config::Role;
use nurl::job::handlers::{
    Counts, count_bytes, count_parts, decode_counts, encode_counts, merge, split_text,
};
use nurl::job::{SubmitOptions, TaskEvent};
use nurl::{Node, PublicKey};
use nurl_examples::{Outcome, see_alive};

/// Any text will do.
const TEXT: &[u8] = include_bytes!("../LICENSE-APACHE");

/// The bytes of the text in one task.
const PART_BYTES: usize = 256;

#[tokio::main]
async fn main() -> Outcome {
    let (hub, ticket) = nurl::hub::serve_new_mesh("127.0.0.1:0").await?;
    let mut workers = Vec::new();
    for _ in 0..3 {
        // A handler is an async function from bytes to bytes. It may run more than once, and a panic fails only its
        // own task.
        let count = |_, text: Bytes| async move { Ok(encode_counts(&count_bytes(&text))) };
        workers.push(Node::builder(ticket.clone()).handler("count", count).spawn().await?);
    }
    // An observer owns no keys: it submits tasks, and may leave at any time.
    let client = Node::builder(ticket).role(Role::Observer).spawn().await?;
    let keys: Vec<PublicKey> = workers.iter().map(Node::key).collect();
    see_alive(&client, &keys).await?;

    // Map: one task for each part, all under way at once.
    let mut tasks = Vec::new();
    for (number, part) in split_text(TEXT, PART_BYTES).into_iter().enumerate() {
        let key = format!("part {number}");
        let payload = Bytes::from_static(part);
        tasks.push(client.submit("count", key.as_bytes(), payload, SubmitOptions::default()).await?);
    }
    println!("{} tasks are submitted", tasks.len());

    // Reduce: add up the results.
    let mut total = Counts::new();
    let mut ran: BTreeMap<PublicKey, usize> = BTreeMap::new();
    for mut task in tasks {
        while let Some(event) = task.next().await {
            if let TaskEvent::Ended { by, outcome, .. } = event {
                merge(&mut total, decode_counts(&outcome?)?);
                *ran.entry(by.ok_or("a worker ran it")?).or_default() += 1;
            }
        }
    }
    for (worker, tasks) in &ran {
        println!("worker {worker:?} ran {tasks} tasks");
    }
    assert!(ran.len() > 1, "the keys are spread over the workers");

    let mut top: Vec<_> = total.iter().collect();
    top.sort_by_key(|(word, count)| (std::cmp::Reverse(**count), *word));
    println!("the most frequent words: {:?}", &top[..5]);
    assert_eq!(total, count_parts(TEXT, PART_BYTES));
    println!(
        "the same text counted here, in one thread, gives the same {} words",
        total.values().sum::<u64>()
    );

    client.shutdown().await;
    for worker in workers {
        worker.shutdown().await;
    }
    hub.shutdown().await;
    Ok(())
}
