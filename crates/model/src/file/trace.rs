//! Recorded arrivals: a text file with one arrival a line.
//!
//! The first column (up to a comma, semicolon or tab) is the time in seconds since any moment, as
//! a decimal number, in rising order; a first line that is no number is a heading. Blank lines and
//! lines that start with `#` are skipped.

/// Arrival times in ns from the first, and the length of one pass: the last time and one mean gap,
/// so that a repetition keeps the rate.
pub(crate) fn times(bytes: &[u8]) -> Result<(Vec<u64>, u64), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let mut seconds: Vec<f64> = Vec::new();
    let mut heading_seen = false;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let cell = line.split([',', ';', '\t']).next().unwrap_or_default().trim().trim_matches('"');
        if cell.is_empty() && line.trim().is_empty() || cell.starts_with('#') {
            continue;
        }
        match cell.parse::<f64>() {
            Ok(time) if time.is_finite() => {
                if seconds.last().is_some_and(|last| *last > time) {
                    return Err(format!("line {number}: {time} comes after a later time"));
                }
                seconds.push(time);
            }
            _ if seconds.is_empty() && !heading_seen => heading_seen = true,
            _ => {
                let cell = super::tree::shorten(cell);
                return Err(format!("line {number}: expected a time in seconds, found `{cell}`"));
            }
        }
    }
    let (Some(first), Some(last)) = (seconds.first().copied(), seconds.last().copied()) else {
        return Err("it has no arrivals".to_owned());
    };
    let length = last - first;
    if seconds.len() < 2 || length <= 0.0 {
        return Err("it needs at least two arrivals at different times".to_owned());
    }
    if length > 366.0 * 86_400.0 {
        return Err("it is longer than a year; times are in seconds".to_owned());
    }
    let times: Vec<u64> = seconds.iter().map(|time| ((time - first) * 1e9).round() as u64).collect();
    let gap = length / (seconds.len() - 1) as f64;
    let span = ((length + gap) * 1e9).round() as u64;
    Ok((times, span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_headings_columns_and_comments() {
        let (times, span) = times(b"time,path\n# a comment\n10.0,/a\n\n10.5,/b\n12.0,/c\n").unwrap();
        assert_eq!(times, [0, 500_000_000, 2_000_000_000]);
        assert_eq!(span, 3_000_000_000);
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (text, expected) in [
            ("", "it has no arrivals"),
            ("time\n", "it has no arrivals"),
            ("1\n", "it needs at least two arrivals at different times"),
            ("1\n1\n", "it needs at least two arrivals at different times"),
            ("2\n1\n", "line 2: 1 comes after a later time"),
            ("a\nb\n", "line 2: expected a time in seconds, found `b`"),
            ("1\ninf\n", "line 2: expected a time in seconds, found `inf`"),
            ("1700000000000\n1800000000000\n", "it is longer than a year; times are in seconds"),
        ] {
            assert_eq!(times(text.as_bytes()).unwrap_err(), expected, "{text:?}");
        }
    }
}
