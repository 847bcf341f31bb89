//! As much of HTTP/1.1 as both ends of a benchmark need: heads without bodies, answers with a length.

/// Bytes of a head that is whole.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Status and length of an answer whose head is whole, and whether the connection goes on.
pub fn answer(bytes: &[u8]) -> Option<(u16, usize, bool)> {
    let end = head_end(bytes)?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = head.get(9..12)?.parse().ok()?;
    let field = |name: &str| {
        head.split("\r\n").skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let chunked = field("transfer-encoding").is_some();
    let length = match field("content-length") {
        Some(length) => length.parse().ok()?,
        // Errors of HAProxy's own end with the connection: nobody counts their bytes.
        None => 0,
    };
    let goes_on = !chunked && field("content-length").is_some() && field("connection") != Some("close");
    Some((status, end + length, goes_on))
}
