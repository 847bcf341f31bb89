//! The examples do what their comments say, and without the policy that an experiment of `notes`
//! depends on, it fails.

mod controls;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Every example, in the order of their names.
fn examples() -> Vec<PathBuf> {
    yaml_in(&folder())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

fn yaml_in(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the examples")
        .map(|entry| entry.expect("an example").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

fn plimsoll(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_plimsoll")).args(arguments).output().expect("it runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), text)
}

#[test]
fn every_expectation_holds() {
    let files = examples();
    assert!(files.len() >= 5, "only {files:?}");
    let failures: Vec<String> = files
        .iter()
        .filter_map(|file| {
            let path = file.to_str().expect("UTF-8");
            let (code, text) = plimsoll(&["sim", path, "--replications", "10", "--seed", "1"]);
            (code != Some(0)).then(|| format!("{path}: exit code {code:?}\n{text}"))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_program_carries_every_example() {
    let (code, listed) = plimsoll(&["example"]);
    assert_eq!(code, Some(0), "{listed}");
    for file in examples() {
        let name = file.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let (code, text) = plimsoll(&["example", name]);
        assert_eq!(code, Some(0), "{name}: {text}");
        assert_eq!(text, std::fs::read_to_string(&file).expect("an example"), "{name}");
    }
}

#[test]
fn every_example_is_explained() {
    let docs = folder().join("../docs/examples.md");
    let docs = std::fs::read_to_string(docs).expect("docs/examples.md");
    for file in examples().into_iter().chain(yaml_in(&folder().join("controls"))) {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(docs.contains(name), "docs/examples.md says nothing of {name}");
    }
}

/// How the shop comes back past its mark, after an outage with retrying clients.
fn recovery_of(name: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("line.json");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let weather = "clients retrying after an outage";
    let (code, text) = plimsoll(&[
        "line",
        file.to_str().expect("UTF-8"),
        "--weather",
        weather,
        "--precision",
        "20%",
        "--replications",
        "4",
        "--json",
        json.to_str().expect("UTF-8"),
    ]);
    assert_eq!(code, Some(0), "{name}: {text}");
    let line: serde_json::Value =
        serde_json::from_slice(&std::fs::read(json).expect("the result")).expect("the result is JSON");
    line["marks"]
        .as_array()
        .and_then(|marks| marks.iter().find(|mark| mark["weather"]["name"] == weather))
        .and_then(|mark| mark["recovery"]["kind"].as_str())
        .unwrap_or_else(|| panic!("{name}: no recovery in {line}"))
        .to_owned()
}

#[test]
fn the_retry_storm_stays_and_its_repair_comes_back() {
    let storm = recovery_of("retry-storm.yaml");
    assert!(["at_load", "never"].contains(&storm.as_str()), "the storm: {storm}");
    assert_eq!(recovery_of("retry-storm-repaired.yaml"), "by_itself");
}
