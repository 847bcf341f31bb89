//! Every dependency's licence and source, held to the lists of deny.toml. (Known vulnerabilities
//! take a database from the network: `cargo deny check advisories` asks it.)

use std::path::Path;
use std::process::Command;

/// The workspaces of this repository that keep a lock file.
const WORKSPACES: [&str; 3] = [".", "benches/peers", "benches/load"];

#[test]
fn every_dependency_may_be_used() {
    let allowed = list("allow");
    for package in packages() {
        let name = format!("{} {}", package["name"], package["version"]);
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{name} states no licence"));
        assert!(permits(licence, &allowed), "{name}: {licence} is not among {allowed:?}");
    }
}

/// What benchmarks compare with is not shipped, so that its licences are its own affair; where it
/// comes from is ours.
#[test]
fn everything_comes_from_the_registry() {
    for workspace in WORKSPACES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(workspace).join("Cargo.lock");
        let lock = std::fs::read_to_string(path).expect("a lock file");
        let packages: Vec<&str> = lock.split("[[package]]").skip(1).collect();
        assert!(packages.len() > 10, "{workspace}");
        for package in packages {
            let value = |key: &str| package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            let name = value("name").expect("a name").trim_matches('"');
            let own = name == "plimsoll" || name.starts_with("plimsoll-");
            match value("source") {
                None => assert!(own, "{workspace}: {name} comes from a path"),
                Some(source) => assert!(source.starts_with("\"registry+") && !own, "{workspace}: {name}: {source}"),
            }
        }
    }
}

#[test]
fn nothing_is_there_twice_or_banned() {
    let packages = packages();
    let skipped = list("skip");
    let is_skipped = |package: &serde_json::Value| {
        let version = package["version"].as_str().unwrap();
        let name = package["name"].as_str().unwrap();
        skipped.iter().any(|skip| skip.split_once('@').is_some_and(|(n, v)| n == name && version.starts_with(v)))
    };
    assert!(skipped.iter().all(|skip| skip.contains('@')), "skip one version, not all: {skipped:?}");
    let mut names: Vec<&str> =
        packages.iter().filter(|p| !is_skipped(p)).map(|package| package["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    let twice: Vec<&str> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    assert!(twice.is_empty(), "in more than one version: {twice:?}");
    let banned = list("deny");
    assert!(banned.iter().any(|name| name == "async-std"));
    let found: Vec<&&str> = names.iter().filter(|name| banned.iter().any(|banned| banned == *name)).collect();
    assert!(found.is_empty(), "banned in deny.toml: {found:?}");
}

/// What `cargo metadata` knows of the product's packages, for all platforms.
fn packages() -> Vec<serde_json::Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
        .current_dir(root)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].take();
    let packages = packages.as_array().expect("a list").clone();
    assert!(packages.len() > 10);
    packages
}

/// A list of strings in deny.toml.
fn list(key: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deny.toml");
    let text = std::fs::read_to_string(path).expect("deny.toml");
    let lines = text.lines().skip_while(|line| *line != format!("{key} = [")).skip(1).take_while(|line| *line != "]");
    let items: Vec<String> =
        lines.filter_map(|line| line.trim().strip_prefix('"')?.split('"').next().map(str::to_owned)).collect();
    assert!(!items.is_empty(), "deny.toml has no list `{key}`");
    items
}

/// Whether an SPDX expression leaves a choice that only asks for allowed licences. `OR` binds looser
/// than `AND`; the `/` of old manifests is an `OR`.
fn permits(expression: &str, allowed: &[String]) -> bool {
    let expression = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = expression.split_whitespace().peekable();
    let permitted = any(&mut words, allowed);
    permitted && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut permitted = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        permitted |= all(words, allowed);
    }
    permitted
}

fn all(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut permitted = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        permitted &= one(words, allowed);
    }
    permitted
}

fn one(words: &mut Words<'_>, allowed: &[String]) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let permitted = any(words, allowed);
        return words.next_if_eq(&")").is_some() && permitted;
    }
    let mut name = words.next().unwrap_or_default().to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        name = format!("{name} WITH {}", words.next().unwrap_or_default());
    }
    allowed.contains(&name)
}

#[test]
fn expressions_are_understood() {
    let allowed = ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"].map(String::from);
    for (expression, permitted) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT/GPL-3.0", true),
        ("GPL-3.0 OR MIT AND Zlib", true),
        ("GPL-3.0 AND MIT OR LGPL-2.1", false),
        ("(GPL-3.0 OR MIT) AND Zlib", true),
        ("(MIT OR Zlib) AND GPL-3.0", false),
        ("Apache-2.0", false),
        ("Apache-2.0 WITH LLVM-exception OR Apache-2.0", true),
        ("MIT MIT", false),
        ("(MIT", false),
        ("", false),
    ] {
        assert_eq!(permits(expression, &allowed), permitted, "{expression}");
    }
}
