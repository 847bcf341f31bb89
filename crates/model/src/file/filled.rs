//! A checked file: every value has its type, every key that was left out has its default, and each
//! knows where it comes from. The sections read it; `explain` prints it.
//!
//! A value that was refused is [`Value::Bad`]. Reading it gives a harmless stand-in, so that the
//! sections can go on and find more problems; a system with problems is never handed out.

use super::quantity::Quantity;
use super::table::Object;
use super::tree::{Key, Span};
use crate::system::{Count, Load};

#[derive(Clone, Debug)]
pub(crate) struct Filled {
    pub(crate) at: Span,
    pub(crate) origin: Origin,
    pub(crate) value: Value,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    File,
    /// The default's rule, where it is derived, and its source.
    Default {
        rule: Option<&'static str>,
        source: &'static str,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Reported already.
    Bad,
    /// Left out without a default; the text says what that means.
    Absent(&'static str),
    /// `none`
    None,
    Scalar {
        text: String,
        quantity: Quantity,
    },
    Object(Fields),
    Map(Vec<(Key, Filled)>),
    List(Vec<Filled>),
}

/// A mapping with all keys of its table, in the table's order.
#[derive(Clone)]
pub(crate) struct Fields {
    pub(crate) of: &'static Object,
    pub(crate) entries: Vec<Entry>,
    /// Whether the file has a key here that the table does not have: another may be missing for it.
    pub(crate) unknown: bool,
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct(self.of.name).field("entries", &self.entries).finish()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: &'static str,
    /// Where the key stands, if the file has it.
    pub(crate) key_at: Span,
    pub(crate) value: Filled,
    /// Where alone it would play a part, if it plays none here.
    pub(crate) idle: Option<&'static str>,
}

static BAD: Filled = Filled { at: Span::NOWHERE, origin: Origin::File, value: Value::Bad };

impl Filled {
    pub(crate) fn bad(at: Span) -> Filled {
        Filled { at, origin: Origin::File, value: Value::Bad }
    }

    /// The value of a key; bad, and so reported, where this is no such mapping.
    pub(crate) fn get(&self, key: &str) -> &Filled {
        match &self.value {
            Value::Object(fields) => match fields.entries.iter().find(|entry| entry.key == key) {
                Some(entry) => &entry.value,
                None => {
                    debug_assert!(fields.of.field(key).is_some(), "`{}` has no key `{key}`", fields.of.name);
                    &BAD
                }
            },
            _ => &BAD,
        }
    }

    /// Where a key's value stands, or the mapping's own place where the file does not have it.
    pub(crate) fn place(&self, key: &str) -> Span {
        match self.get(key).at {
            Span::NOWHERE => self.at,
            at => at,
        }
    }

    /// The table of this mapping.
    pub(crate) fn object(&self) -> Option<&'static Object> {
        match &self.value {
            Value::Object(fields) => Some(fields.of),
            _ => None,
        }
    }

    /// Whether there is a value, good or bad.
    pub(crate) fn is_set(&self) -> bool {
        !matches!(self.value, Value::Absent(_) | Value::None)
    }

    pub(crate) fn is_bad(&self) -> bool {
        matches!(self.value, Value::Bad)
    }

    /// Whether this value, or one directly within it, was refused.
    pub(crate) fn has_bad(&self) -> bool {
        match &self.value {
            Value::Object(fields) => fields.unknown || fields.entries.iter().any(|entry| entry.value.is_bad()),
            _ => self.is_bad(),
        }
    }

    /// The value, if there is one.
    pub(crate) fn set(&self) -> Option<&Filled> {
        self.is_set().then_some(self)
    }

    /// Whether the file says it, rather than a default.
    pub(crate) fn is_stated(&self) -> bool {
        self.is_set() && self.origin == Origin::File
    }

    pub(crate) fn text(&self) -> &str {
        match &self.value {
            Value::Scalar { text, .. } => text,
            _ => "",
        }
    }

    pub(crate) fn quantity(&self) -> Option<&Quantity> {
        match &self.value {
            Value::Scalar { quantity, .. } => Some(quantity),
            _ => None,
        }
    }

    pub(crate) fn flag(&self) -> bool {
        matches!(self.quantity(), Some(Quantity::Flag(true)))
    }

    pub(crate) fn count(&self) -> u32 {
        match self.quantity() {
            Some(Quantity::Count(n)) => u32::try_from(*n).unwrap_or(u32::MAX),
            _ => 1,
        }
    }

    pub(crate) fn number(&self) -> f64 {
        match self.quantity() {
            Some(Quantity::Number(n)) => *n,
            Some(Quantity::Share(n) | Quantity::Factor(n) | Quantity::Rate(n)) => *n,
            Some(Quantity::Bandwidth(n) | Quantity::Dollars(n)) => *n,
            _ => 0.5,
        }
    }

    /// Nanoseconds.
    pub(crate) fn nanos(&self) -> u64 {
        match self.quantity() {
            Some(Quantity::Duration(ns)) => *ns,
            _ => 1,
        }
    }

    pub(crate) fn duration(&self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.nanos())
    }

    pub(crate) fn offset(&self) -> i64 {
        match self.quantity() {
            Some(Quantity::Offset(ns)) => *ns,
            _ => 0,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        match self.quantity() {
            Some(Quantity::Bytes(bytes)) => *bytes,
            _ => 1,
        }
    }

    pub(crate) fn between(&self) -> (u64, u64) {
        match self.quantity() {
            Some(Quantity::Between(low, high)) => (*low, *high),
            _ => (1, 1),
        }
    }

    pub(crate) fn spread(&self) -> (u64, f64) {
        match self.quantity() {
            Some(Quantity::Spread(base, spread)) => (*base, *spread),
            _ => (1, 0.0),
        }
    }

    pub(crate) fn quota(&self) -> (u64, u64) {
        match self.quantity() {
            Some(Quantity::Quota(amount, period)) => (*amount, *period),
            _ => (1, 1),
        }
    }

    pub(crate) fn rounds(&self) -> Count {
        match self.quantity() {
            Some(Quantity::Rounds(count)) => *count,
            _ => Count::Constant(1),
        }
    }

    pub(crate) fn load(&self) -> Option<Load> {
        match self.quantity() {
            Some(Quantity::Load(load)) => Some(load.clone()),
            _ => None,
        }
    }

    pub(crate) fn list(&self) -> &[Filled] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn map(&self) -> &[(Key, Filled)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }
}
