//! What is wrong with a file: every problem at once, each with its place and what would be right.

use super::tree::{Node, Span};

/// Most problems that are kept; the rest is counted.
const PROBLEMS_MAX: usize = 50;
/// Widest part of a source line that is shown, characters.
const WIDTH_MAX: usize = 160;

/// One thing that is wrong with a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 where the file as a whole is meant.
    pub line: u32,
    /// Column in characters, from 1; 0 where the file as a whole is meant.
    pub column: u32,
    /// Length of the marked part in characters, at least 1.
    pub length: u32,
    /// Keys that lead to it: `services.api.workers`. Empty where the file is not YAML.
    pub path: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What is expected there.
    pub expected: Option<String>,
    /// What is there.
    pub found: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    /// The source line, or the part of it around the marked one.
    pub source: String,
    /// Characters that `source` leaves out on the left.
    pub skipped: u32,
}

impl Problem {
    /// Adds what to do about it.
    pub(crate) fn help(&mut self, help: String) -> &mut Self {
        self.help = Some(help);
        self
    }
}

/// Everything that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The file's name.
    pub file: String,
    /// The first problems, in the file's order; at least one.
    pub list: Vec<Problem>,
    /// How many more there are.
    pub more: usize,
}

impl std::fmt::Display for Problems {
    /// One line a problem: `notes.yaml:12:5: services.api.workers: ...`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{}:{}: ", self.file, problem.line, problem.column)?;
            if !problem.path.is_empty() {
                write!(f, "{}: ", problem.path)?;
            }
            f.write_str(&problem.message)?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Collects problems while a file is read.
#[derive(Debug, Default)]
pub(crate) struct Report {
    list: Vec<Problem>,
}

impl Report {
    /// A problem of the file as a whole.
    pub(crate) fn file(&mut self, message: String) -> &mut Problem {
        self.at(Span::NOWHERE, message)
    }

    /// A problem at a place.
    pub(crate) fn at(&mut self, at: Span, message: String) -> &mut Problem {
        self.list.push(Problem {
            line: at.line,
            column: at.column,
            length: at.length.max(1),
            message,
            ..Problem::default()
        });
        self.list.last_mut().expect("just pushed")
    }

    /// A value that is not what it should be.
    pub(crate) fn mismatch(&mut self, at: Span, expected: &str, found: &str, why: Option<&str>) -> &mut Problem {
        let message = match why {
            Some(why) => format!("expected {expected}, found {found}: {why}"),
            None => format!("expected {expected}, found {found}"),
        };
        let problem = self.at(at, message);
        problem.expected = Some(expected.to_owned());
        problem.found = Some(found.to_owned());
        problem
    }

    /// Whether there are so many problems that suggestions for further ones would not be seen.
    pub(crate) fn is_long(&self) -> bool {
        self.list.len() > 4 * PROBLEMS_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The problems in the file's order, without repetitions, with their paths and source lines.
    pub(crate) fn finish(mut self, file: &str, bytes: &[u8], tree: Option<&Node>) -> Problems {
        self.list.sort_by_key(|problem| (problem.line, problem.column));
        self.list.dedup_by(|a, b| (a.line, a.column, &a.message) == (b.line, b.column, &b.message));
        let more = self.list.len().saturating_sub(PROBLEMS_MAX);
        self.list.truncate(PROBLEMS_MAX);
        let lines: Vec<&[u8]> = bytes.split(|&b| b == b'\n').collect();
        for problem in &mut self.list {
            if problem.line == 0 {
                continue;
            }
            let line = lines.get(problem.line as usize - 1).copied().unwrap_or_default();
            let line = if problem.line == 1 { line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line) } else { line };
            if problem.column == 0 {
                // The whole line is meant: mark what it starts with.
                let margin = line.iter().take_while(|&&b| b == b' ').count();
                problem.column = margin as u32 + 1;
                problem.length = (String::from_utf8_lossy(&line[margin..]).trim_end().chars().count() as u32).max(1);
            }
            let at = Span { line: problem.line, column: problem.column, length: problem.length };
            problem.path = tree.map(|tree| tree.path_to(at)).unwrap_or_default();
            let skip = (problem.column as usize).saturating_sub(WIDTH_MAX / 2);
            let skip = if (problem.column as usize) < WIDTH_MAX { 0 } else { skip };
            // A line may be as long as the file: look at no more of it than is shown.
            let line = &line[..line.len().min((skip + WIDTH_MAX) * 4)];
            let text = String::from_utf8_lossy(line);
            let clean = |c: char| if c.is_control() { ' ' } else { c };
            problem.source = text.chars().skip(skip).take(WIDTH_MAX).map(clean).collect();
            problem.source.truncate(problem.source.trim_end().len());
            problem.skipped = skip as u32;
        }
        Problems { file: file.to_owned(), list: self.list, more }
    }
}
