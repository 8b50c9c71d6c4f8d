//! The deltas of writes to a map.

use std::time::Duration;

use super::super::clock::Clock;
use super::super::context::Dot;
use super::super::sums::Sums;
use super::super::{CrdtError, Kind, MAX_ELEMENT_BYTES, MAX_WRITE_BYTES};
use super::content::{Content, MAX_VALUE_BYTES};
use super::{FIELD_OVERHEAD_BYTES, MAX_FIELD_BYTES, OrMap, field};
use crate::replication::identity::ReplicaId;

/// The kinds that a field can have.
const FIELD_KINDS: [Kind; 4] = [Kind::Counter, Kind::Register, Kind::Set, Kind::Multi];

/// The writer of a delta.
#[derive(Debug, Clone, Copy)]
pub struct Author {
    /// Its id.
    pub replica: ReplicaId,
    /// The highest dot that it is known to have used in this map.
    pub floor: u64,
}

impl OrMap {
    /// The delta of an addition to a counter.
    ///
    /// # Errors
    /// [`CrdtError::TooLarge`] or [`CrdtError::Overflow`].
    pub fn adding(&self, author: Author, name: &[u8], by: i64) -> Result<OrMap, CrdtError> {
        let (mut delta, dot) = self.begin(author, name)?;
        let field = field(Kind::Counter, name);
        let (birth, sums) = match self.open_slot(author, &field) {
            Some((birth, sums)) => (birth, sums.plus(by)?),
            None => (dot, Sums::default().plus(by)?),
        };
        let content = Content::Counter(sums);
        if birth == dot {
            self.check_room(&field, &content, 0)?;
        }
        delta.context.insert(birth);
        if sums != Sums::default() {
            delta.put(birth, &field, content);
        }
        Ok(delta)
    }

    /// The delta of a write to a register. It replaces the earlier writes that this state shows.
    ///
    /// # Errors
    /// [`CrdtError::TooLarge`], [`CrdtError::Overflow`] or [`CrdtError::ClockDrift`].
    pub fn setting(
        &self,
        author: Author,
        name: &[u8],
        clock: &mut Clock,
        wall: Duration,
        value: &[u8],
    ) -> Result<OrMap, CrdtError> {
        for (_, content) in self.contents(Kind::Register, name) {
            if let Content::Register { stamp, .. } = content {
                clock.observe(*stamp, wall);
            }
        }
        let stamp = clock.tick(wall)?;
        // A write that is too far ahead of this clock stays, and wins when its time has come.
        let earlier = |held: &Content| matches!(held, Content::Register { stamp: at, .. } if *at < stamp);
        let content = Content::Register { stamp, value: value.to_vec() };
        self.putting(author, Kind::Register, name, content, earlier)
    }

    /// The delta of adding an element to a set.
    ///
    /// # Errors
    /// [`CrdtError::TooLarge`] or [`CrdtError::Overflow`].
    pub fn inserting(&self, author: Author, name: &[u8], element: &[u8]) -> Result<OrMap, CrdtError> {
        let content = Content::Bytes(element.to_vec());
        let same = content.clone();
        self.putting(author, Kind::Set, name, content, |held| *held == same)
    }

    /// The delta of a write to a multi-value register. It replaces all values that this state shows.
    ///
    /// # Errors
    /// [`CrdtError::TooLarge`] or [`CrdtError::Overflow`].
    pub fn replacing(&self, author: Author, name: &[u8], value: &[u8]) -> Result<OrMap, CrdtError> {
        self.putting(author, Kind::Multi, name, Content::Bytes(value.to_vec()), |_| true)
    }

    /// The delta of removing an element from a set.
    pub fn taking_out(&self, name: &[u8], element: &[u8]) -> OrMap {
        let mut delta = OrMap::default();
        for (dot, content) in self.contents(Kind::Set, name) {
            if matches!(content, Content::Bytes(held) if held == element) {
                delta.context.insert(*dot);
            }
        }
        delta
    }

    /// The delta of removing the fields of this name, of all kinds.
    pub fn removing(&self, author: Author, name: &[u8]) -> OrMap {
        self.without(author, FIELD_KINDS.map(|kind| field(kind, name)).iter())
    }

    /// The delta of removing all fields.
    pub fn removing_all(&self, author: Author) -> OrMap {
        self.without(author, self.fields.keys())
    }

    fn without<'a>(&self, author: Author, fields: impl Iterator<Item = &'a Vec<u8>>) -> OrMap {
        let mut delta = OrMap::default();
        for field in fields {
            for (dot, content) in self.fields.get(field).into_iter().flatten() {
                match content {
                    // Everybody but its actor removes what it knows of the slot: it may be added to at the same time.
                    Content::Counter(sums)
                        if dot.actor != author.replica || !self.knows_since(author, dot) =>
                    {
                        if !sums.is_removed() {
                            delta.context.insert(*dot);
                            delta.put(*dot, field, Content::Counter(sums.removal()));
                        }
                    }
                    _ => delta.context.insert(*dot),
                }
            }
        }
        delta
    }

    /// A delta with the author's next dot, which closes the author's removed slots.
    fn begin(&self, author: Author, name: &[u8]) -> Result<(OrMap, Dot), CrdtError> {
        if name.len() > MAX_FIELD_BYTES {
            return Err(CrdtError::TooLarge { size: name.len(), limit: MAX_FIELD_BYTES });
        }
        let highest = self.context.highest(&author.replica).max(author.floor);
        let counter = highest.checked_add(1).ok_or(CrdtError::Overflow)?;
        let dot = Dot { actor: author.replica, counter };
        let mut delta = OrMap::default();
        for (own, _) in self.field_of.range(Dot::all_of(&author.replica)) {
            let is_removed = self.held(own).is_some_and(|(_, content)| !content.is_present());
            if is_removed && self.knows_since(author, own) {
                delta.context.insert(*own);
            }
        }
        delta.context.insert(dot);
        Ok((delta, dot))
    }

    /// The delta that puts a content under the author's next dot, in place of those of the field that `replaces` names.
    fn putting(
        &self,
        author: Author,
        kind: Kind,
        name: &[u8],
        content: Content,
        replaces: impl Fn(&Content) -> bool,
    ) -> Result<OrMap, CrdtError> {
        let limit = if kind == Kind::Set { MAX_ELEMENT_BYTES } else { MAX_VALUE_BYTES };
        if let Content::Bytes(value) | Content::Register { value, .. } = &content
            && value.len() > limit
        {
            return Err(CrdtError::TooLarge { size: value.len(), limit });
        }
        let (mut delta, dot) = self.begin(author, name)?;
        let mut gone = 0;
        for (held, old) in self.contents(kind, name).filter(|(_, old)| replaces(old)) {
            gone += old.weight();
            delta.context.insert(*held);
        }
        let field = field(kind, name);
        self.check_room(&field, &content, gone)?;
        delta.put(dot, &field, content);
        Ok(delta)
    }

    /// Refuses a content that would lift this state over the limit of local writes, in place of `gone` bytes.
    fn check_room(&self, field: &[u8], content: &Content, gone: usize) -> Result<(), CrdtError> {
        let size = self.weight() + field.len() + FIELD_OVERHEAD_BYTES + content.weight() - gone;
        if size > MAX_WRITE_BYTES {
            return Err(CrdtError::TooLarge { size, limit: MAX_WRITE_BYTES });
        }
        Ok(())
    }

    /// Whether this state has seen all that the author has written since it began a slot.
    fn knows_since(&self, author: Author, birth: &Dot) -> bool {
        let last = self.context.highest(&author.replica).max(author.floor);
        self.context.contains_all(&author.replica, birth.counter, last)
    }

    /// The author's slot in a counter, if it can be continued.
    fn open_slot(&self, author: Author, field: &[u8]) -> Option<(Dot, Sums)> {
        let own = self.fields.get(field)?.range(Dot::all_of(&author.replica)).rev();
        let mut slots = own.filter_map(|(dot, content)| match content {
            Content::Counter(sums) if !sums.is_removed() => Some((*dot, *sums)),
            _ => None,
        });
        slots.next().filter(|(dot, _)| self.knows_since(author, dot))
    }
}
