//! What sealed bytes contain: the program that seals them says so while a run is watched, and a reader of packets finds it
//! again.

use std::collections::{BTreeMap, VecDeque};

/// The bytes by which labelled bytes are found: their first ones, or all if they are fewer. Sixteen bytes of a ciphertext
/// are unique in a run.
const KEY_BYTES: usize = 16;

/// The number of labels that are kept, the latest ones: more than packets are in flight.
const KEPT: usize = 1 << 16;

/// The labels of a watched run; those that were given first are forgotten first.
#[derive(Debug, Default)]
pub struct Labels {
    texts: BTreeMap<Vec<u8>, String>,
    order: VecDeque<Vec<u8>>,
}

impl Labels {
    /// The label of the bytes that begin like `bytes`.
    pub fn at(&self, bytes: &[u8]) -> Option<&str> {
        self.texts.get(key(bytes)).map(String::as_str)
    }

    /// All labels of bytes that begin somewhere in `bytes`, with their places; none of bytes shorter than a key.
    pub fn within<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = (usize, &'a str)> {
        bytes.windows(KEY_BYTES).enumerate().filter_map(|(at, part)| Some((at, self.at(part)?)))
    }

    /// Labels the bytes that begin like `bytes`, in place of an earlier label.
    pub(crate) fn insert(&mut self, bytes: &[u8], text: String) {
        let key = key(bytes);
        if self.texts.insert(key.to_vec(), text).is_none() {
            self.order.push_back(key.to_vec());
        }
        if self.order.len() > KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.texts.remove(&oldest);
        }
    }
}

fn key(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(KEY_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_found_at_its_bytes_and_within_others() {
        let mut labels = Labels::default();
        labels.insert(&[7; 20], "sevens".to_owned());
        labels.insert(&[8; 15], "eights".to_owned());
        assert_eq!(labels.at(&[7; 16]), Some("sevens"));
        assert_eq!(labels.at(&[7; 15]), None);
        assert_eq!((labels.at(&[8; 15]), labels.at(&[8; 16])), (Some("eights"), None));
        let mut packet = vec![1; 3];
        packet.extend([7; 16]);
        assert_eq!(labels.within(&packet).collect::<Vec<_>>(), [(3, "sevens")]);
    }

    #[test]
    fn the_oldest_labels_are_forgotten() {
        let mut labels = Labels::default();
        let key = |number: usize| [&number.to_le_bytes()[..], &[0; 8]].concat();
        (0..KEPT + 10).for_each(|number| labels.insert(&key(number), number.to_string()));
        assert_eq!(labels.texts.len(), KEPT);
        assert_eq!((labels.at(&key(9)), labels.at(&key(10))), (None, Some("10")));
    }
}
