//! A body of chunks is what RFC 9112, section 7.1, says it is: a second reader, which is slow and takes the whole body
//! at once, agrees on where it ends and on what it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_gateway::http1::Chunked;

const TRAILERS: usize = 256;

fuzz_target!(|bytes: &[u8]| {
    let mut content = Vec::new();
    let mut chunked = Chunked::new(TRAILERS);
    let taken = chunked.pass(bytes, |range| content.extend_from_slice(&bytes[range]));
    let read = read(bytes);
    match taken {
        Ok(taken) if chunked.is_over() => assert_eq!(read, Some((taken, content.clone()))),
        // What is not over, or refused, is no whole body to the other either. It takes more extensions and trailers.
        Ok(taken) => {
            assert_eq!(taken, bytes.len());
            assert_eq!(read, None);
        }
        Err(_) => {}
    }
    // In other pieces it is the same.
    let mut piecewise = Chunked::new(TRAILERS);
    let mut again = Vec::new();
    let mut at = 0;
    let mut steps = Ok(0);
    for size in (1..=5).cycle() {
        let part = &bytes[at..(at + size).min(bytes.len())];
        if part.is_empty() {
            break;
        }
        match piecewise.pass(part, |range| again.extend_from_slice(&part[range])) {
            Ok(taken) => steps = steps.map(|sum| sum + taken),
            Err(error) => steps = Err(error),
        }
        if steps.is_err() || piecewise.is_over() {
            break;
        }
        at += part.len();
    }
    assert_eq!(steps, taken);
    if taken.is_ok() {
        assert_eq!(again, content);
    }
});

/// How long a body is, and what is in it; `None` if it is not whole or malformed.
fn read(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let mut content = Vec::new();
    let mut at = 0;
    let line = |from: usize| Some(from + bytes.get(from..)?.windows(2).position(|pair| pair == b"\r\n")?);
    loop {
        let end = line(at)?;
        let digits = bytes[at..end].split(|byte| *byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        at = end + 2;
        if size == 0 {
            break;
        }
        content.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at += size;
        if bytes.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    loop {
        let end = line(at)?;
        let empty = end == at;
        at = end + 2;
        if empty {
            return Some((at, content));
        }
    }
}
