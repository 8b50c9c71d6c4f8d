//! What a program tells the reader of a watched run: which key is its host's, and what is in the bytes that it seals. In an
//! ordinary run nothing is kept and no text is made.

use crate::world::sim;

/// Says that `word`, such as a key's text, means the calling host.
pub fn known_as(word: &str) {
    if !sim::is_running() {
        return;
    }
    let Some(place) = sim::place() else { return };
    sim::try_with(|sim| {
        if let Some(watch) = sim.record.trace.watcher() {
            watch.names_mut().alias(word, place.host.0);
        }
    });
}

/// Whether somebody reads labels: only then are texts worth their making.
pub fn is_read() -> bool {
    sim::try_with(|sim| sim.record.trace.watcher().is_some_and(|watch| watch.wants_labels())) == Some(true)
}

/// Says what the bytes contain that begin like `bytes`, of which the first sixteen count.
pub fn label(bytes: &[u8], text: impl FnOnce() -> String) {
    if !is_read() {
        return;
    }
    // Outside of the world: the text may ask for other labels.
    let text = text();
    sim::try_with(|sim| {
        if let Some(watch) = sim.record.trace.watcher() {
            watch.labels_mut().insert(bytes, text);
        }
    });
}

/// What is known about the content of bytes that begin like `bytes`.
pub fn labelled(bytes: &[u8]) -> Option<String> {
    sim::try_with(|sim| sim.record.trace.watcher()?.labels().at(bytes).map(str::to_owned)).flatten()
}

/// What is known about the bytes that begin anywhere in `bytes`, in their order.
pub fn labelled_within(bytes: &[u8]) -> Vec<String> {
    let found = sim::try_with(|sim| {
        let watch = sim.record.trace.watcher()?;
        Some(watch.labels().within(bytes).map(|(_, text)| text.to_owned()).collect())
    });
    found.flatten().unwrap_or_default()
}
