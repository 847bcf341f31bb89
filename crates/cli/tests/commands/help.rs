use crate::Folder;

const COMMANDS: [&str; 14] = [
    "line",
    "sim",
    "run",
    "calibrate",
    "predict-table",
    "balancer-table",
    "explain",
    "schema",
    "compare",
    "postmortem",
    "example",
    "gateway",
    "export",
    "proxy",
];

#[test]
fn every_command_says_what_it_takes() {
    let folder = Folder::new();
    let all = folder.run(["--help"]).with(0);
    for name in COMMANDS {
        assert!(all.out.contains(&format!("\n  {name} ")), "{name} is not in\n{}", all.out);
        let help = folder.run([name, "--help"]).with(0);
        assert!(help.out.contains(&format!("Usage: plimsoll {name}")), "{}", help.out);
        assert_eq!(help.err, "");
        let short = folder.run([name, "-h"]).with(0);
        assert!(short.out.lines().count() <= help.out.lines().count());
    }
    let listed = all.out.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = listed.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(' ')).map(|(name, _)| name);
    let known = |name: &&str| !name.is_empty() && *name != "help" && !COMMANDS.contains(name);
    assert_eq!(names.filter(known).collect::<Vec<_>>(), [""; 0], "commands without a test");
}

#[test]
fn exit_codes_are_in_the_help() {
    let help = Folder::new().run(["--help"]).with(0).out;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        help.contains("0 held, 1 deviated, 2 bad file or argument, 4 invalid measurement, 5 interrupted"),
        "{help}"
    );
}

#[test]
fn the_version_is_that_of_the_package() {
    let version = Folder::new().run(["--version"]).with(0).out;
    assert_eq!(version, format!("plimsoll {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn no_command_is_a_mistake_that_shows_the_commands() {
    let ended = Folder::new().run([""; 0]).with(2);
    assert_eq!(ended.out, "");
    assert!(ended.err.contains("Usage: plimsoll <COMMAND>"), "{}", ended.err);
}

#[test]
fn arguments_out_of_range_are_refused() {
    let folder = Folder::small();
    for (arguments, why) in [
        (&["sail"][..], "unrecognized subcommand 'sail'"),
        (&["line", "small.yaml", "--sede", "1"], "unexpected argument '--sede'"),
        (&["line", "small.yaml", "--seed", "-1"], "'-1'"),
        (&["line", "small.yaml", "--threads", "0"], "0 is not in 1..=65535"),
        (&["line", "small.yaml", "--precision", "5"], "expected a percentage from 0.5% to 50%, such as 5%"),
        (&["line", "small.yaml", "--precision", "0.1%"], "expected a percentage from 0.5% to 50%, such as 5%"),
        (&["line", "small.yaml", "--grow", "10,0"], "expected a factor above zero, such as 10 or 1.5x"),
        (&["line", "small.yaml", "--grow", "NaN"], "expected a factor above zero, such as 10 or 1.5x"),
        (&["line", "small.yaml", "--require", "-1"], "'-1'"),
        (&["line", "small.yaml", "--horizon", "0"], "0 is not in 1..=10000"),
        (&["line", "small.yaml", "--replications", "1"], "1 is not in 2..=1000"),
        (&["sim", "small.yaml", "--replications", "0"], "0 is not in 1..=1000"),
        (&["sim", "small.yaml", "--color", "blue"], "possible values: auto, always, never"),
        (&["compare", "a.json"], "<B>"),
    ] {
        folder.run(arguments).refused(why);
    }
}
