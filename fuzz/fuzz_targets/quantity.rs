//! Any text in the place of a quantity is read or refused, and never with a problem elsewhere.
//!
//! `cargo +nightly fuzz run quantity`

#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_model::{Source, parse};

/// Keys of a client, a service, a store and an experiment, one for each kind of quantity.
const PLACES: &[&str] = &[
    "RATE", "THINK", "USERS", "TIMEOUT", "BACKOFF", "SHARE", "FACTOR", "WORK", "TTL", "ROUNDS", "QUOTA", "BYTES",
    "KEYS", "LAG", "PRICE", "LOAD", "BY", "TO", "SKEW", "INDICATOR", "EXPECT", "TARGET",
];

const FILE: &str = include_str!("quantity.yaml");

fuzz_target!(|input: (u8, &str)| {
    let (place, text) = input;
    let place = PLACES[usize::from(place) % PLACES.len()];
    let mut file = String::new();
    for line in FILE.lines() {
        // Each line ends in its place's name and the value that it has otherwise.
        match line.rsplit_once(" # ") {
            Some((start, mark)) if mark == place => {
                let (key, _) = start.rsplit_once("= ").expect("a marked value");
                let quoted: String = text.chars().flat_map(char::escape_unicode).collect();
                let quoted = quoted.replace("\\u{", "\\U{");
                let padded: String = quoted
                    .split("\\U{")
                    .filter(|code| !code.is_empty())
                    .map(|code| format!("\\U{:0>8}", code.trim_end_matches('}')))
                    .collect();
                file.push_str(&format!("{key}\"{padded}\"\n"));
            }
            Some((start, _)) => file.push_str(&format!("{}\n", start.replace("= ", ""))),
            None => file.push_str(&format!("{line}\n")),
        }
    }
    if let Err(problems) = parse(&Source::alone("quantity.yaml", &file)) {
        assert!(problems.list.iter().all(|problem| problem.line > 0), "{problems}");
    }
});
