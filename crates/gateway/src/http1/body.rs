//! Where a message's body ends.

use super::{Chunked, Malformed};

/// How a body's end is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// The end of the connection. Answers only.
    UntilClose,
}

impl Framing {
    /// Whether the message has a body, be it an empty one of chunks.
    pub fn has_body(self) -> bool {
        !matches!(self, Framing::None | Framing::Length(0))
    }
}

/// What the fields of a head say about its end, gathered one by one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lengths {
    length: Option<u64>,
    chunked: bool,
}

impl Lengths {
    pub(super) fn content_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        // A second one is refused even where it says the same.
        if self.length.is_some() {
            return Err(Malformed::ContentLength);
        }
        self.length = Some(decimal(value).ok_or(Malformed::ContentLength)?);
        Ok(())
    }

    pub(super) fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Malformed> {
        // Another coding, or chunks within chunks, would leave the end to be guessed; so might a list with
        // empty members, which the standard's grammar allows.
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Malformed::TransferEncoding);
        }
        self.chunked = true;
        Ok(())
    }

    /// The framing, where a message without any is `otherwise`.
    pub(super) fn framing(self, otherwise: Framing) -> Result<Framing, Malformed> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Malformed::BothLengths),
            (None, true) => Ok(Framing::Chunked),
            (Some(length), false) => Ok(Framing::Length(length)),
            (None, false) => Ok(otherwise),
        }
    }
}

/// Digits alone, without sign or space, that fit.
pub fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')) // 19 digits fit
    })
}

/// A body as it passes: how much of what has arrived belongs to it, and whether it is over.
#[derive(Clone, Debug)]
pub enum Body {
    /// So many bytes are to come.
    Length(u64),
    /// Chunks are to come.
    Chunked(Chunked),
    /// All that comes.
    UntilClose,
}

impl Body {
    /// A body with this framing. `trailer_max` bounds the bytes of its trailers.
    pub fn new(framing: Framing, trailer_max: usize) -> Body {
        match framing {
            Framing::None => Body::Length(0),
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Chunked::new(trailer_max)),
            Framing::UntilClose => Body::UntilClose,
        }
    }

    /// Keeps trailers as they pass.
    pub fn keep_trailers(&mut self) {
        if let Body::Chunked(chunked) = self {
            chunked.keep_trailers();
        }
    }

    /// The lines of those that have passed, each with its end; nothing unless they were to be kept.
    pub fn trailers(&self) -> &[u8] {
        match self {
            Body::Chunked(chunked) => chunked.trailers(),
            _ => &[],
        }
    }

    /// Whether all of it has passed.
    pub fn is_over(&self) -> bool {
        match self {
            Body::Length(left) => *left == 0,
            Body::Chunked(chunked) => chunked.is_over(),
            Body::UntilClose => false,
        }
    }

    /// How many of these bytes belong to the body, its framing included.
    pub fn pass(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match self {
            Body::Length(left) => {
                let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                Ok(taken)
            }
            Body::Chunked(chunked) => chunked.pass(bytes, |_| ()),
            Body::UntilClose => Ok(bytes.len()),
        }
    }

    /// The same, where each piece of content, without framing, is handed to `content`.
    pub fn unwrap(
        &mut self,
        bytes: &[u8],
        mut content: impl FnMut(std::ops::Range<usize>),
    ) -> Result<usize, Malformed> {
        match self {
            Body::Chunked(chunked) => chunked.pass(bytes, content),
            _ => {
                let taken = self.pass(bytes)?;
                content(0..taken);
                Ok(taken)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_alone() {
        for (text, expected) in [
            ("0", Some(0)),
            ("42", Some(42)),
            ("0042", Some(42)),
            ("9999999999999999999", Some(9_999_999_999_999_999_999)),
            ("99999999999999999999", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("1 ", None),
            ("1,1", None),
            ("0x1", None),
            ("1.0", None),
        ] {
            assert_eq!(decimal(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_length_takes_what_is_its_own() {
        let mut body = Body::new(Framing::Length(5), 0);
        assert_eq!(body.pass(b"abc"), Ok(3));
        assert!(!body.is_over());
        assert_eq!(body.pass(b"deGET /"), Ok(2));
        assert!(body.is_over());
        assert_eq!(body.pass(b"GET /"), Ok(0));
        assert!(Body::new(Framing::None, 0).is_over());
    }
}
