//! Series with more points than a picture can show.

/// The least and the greatest value of each of `buckets` equal parts, in the order in which they
/// occur, with their positions: peaks stay, however short. A series that is short enough stays as
/// it is. Values that are not numbers are left out.
pub(crate) fn extremes(values: &[f32], buckets: usize) -> Vec<(usize, f32)> {
    let buckets = buckets.max(1);
    let numbers = |range: std::ops::Range<usize>| range.filter(|at| values[*at].is_finite()).map(|at| (at, values[at]));
    if values.len() <= buckets * 2 {
        return numbers(0..values.len()).collect();
    }
    let mut kept = Vec::with_capacity(buckets * 2);
    for bucket in 0..buckets {
        let range = bucket * values.len() / buckets..(bucket + 1) * values.len() / buckets;
        let least = numbers(range.clone()).min_by(|a, b| a.1.total_cmp(&b.1));
        let greatest = numbers(range).max_by(|a, b| a.1.total_cmp(&b.1));
        if let (Some(least), Some(greatest)) = (least, greatest) {
            kept.push(if least.0 <= greatest.0 { least } else { greatest });
            if least.0 != greatest.0 {
                kept.push(if least.0 <= greatest.0 { greatest } else { least });
            }
        }
    }
    kept
}

/// The mean of each of at most `buckets` equal parts; zero where there are no numbers.
pub(crate) fn means(values: &[f32], buckets: usize) -> Vec<f64> {
    let buckets = buckets.clamp(1, values.len().max(1));
    (0..buckets)
        .map(|bucket| {
            let part = &values[bucket * values.len() / buckets..(bucket + 1) * values.len() / buckets];
            let (sum, n) = part
                .iter()
                .filter(|value| value.is_finite())
                .fold((0.0, 0u32), |(sum, n), value| (sum + f64::from(*value), n + 1));
            if n == 0 { 0.0 } else { sum / f64::from(n) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_of_one_second_stays() {
        let mut values = vec![1.0; 3600];
        values[1234] = 9.0;
        values[7] = f32::NAN;
        let kept = extremes(&values, 100);
        assert!(kept.len() <= 200);
        assert!(kept.contains(&(1234, 9.0)));
        assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn short_series_stay_as_they_are() {
        assert_eq!(extremes(&[1.0, f32::NAN, 3.0], 2), [(0, 1.0), (2, 3.0)]);
        assert_eq!(means(&[1.0, 3.0, 5.0, 7.0], 2), [2.0, 6.0]);
        assert_eq!(means(&[], 5), [0.0]);
    }
}
