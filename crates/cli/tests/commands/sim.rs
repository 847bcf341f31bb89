use crate::Folder;

#[test]
fn what_holds_is_0_and_what_does_not_is_1() {
    let folder = Folder::small();
    let steady = folder.run(["sim", "small.yaml", "steady"]).with(0);
    assert!(steady.out.contains("errors < 1%"), "{}", steady.out);
    let overload = folder.run(["sim", "small.yaml", "overload"]).with(1);
    assert!(overload.out.contains("missed"), "{}", overload.out);
    // One that failed is enough.
    folder.run(["sim", "small.yaml"]).with(1);
}

#[test]
fn experiments_are_listed() {
    let folder = Folder::small();
    assert_eq!(folder.run(["sim", "small.yaml", "--list"]).with(0).out, "steady\noverload\n");
}

#[test]
fn an_unknown_experiment_is_refused_with_the_known_ones() {
    let folder = Folder::small();
    folder.run(["sim", "small.yaml", "steady", "storm"]).refused("expected one of: steady, overload");
}

#[test]
fn a_file_without_experiments_says_what_to_do() {
    let folder = Folder::small();
    let text = folder.read("small.yaml");
    folder.write("bare.yaml", text.split("experiments:").next().unwrap());
    folder.run(["sim", "bare.yaml"]).refused("plimsoll line");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let folder = Folder::small();
    let run = |name: &str, more: &[&str]| {
        let names = [name.to_owned(), format!("{name}.html"), format!("{name}.hlog"), format!("{name}.xml")];
        let files = [["--json", &names[0]], ["--html", &names[1]], ["--hlog", &names[2]], ["--junit", &names[3]]];
        let arguments = ["sim", "small.yaml", "overload"].iter().chain(files.iter().flatten()).chain(more);
        let ended = folder.run(arguments).with(1);
        (ended.out, names.map(|name| folder.read(&name)))
    };
    let one = run("one", &["--threads", "1"]);
    assert_eq!(one, run("two", &["--threads", "2"]));
    assert_eq!(one, run("default", &[]));
    assert_eq!(one, run("seeded", &["--seed", "1"]));
    let other = run("other", &["--seed", "2"]);
    assert_ne!(one.1[0], other.1[0]);
}

/// Where ten replications don't settle it, more are run: as many on one thread as on three.
#[test]
fn doubtful_figures_take_as_many_replications_on_any_number_of_threads() {
    let folder = Folder::small();
    // A hundred requests a run: goodput varies by a tenth from one run to the next.
    folder.write("noisy.yaml", folder.read("small.yaml").replacen("20/s", "5/s", 1));
    let run = |threads: &str| {
        folder.run(["sim", "noisy.yaml", "steady", "--json", threads, "--threads", threads]).with(0);
        folder.json(threads)
    };
    let one = run("1");
    let replications = one["replications"].as_u64().unwrap();
    assert!((11..40).contains(&replications), "{replications} replications show nothing");
    assert!(one == run("2"), "two threads");
    assert!(one == run("3"), "three threads");
}

#[test]
fn each_of_several_experiments_has_files_of_its_own() {
    let folder = Folder::small();
    folder.run(["sim", "small.yaml", "--json", "r.json", "--html", "r.html", "--junit", "r.xml"]).with(1);
    for name in ["steady", "overload"] {
        assert_eq!(folder.json(&format!("r-{name}.json"))["experiment"], name);
        assert!(folder.read(&format!("r-{name}.html")).starts_with("<!"));
    }
    assert!(!folder.read("r-steady.xml").contains("<failure"));
    assert!(folder.read("r-overload.xml").contains("<failure"));
}

#[test]
fn more_replications_are_run_when_asked_for() {
    let folder = Folder::small();
    for wanted in [12, 60] {
        folder.run(["sim", "small.yaml", "steady", "--json", "r", "--replications", &wanted.to_string()]).with(0);
        assert!(folder.json("r")["replications"].as_u64().unwrap() >= wanted);
    }
}
