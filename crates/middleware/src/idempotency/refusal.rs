//! What is said to those whose key or body is refused.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use plimsoll_policy::InvalidConfig;

use crate::error::{Error, not_run};

/// Where the rules of keys are written down: for the `type` of a problem, and for `Link`.
#[derive(Debug)]
pub(super) struct Page {
    url: String,
    link: HeaderValue,
}

impl Page {
    pub(super) fn new(url: &str) -> Result<Page, InvalidConfig> {
        let invalid = InvalidConfig { field: "documentation", expected: "an absolute URI" };
        let is_absolute = url.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some());
        // What would end the link, or the text in JSON, is percent-encoded in a URI.
        if !is_absolute || url.contains(['"', '\\', '<', '>']) {
            return Err(invalid);
        }
        let link = HeaderValue::from_str(&format!("<{url}>; rel=\"describedby\"")).map_err(|_| invalid)?;
        Ok(Page { url: url.to_owned(), link })
    }
}

pub(super) fn refusal<B: From<Bytes>>(error: Error, page: Option<&Page>) -> Response<B> {
    let mut response = not_run(error.to_problem(page.map(|page| page.url.as_str())));
    if let Some(page) = page {
        response.headers_mut().insert(header::LINK, page.link.clone());
    }
    response
}
