//! As much of Redis' protocol (RESP2) as a script takes.

use std::io::Write;

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// `:1`
    Number(i64),
    /// `+OK`, or a string.
    Text(Vec<u8>),
    /// `-ERR ...`
    Error(String),
}

/// A command of these parts.
pub(super) fn command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let _ = write!(out, "*{}\r\n", parts.len());
    for part in parts {
        let _ = write!(out, "${}\r\n", part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// The first whole answer and its length; none if more has to come. An error where the bytes are no such
/// answer.
pub(super) fn answer(bytes: &[u8]) -> Result<Option<(Answer, usize)>, ()> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() > 64 << 10 { Err(()) } else { Ok(None) };
    };
    let (kind, line) = bytes[..end].split_first().ok_or(())?;
    let text = std::str::from_utf8(line).map_err(drop)?;
    let number = || text.parse::<i64>().map_err(drop);
    match kind {
        b':' => Ok(Some((Answer::Number(number()?), end + 2))),
        b'+' => Ok(Some((Answer::Text(line.to_vec()), end + 2))),
        b'-' => Ok(Some((Answer::Error(text.to_owned()), end + 2))),
        b'$' => {
            let length = usize::try_from(number()?).map_err(drop)?;
            if length > 64 << 10 {
                return Err(());
            }
            let whole = end + 2 + length + 2;
            if bytes.len() < whole {
                return Ok(None);
            }
            Ok(Some((Answer::Text(bytes[end + 2..whole - 2].to_vec()), whole)))
        }
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_answers() {
        let mut out = Vec::new();
        command(&mut out, &[b"GET", b"a\r\nb"]);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n");
        for (bytes, expected) in [
            (&b":-1\r\n:2"[..], Ok(Some((Answer::Number(-1), 5)))),
            (b"+OK\r\n", Ok(Some((Answer::Text(b"OK".to_vec()), 5)))),
            (b"-NOSCRIPT no\r\n", Ok(Some((Answer::Error("NOSCRIPT no".to_owned()), 14)))),
            (b"$3\r\nabc\r\n", Ok(Some((Answer::Text(b"abc".to_vec()), 9)))),
            (b"$3\r\nab", Ok(None)),
            (b":1", Ok(None)),
            (b"*1\r\n", Err(())),
            (b":x\r\n", Err(())),
            (b"$-1\r\n", Err(())),
            (b"\r\n", Err(())),
        ] {
            assert_eq!(answer(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
