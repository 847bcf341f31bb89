//! What `examples/notes.yaml` becomes, to be read.

use expect_test::expect_file;
use plimsoll_export::{Site, envoy, find, haproxy, nginx};

use crate::{Export, root, system};

fn notes(export: Export) -> String {
    let text = std::fs::read_to_string(root().join("examples/notes.yaml")).expect("the example");
    let system = system("notes.yaml", &text);
    export(&system, find(&system, None).unwrap(), &Site::default()).unwrap()
}

#[test]
fn notes_for_nginx() {
    expect_file!["notes-nginx.conf"].assert_eq(&notes(nginx));
}

#[test]
fn notes_for_haproxy() {
    expect_file!["notes-haproxy.cfg"].assert_eq(&notes(haproxy));
}

#[test]
fn notes_for_envoy() {
    expect_file!["notes-envoy.yaml"].assert_eq(&notes(envoy));
}
