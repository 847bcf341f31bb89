use proptest::prelude::*;

use crate::{explain_text, files, parse_text, shape};

/// What may happen to a file between two saves.
#[derive(Clone, Debug)]
enum Change {
    DeleteLine(usize),
    RepeatLine(usize),
    SwapLines(usize, usize),
    Indent(usize, usize),
    /// Puts a piece of one line into another.
    Splice(usize, usize, usize),
    Byte(usize, u8),
    Remove(usize, usize),
    /// Puts a piece of another file's grammar in.
    Insert(usize, usize),
}

const PIECES: &[&str] = &[
    "none",
    "{}",
    "[]",
    "0",
    "-1",
    "100%",
    "101%",
    "5ms..1ms",
    "*caller",
    "&a",
    "<<: ",
    "- ",
    "? ",
    "!!str ",
    "\t",
    "\0",
    "°±",
    "api/99",
    "api -> db",
    "p(",
    ")",
    "1e9",
    "99999999999999999999",
    "0.0000000001ns",
    "histogram(times.hlog)",
    "trace(arrivals.csv)",
    "trace(none)",
    "exp(0)",
    "shadow: true",
    "\"",
    "'",
    "#",
    ": ",
    "---\n",
    "...",
    "| ",
    "\u{feff}",
];

fn change() -> impl Strategy<Value = Change> {
    let n = any::<usize>;
    prop_oneof![
        4 => n().prop_map(Change::DeleteLine),
        2 => n().prop_map(Change::RepeatLine),
        2 => (n(), n()).prop_map(|(a, b)| Change::SwapLines(a, b)),
        1 => (n(), 0usize..8).prop_map(|(a, b)| Change::Indent(a, b)),
        3 => (n(), n(), n()).prop_map(|(a, b, c)| Change::Splice(a, b, c)),
        2 => (n(), any::<u8>()).prop_map(|(a, b)| Change::Byte(a, b)),
        1 => (n(), 1usize..20).prop_map(|(a, b)| Change::Remove(a, b)),
        3 => (n(), 0..PIECES.len()).prop_map(|(a, b)| Change::Insert(a, b)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let mut lines: Vec<Vec<u8>> = bytes.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
    let count = lines.len();
    let length = bytes.len().max(1);
    match *change {
        Change::DeleteLine(at) => drop(lines.remove(at % count)),
        Change::RepeatLine(at) => lines.insert(at % count, lines[at % count].clone()),
        Change::SwapLines(a, b) => lines.swap(a % count, b % count),
        Change::Indent(at, by) => {
            let line = &mut lines[at % count];
            let rest = line.iter().position(|&b| b != b' ').unwrap_or(0);
            *line = [vec![b' '; by], line[rest..].to_vec()].concat();
        }
        Change::Splice(from, to, at) => {
            let piece = lines[from % count].clone();
            let words: Vec<&[u8]> = piece.split(|&b| b == b' ').collect();
            let word = words[at % words.len()];
            let line = &mut lines[to % count];
            let mut target: Vec<Vec<u8>> = line.split(|&b| b == b' ').map(<[u8]>::to_vec).collect();
            let place = at % target.len();
            target[place] = word.to_vec();
            *line = target.join(&b' ');
        }
        Change::Byte(at, byte) => {
            if let Some(old) = bytes.get_mut(at % length) {
                *old = byte;
            }
            return;
        }
        Change::Remove(at, many) => {
            let start = at % length;
            let end = (start + many).min(bytes.len());
            bytes.drain(start.min(end)..end);
            return;
        }
        Change::Insert(at, piece) => {
            let at = at % (bytes.len() + 1);
            bytes.splice(at..at, PIECES[piece].bytes());
            return;
        }
    }
    *bytes = lines.join(&b'\n');
}

/// Reads without a panic; problems have places; what is read can be explained and read again.
pub(crate) fn holds(bytes: &[u8]) -> Result<(), TestCaseError> {
    match parse_text(bytes) {
        Err(problems) => {
            prop_assert!(!problems.list.is_empty());
            let lines = bytes.split(|&b| b == b'\n').count() as u32 + 1;
            for problem in &problems.list {
                prop_assert!(!problem.message.is_empty());
                prop_assert!(problem.line <= lines, "{problem:?}");
                prop_assert!((problem.line == 0) == (problem.column == 0), "{problem:?}");
                prop_assert!(problem.length > 0, "{problem:?}");
            }
            prop_assert!(!problems.render(true).is_empty());
            prop_assert!(!problems.to_string().is_empty());
        }
        Ok(system) => {
            let explained = explain_text(bytes).expect("it was read");
            let again = parse_text(explained.as_bytes());
            let again =
                again.map_err(|problems| TestCaseError::fail(format!("{}\n{explained}", problems.render(false))))?;
            prop_assert_eq!(shape(&system), shape(&again));
            let cost = plimsoll_model::cost(&system);
            prop_assert!(cost.month_usd >= 0.0, "{cost:?}");
            let (mut grown, _) = plimsoll_model::grow(&system, 3.0);
            grown.scale_load(3.0);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_file_is_read_or_refused(which in any::<usize>(), changes in prop::collection::vec(change(), 1..6)) {
        let files = files();
        let mut bytes = files[which % files.len()].1.clone();
        for change in &changes {
            apply(&mut bytes, change);
        }
        holds(&bytes)?;
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        holds(&bytes)?;
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[ -~\n]{0,120}") {
        holds(text.as_bytes())?;
    }
}
