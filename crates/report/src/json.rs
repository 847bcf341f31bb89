//! The result as JSON: for scripts, for `compare`, and to draw a report again later.

use std::io;

use plimsoll_model::run::{Line, Prediction, Run};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// A run as JSON. Fields keep their order; numbers that are not finite are `null`.
pub fn run(run: &Run) -> String {
    write(run)
}

/// A load line as JSON, its runs included.
pub fn line(line: &Line) -> String {
    write(line)
}

/// A prediction as JSON, both of its runs included.
pub fn prediction(prediction: &Prediction) -> String {
    write(prediction)
}

/// Why a file could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not JSON, or lacks something.
    #[error("not a {what} written by plimsoll: {source}")]
    Malformed {
        /// `run` or `load line`.
        what: &'static str,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// It was written in another version of the format.
    #[error(
        "this {what} has format {found}{}, and this program reads format {known}: {}",
        by(.program),
        advice(*.found, *.known)
    )]
    Format {
        /// `run` or `load line`.
        what: &'static str,
        /// The format that the file says it has.
        found: u64,
        /// The format that is known here.
        known: u32,
        /// Version of the program that wrote it, if the file says so.
        program: Option<String>,
    },
    /// It is the other kind of file.
    #[error("this is a {found}, and a {wanted} was expected")]
    Other {
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
}

fn by(program: &Option<String>) -> String {
    program.as_ref().map_or(String::new(), |version| format!(" (plimsoll {version} wrote it)"))
}

fn advice(found: u64, known: u32) -> &'static str {
    if found > u64::from(known) {
        "read it with the version that wrote it, or a later one"
    } else {
        "run the experiment again"
    }
}

/// Reads a run back. Fields that are not known are passed over.
pub fn read_run(text: &str) -> Result<Run, ReadError> {
    read(text, RUN)
}

/// Reads a run back, or what was measured from a prediction.
pub fn read_measured(text: &str) -> Result<Run, ReadError> {
    let head: Head = serde_json::from_str(text).map_err(|source| ReadError::Malformed { what: RUN, source })?;
    if head.measured.is_none() {
        return read_run(text);
    }
    read::<Prediction>(text, PREDICTION).map(|prediction| prediction.measured)
}

/// Reads a load line back. Fields that are not known are passed over.
pub fn read_line(text: &str) -> Result<Line, ReadError> {
    read(text, LINE)
}

/// A file of either kind.
#[derive(Clone, Debug)]
pub enum Either {
    /// A run.
    Run(Box<Run>),
    /// A load line.
    Line(Box<Line>),
}

/// Reads a run or a load line, whichever it is.
pub fn read_either(text: &str) -> Result<Either, ReadError> {
    let head: Head = serde_json::from_str(text).map_err(|source| ReadError::Malformed { what: "result", source })?;
    if head.marks.is_some() {
        read_line(text).map(|line| Either::Line(Box::new(line)))
    } else {
        read_run(text).map(|run| Either::Run(Box::new(run)))
    }
}

const RUN: &str = "run";
const PREDICTION: &str = "prediction";
const LINE: &str = "load line";

/// What is looked at first, before the rest has to fit.
#[derive(serde::Deserialize)]
struct Head {
    format: Option<u64>,
    plimsoll: Option<String>,
    marks: Option<serde::de::IgnoredAny>,
    experiment: Option<serde::de::IgnoredAny>,
    measured: Option<serde::de::IgnoredAny>,
}

fn read<T: DeserializeOwned>(text: &str, what: &'static str) -> Result<T, ReadError> {
    let malformed = |source| ReadError::Malformed { what, source };
    let head: Head = serde_json::from_str(text).map_err(malformed)?;
    if let Some(found) = head.format.filter(|format| *format != u64::from(Run::FORMAT)) {
        return Err(ReadError::Format { what, found, known: Run::FORMAT, program: head.plimsoll });
    }
    match (head.marks.is_some(), head.experiment.is_some()) {
        (true, false) if what == RUN => {
            return Err(ReadError::Other { found: LINE, wanted: RUN });
        }
        (false, true) if what == LINE => {
            return Err(ReadError::Other { found: RUN, wanted: LINE });
        }
        _ => {}
    }
    serde_json::from_str(text).map_err(malformed)
}

/// Writes any serializable value the way that runs are written.
pub(crate) fn write<T: Serialize>(value: &T) -> String {
    let mut bytes = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut bytes, Rows::default()))
        .expect("strings are the only keys, and a vector takes every byte");
    bytes.push(b'\n');
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

/// Pretty, except that lists of numbers stay on one line: a series has hundreds.
#[derive(Default)]
struct Rows {
    pretty: PrettyFormatter<'static>,
    depth: usize,
    /// For each open list: whether anything was written on a line of its own.
    lists: Vec<bool>,
    /// A list's comma that is still to be written, once it is known what follows.
    pending: Option<bool>,
}

impl Rows {
    /// Before a number, or a list within a list: on the same line.
    fn inline<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        match self.pending.take() {
            Some(false) => writer.write_all(b", "),
            _ => Ok(()),
        }
    }

    /// Before text or an object: on a line of its own.
    fn own_line<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        let Some(first) = self.pending.take() else {
            return Ok(());
        };
        if let Some(broken) = self.lists.last_mut() {
            *broken = true;
        }
        if !first {
            writer.write_all(b",")?;
        }
        self.indent(writer)
    }

    fn indent<W: ?Sized + io::Write>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"\n")?;
        for _ in 0..self.depth {
            writer.write_all(b"  ")?;
        }
        Ok(())
    }
}

macro_rules! inline {
    ($($name:ident: $kind:ty),*) => {$(
        fn $name<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: $kind) -> io::Result<()> {
            self.inline(writer)?;
            self.pretty.$name(writer, value)
        }
    )*};
}

impl Formatter for Rows {
    inline!(write_bool: bool, write_u32: u32, write_u64: u64, write_i64: i64, write_f32: f32, write_f64: f64);

    fn write_null<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inline(writer)?;
        self.pretty.write_null(writer)
    }

    fn begin_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.own_line(writer)?;
        self.pretty.begin_string(writer)
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inline(writer)?;
        self.depth += 1;
        self.lists.push(false);
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        if self.lists.pop() == Some(true) {
            self.indent(writer)?;
        }
        writer.write_all(b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, _: &mut W, first: bool) -> io::Result<()> {
        self.pending = Some(first);
        Ok(())
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.own_line(writer)?;
        self.depth += 1;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        self.indent(writer)?;
        writer.write_all(b"}")
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(b",")?;
        }
        self.indent(writer)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_of_numbers_stay_on_one_line() {
        let value = json!({"a": [1, 2.5, null], "b": [[1, 2], [3, 4]], "c": ["x", "y"], "d": [{"e": 1}, {}], "f": []});
        let text = write(&value);
        assert_eq!(
            text,
            r#"{
  "a": [1, 2.5, null],
  "b": [[1, 2], [3, 4]],
  "c": [
    "x",
    "y"
  ],
  "d": [
    {
      "e": 1
    },
    {
    }
  ],
  "f": []
}
"#
        );
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn another_format_is_refused_by_name() {
        let error = read_run(r#"{"format": 7, "plimsoll": "9.0.0", "shape": "unknown"}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "this run has format 7 (plimsoll 9.0.0 wrote it), and this program reads format 1: \
             read it with the version that wrote it, or a later one"
        );
    }

    #[test]
    fn a_line_is_not_taken_for_a_run() {
        let error = read_run(r#"{"format": 1, "marks": []}"#).unwrap_err();
        assert_eq!(error.to_string(), "this is a load line, and a run was expected");
    }
}
