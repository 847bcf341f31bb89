use std::path::Path;

use crate::Folder;

#[test]
fn each_example_is_the_file_of_the_repository() {
    let folder = Folder::new();
    let names = folder.run(["example"]).with(0).out;
    assert!(names.lines().any(|name| name == "notes"), "{names}");
    for name in names.lines() {
        let printed = folder.run(["example", name]).with(0).out;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../examples/{name}.yaml"));
        assert_eq!(printed, std::fs::read_to_string(&path).unwrap(), "{name}");
        folder.write("example.yaml", printed);
        folder.run(["explain", "example.yaml"]).with(0);
    }
}

#[test]
fn an_unknown_example_is_refused_with_the_known_ones() {
    Folder::new().run(["example", "atlantis"]).refused("expected one of: ");
}
