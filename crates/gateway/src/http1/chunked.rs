//! Chunks: checked byte by byte, and passed on as they came.

use std::ops::Range;

use super::{FIELDS_MAX, Malformed, name};

/// Most digits of a chunk's size, leading zeros included: what fits 64 bits.
const SIZE_DIGITS: u8 = 16;
/// Most bytes of a chunk's extensions. They mean nothing here, and cost as much as content does.
const EXTENSION_MAX: u16 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a size, with so many digits.
    Size(u8),
    /// After a size, in an extension of so many bytes.
    Extension(u16),
    /// The line feed of a size's line.
    SizeEnd,
    /// In content, so much of which is to come.
    Content,
    /// The carriage return after content, and its line feed.
    ContentEnd,
    ContentEnded,
    /// At the start of a trailer's line.
    Trailer,
    /// Within one.
    TrailerLine,
    /// Its line feed.
    TrailerEnd,
    /// The last line feed.
    LastEnd,
    Over,
}

/// Finds the end of a body of chunks.
#[derive(Clone, Debug)]
pub struct Chunked {
    state: State,
    left: u64,
    trailer_max: usize,
    trailers: u16,
    /// The trailer's line so far.
    line: Vec<u8>,
    /// The lines before it, where somebody wants them.
    kept: Option<Vec<u8>>,
}

impl Chunked {
    /// A body of which nothing has come. `trailer_max` bounds the bytes of all trailers.
    pub fn new(trailer_max: usize) -> Chunked {
        Chunked { state: State::Size(0), left: 0, trailer_max, trailers: 0, line: Vec::new(), kept: None }
    }

    /// Keeps trailers as they pass.
    pub fn keep_trailers(&mut self) {
        self.kept = Some(Vec::new());
    }

    /// The lines of those that have passed, each with its end.
    pub fn trailers(&self) -> &[u8] {
        self.kept.as_deref().unwrap_or_default()
    }

    /// Whether the last chunk and its trailers have passed.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// How many of these bytes belong to the body. Each piece of content is handed to `content`.
    pub fn pass(&mut self, bytes: &[u8], mut content: impl FnMut(Range<usize>)) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Over {
            if self.state == State::Content {
                let here = usize::try_from(self.left).map_or(bytes.len() - at, |left| left.min(bytes.len() - at));
                content(at..at + here);
                self.left -= here as u64;
                at += here;
                if self.left == 0 {
                    self.state = State::ContentEnd;
                }
                continue;
            }
            self.byte(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn byte(&mut self, byte: u8) -> Result<(), Malformed> {
        self.state = match (self.state, byte) {
            (State::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == SIZE_DIGITS {
                    return Err(Malformed::Chunk);
                }
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                self.left = self.left << 4 | u64::from(digit);
                State::Size(digits + 1)
            }
            (State::Size(0), _) => return Err(Malformed::Chunk),
            (State::Size(_), b'\r') => State::SizeEnd,
            (State::Size(_), b';') => State::Extension(0),
            (State::Extension(_), b'\r') => State::SizeEnd,
            // Quoted text may have tabs, spaces and bytes of any alphabet.
            (State::Extension(length), b'\t' | b' '..=b'~' | 0x80..) if length < EXTENSION_MAX => {
                State::Extension(length + 1)
            }
            (State::SizeEnd, b'\n') if self.left == 0 => State::Trailer,
            (State::SizeEnd, b'\n') => State::Content,
            (State::ContentEnd, b'\r') => State::ContentEnded,
            (State::ContentEnded, b'\n') => State::Size(0),
            (State::Trailer, b'\r') => State::LastEnd,
            (State::TrailerLine, b'\r') => State::TrailerEnd,
            (State::Trailer | State::TrailerLine, b'\n') => return Err(Malformed::Trailer),
            (State::Trailer | State::TrailerLine, _) => {
                if self.trailer_max == 0 {
                    return Err(Malformed::Trailer);
                }
                self.trailer_max -= 1;
                self.line.push(byte);
                State::TrailerLine
            }
            (State::TrailerEnd, b'\n') => {
                self.trailer()?;
                State::Trailer
            }
            (State::LastEnd, b'\n') => State::Over,
            _ => return Err(Malformed::Chunk),
        };
        Ok(())
    }

    /// Checks a whole trailer line, as a head's lines are checked.
    fn trailer(&mut self) -> Result<(), Malformed> {
        self.trailers += 1;
        self.line.extend_from_slice(b"\r\n\r\n");
        let mut fields = [httparse::EMPTY_HEADER; 1];
        let sound = matches!(httparse::parse_headers(&self.line, &mut fields), Ok(httparse::Status::Complete((_, [field])))
            if name::may_trail(field.name));
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(&self.line[..self.line.len() - 2]);
        }
        self.line.clear();
        if sound && usize::from(self.trailers) <= FIELDS_MAX { Ok(()) } else { Err(Malformed::Trailer) }
    }
}

/// The line before a chunk of so many bytes, in `out`.
pub fn size_line(out: &mut Vec<u8>, size: usize) {
    use std::io::Write;
    let _ = write!(out, "{size:x}\r\n"); // a vector takes everything
}

/// The chunk after the last one: what follows are trailers and an empty line.
pub const LAST: &[u8] = b"0\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Result<(usize, Vec<u8>, bool), Malformed> {
        let mut chunked = Chunked::new(100);
        let mut content = Vec::new();
        let taken = chunked.pass(bytes, |range| content.extend_from_slice(&bytes[range]))?;
        Ok((taken, content, chunked.is_over()))
    }

    #[test]
    fn content_and_end_are_found() {
        for (bytes, content, rest) in [
            (&b"0\r\n\r\n"[..], &b""[..], 0),
            (b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", 3),
            (b"5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n", b"hello0123456789", 0),
            (b"5;a=b;c=\"d e\"\r\nhello\r\n000\r\n\r\n", b"hello", 0),
            (b"0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n", b"", 0),
        ] {
            let expected = (bytes.len() - rest, content.to_vec(), true);
            assert_eq!(whole(bytes), Ok(expected), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_could_be_read_otherwise_is_refused() {
        for bytes in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"+5\r\nhello\r\n",
            b"-1\r\n",
            b"0x5\r\nhello\r\n",
            b"\r\n",
            b";a\r\n",
            b"g\r\n",
            b"00000000000000005\r\nhello\r\n",
            b"fffffffffffffffff\r\n",
            b"5;a\nb\r\nhello\r\n",
            b"5;\x00\r\nhello\r\n",
            b"5\r\rhello\r\n",
            b"0\r\n\n",
            b"0\r\nX: 1\n\r\n",
            b"5\t\r\nhello\r\n",
            b"5\0\r\nhello\r\n",
            b"5_0\r\nhello\r\n",
            b"5,\r\nhello\r\n",
            b"5\rhello\r\n",
            b"5;\nhello\r\n",
            b"5;a\rb\r\nhello\r\n",
            b"5;a\x7fb\r\nhello\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\r\r\n0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"\xef\xbc\x95\r\nhello\r\n",
            b"0\r\rX: 1\r\n\r\n",
            b"0\r\nX: 1\rY: 2\r\n\r\n",
            b"0\r\nX: 1\0\r\n\r\n",
            b"0\r\nX: 1\r\n y\r\n\r\n",
            b"0\r\nX_Forwarded_For: 1\r\n\r\n",
            b"0\r\nConnection: close\r\n\r\n",
            b"0\r\nGET / HTTP/1.1\r\n\r\n",
            b"0\r\nContent-Length: 5\r\n\r\n",
            b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"0\r\nHost: a\r\n\r\n",
            b"0\r\nX : 1\r\n\r\n",
            b"0\r\n X: 1\r\n\r\n",
            b"0\r\nX\r\n\r\n",
            b"0\r\n: 1\r\n\r\n",
        ] {
            assert!(whole(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
        let long = [b"0\r\nX: ".to_vec(), vec![b'a'; 200], b"\r\n\r\n".to_vec()].concat();
        assert_eq!(whole(&long), Err(Malformed::Trailer));
        let long = [b"1;".to_vec(), vec![b'a'; 300], b"\r\na\r\n".to_vec()].concat();
        assert_eq!(whole(&long), Err(Malformed::Chunk));
    }

    #[test]
    fn trailers_are_kept_for_whom_they_matter_to() {
        let bytes = b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n";
        let mut chunked = Chunked::new(100);
        chunked.keep_trailers();
        assert_eq!(chunked.pass(bytes, |_| ()), Ok(bytes.len()));
        assert_eq!(chunked.trailers(), b"X-Sum: 1\r\nX-More: 2\r\n");
        let mut chunked = Chunked::new(100);
        assert_eq!(chunked.pass(bytes, |_| ()), Ok(bytes.len()));
        assert_eq!(chunked.trailers(), b"");
    }

    #[test]
    fn nothing_depends_on_how_the_bytes_arrive() {
        let bytes = b"5;x\r\nhello\r\nA\r\n0123456789\r\n0\r\nX: 1\r\n\r\nGET";
        let mut chunked = Chunked::new(100);
        let mut content = Vec::new();
        let mut taken = 0;
        for byte in bytes.chunks(1) {
            taken += chunked.pass(byte, |range| content.extend_from_slice(&byte[range])).unwrap();
        }
        assert_eq!((taken, &content[..], chunked.is_over()), (bytes.len() - 3, &b"hello0123456789"[..], true));
    }
}
