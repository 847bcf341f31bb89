//! Bytes of a client: read or refused, without a panic, and the same in one piece as byte by byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_gateway::http1::request::room;
use plimsoll_gateway::http1::{Body, Request, head};

fuzz_target!(|bytes: &[u8]| {
    let whole = head::end(bytes, &mut 0, 8192);
    let mut seen = 0;
    let piecewise = (1..=bytes.len()).map(|length| head::end(&bytes[..length], &mut seen, 8192));
    let piecewise = piecewise.into_iter().find(|end| *end != Ok(None));
    let Ok(Some(end)) = whole else { return };
    assert_eq!(piecewise, Some(Ok(Some(end))));
    let Ok(framing) = Request::parse(&bytes[..end], &mut room(), 100).map(|request| request.framing) else { return };
    let rest = &bytes[end..];
    let mut body = Body::new(framing, 1024);
    let taken = body.pass(rest);
    let mut by_byte = Body::new(framing, 1024);
    let steps: Result<usize, _> = rest.iter().map(|byte| by_byte.pass(&[*byte])).sum();
    assert_eq!(taken, steps);
    if taken.is_ok() {
        assert_eq!(body.is_over(), by_byte.is_over());
    }
});
