//! The system file from outside: text in, systems and problems out.

mod calibration;
mod explain;
mod hostile;
mod mutations;
mod problems;
mod reading;
mod reference;
mod serving;

use std::path::{Path, PathBuf};

use plimsoll_model::system::System;
use plimsoll_model::{Problems, Source, explain, parse};

/// Parses a text that may name the files beside the tests.
fn parse_text(text: &[u8]) -> Result<System, Problems> {
    parse(&Source { name: "test.yaml", bytes: text, read: &read_data })
}

fn explain_text(text: &[u8]) -> Result<String, Problems> {
    explain(&Source { name: "test.yaml", bytes: text, read: &read_data })
}

fn read_data(file: &str) -> Result<Vec<u8>, String> {
    match file {
        "arrivals.csv" | "times.hlog" => std::fs::read(data().join(file)).map_err(|error| error.to_string()),
        _ => Err("no such file".to_owned()),
    }
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// The fixture with every key, and the examples of the repository.
fn files() -> Vec<(String, Vec<u8>)> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut paths = vec![data().join("everything.yaml")];
    paths.extend(std::fs::read_dir(examples).expect("the examples").map(|entry| entry.expect("an example").path()));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    paths.iter().map(|path| (path.display().to_string(), std::fs::read(path).expect("a file"))).collect()
}

/// A system without the lines and the hash that tell where it was written.
fn shape(system: &System) -> String {
    let text = format!("{system:#?}");
    let lines = text.lines().filter(|line| {
        let line = line.trim_start();
        !line.starts_with("line: ") && !line.starts_with("hash: ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A small file with `{}` marks replaced: a client, a service with one endpoint, a store.
fn small(replace: &[(&str, &str)]) -> String {
    let mut text = String::from(
        "system: small
clients:
  web:
    rate: 10/s
    calls: [ api GET / ]
services:
  api:
    endpoints:
      GET /:
        - query: db.read
stores:
  db:
    kind: postgres
    operations:
      read: 1ms
",
    );
    for (from, to) in replace {
        assert!(text.contains(from), "`{from}` is not in the small file");
        text = text.replacen(from, to, 1);
    }
    text
}
