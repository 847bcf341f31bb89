//! The policies as a file states them, one file each: the table of keys, and the configuration
//! that it becomes. The bounds are the policies' own, who refuse a bad configuration at the door;
//! their refusal is shown at the key that it is about.

pub(crate) mod adaptive_limit;
pub(crate) mod balance;
pub(crate) mod bulkhead;
pub(crate) mod cache;
pub(crate) mod circuit_breaker;
pub(crate) mod degradation;
pub(crate) mod health;
pub(crate) mod hedge;
pub(crate) mod idempotency;
pub(crate) mod outlier_ejection;
pub(crate) mod rate_limit;
pub(crate) mod retry;
pub(crate) mod retry_budget;
pub(crate) mod shed;

use plimsoll_policy::{InvalidConfig, Mode};

use super::filled::Filled;
use super::problem::Report;
use super::quantity::FLAG;
use super::table::{Field, Kind, value};

/// The key that every policy has.
pub(crate) static SHADOW: &[Field] = &[value(
    "shadow",
    Kind::Scalar(&FLAG),
    "false",
    "a stated policy acts",
    "Whether the policy only decides and counts, and lets everything through: a trial on live traffic.",
)];

pub(crate) fn mode(filled: &Filled) -> Mode {
    if filled.get("shadow").flag() { Mode::Shadow } else { Mode::Enforce }
}

/// Reports a refusal at the key it is about. `keys` pairs field names with the file's keys where
/// the two differ.
pub(crate) fn refused<T>(
    result: Result<T, InvalidConfig>,
    filled: &Filled,
    keys: &[(&str, &str)],
    report: &mut Report,
) {
    let Err(InvalidConfig { field, expected }) = result else { return };
    // A value that was refused already has a stand-in, of which nothing is to be said.
    if filled.has_bad() {
        return;
    }
    let name = |field: &str| keys.iter().find(|(name, _)| *name == field).map(|(_, key)| *key);
    let last = field.rsplit('.').next().unwrap_or(field);
    let key = name(field).unwrap_or(last);
    let known = filled.object().is_some_and(|object| object.field(key).is_some());
    if !known {
        report.at(filled.at, format!("{field}: expected {expected}"));
        return;
    }
    // The policy's words for its fields become the file's.
    let mut expected = expected.to_owned();
    for (field, key) in keys {
        expected = expected.replace(field, &format!("`{key}`"));
    }
    let value = filled.get(key);
    let found = if value.text().is_empty() { "nothing".to_owned() } else { format!("`{}`", value.text()) };
    report.mismatch(filled.place(key), &format!("`{key}` to be {expected}"), &found, None);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::file::check;
    use crate::file::reader;
    use crate::file::table::Object;

    /// What a table makes of a text, and what the policy says to it.
    pub(crate) fn decode<T>(
        text: &str,
        of: &'static Object,
        decode: fn(&Filled, &mut Report) -> T,
    ) -> Result<T, String> {
        let mut report = Report::default();
        let node = reader::read(text.as_bytes(), &mut report).expect("YAML");
        let filled = check::check(&node, Kind::Object(of), &mut report);
        let decoded = decode(&filled, &mut report);
        if report.is_empty() { Ok(decoded) } else { Err(report.finish("", text.as_bytes(), Some(&node)).to_string()) }
    }
}
