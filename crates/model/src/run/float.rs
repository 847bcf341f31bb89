//! JSON has no way to write "not a number" or infinity: both are written as `null`, and `null`
//! reads back as "not a number". Reports show either as a dash.

use serde::{Deserialize, Deserializer, Serializer};

/// A number, or `null`.
pub(super) fn one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// A list of numbers and `null`s.
pub(super) fn many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let values = Vec::<Option<f64>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect())
}

/// A column of a series.
pub(super) fn column<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
    let values = Vec::<Option<f32>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|value| value.unwrap_or(f32::NAN)).collect())
}

/// Writes a column of a series with four significant digits: it is drawn, not calculated with, and
/// a run has tens of thousands of these numbers.
pub(super) fn write_column<S: Serializer>(column: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(
        column.iter().map(
            |value| {
                if value.is_finite() { format!("{value:.3e}").parse().unwrap_or(*value) } else { *value }
            },
        ),
    )
}

/// Names, each with a number or `null`.
pub(super) fn parts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, f64)>, D::Error> {
    let parts = Vec::<(String, Option<f64>)>::deserialize(deserializer)?;
    Ok(parts.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}
