//! Files that are wrong, each in a way of its own: one clear error, exit code 2, no panic.

use std::fs::File;

use crate::{Folder, SMALL};

/// The small system with one thing changed.
fn with(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "`{from}` is not in the small system");
    SMALL.replacen(from, to, 1)
}

#[test]
fn a_mistake_in_the_text_is_shown_where_it_is() {
    let folder = Folder::new();
    for (text, place, why) in [
        (with("workers", "wrokers"), ":10:5", "did you mean `workers`?"),
        (with("20ms", "20"), ":14:17", "the unit is missing"),
        (with("api GET /", "apy GET /"), ":5:14", "there is no service `apy`"),
        (with("api GET /", "api GET /x"), ":5:18", "did you mean `GET /`?"),
        (with("20/s", "0/s"), ":4:11", "it must be above 0"),
        (with("1s", "-1s"), ":6:14", "it must not be negative"),
        (with("instances: 2", "instances: 0"), ":9:16", "`0`"),
        (with("instances: 2", "instances: 2.5"), ":9:16", "`2.5`"),
        (with("99%", "100%"), ":16:55", "below 100%"),
        (with("work: 20ms", "work: 20ms: 3"), ":14:", "YAML"),
        (with("workers: 2", "workers: 2\n    workers: 3"), ":11:5", "workers"),
        (with("errors < 1%", "erors < 1%"), ":20:15", "`erors"),
    ] {
        folder.write("wrong.yaml", text);
        folder.run(["line", "wrong.yaml"]).refused(&format!("wrong.yaml{place}"));
        folder.run(["sim", "wrong.yaml"]).refused(why);
        folder.run(["explain", "wrong.yaml"]).refused("1 problem in wrong.yaml");
    }
}

#[test]
fn calls_in_a_circle_are_refused() {
    let folder = Folder::new();
    folder.write(
        "circle.yaml",
        "system: circle
clients: { web: { rate: 1/s, calls: [ a GET / ] } }
services:
  a: { endpoints: { GET /: [ { call: b GET / } ] } }
  b: { endpoints: { GET /: [ { call: a GET / } ] } }
",
    );
    folder.run(["line", "circle.yaml"]).refused("a GET / -> b GET / -> a GET /");
}

#[test]
fn what_is_no_system_file_is_refused() {
    let folder = Folder::new();
    let program: Vec<u8> = b"\x7fELF\x02\x01\x01\0".iter().copied().cycle().take(4096).collect();
    for (name, bytes, why) in [
        ("empty", b"".as_slice(), "the file is empty"),
        ("binary", &program, "is this binary data?"),
        ("latin1", b"system: caf\xe9\n", "not UTF-8"),
        ("words", b"once upon a time", "expected a mapping"),
        ("braces", "[".repeat(100_000).as_bytes(), "braces"),
    ] {
        folder.write(name, bytes);
        for command in ["line", "sim", "explain"] {
            folder.run([command, name]).refused(why);
        }
    }
}

/// What is wrong is said in one go, each with its place.
#[test]
fn several_mistakes_are_shown_at_once() {
    let folder = Folder::new();
    folder.write("wrong.yaml", with("instances", "instance").replacen("20ms", "20", 1));
    let ended = folder.run(["line", "wrong.yaml"]).with(2);
    assert_eq!(ended.err.matches("error: ").count(), 2, "{}", ended.err);
    assert!(ended.err.ends_with("2 problems in wrong.yaml\n"), "{}", ended.err);
}

/// Nothing of a terminal's own language gets through from a file to the terminal.
#[test]
fn escape_sequences_in_a_file_stay_in_the_file() {
    let folder = Folder::new();
    folder.write("escape.yaml", "system: \x1b[31mred\x07\n");
    let ended = folder.run(["line", "escape.yaml"]);
    assert!(!ended.err.contains(['\x1b', '\x07']), "{:?}", ended.err);
    ended.refused("escape.yaml:1:9");
}

#[test]
fn a_path_that_is_no_file_is_refused() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("folder")).unwrap();
    for command in ["line", "sim", "explain"] {
        folder.run([command, "missing.yaml"]).refused("missing.yaml: cannot be read");
        folder.run([command, "folder"]).refused("expected a system file, found a directory");
        folder.run([command, ""]).refused("[FILE]");
    }
}

#[test]
fn a_huge_file_is_refused_without_reading_all_of_it() {
    let folder = Folder::new();
    // Sparse: it takes no room on the disk.
    File::create(folder.path("huge.yaml")).unwrap().set_len(100 << 20).unwrap();
    folder.run(["line", "huge.yaml"]).refused("a system file has at most 16 MiB");
}

#[cfg(unix)]
#[test]
fn a_path_that_is_not_unicode_is_a_path() {
    use std::os::unix::ffi::OsStringExt;

    let folder = Folder::new();
    let name = std::ffi::OsString::from_vec(b"sm\xffll.yaml".to_vec());
    let path = folder.0.path().join(&name);
    if std::fs::write(path, SMALL).is_err() {
        return; // Some file systems allow no such name.
    }
    folder.run([std::ffi::OsString::from("explain"), name]).with(0);
}

#[test]
fn files_that_a_system_names_are_looked_for_beside_it() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("sub")).unwrap();
    let traced = with("rate: 20/s", "arrivals: trace(arrivals.csv)");
    folder.write("sub/traced.yaml", traced);
    folder.run(["sim", "sub/traced.yaml", "steady"]).refused("arrivals.csv");
    let times: String = (0..200).map(|i| format!("{}\n", f64::from(i) / 10.0)).collect();
    folder.write("sub/arrivals.csv", times);
    folder.run(["sim", "sub/traced.yaml", "steady"]).with(0);
    folder.write("sub/arrivals.csv", "0.1\nsoon\n");
    folder.run(["sim", "sub/traced.yaml", "steady"]).refused("soon");
}
