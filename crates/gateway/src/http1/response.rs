//! An answer's head.

use httparse::Header;

use super::body::{Framing, Lengths};
use super::name::{self, Field, members};
use super::request::{Room, is_listed};
use super::{FIELDS_MAX, Malformed, Refused};

/// An answer's head, read.
#[derive(Debug)]
pub struct Response<'b, 'f> {
    /// `200`
    pub status: u16,
    /// `OK`
    pub reason: &'b str,
    /// Where its body ends.
    pub framing: Framing,
    /// Whether the server wants to go on with this connection.
    pub keep_alive: bool,
    /// All its fields, those for this hop alone included.
    pub fields: &'f [Header<'b>],
    lists: bool,
}

impl<'b, 'f> Response<'b, 'f> {
    /// Reads a whole head, its empty line included, of an answer to a request with this method.
    pub fn parse(bytes: &'b [u8], room: &'f mut Room<'b>, method: &str) -> Result<Response<'b, 'f>, Refused> {
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut room[..FIELDS_MAX]) {
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Refused::TooManyFields),
            Err(httparse::Error::Version) => return Err(Malformed::Version.into()),
            _ => return Err(Malformed::Head.into()),
        }
        let (Some(status), Some(version)) = (parsed.code, parsed.version) else {
            return Err(Malformed::Head.into());
        };
        if !(100..=999).contains(&status) {
            return Err(Malformed::Head.into());
        }
        let fields: &'f [Header<'b>] = parsed.headers;
        let old = version == 0;
        let mut lengths = Lengths::default();
        let (mut close, mut stay, mut lists) = (false, false, false);
        for Header { name, value } in fields {
            match name::field(name) {
                Field::ContentLength => lengths.content_length(value)?,
                Field::TransferEncoding if old => return Err(Malformed::TransferEncoding.into()),
                Field::TransferEncoding => lengths.transfer_encoding(value)?,
                Field::Connection => {
                    for option in members(value) {
                        close |= option.eq_ignore_ascii_case(b"close");
                        stay |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                    lists = true;
                }
                _ => {}
            }
        }
        let stated = lengths.framing(Framing::UntilClose)?;
        // These have no body, whatever their fields say (RFC 9112, section 6.3).
        let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        let framing = if bodiless { Framing::None } else { stated };
        Ok(Response {
            status,
            reason: parsed.reason.unwrap_or_default(),
            framing,
            keep_alive: !close && (!old || stay) && framing != Framing::UntilClose,
            fields,
            lists,
        })
    }

    /// Whether a field is for this hop alone because `Connection` says so.
    pub fn is_listed(&self, name: &str) -> bool {
        self.lists && is_listed(self.fields, name)
    }

    /// The value of a field; the first of several.
    pub fn value(&self, name: &str) -> Option<&'b [u8]> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }
}
