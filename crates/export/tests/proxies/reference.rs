//! docs/export.md says of every key what becomes of it, for every proxy.

use std::collections::BTreeSet;

use crate::root;

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join("docs").join(name)).expect("a page")
}

/// What stands below a heading.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let from = page.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    from.split("\n## ").next().expect("its text")
}

/// The keys of a table of docs/system-file.md.
fn keys(page: &str, heading: &str) -> Vec<String> {
    let rows = section(page, heading).lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().expect("a key").to_owned()).collect()
}

/// What the first column of a table names in backticks.
fn named(section: &str) -> BTreeSet<&str> {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    rows.flat_map(|row| row.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_key_of_a_gateway_is_in_every_table() {
    let (file, page) = (page("system-file.md"), page("export.md"));
    let elsewhere: BTreeSet<&str> = section(&page, "In none of them").split('`').skip(1).step_by(2).collect();
    // Tables within the gateway's, with the name that their keys have here.
    let within = [
        ("retry", "retry"),
        ("budget", "budget"),
        ("bulkhead", "bulkhead"),
        ("balance", "balance"),
        ("health", "health"),
        ("outliers", "outliers"),
        ("rate_limit", "rate_limit"),
        ("route_cache", "cache"),
        ("gateway_limits", "limits"),
        ("gateway_headers", "headers"),
        ("tls", "tls"),
        ("access_log", "access_log"),
        ("fallback_answer", "fallback_answer"),
    ];
    for proxy in ["nginx", "HAProxy", "Envoy"] {
        let named = named(section(&page, proxy));
        let mut missing = Vec::new();
        for key in keys(&file, "gateway").into_iter().chain(keys(&file, "route")) {
            let parts = named.iter().any(|name| name.starts_with(&format!("{key}.")));
            if !named.contains(key.as_str()) && !elsewhere.contains(key.as_str()) && !parts {
                missing.push(key);
            }
        }
        for (heading, prefix) in within {
            for key in keys(&file, heading).into_iter().filter(|key| key != "shadow") {
                let key = format!("{prefix}.{key}");
                if !named.contains(key.as_str()) {
                    missing.push(key);
                }
            }
        }
        assert!(missing.is_empty(), "{proxy}: docs/export.md does not say what becomes of {missing:?}");
    }
}
