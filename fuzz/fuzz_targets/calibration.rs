//! Any bytes are a calibration of a system or problems with places; a calibration writes itself, and reads as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_model::{Source, parse, read_calibration};

const SYSTEM: &str = "system: s\nclients: { web: { rate: 1/s, calls: [ api GET / ] } }\nservices: { api: { endpoints: { GET /: [ { work: 1ms }, { query: db.read } ] } } }\nstores: { db: { kind: postgres, operations: { read: { kind: read, time: 1ms } } } }\n";

fuzz_target!(|bytes: &[u8]| {
    let mut system = parse(&Source::alone("fuzz.yaml", SYSTEM)).expect("it is a system");
    match read_calibration("fuzz.yaml", bytes, &system) {
        Err(problems) => assert!(!problems.list.is_empty() && !problems.render(true).is_empty()),
        Ok(calibration) => {
            let text = calibration.text(&system);
            let again = read_calibration("fuzz.yaml", text.as_bytes(), &system);
            let again = again.unwrap_or_else(|problems| panic!("{}\n{text}", problems.render(false)));
            assert_eq!(again.times.keys().collect::<Vec<_>>(), calibration.times.keys().collect::<Vec<_>>());
            calibration.apply(&mut system);
        }
    }
});
