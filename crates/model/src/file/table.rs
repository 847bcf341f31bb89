//! What a system file may say, as tables: the keys of each mapping, the type of each value, its
//! default with the default's source, and a sentence on what it means.
//!
//! Checking, suggestions, the JSON Schema, `explain` and the reference page all read these
//! tables, so none of them can know a key that another does not.

use super::quantity::{Quantity, Wrong};

/// The keys of a mapping.
pub(crate) struct Object {
    /// Names it in the schema and in the reference.
    pub(crate) name: &'static str,
    /// What it describes.
    pub(crate) doc: &'static str,
    /// Its keys. Groups are shared by several objects.
    pub(crate) groups: &'static [&'static [Field]],
}

impl Object {
    pub(crate) fn fields(&self) -> impl Iterator<Item = &'static Field> + Clone + use<> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    pub(crate) fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields().find(|field| field.key == key)
    }

    /// The first key, which tells one option of a [`Choice`] from the others.
    pub(crate) fn lead(&self) -> &'static str {
        self.groups[0][0].key
    }
}

/// A key of a mapping.
pub(crate) struct Field {
    pub(crate) key: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: Default,
    pub(crate) doc: &'static str,
    /// Where it plays a part; none: everywhere.
    pub(crate) when: Option<When>,
}

/// A condition on the other keys of the mapping. A key that plays no part is refused, since it
/// would be read and change nothing.
#[derive(Clone, Copy)]
pub(crate) struct When {
    pub(crate) holds: fn(&super::filled::Filled) -> bool,
    /// After "only": "where `from` is `replicas`".
    pub(crate) words: &'static str,
}

impl Field {
    pub(crate) const fn when(self, holds: fn(&super::filled::Filled) -> bool, words: &'static str) -> Field {
        Field { when: Some(When { holds, words }), ..self }
    }
}

/// What holds where a key is left out.
#[derive(Clone, Copy)]
pub(crate) enum Default {
    /// It must not be left out.
    Required,
    /// This value, as a file would put it, and where it comes from.
    Value { text: &'static str, source: &'static str },
    /// A value that follows from other keys of the same mapping, which stand before it.
    Derived { from: fn(&super::filled::Filled) -> String, rule: &'static str, source: &'static str },
    /// `none`: there is no such thing, for the reason given. A file may say `none` itself.
    None { source: &'static str },
    /// Nothing; `means` says what that amounts to.
    Absent { means: &'static str },
}

/// The type of a value.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// One word, number or line of text.
    Scalar(&'static Scalar),
    /// One of these words, each with its meaning.
    Words(&'static [(&'static str, &'static str)]),
    /// A mapping.
    Object(&'static Object),
    /// A mapping, or only the value of one of its keys.
    Short(&'static Object, &'static str),
    /// A mapping that one of several keys gives its meaning.
    Choice(&'static Choice),
    /// A mapping whose `kind` decides on its other keys.
    Tagged(&'static Tagged),
    /// A list; whether one item may stand without brackets.
    List(&'static Kind),
    /// A mapping from the reader's own names.
    Map { key: &'static MapKey, value: &'static Kind },
    /// The first of these that has the value's shape: scalar, list or mapping.
    Or(&'static [Kind]),
    /// The word `none`, or a value.
    OrNone(&'static Kind),
}

/// The type of a scalar.
pub(crate) struct Scalar {
    /// With its article: "a duration".
    pub(crate) what: &'static str,
    /// One or several, as between backticks.
    pub(crate) example: &'static str,
    /// Regular expression for the schema; empty: any text. It may let pass what `parse` refuses,
    /// never the reverse.
    pub(crate) pattern: &'static str,
    pub(crate) json: Json,
    pub(crate) parse: fn(&str) -> Result<Quantity, Wrong>,
}

/// What a YAML parser makes of a scalar.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Json {
    Boolean,
    /// Always text, since the unit is part of it.
    String,
    /// Text, or a plain number.
    NumberOr,
    /// Text of any kind, or a plain number that is meant as text.
    StringOrNumber,
    /// Any scalar.
    Any,
}

/// Mappings told apart by the one leading key that each has.
pub(crate) struct Choice {
    pub(crate) name: &'static str,
    /// With its article: "a step".
    pub(crate) what: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) options: &'static [&'static Object],
}

/// Mappings told apart by `kind`.
pub(crate) struct Tagged {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// The kind where the file gives none.
    pub(crate) default: Option<&'static str>,
    pub(crate) options: &'static [(&'static str, &'static Object)],
}

/// The reader's own names.
pub(crate) struct MapKey {
    /// With its article: "a service's name".
    pub(crate) what: &'static str,
    pub(crate) scalar: &'static Scalar,
}

pub(crate) const fn required(key: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { key, kind, default: Default::Required, doc, when: None }
}

pub(crate) const fn value(
    key: &'static str,
    kind: Kind,
    text: &'static str,
    source: &'static str,
    doc: &'static str,
) -> Field {
    Field { key, kind, default: Default::Value { text, source }, doc, when: None }
}

/// A key that may be `none`, and is where it is left out.
pub(crate) const fn none(key: &'static str, kind: Kind, source: &'static str, doc: &'static str) -> Field {
    Field { key, kind, default: Default::None { source }, doc, when: None }
}

pub(crate) const fn absent(key: &'static str, kind: Kind, means: &'static str, doc: &'static str) -> Field {
    Field { key, kind, default: Default::Absent { means }, doc, when: None }
}
