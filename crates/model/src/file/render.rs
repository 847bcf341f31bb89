//! Problems as text for a terminal: the message, the source line and a mark below it.

use super::problem::{Problem, Problems};

const RED: &str = "\x1b[1;31m";
const BLUE: &str = "\x1b[1;34m";
const CYAN: &str = "\x1b[1;36m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

impl Problems {
    /// All problems with their source lines, and how many there are; in colour for a terminal
    /// that shows it.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for problem in &self.list {
            one(&self.file, problem, colour, &mut out);
            out.push('\n');
        }
        let count = self.list.len() + self.more;
        let shown = if self.more > 0 { format!(", of which {} are shown", self.list.len()) } else { String::new() };
        let noun = if count == 1 { "problem" } else { "problems" };
        out.push_str(&format!("{count} {noun} in {}{shown}\n", self.file));
        out
    }
}

fn one(file: &str, problem: &Problem, colour: bool, out: &mut String) {
    let paint = |style: &str, text: &str| if colour { format!("{style}{text}{PLAIN}") } else { text.to_owned() };
    out.push_str(&format!("{}{}\n", paint(RED, "error"), paint(BOLD, &format!(": {}", problem.message))));
    let number = if problem.line == 0 { String::new() } else { problem.line.to_string() };
    let margin = " ".repeat(number.len());
    let place = if problem.line == 0 { file.to_owned() } else { format!("{file}:{}:{}", problem.line, problem.column) };
    out.push_str(&format!("{margin}{} {place}\n", paint(BLUE, "-->")));
    let bar = paint(BLUE, "|");
    if problem.line > 0 {
        let before = (problem.column as usize - 1).saturating_sub(problem.skipped as usize);
        let width = problem.source.chars().count();
        let marks = (problem.length as usize).min(width.saturating_sub(before)).max(1);
        // A wide source line would wrap the mark below it; what lies left of the window is dots.
        let dots = if problem.skipped > 0 { "…" } else { "" };
        let indent = " ".repeat(before + dots.chars().count());
        out.push_str(&format!("{margin} {bar}\n"));
        out.push_str(&format!("{} {bar} {dots}{}\n", paint(BLUE, &number), problem.source));
        out.push_str(&format!("{margin} {bar} {indent}{}\n", paint(RED, &"^".repeat(marks))));
    }
    let mut note = |name: &str, text: &str| {
        out.push_str(&format!("{margin} {} {}: {text}\n", paint(BLUE, "="), paint(CYAN, name)));
    };
    if !problem.path.is_empty() {
        note("at", &problem.path);
    }
    if let Some(help) = &problem.help {
        note("help", help);
    }
}
