//! Where a head ends, found before anything in it is read.

use super::{Malformed, Refused};

/// Looks for the end of a head in what has arrived so far.
///
/// `seen` bytes were looked through before, and are not looked through again: a head that arrives byte
/// by byte costs no more than one that arrives at once. `Ok(None)` asks for more bytes.
pub fn end(bytes: &[u8], seen: &mut usize, bytes_max: usize) -> Result<Option<usize>, Refused> {
    let start = *seen;
    for at in memchr::memchr_iter(b'\n', &bytes[start..]).map(|at| at + start) {
        if at >= bytes_max {
            break;
        }
        // A client may send an empty line before its request, as old ones did after a POST.
        if at == 0 || bytes[at - 1] != b'\r' {
            return Err(Malformed::BareLineFeed.into());
        }
        if at >= 3 && bytes[at - 2] == b'\n' {
            return Ok(Some(at + 1));
        }
    }
    *seen = bytes.len();
    if bytes.len() >= bytes_max { Err(Refused::HeadTooLarge) } else { Ok(None) }
}

/// The bytes of one empty line before a request, if there is one.
pub fn blank(bytes: &[u8]) -> usize {
    if bytes.starts_with(b"\r\n") { 2 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_found_however_the_bytes_arrive() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        let end_at = head.len() - 4;
        assert_eq!(end(head, &mut 0, 100), Ok(Some(end_at)));
        let mut seen = 0;
        for length in 0..end_at {
            assert_eq!(end(&head[..length], &mut seen, 100), Ok(None), "{length}");
        }
        assert_eq!(end(&head[..end_at], &mut seen, 100), Ok(Some(end_at)));
    }

    #[test]
    fn bare_line_feeds_and_too_many_bytes_are_refused() {
        for head in [&b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..], b"\n", b"GET / HTTP/1.1\r\nHost: a\n\r\n", b"a\r\n\n"] {
            assert_eq!(end(head, &mut 0, 100), Err(Malformed::BareLineFeed.into()));
        }
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(end(head, &mut 0, head.len()), Ok(Some(head.len())));
        assert_eq!(end(head, &mut 0, head.len() - 1), Err(Refused::HeadTooLarge));
        assert_eq!(end(&[b'a'; 100], &mut 0, 100), Err(Refused::HeadTooLarge));
    }
}
