//! What was written, and so what the owners of each object may hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chaos::property::Violation;
use nurl::internals::replication::crdt::{Kind, Value};

use super::{KEPT, ONCE, REMOVED};
use crate::cluster::copies::{self, Object};
use crate::cluster::{secret, text};

/// Two writes of a register that are further apart than this have stamps in their order: all clocks are right, and a stamp
/// counts milliseconds.
const STAMP: Duration = Duration::from_millis(5);

/// The possible fates of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its insert was acknowledged; the property that breaks without it.
    There(&'static str),
    /// Its insert or its remove is under way, or failed.
    Either,
    /// Its remove was acknowledged.
    Gone,
}

/// A write of a register.
#[derive(Debug, Clone)]
struct Word {
    text: String,
    begun: Duration,
    ended: Option<Duration>,
    acknowledged: bool,
}

/// What is known of one object.
#[derive(Debug, Clone)]
enum Page {
    /// The least and the highest sum.
    Counter {
        least: i128,
        most: i128,
    },
    Set(BTreeMap<String, Fate>),
    Register(Vec<Word>),
}

/// A write of an object.
#[derive(Debug, Clone)]
pub(super) enum Write {
    Add(i64),
    Insert(String, &'static str),
    Remove(String),
    Set(String),
}

/// All objects' pages.
#[derive(Debug, Clone, Default)]
pub(super) struct Books(BTreeMap<Object<'static>, Page>);

impl Books {
    fn page(&mut self, object: Object<'static>) -> &mut Page {
        self.0.entry(object).or_insert_with(|| match object.0 {
            Kind::Counter => Page::Counter { least: 0, most: 0 },
            Kind::Set => Page::Set(BTreeMap::new()),
            _ => Page::Register(Vec::new()),
        })
    }

    /// A write begins.
    pub(super) fn begins(&mut self, at: Duration, object: Object<'static>, write: &Write) {
        match (self.page(object), write) {
            (Page::Counter { most, .. }, Write::Add(by)) => *most += i128::from(*by),
            (Page::Set(fates), Write::Insert(element, _) | Write::Remove(element)) => {
                fates.insert(element.clone(), Fate::Either);
            }
            (Page::Register(words), Write::Set(text)) => {
                words.push(Word { text: text.clone(), begun: at, ended: None, acknowledged: false });
            }
            _ => unreachable!("a write of the object's kind"),
        }
    }

    /// A write has ended.
    pub(super) fn ends(&mut self, at: Duration, object: Object<'static>, write: &Write, acknowledged: bool) {
        match (self.page(object), write) {
            (Page::Counter { least, .. }, Write::Add(by)) if acknowledged => *least += i128::from(*by),
            (Page::Set(fates), Write::Insert(element, property)) if acknowledged => {
                fates.insert(element.clone(), Fate::There(property));
            }
            (Page::Set(fates), Write::Remove(element)) if acknowledged => {
                fates.insert(element.clone(), Fate::Gone);
            }
            (Page::Register(words), Write::Set(text)) => {
                for word in words.iter_mut().filter(|word| word.text == *text) {
                    (word.ended, word.acknowledged) = (Some(at), acknowledged);
                }
            }
            _ => {}
        }
    }

    /// Checks what all owners hold, when no write is under way.
    ///
    /// # Errors
    /// The property that it breaks.
    pub(super) fn check(&self, object: Object<'static>, held: Option<&Value>) -> Result<(), Violation> {
        let broken = |property, seen: String| {
            Err(Violation::safety(property, format!("the owners of {} hold {seen}", object.1)))
        };
        match self.0.get(&object) {
            None => Ok(()),
            Some(Page::Counter { least, most }) => {
                let sum = copies::sum(held);
                if sum < *least {
                    return broken(KEPT, format!("{sum}, and {least} were acknowledged"));
                }
                if sum > *most {
                    return broken(ONCE, format!("{sum}, and {most} were begun"));
                }
                Ok(())
            }
            Some(Page::Set(fates)) => {
                let elements: BTreeSet<_> =
                    copies::elements(held).iter().map(|element| text(element)).collect();
                for (element, fate) in fates {
                    match fate {
                        Fate::There(property) if !elements.contains(element) => {
                            return broken(
                                property,
                                format!("{} elements without {element:?}", elements.len()),
                            );
                        }
                        Fate::Gone if elements.contains(element) => {
                            return broken(REMOVED, format!("{element:?} all the same"));
                        }
                        _ => {}
                    }
                }
                match elements.iter().find(|element| !fates.contains_key(*element)) {
                    Some(element) => broken(ONCE, format!("{element:?}, which nobody inserted")),
                    None => Ok(()),
                }
            }
            Some(Page::Register(words)) => {
                let held = copies::content(held).map(|content| text(&content));
                if words.iter().any(|word| word.acknowledged) && held.is_none() {
                    return broken(KEPT, "nothing".to_owned());
                }
                let Some(held) = held else { return Ok(()) };
                let Some(word) = words.iter().find(|word| word.text == held) else {
                    return broken(ONCE, format!("{held:?}, which nobody wrote"));
                };
                let later = |other: &&Word| {
                    other.acknowledged && word.ended.is_some_and(|ended| ended + STAMP < other.begun)
                };
                match words.iter().find(later) {
                    Some(later) => {
                        broken(KEPT, format!("{held:?}, and {:?} was acknowledged later", later.text))
                    }
                    None => Ok(()),
                }
            }
        }
    }

    /// Takes what all owners hold as certain: what isn't in there was never made.
    pub(super) fn settle(&mut self, object: Object<'static>, held: Option<&Value>) {
        match self.page(object) {
            Page::Counter { least, most } => {
                let sum = copies::sum(held);
                (*least, *most) = (sum, sum);
            }
            Page::Set(fates) => {
                let elements = copies::elements(held);
                fates.retain(|element, fate| match (elements.contains(&secret(element)[..]), *fate) {
                    (true, _) => {
                        *fate = Fate::There(KEPT);
                        true
                    }
                    (false, before) => before == Fate::Gone,
                });
            }
            Page::Register(words) => {
                let held = copies::content(held).map(|content| text(&content));
                words.retain_mut(|word| {
                    word.acknowledged = true;
                    held.as_ref() == Some(&word.text)
                });
            }
        }
    }

    /// The parts of a set's state that a read must have: what was there when all agreed, and that nobody has removed since.
    pub(super) fn lasting(&self, object: Object<'static>, elements: BTreeSet<Vec<u8>>) -> BTreeSet<Vec<u8>> {
        let Some(Page::Set(fates)) = self.0.get(&object) else { return BTreeSet::new() };
        let lasts = |element: &Vec<u8>| fates.get(&text(element)) == Some(&Fate::There(KEPT));
        elements.into_iter().filter(lasts).collect()
    }

    /// The elements of a set that nobody has removed, in order.
    pub(super) fn there(&self, object: Object<'static>) -> Vec<String> {
        let Some(Page::Set(fates)) = self.0.get(&object) else { return Vec::new() };
        let there = fates.iter().filter(|(_, fate)| **fate == Fate::There(KEPT));
        there.map(|(element, _)| element.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use nurl::PublicKey;
    use nurl::internals::replication::crdt::{OrSet, PnCounter};
    use nurl::internals::replication::identity::ReplicaId;

    use super::super::READDED;
    use super::*;

    const COUNTER: Object<'static> = (Kind::Counter, "c");
    const SET: Object<'static> = (Kind::Set, "s");

    fn replica() -> ReplicaId {
        ReplicaId { key: PublicKey::from_bytes([1; 32]), incarnation: 1 }
    }

    fn made(books: &mut Books, object: Object<'static>, write: Write, acknowledged: bool) {
        books.begins(Duration::ZERO, object, &write);
        books.ends(Duration::ZERO, object, &write, acknowledged);
    }

    fn property(found: Result<(), Violation>) -> Option<String> {
        found.err().map(|broken| broken.property)
    }

    #[test]
    fn a_sum_is_between_what_was_acknowledged_and_what_was_begun() {
        let mut books = Books::default();
        made(&mut books, COUNTER, Write::Add(3), true);
        made(&mut books, COUNTER, Write::Add(1), false);
        for (sum, broken) in [(2, Some(KEPT)), (3, None), (4, None), (5, Some(ONCE))] {
            let held = Value::Counter(PnCounter::of(replica(), sum, 0));
            assert_eq!(property(books.check(COUNTER, Some(&held))).as_deref(), broken, "{sum}");
        }
        assert_eq!(property(books.check(COUNTER, None)).as_deref(), Some(KEPT));
    }

    #[test]
    fn an_element_has_the_fate_that_was_acknowledged() {
        let mut books = Books::default();
        made(&mut books, SET, Write::Insert("a".to_owned(), KEPT), true);
        made(&mut books, SET, Write::Insert("b".to_owned(), KEPT), true);
        made(&mut books, SET, Write::Remove("b".to_owned()), true);
        made(&mut books, SET, Write::Insert("c".to_owned(), READDED), true);
        let held = |elements: &[&str]| {
            let mut set = OrSet::default();
            for element in elements {
                set.add(replica(), &secret(element)).unwrap();
            }
            Value::Set(set)
        };
        let table: [(&[&str], _); 5] = [
            (&["a", "c"], None),
            (&["c"], Some(KEPT)),
            (&["a"], Some(READDED)),
            (&["a", "b", "c"], Some(REMOVED)),
            (&["a", "c", "d"], Some(ONCE)),
        ];
        for (elements, broken) in table {
            assert_eq!(property(books.check(SET, Some(&held(elements)))).as_deref(), broken, "{elements:?}");
        }
        books.settle(SET, Some(&held(&["a"])));
        assert_eq!(books.there(SET), ["a"]);
    }
}
