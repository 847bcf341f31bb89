//! Files that want more than their due.

use crate::parse_text;

/// The first problem's place and message.
fn first(bytes: &[u8]) -> String {
    let problems = parse_text(bytes).unwrap_err();
    let problem = &problems.list[0];
    format!("{}:{}: {}", problem.line, problem.column, problem.message)
}

#[test]
fn what_is_no_text_is_refused_in_one_sentence() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "0:0: the file is empty; the least it needs is `system:` and `clients:`"),
        (b"\n# only a comment\n", "0:0: the file is empty; the least it needs is `system:` and `clients:`"),
        (b"system: a\0b", "1:10: byte 0x00 has no place in a text file: is this binary data?"),
        (b"\x7fELF\x02\x01", "1:1: byte 0x7f has no place in a text file: is this binary data?"),
        (b"a: 1\nb: \xff\xfe\n", "2:4: the file is not UTF-8 from here on"),
        ("a: \u{e9}\u{e9}".as_bytes(), "1:1: system_file has no key `a`"),
        (b"\xff\xfes\0y\0", "0:0: the file is UTF-16; save it as UTF-8"),
        (b"a: 1\n---\nb: 1\n", "2:1: a second document starts here; a system file is one document"),
        (b"system: x\nclients:\n\tweb:\n", "3:1: a tab in the indentation; YAML allows only spaces there"),
        (b"- a\n- b\n", "1:1: expected a mapping (system_file), found a list of 2"),
        (b"just words", "1:1: expected a mapping (system_file), found `just words`"),
        (b"a: &x [*x]", "1:8: an alias cannot stand within what it names"),
        (b"a: !secret x", "1:4: tags such as `!name` have no meaning here"),
        (b"{a: 1}: 2", "1:1: a key must be a plain word"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(first(bytes), *expected, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn a_byte_order_mark_is_no_problem() {
    let text = format!("\u{feff}{}", crate::small(&[]));
    parse_text(text.as_bytes()).unwrap();
}

#[test]
fn windows_line_ends_are_no_problem() {
    parse_text(crate::small(&[]).replace('\n', "\r\n").as_bytes()).unwrap();
}

#[test]
fn a_huge_file_is_refused_at_once() {
    let bytes = vec![b'a'; (16 << 20) + 1];
    assert_eq!(first(&bytes), "0:0: the file has 16777217 bytes; a system file has at most 16 MiB");
}

#[test]
fn aliases_do_not_multiply_without_end() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let item = format!("*a{}", level - 1);
        let items = vec![item; 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    let message = first(text.as_bytes());
    assert!(message.ends_with("with its aliases written out, the file has more than 250000 values"), "{message}");
}

#[test]
fn nesting_has_a_limit() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let text = format!("a: {}{}", open.repeat(50_000), close.repeat(50_000));
        let message = first(text.as_bytes());
        assert!(message.contains("nested") || message.contains("not YAML"), "{message}");
    }
    let deep: String = (0..50_000).map(|level| format!("{}a:\n", " ".repeat(level.min(300)))).collect();
    assert!(parse_text(deep.as_bytes()).is_err());
}

#[test]
fn a_long_line_is_shown_in_part() {
    let text = format!("system: {}\nclients: {}, oops: 1\n", "x".repeat(10), "{ a: ".repeat(90));
    let rendered = parse_text(text.as_bytes()).unwrap_err().render(false);
    assert!(rendered.lines().all(|line| line.chars().count() < 260), "{rendered}");
}

#[test]
fn many_problems_are_counted() {
    let services: String = (0..200).map(|n| format!("  s{n}: {{ wrong: 1, endpoints: {{ GET /: [] }} }}\n")).collect();
    let text = format!("system: s\nclients: {{ c: {{ rate: 1/s, calls: [ s1 ] }} }}\nservices:\n{services}");
    let problems = parse_text(text.as_bytes()).unwrap_err();
    assert_eq!((problems.list.len(), problems.more), (50, 150));
    assert!(problems.render(false).ends_with("200 problems in test.yaml, of which 50 are shown\n"));
}

#[test]
fn long_chains_of_calls_have_a_limit() {
    let count = 5_000;
    let mut text = String::from("system: chain\nclients: { c: { rate: 1/s, calls: [ s0 ] } }\nservices:\n");
    for n in 0..count {
        let next = if n + 1 < count { format!("[ {{ call: s{} }} ]", n + 1) } else { "[]".to_owned() };
        text.push_str(&format!("  s{n}: {{ endpoints: {{ GET /: {next} }} }}\n"));
    }
    let message = first(text.as_bytes());
    assert!(message.ends_with("a request passes more than 200 endpoints, one behind the other"), "{message}");
    let gateways: String = (0..count).map(|n| format!("  g{n}: {{ kind: gateway, upstream: g{} }}\n", n + 1)).collect();
    let text = format!("system: chain\nclients: {{ c: {{ rate: 1/s, calls: [ g0 ] }} }}\nservices:\n{gateways}");
    let problems = parse_text(text.as_bytes()).unwrap_err();
    assert!(problems.list.iter().any(|problem| problem.message.contains("gateways stand one behind the other")));
}
