//! The map is the land: what ARCHITECTURE.md and the other pages name is there, and the crates depend
//! on each other as the map says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The workspace's crates from the top down. A crate may use those below it, as listed.
const EDGES: &[(&str, &[&str])] = &[
    ("cli", &["gateway", "report", "export", "lab", "sim", "model"]),
    ("lab", &["export", "gateway", "middleware", "model", "policy"]),
    ("report", &["model"]),
    ("gateway", &["model", "policy"]),
    ("export", &["model"]),
    ("middleware", &["policy"]),
    ("sim", &["model", "policy"]),
    ("model", &["policy"]),
    ("policy", &[]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Pages that people read.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(String::from).into();
    for entry in std::fs::read_dir(root().join("docs")).expect("docs") {
        let name = entry.expect("a page").file_name().into_string().expect("UTF-8");
        if name.ends_with(".md") {
            pages.push(format!("docs/{name}"));
        }
    }
    pages.sort();
    pages
}

/// What stands in backticks, outside of blocks of code.
fn quoted(page: &str) -> Vec<String> {
    let mut block = false;
    let mut out = Vec::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            block = !block;
        } else if !block {
            out.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    out
}

#[test]
fn every_path_on_the_map_exists() {
    let paths: Vec<String> = quoted(&read("ARCHITECTURE.md")).into_iter().filter(|word| is_path(word)).collect();
    assert!(paths.len() >= 20, "the map names only {paths:?}");
    let missing: Vec<&String> = paths.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:?}");
}

fn is_path(word: &str) -> bool {
    let path = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    word.chars().all(path) && (word.contains('/') || [".rs", ".toml", ".md"].iter().any(|end| word.ends_with(end)))
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut links = 0;
    for page in pages() {
        let folder = root().join(&page).parent().expect("a folder").to_owned();
        for link in read(&page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with('#') {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = folder.join(file);
            assert!(target.exists(), "{page} links to {link}");
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(&target).expect("a page");
                assert!(headings(&text).iter().any(|heading| heading == anchor), "{page}: no heading for {link}");
            }
            links += 1;
        }
    }
    assert!(links > 20, "only {links} links");
}

/// Headings as links name them.
fn headings(page: &str) -> Vec<String> {
    let headings =
        page.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        })
        .collect()
}

/// What docs/load-line.md says of the search in numbers, and the constants that make it so.
#[test]
fn numbers_of_the_search_are_those_of_the_code() {
    let page = read("docs/load-line.md").split_whitespace().collect::<Vec<_>>().join(" ");
    for (file, code, words) in [
        ("weather.rs", "WARMUP: u64 = 3 * SECOND", "follows 3 s of warm-up"),
        ("weather.rs", "CALM: u64 = 20 * SECOND", "nothing, for 20 s"),
        ("weather.rs", "AT: u64 = SECOND", "each fault starts 1 s into the measured part"),
        ("weather.rs", "LASTS: u64 = 16 * SECOND", "everything in the first zone is killed for 16 s"),
        ("weather.rs", "OUTAGE: u64 = 10 * SECOND", "the first service is paused for 10 s"),
        ("weather.rs", "GRACE: u64 = 10 * SECOND", "the system has 10 s to come back"),
        ("weather.rs", "GRACE: u64 = 10 * SECOND", "from 10 s after the last fault's end (the grace)"),
        ("weather.rs", "AFTER: u64 = 5 * SECOND", "and is watched for 5 s more"),
        ("search.rs", "STAGES: [u32; 3] = [1, 2, 4]", "in one replication, in two if"),
        ("search.rs", "STAGES: [u32; 3] = [1, 2, 4]", "and in four if it still does"),
        ("search.rs", "CALM_STAGES: [u32; 2] = [2, 4]", "in calm weather in two at once, then four"),
        ("search.rs", ".clamp(0.2, step)", "a fifth of the load at least"),
        ("quiet.rs", "PARTS: [f64; 2] = [0.25, 0.75]", "the first quarter of it is run apart"),
        ("search.rs", "LEAST: u32 = 3", "at least 3, at most `--replications`"),
        ("mod.rs", "weather_requests: 5e5", "a budget of half a million requests"),
        ("mod.rs", "quiet_requests: 2e6", "at most two million requests"),
        ("quiet.rs", "STRETCH: u64 = 600_000_000_000", "in stretches of ten minutes at most"),
        ("quiet.rs", "lowered == 8", "up to eight times"),
        ("recovery.rs", "BELOW_CALM: f64 = 0.97", "carries with 3% to spare"),
        ("recovery.rs", "VULNERABLE: f64 = 0.6", "at 60% of the calm mark"),
        ("recovery.rs", "PATIENCE: u64 = 5_000_000_000", "lowered, 5 s after the fault's end"),
    ] {
        let source = read(&format!("crates/sim/src/line/{file}"));
        assert!(source.contains(code), "{file} has no `{code}` any more: docs/load-line.md says \"{words}\"");
        assert!(page.contains(words), "docs/load-line.md does not say \"{words}\": {file} has `{code}`");
    }
}

/// Options and commands that pages name are there.
#[test]
fn options_on_the_pages_are_those_of_the_program() {
    let help = |arguments: &[&str]| {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_plimsoll")).args(arguments).output().expect("it runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let commands = ["line", "sim", "run", "explain", "schema", "compare", "example", "gateway", "export", "proxy"];
    let helps: BTreeMap<&str, String> = commands.iter().map(|name| (*name, help(&[name, "--help"]))).collect();
    let mut seen = 0;
    for page in pages() {
        for line in
            read(&page).lines().flat_map(|line| line.split("plimsoll ").skip(1).map(str::to_owned).collect::<Vec<_>>())
        {
            let line = line.split(['`', '|', ')', '#']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(help) = words.next().and_then(|command| helps.get(command)) else { continue };
            for option in words.filter(|word| word.starts_with("--")) {
                let option = option.split(['=', ',', '.', ':', ';']).next().unwrap_or_default();
                assert!(help.contains(option), "{page}: `plimsoll {line}` has no {option}");
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "only {seen} options");
}

#[test]
fn crates_depend_downwards_only() {
    let mut crates: Vec<String> = std::fs::read_dir(root().join("crates"))
        .expect("crates")
        .map(|entry| entry.expect("a crate").file_name().into_string().expect("UTF-8"))
        .collect();
    crates.sort();
    let mut known: Vec<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    assert_eq!(crates, known, "a crate has come or gone: change EDGES, and ARCHITECTURE.md with it");
    for (name, below) in EDGES {
        let mut found = dependencies(name);
        found.sort();
        let mut expected: Vec<String> = below.iter().map(|name| format!("plimsoll-{name}")).collect();
        expected.sort();
        assert_eq!(found, expected, "what crates/{name} uses");
    }
}

/// The workspace's crates that a crate's manifest names, in any section.
fn dependencies(name: &str) -> Vec<String> {
    let manifest = read(&format!("crates/{name}/Cargo.toml"));
    let names = manifest.lines().filter(|line| !line.trim_start().starts_with("name")).filter_map(|line| {
        let key = line.trim().split(['=', '.', ' ', ']']).next()?;
        key.starts_with("plimsoll-").then(|| key.to_owned())
    });
    names.collect()
}

/// `policy` stays what everything else can stand on: no serialisation, no asynchrony, nothing but
/// portable mathematics.
#[test]
fn the_lowest_crate_needs_only_mathematics() {
    let manifest = read("crates/policy/Cargo.toml");
    let section = manifest.split("[dependencies]").nth(1).expect("dependencies").split("\n[").next().unwrap();
    let names: Vec<&str> =
        section.lines().filter_map(|line| line.split(['=', '.', ' ']).next()).filter(|name| !name.is_empty()).collect();
    assert_eq!(names, ["libm"]);
}

/// Crates that wait: for sockets, and for those who call a service.
const WAITING: [&str; 3] = ["gateway", "middleware", "lab"];

/// What is pure stays so.
#[test]
fn only_what_waits_has_an_asynchronous_runtime() {
    for (name, _) in EDGES.iter().filter(|(name, _)| !WAITING.contains(name)) {
        let manifest = read(&format!("crates/{name}/Cargo.toml"));
        // Tests of the gateway's process may wait as clients do.
        let shipped = manifest.split("\n[dev-dependencies]").next().unwrap_or_default();
        assert!(!shipped.contains("tokio"), "crates/{name} uses tokio");
    }
}

/// The gateway's modules from the bottom up: each uses those before it only.
const GATEWAY: [&str; 19] = [
    "clock",
    "random",
    "figures",
    "http1",
    "signals",
    "access_log",
    "net",
    "dns",
    "redis",
    "plan",
    "upstream",
    "answers",
    "inbound",
    "core",
    "exchange",
    "front",
    "control",
    "process",
    "lib",
];

#[test]
fn modules_of_the_gateway_form_no_circle() {
    let source = root().join("crates/gateway/src");
    let mut found: Vec<String> = std::fs::read_dir(&source)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    found.sort();
    let mut known = GATEWAY.map(str::to_owned).to_vec();
    known.sort();
    assert_eq!(found, known, "a module has come or gone: it has a place in GATEWAY");
    let mut uses = 0;
    for (place, module) in GATEWAY.iter().enumerate() {
        for (name, text) in sources(&source, module) {
            assert!(!text.contains("crate::{"), "{name}: one `use` a module, so that this test sees it");
            for used in text.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let Some(below) = GATEWAY.iter().position(|module| *module == used) else { continue };
                assert!(below <= place, "{name} uses `{used}`, which stands above it");
                uses += usize::from(below < place);
            }
        }
    }
    assert!(uses > 50, "only {uses} uses");
}

/// A module's files: its folder's, or its own.
fn sources(folder: &Path, module: &str) -> Vec<(String, String)> {
    let mut paths = vec![folder.join(module), folder.join(format!("{module}.rs"))];
    let mut out = Vec::new();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.exists() {
            out.push((path.display().to_string(), std::fs::read_to_string(path).expect("a file")));
        }
    }
    out
}

/// Everything in them that asks what time it is asks the crate's one clock.
#[test]
fn only_one_file_of_a_crate_reads_clocks() {
    for name in WAITING {
        let mut folders = vec![root().join(format!("crates/{name}/src"))];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if !path.ends_with("src/clock.rs") {
                    files += 1;
                    let text = std::fs::read_to_string(&path).expect("a file");
                    for clock in ["Instant::now", "SystemTime::now", "thread::sleep"] {
                        assert!(!text.contains(clock), "{} has {clock}", path.display());
                    }
                }
            }
        }
        assert!(files > 5, "{name}");
    }
}

/// Whoever takes the middleware into a service gets no server, client, TLS or file format with it.
#[test]
fn the_middleware_brings_little_along() {
    let manifest = read("crates/middleware/Cargo.toml");
    let section = manifest.split("\n[dependencies]").nth(1).expect("dependencies").split("\n[").next().unwrap();
    let names: Vec<&str> = section
        .lines()
        .filter_map(|line| line.split(['=', '.', ' ']).next())
        .filter(|name| !name.is_empty() && *name != "#")
        .collect();
    assert!(section.contains("features = [\"sync\", \"time\"]"), "tokio's sockets are not for everybody");
    let expected =
        ["bytes", "http", "http-body", "pin-project-lite", "plimsoll-policy", "tokio", "tower-layer", "tower-service"];
    assert_eq!(names, expected);
}
