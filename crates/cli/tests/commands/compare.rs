use crate::{Folder, QUICK};

fn results() -> Folder {
    let folder = Folder::small();
    folder.run(["sim", "small.yaml", "steady", "--json", "steady.json"]).with(0);
    folder.run(["sim", "small.yaml", "overload", "--json", "overload.json"]).with(1);
    let line = ["line", "small.yaml", "--weather", "calm", "--json", "line.json"];
    folder.run(line.iter().chain(&QUICK)).with(0);
    folder
}

#[test]
fn worse_is_1_and_not_worse_is_0() {
    let folder = results();
    folder.run(["compare", "steady.json", "overload.json"]).with(1);
    let same = folder.run(["compare", "steady.json", "steady.json"]).with(0);
    assert!(same.out.contains("0 better, 0 worse, 0 changed"), "{}", same.out);
    folder.run(["compare", "line.json", "line.json"]).with(0);
}

#[test]
fn the_comparison_is_written_as_json() {
    let folder = results();
    folder.run(["compare", "steady.json", "overload.json", "--json", "comparison.json"]).with(1);
    assert!(folder.json("comparison.json").is_object());
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let folder = results();
    folder.run(["compare", "steady.json", "line.json"]).refused("a run and a load line have nothing to compare");
    folder.run(["compare", "line.json", "steady.json"]).refused("a run and a load line have nothing to compare");

    let newer = folder.read("steady.json").replacen("\"format\": 1", "\"format\": 999", 1);
    folder.write("newer", newer);
    let cut = folder.read("steady.json");
    folder.write("cut", &cut[..cut.len() / 2]);
    folder.write("empty", "");
    folder.write("object", "{}");
    folder.write("binary", b"\x7fELF\x02\x01\xff\0");
    folder.write("deep", "[".repeat(1 << 20));
    folder.write("marks", r#"{ "format": 1, "marks": 3 }"#);
    std::fs::create_dir(folder.path("folder")).unwrap();
    for (name, why) in [
        ("newer", "999"),
        ("cut", "--json"),
        ("empty", "--json"),
        ("object", "format"),
        ("binary", "cannot be read"),
        ("deep", "--json"),
        ("marks", "load line"),
        ("small.yaml", "--json"),
        ("missing", "cannot be read"),
        ("folder", "cannot be read"),
    ] {
        folder.run(["compare", name, "steady.json"]).refused(why);
        folder.run(["compare", "steady.json", name]).refused(&format!("{name}: "));
    }
}

/// A reason is given once, not once a layer that passed it on.
#[test]
fn errors_do_not_repeat_themselves() {
    let folder = results();
    folder.write("words", "hello");
    let error = folder.run(["compare", "words", "steady.json"]).with(2).err;
    assert_eq!(error.matches("at line 1 column 1").count(), 1, "{error}");
}
