//! Recorded distributions: HdrHistogram's interval log (`.hlog`), all its intervals added up.

use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

/// Each recorded value in ns with its cumulative share, in rising order.
pub(crate) fn steps(bytes: &[u8], scale: f64) -> Result<Vec<(f64, u64)>, String> {
    let mut all = Histogram::<u64>::new(3).map_err(|error| error.to_string())?;
    all.auto(true);
    for (index, entry) in IntervalLogIterator::new(bytes).enumerate() {
        let LogEntry::Interval(interval) = entry.map_err(|_| format!("entry {} is malformed", index + 1))? else {
            continue;
        };
        let encoded = interval.encoded_histogram();
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .map_err(|_| format!("the histogram of entry {} is not base64", index + 1))?;
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| format!("the histogram of entry {}: {error:?}", index + 1))?;
        all.add(&histogram).map_err(|error| format!("entry {}: {error}", index + 1))?;
    }
    if all.is_empty() {
        return Err("it has no recorded values".to_owned());
    }
    let total = all.len() as f64;
    let mut count = 0;
    Ok(all
        .iter_recorded()
        .map(|step| {
            count += step.count_since_last_iteration();
            (count as f64 / total, (step.value_iterated_to() as f64 * scale).round() as u64)
        })
        .collect())
}
