//! Bytes of an instance: read or refused, without a panic, and with one end that the head itself shows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_gateway::http1::request::room;
use plimsoll_gateway::http1::{Body, Framing, Response, head};

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(end)) = head::end(bytes, &mut 0, 8192) else { return };
    let (head, rest) = bytes.split_at(end);
    for method in ["GET", "HEAD", "POST", "OPTIONS"] {
        let mut room = room();
        let Ok(response) = Response::parse(head, &mut room, method) else { continue };
        assert!((100..=999).contains(&response.status));
        let fields = |name: &str| response.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
        // Whatever its end is, no other field may say another.
        assert!(fields("content-length") + fields("transfer-encoding").min(1) <= 1, "{response:?}");
        match response.framing {
            Framing::Chunked => assert!(fields("transfer-encoding") > 0),
            Framing::Length(length) => {
                let value = response.value("content-length").expect("it is stated");
                assert_eq!(std::str::from_utf8(value).expect("digits").parse(), Ok(length));
            }
            Framing::UntilClose => assert!(!response.keep_alive),
            Framing::None => {
                let bodiless = response.status < 200 || matches!(response.status, 204 | 304);
                assert!(method == "HEAD" || bodiless);
            }
        }
        let mut body = Body::new(response.framing, 1024);
        let Ok(taken) = body.pass(rest) else { continue };
        assert!(taken == rest.len() || body.is_over(), "bytes are left of a body that is not over");
    }
});
