//! Prints the tests' made-up results, to be looked at: `cargo run -p plimsoll-report --example
//! fixture -- line|run|compare|svg|... [--color]`.

#[path = "../tests/fixture/mod.rs"]
mod fixture;

use plimsoll_report::{compare, terminal};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let style = terminal::Style { color: arguments.iter().any(|a| a == "--color"), ..Default::default() };
    let text = match arguments.first().map(String::as_str) {
        Some("run") => terminal::run(&fixture::missed(), style),
        Some("svg") => plimsoll_report::svg::ladder(&fixture::line(false)),
        Some("html") => plimsoll_report::html::line_on(&fixture::line(true), &fixture::topology()),
        Some("html-run") => plimsoll_report::html::run_on(&fixture::missed(), &fixture::topology()),
        Some("compare") => terminal::compare(&compare::runs(&fixture::met(), &fixture::missed()), style),
        Some("compare-lines") => {
            let mut other = fixture::line(false);
            other.marks[3].load *= 1.5;
            other.marks[3].low *= 1.5;
            other.marks[3].high *= 1.5;
            terminal::compare(&compare::lines(&fixture::line(false), &other), style)
        }
        _ => terminal::line(&fixture::line(false), style),
    };
    print!("{text}");
}
