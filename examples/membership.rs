//! Membership: of three members one vanishes, one leaves, and the third distinguishes the two.
//!
//! Membership is SWIM with Lifeguard. Every member probes another each second, and asks others to probe for it before
//! it suspects a member. The suspect can refute the suspicion before it is declared dead. So a death is detected
//! after seconds, a leave at once, and a slow machine isn't taken for a dead one.
//!
//! `cargo run -p nurl-examples --bin membership`

use std::time::Duration;

use nurl::config::{DetectorConfig as Config, Role};
use nurl::events::{Events, NodeEvent, State};
use nurl::rt::time;
use nurl::{Node, PublicKey, Ticket};
use nurl_examples::{Outcome, see_alive, soon};

#[tokio::main]
async fn main() -> Outcome {
    let (hub, ticket) = nurl::hub::serve_new_mesh("127.0.0.1:0").await?;
    let alice = member(&ticket).await?;
    let mut events = alice.events();
    let bob = member(&ticket).await?;
    let carol = member(&ticket).await?;
    let (bobs_key, carols_key) = (bob.key(), carol.key());

    // The ticket gives them only the hub's address and key. Gossip provides the rest.
    for node in [&alice, &bob, &carol] {
        let others = [alice.key(), bobs_key, carols_key];
        let others: Vec<PublicKey> = others.into_iter().filter(|key| *key != node.key()).collect();
        see_alive(node, &others).await?;
    }
    for member in alice.members().await? {
        println!("alice sees {:?}: {:?}, version {}", member.key, member.state, member.version);
    }

    // Dropping the last handle ends a node at once, like a crash: it sends nothing to the others.
    let begun = time::now();
    drop(carol);
    let end = soon("carol's end", verdict(&mut events, carols_key)).await?;
    assert_eq!(end, Some(State::Dead));
    println!("carol was held dead after {:.1} s of silence", (time::now() - begun).as_secs_f32());

    // Bob leaves in good order.
    let begun = time::now();
    bob.shutdown().await;
    let end = soon("bob's end", verdict(&mut events, bobs_key)).await?;
    assert_eq!(end, Some(State::Left));
    println!("bob's goodbye was here after {:.1} s", (time::now() - begun).as_secs_f32());

    alice.shutdown().await;
    hub.shutdown().await;
    Ok(())
}

async fn member(ticket: &Ticket) -> Result<Node, nurl::Error> {
    // The example shortens the suspicion time; all members of a mesh use the same timings.
    let timings = Config { suspicion_min: Duration::from_secs(2), ..Config::default() };
    let node = Node::builder(ticket.clone()).role(Role::Member).detector(timings).spawn().await?;
    node.joined(nurl_examples::PATIENCE).await?;
    Ok(node)
}

/// Follows the events until `about` is dead or has left; prints the changes on the way.
async fn verdict(events: &mut Events, about: PublicKey) -> Option<State> {
    while let Some(event) = events.next().await {
        if let NodeEvent::Member { peer, state, incarnation } = event
            && peer == about
        {
            println!("  {peer:?} is {state:?} in its incarnation {incarnation}");
            if matches!(state, State::Dead | State::Left) {
                return Some(state);
            }
        }
    }
    None
}
