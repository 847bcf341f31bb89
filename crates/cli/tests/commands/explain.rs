use crate::{Folder, SMALL};

#[test]
fn defaults_are_filled_in_and_say_where_they_come_from() {
    let folder = Folder::small();
    let explained = folder.run(["explain", "small.yaml"]).with(0).out;
    assert!(explained.contains("workers: 2"), "{explained}");
    assert!(explained.lines().count() > SMALL.lines().count());
    assert!(explained.contains('#'), "no sources:\n{explained}");
}

#[test]
fn without_a_file_it_is_the_example() {
    let folder = Folder::new();
    let explained = folder.run(["explain"]).with(0).out;
    assert!(explained.contains("system: notes"), "{explained}");
}

/// What is shown is what is run: figure by figure the same, with every default written out.
#[test]
fn an_explained_file_runs_as_the_file_does() {
    let folder = Folder::small();
    let explained = folder.run(["explain", "small.yaml"]).with(0).out;
    folder.write("explained.yaml", explained);
    folder.run(["sim", "small.yaml", "overload", "--json", "a.json"]).with(1);
    folder.run(["sim", "explained.yaml", "overload", "--json", "b.json"]).with(1);
    let (a, b) = (folder.json("a.json"), folder.json("b.json"));
    assert_ne!(a["system_hash"], b["system_hash"]);
    assert_eq!(a["subjects"], b["subjects"]);
}
