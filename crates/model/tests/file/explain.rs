use crate::{explain_text, files, parse_text, shape};

#[test]
fn an_explained_file_reads_as_the_same_system() {
    for (name, bytes) in files() {
        let system = parse_text(&bytes).unwrap_or_else(|problems| panic!("{}: {}", name, problems.render(false)));
        let explained = explain_text(&bytes).unwrap();
        let again = parse_text(explained.as_bytes())
            .unwrap_or_else(|problems| panic!("{name} explained: {}", problems.render(false)));
        assert_eq!(shape(&system), shape(&again), "{name}");
        // Explaining is a fixed point but for the origins.
        let values =
            |text: &str| text.lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(values(&explained), values(&explain_text(explained.as_bytes()).unwrap()), "{name}");
    }
}

#[test]
fn says_where_each_value_comes_from() {
    let explained =
        explain_text(crate::small(&[("    rate: 10/s", "    rate: 10/s\n    timeout: 1s")]).as_bytes()).unwrap();
    for line in [
        "    rate: 10/s  # from the file, line 4",
        "    timeout: 1s  # from the file, line 5",
        "    arrivals: poisson  # default: independent users",
        "    # think: no closed loop",
        "    concurrency: 9  # default: 2 × cores + 1 (the PostgreSQL wiki's pool size, with one disk)",
        "      db:  # default: it calls this, and the file gives no policies",
        "        # balance: plays a part only in calls to services",
    ] {
        assert!(explained.lines().any(|other| other == line), "no line\n{line}\nin\n{explained}");
    }
}

#[test]
fn keeps_text_that_yaml_would_read_otherwise() {
    let text = crate::small(&[
        ("system: small", "system: \"a: b # c \\u0001 \\\" \\\\\""),
        ("GET /:", "\"- odd #1\":"),
        ("[ api GET / ]", "[ \"api - odd #1\" ]"),
    ]);
    let system = parse_text(text.as_bytes()).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    let again = parse_text(explain_text(text.as_bytes()).unwrap().as_bytes());
    let again = again.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    assert_eq!(system.name, "a: b # c \u{1} \" \\");
    assert_eq!(shape(&system), shape(&again));
}
