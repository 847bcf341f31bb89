//! The README's tour: its commands are run as they stand there, against an instance at the port that it names.

use std::process::Command;

use super::world::{until, with};

#[test]
fn the_tour_of_the_readme_works() {
    with(1, |world| {
        let notes = world.start(&[]);
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("a README");
        let tour = readme.split("\n## A tour\n").nth(1).expect("a tour").split("\n## ").next().expect("its end");
        let blocks: Vec<&str> = tour.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(blocks.len() >= 5, "{}", blocks.len());
        let folder = tempfile::tempdir().expect("a folder");
        for block in blocks {
            let script = block.replace("localhost:3000", &notes.address.to_string());
            // A line of comment after a command says what its output has.
            let mut command = String::new();
            for line in script.lines() {
                let Some(expected) = line.strip_prefix("# => ") else {
                    command.push_str(line);
                    command.push('\n');
                    continue;
                };
                let mut said = String::new();
                // A replica may be a moment behind.
                until(&format!("{command}says {expected}"), || {
                    let mut shell = Command::new("bash");
                    let shell = shell.args(["-euo", "pipefail", "-c", &command]).current_dir(&folder);
                    let output = shell.output().expect("a shell");
                    said = String::from_utf8_lossy(&output.stdout).into_owned();
                    let words = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.success(), "{command}{said}{words}");
                    said.contains(expected)
                });
                command.clear();
            }
            assert_eq!(command.trim(), "", "what does it say?");
        }
    });
}
