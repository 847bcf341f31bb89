//! Any bytes are a system or problems with places; a system can be explained, and reads as itself.
//!
//! `cargo +nightly fuzz run system_file -- -max_len=20000`, with `examples/` copied to
//! `fuzz/corpus/system_file/` as a start.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_model::{Source, cost, explain, grow, parse};

fuzz_target!(|bytes: &[u8]| {
    let read = |_: &str| Ok(b"0\n1\n2\n".to_vec());
    let source = Source { name: "fuzz.yaml", bytes, read: &read };
    match parse(&source) {
        Err(problems) => {
            assert!(!problems.list.is_empty());
            for problem in &problems.list {
                assert!((problem.line == 0) == (problem.column == 0) && problem.length > 0, "{problem:?}");
            }
            assert!(!problems.render(true).is_empty());
        }
        Ok(system) => {
            let explained = explain(&source).expect("it was read");
            let again = parse(&Source { bytes: explained.as_bytes(), ..source });
            let again = again.unwrap_or_else(|problems| panic!("{}\n{explained}", problems.render(false)));
            assert_eq!(shape(&system), shape(&again));
            cost(&system);
            grow(&system, 10.0);
        }
    }
});

/// A system without what tells where it was written.
fn shape(system: &plimsoll_model::system::System) -> String {
    let text = format!("{system:#?}");
    let kept = text.lines().filter(|line| !line.trim_start().starts_with("line: ") && !line.contains(" hash: "));
    kept.collect()
}
