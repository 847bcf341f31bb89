//! The nearest of the names that would have been right.

/// Names that are compared with a wrong one; a file has more only if a program wrote it.
const CANDIDATES_MAX: usize = 1_000;

/// The candidate nearest to `word` by edit distance, if it is near enough to be a slip of the
/// fingers: within a third of its length, at least 1. The first of equals wins.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(100).flat_map(char::to_lowercase).collect();
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates.into_iter().take(CANDIDATES_MAX) {
        let other: Vec<char> = candidate.chars().take(100).flat_map(char::to_lowercase).collect();
        let limit = (word.len().max(other.len()) / 3).max(1);
        if word.len().abs_diff(other.len()) > limit {
            continue;
        }
        let distance = distance(&word, &other);
        // Most of the word must be right, or short names would all be near each other.
        let near = distance <= limit && distance * 2 < word.len().max(other.len());
        if near && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// "did you mean `x`?", or the names there are if none is near.
pub(crate) fn help<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone, none: &str) -> String {
    if let Some(name) = nearest(word, candidates.clone()) {
        return format!("did you mean `{name}`?");
    }
    let count = candidates.clone().into_iter().count();
    let names: Vec<&str> = candidates.into_iter().take(12).collect();
    match count {
        0 => none.to_owned(),
        1..=12 => format!("there is {}", quoted(&names, "and")),
        more => format!("there is {} and {} more", quoted(&names[..10], ","), more - 10),
    }
}

/// `a`, `b` and `c`
pub(crate) fn quoted(names: &[&str], last: &str) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{}`", super::tree::shorten(name))).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [head @ .., tail] if last != "," => format!("{} {last} {tail}", head.join(", ")),
        all => all.join(", "),
    }
}

/// Optimal string alignment: insertions, deletions, substitutions, neighbours swapped.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = [vec![0; b.len() + 1], (0..=b.len()).collect(), vec![0; b.len() + 1]];
    for i in 1..=a.len() {
        rows[2][0] = i;
        for j in 1..=b.len() {
            let mut cost =
                (rows[1][j - 1] + usize::from(a[i - 1] != b[j - 1])).min(rows[1][j] + 1).min(rows[2][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                cost = cost.min(rows[0][j - 2] + 1);
            }
            rows[2][j] = cost;
        }
        rows.rotate_left(1);
    }
    rows[1][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_nothing_else() {
        let names = ["instances", "workers", "queue", "startup"];
        for (word, expected) in [
            ("instance", Some("instances")),
            ("wrokers", Some("workers")),
            ("Queue", Some("queue")),
            ("start_up", Some("startup")),
            ("replicas", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, names), expected, "{word}");
        }
    }

    #[test]
    fn swapping_neighbours_is_one_slip() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        assert_eq!(distance(&chars("form"), &chars("from")), 1);
        assert_eq!(distance(&chars("kitten"), &chars("sitting")), 3);
        assert_eq!(distance(&chars(""), &chars("abc")), 3);
    }
}
