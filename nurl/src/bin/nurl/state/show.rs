//! How the objects of each kind are shown.

use nurl::state::FieldValue;

use crate::event::Shown;
use crate::talk::text_or_hex;

/// What is shown of an object: its fields, if it has some; nothing, if it shows nothing.
pub(super) type Fields = Vec<(Option<String>, Shown)>;

fn one(value: Shown) -> Fields {
    vec![(None, value)]
}

pub(super) fn sum(sum: i128) -> Fields {
    one(Shown::Sum(sum))
}

pub(super) fn word(value: Option<Vec<u8>>) -> Fields {
    value.map(|value| one(Shown::word(text_or_hex(&value)))).unwrap_or_default()
}

pub(super) fn list(values: Vec<Vec<u8>>) -> Fields {
    if values.is_empty() { Vec::new() } else { one(words(&values)) }
}

pub(super) fn fields(fields: Vec<(Vec<u8>, FieldValue)>) -> Fields {
    let fields = fields.into_iter().map(|(name, value)| {
        let (name, hex) = text_or_hex(&name);
        (name.or(hex), field(&value))
    });
    fields.collect()
}

fn words(values: &[Vec<u8>]) -> Shown {
    Shown::list(values.iter().map(|value| text_or_hex(value)).collect())
}

fn field(value: &FieldValue) -> Shown {
    match value {
        FieldValue::Counter(sum) => Shown::Sum(*sum),
        FieldValue::Register(value) => Shown::word(text_or_hex(value)),
        FieldValue::Set(values) | FieldValue::Multi(values) => words(values),
    }
}
