//! A line for each request, which never makes a request wait.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use plimsoll_model::system::{AccessLog, LogFormat};

use crate::clock::{MONTHS, civil};

/// What is said of a request.
#[derive(Debug, Default)]
pub struct Entry<'a> {
    /// Since 1970, when its head was whole.
    pub at: Duration,
    /// The client's address.
    pub client: &'a str,
    /// The method and the target.
    pub method: &'a str,
    /// The path and query.
    pub target: &'a str,
    /// `HTTP/1.1`
    pub version: &'a str,
    /// The answer's status; 499 if the client had gone.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// From the head's end to the answer's, ns.
    pub took: u64,
    /// The route's name.
    pub route: &'a str,
    /// The instance asked last.
    pub upstream: &'a str,
    /// From the last attempt's start to the head of its answer, ns.
    pub upstream_took: Option<u64>,
    /// Attempts made.
    pub attempts: u32,
    /// Why the gateway answered itself.
    pub own: &'a str,
    /// `Referer`
    pub referer: &'a str,
    /// `User-Agent`
    pub agent: &'a str,
}

/// A way to the log.
#[derive(Clone, Debug)]
pub struct LogSender {
    lines: SyncSender<Message>,
    format: LogFormat,
    setting: Arc<AccessLog>,
}

enum Message {
    Line(String),
    Reopen,
}

impl LogSender {
    /// Opens a log and starts its writer. `folder` is what a file's name is relative to.
    pub fn open(setting: &AccessLog, folder: &Path) -> io::Result<LogSender> {
        let place = Place::new(&setting.to, folder);
        let writer = place.open()?;
        let (lines, receiver) = sync_channel(setting.buffer as usize);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(receiver, place, writer))?;
        Ok(LogSender { lines, format: setting.format, setting: Arc::new(setting.clone()) })
    }

    /// Whether it was opened with these settings.
    pub fn is(&self, setting: &AccessLog) -> bool {
        *self.setting == *setting
    }

    /// Puts a line in the queue, if there is room.
    pub fn send(&self, entry: &Entry<'_>) -> bool {
        let line = match self.format {
            LogFormat::Json => json(entry),
            LogFormat::Combined => combined(entry),
        };
        self.lines.try_send(Message::Line(line)).is_ok()
    }

    /// Opens the file anew: the old one has been moved away.
    pub fn reopen(&self) {
        let _ = self.lines.try_send(Message::Reopen);
    }
}

enum Place {
    Out,
    Err,
    File(PathBuf),
}

impl Place {
    fn new(to: &str, folder: &Path) -> Place {
        match to {
            "stdout" => Place::Out,
            "stderr" => Place::Err,
            path => Place::File(folder.join(path)),
        }
    }

    fn open(&self) -> io::Result<Box<dyn Write + Send>> {
        let file = |path: &PathBuf| -> io::Result<File> { OpenOptions::new().create(true).append(true).open(path) };
        Ok(match self {
            Place::Out => Box::new(io::stdout()),
            Place::Err => Box::new(io::stderr()),
            Place::File(path) => Box::new(file(path)?),
        })
    }
}

/// Writes what comes, and flushes when nothing more is there. A full disk loses lines, not requests.
fn write(lines: Receiver<Message>, place: Place, writer: Box<dyn Write + Send>) {
    let mut writer = BufWriter::with_capacity(64 << 10, writer);
    while let Ok(first) = lines.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    let _ = writer.write_all(line.as_bytes());
                }
                Message::Reopen => {
                    let _ = writer.flush();
                    if let Ok(opened) = place.open() {
                        writer = BufWriter::with_capacity(64 << 10, opened);
                    }
                }
            }
            next = lines.try_recv().ok();
        }
        let _ = writer.flush();
    }
}

fn json(entry: &Entry<'_>) -> String {
    use std::fmt::Write;
    let mut line = String::with_capacity(320);
    let (year, month, day, hour, minute, second) = civil(entry.at);
    let millis = entry.at.subsec_millis();
    let _ = write!(line, "{{\"time\":\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z\"");
    let texts = [
        ("client", entry.client),
        ("method", entry.method),
        ("target", entry.target),
        ("version", entry.version),
        ("route", entry.route),
        ("upstream", entry.upstream),
        ("own", entry.own),
        ("referer", entry.referer),
        ("user_agent", entry.agent),
    ];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        let _ = write!(line, ",\"{name}\":\"");
        escape(&mut line, text, |c| c < ' ' || c == '"' || c == '\\', "\\u00");
        line.push('"');
    }
    let _ = write!(line, ",\"status\":{},\"bytes\":{},\"ms\":{}", entry.status, entry.bytes, ms(entry.took));
    if let Some(took) = entry.upstream_took {
        let _ = write!(line, ",\"upstream_ms\":{}", ms(took));
    }
    let _ = writeln!(line, ",\"attempts\":{}}}", entry.attempts);
    line
}

/// nginx's `combined`, followed by the request's time, the upstream's address and its time, in seconds.
fn combined(entry: &Entry<'_>) -> String {
    use std::fmt::Write;
    let mut line = String::with_capacity(320);
    let (year, month, day, hour, minute, second) = civil(entry.at);
    let month = MONTHS[(month as usize + 11) % 12];
    let _ =
        write!(line, "{} - - [{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000] \"", entry.client);
    let quoted = |line: &mut String, text: &str| {
        escape(line, if text.is_empty() { "-" } else { text }, |c| c < ' ' || c == '"' || c == '\\' || c > '~', "\\x");
    };
    quoted(&mut line, entry.method);
    line.push(' ');
    quoted(&mut line, entry.target);
    let _ = write!(line, " {}\" {} {} \"", entry.version, entry.status, entry.bytes);
    quoted(&mut line, entry.referer);
    line.push_str("\" \"");
    quoted(&mut line, entry.agent);
    let upstream = if entry.upstream.is_empty() { "-" } else { entry.upstream };
    let _ = write!(line, "\" {:.3} {upstream}", entry.took as f64 / 1e9);
    let _ = match entry.upstream_took {
        Some(took) => writeln!(line, " {:.3}", took as f64 / 1e9),
        None => writeln!(line, " -"),
    };
    line
}

/// A text in JSON, with its quotation marks.
pub(crate) fn json_text(text: &str) -> String {
    let mut out = String::from("\"");
    escape(&mut out, text, |c| c < ' ' || c == '"' || c == '\\', "\\u00");
    out.push('"');
    out
}

/// A text whose dangerous marks are written as numbers.
fn escape(line: &mut String, text: &str, dangerous: impl Fn(char) -> bool, prefix: &str) {
    use std::fmt::Write;
    for c in text.chars() {
        if !dangerous(c) {
            line.push(c);
            continue;
        }
        let mut bytes = [0; 4];
        for byte in c.encode_utf8(&mut bytes).bytes() {
            let _ = write!(line, "{prefix}{byte:02x}");
        }
    }
}

fn ms(nanos: u64) -> f64 {
    (nanos / 1_000) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry<'static> {
        Entry {
            at: Duration::from_millis(951_782_400_123),
            client: "10.0.0.1",
            method: "GET",
            target: "/a\"b\\c\u{1}",
            version: "HTTP/1.1",
            status: 200,
            bytes: 12,
            took: 1_234_567,
            route: "GET /:x",
            upstream: "10.0.0.2:80",
            upstream_took: Some(1_000_000),
            attempts: 2,
            own: "",
            referer: "",
            agent: "curl\u{e9}",
        }
    }

    #[test]
    fn json_is_json() {
        let line = json(&entry());
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["time"], "2000-02-29T00:00:00.123Z");
        assert_eq!(value["target"], "/a\"b\\c\u{1}");
        assert_eq!(value["user_agent"], "curl\u{e9}");
        assert_eq!((value["ms"].as_f64(), value["upstream_ms"].as_f64()), (Some(1.234), Some(1.0)));
        assert!(value.get("own").is_none() && line.ends_with("}\n"));
    }

    #[test]
    fn combined_has_nothing_that_ends_a_quotation() {
        let expected = "10.0.0.1 - - [29/Feb/2000:00:00:00 +0000] \"GET /a\\x22b\\x5cc\\x01 HTTP/1.1\" 200 12 \"-\" \
                        \"curl\\xc3\\xa9\" 0.001 10.0.0.2:80 0.001\n";
        assert_eq!(combined(&entry()), expected);
    }

    #[test]
    fn a_full_queue_drops() {
        let (lines, receiver) = sync_channel(1);
        let setting = AccessLog { to: "x".to_owned(), format: LogFormat::Json, buffer: 1 };
        let log = LogSender { lines, format: LogFormat::Json, setting: Arc::new(setting) };
        assert!(log.send(&entry()) && !log.send(&entry()));
        drop(receiver);
        assert!(!log.send(&entry()));
    }
}
