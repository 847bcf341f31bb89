//! The key in its field.

use http::HeaderMap;

use crate::error::Error;
use crate::requests::KEY_FIELD;

/// The longest key. Stripe's API takes as much.
const KEY_MAX: usize = 255;

/// The key of a request: a String of RFC 9651, section 4.2.5, whose parameters mean nothing here, or, since many clients
/// leave out the quotes, the bytes as they are.
pub(super) fn key_of(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Error> {
    let mut values = headers.get_all(KEY_FIELD).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let value = value.as_bytes().trim_ascii();
    let key = match value.strip_prefix(b"\"") {
        Some(rest) => quoted(rest).ok_or(Error::KeyInvalid)?,
        None => value.to_vec(),
    };
    if key.is_empty() || key.len() > KEY_MAX || values.next().is_some() {
        return Err(Error::KeyInvalid);
    }
    Ok(Some(key))
}

/// What stands before a closing quote, and nothing but parameters after it.
fn quoted(rest: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::new();
    let mut bytes = rest.iter();
    loop {
        match bytes.next()? {
            b'"' => break,
            b'\\' => key.push(*bytes.next().filter(|byte| matches!(byte, b'"' | b'\\'))?),
            byte @ b' '..=b'~' => key.push(*byte),
            _ => return None,
        }
    }
    matches!(bytes.as_slice(), [] | [b';', ..]).then_some(key)
}
