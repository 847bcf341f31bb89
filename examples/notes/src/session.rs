//! Who asks, and what they have written.
//!
//! A session's cookie names it; Redis knows whose it is. Behind a gateway that has authenticated somebody already, its
//! `X-User-Id` does. (There are no passwords here: put your identity provider in front, and let nobody but it set that
//! header.)
//!
//! After each write the place of that write in the database's log is kept twice: in Redis for the user, and with the
//! client as the cookie `notes_lsn`. Reads then take a state that has it. (The policy `read_your_writes` remembers that
//! in a process; several instances have to share it.)

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};

use crate::app::App;
use crate::cache::{Redis, Reply};
use crate::problem::Problem;
use crate::store::{Actor, Lsn, Since};

const SESSION: &str = "notes_session";
const WROTE: &str = "notes_lsn";
const USER_FIELD: &str = "x-user-id";
const ANONYMOUS: &str = "anonymous";
/// For how long a session lasts, in seconds.
const LASTS_S: &str = "86400";
/// For how long it matters what somebody wrote, in seconds: longer than any replica that is read from lags, and than the
/// cache keeps an entry.
const MATTERS_S: &str = "120";

/// Sets the place of a user's last write; never back, since two of their requests may end in either order.
const ADVANCE: &str = "local known = redis.call('GET', KEYS[1]) \
    if not known or tonumber(known) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end \
    return 1";

/// Who asks.
pub struct Caller {
    /// The user's name.
    pub user: String,
    /// What their reads must have.
    pub since: Since,
    /// The request's number.
    pub request_id: String,
}

impl Caller {
    /// For the activity log.
    pub fn actor(&self) -> Actor {
        Actor { user: self.user.clone(), request_id: self.request_id.clone() }
    }

    /// Remembers a write. Returns the cookie that remembers it too.
    pub async fn wrote(&self, redis: &Redis, lsn: Lsn) -> HeaderValue {
        if self.user != ANONYMOUS {
            let (key, place) = (wrote_key(&self.user), lsn.to_string());
            if let Err(error) = redis.run(&[&["EVAL", ADVANCE, "1", &key, &place, MATTERS_S]]).await {
                tracing::debug!(%error, "only the client knows what it wrote");
            }
        }
        cookie(WROTE, &lsn.to_string(), MATTERS_S)
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Caller, Problem> {
        let request_id = crate::observe::request_id(parts);
        let user = match (cookie_of(&parts.headers, SESSION), named(&parts.headers)?) {
            // Without Redis a session is nobody's; its owner may read on.
            (Some(session), None) => user_of(&app.redis, session).await.ok().flatten(),
            (_, named) => named,
        };
        let user = user.unwrap_or_else(|| ANONYMOUS.to_owned());
        let own: Option<Lsn> = cookie_of(&parts.headers, WROTE).and_then(|text| text.parse().ok());
        let since = match (user.as_str(), own) {
            (ANONYMOUS, None) => Since::Anything,
            (ANONYMOUS, Some(own)) => Since::At(own),
            (user, own) => match (app.redis.run(&[&["GET", &wrote_key(user)]]).await, own) {
                (Ok(replies), own) => match (number(&replies), own) {
                    (None, None) => Since::Anything,
                    (known, own) => Since::At(known.max(own).unwrap_or_default()),
                },
                (Err(_), Some(own)) => Since::At(own),
                (Err(_), None) => Since::Unknown,
            },
        };
        Ok(Caller { user, since, request_id })
    }
}

/// Begins a session: its cookie.
pub async fn begin(redis: &Redis, user: &str) -> Result<HeaderValue, Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Problem::Internal(error.to_string()))?;
    let session: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let done = redis.run(&[&["SET", &session_key(&session), user, "EX", LASTS_S]]).await;
    done.map_err(|error| Problem::unavailable(format!("sessions: {error}")))?;
    Ok(cookie(SESSION, &session, LASTS_S))
}

/// Ends the caller's session, if there is one: a cookie that is over.
pub async fn end(redis: &Redis, headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    if let Some(session) = cookie_of(headers, SESSION) {
        let done = redis.run(&[&["DEL", &session_key(session)]]).await;
        done.map_err(|error| Problem::unavailable(format!("sessions: {error}")))?;
    }
    Ok(cookie(SESSION, "", "0"))
}

/// A name: what the validation of a session's and a header's has in common.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte))
}

/// What tells callers apart before Redis is asked: whose idempotency key it is.
pub fn scope(headers: &HeaderMap) -> Vec<u8> {
    let session = cookie_of(headers, SESSION).unwrap_or_default();
    let user = headers.get(USER_FIELD).map_or(&b""[..], HeaderValue::as_bytes);
    [session.as_bytes(), b"\n", user].concat()
}

fn named(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(name) = headers.get(USER_FIELD) else { return Ok(None) };
    let name = name.to_str().ok().filter(|name| is_name(name));
    let why = "X-User-Id: expected 1 to 64 letters, digits or any of -_.@";
    name.map(|name| Some(name.to_owned())).ok_or_else(|| Problem::Malformed(why.to_owned()))
}

async fn user_of(redis: &Redis, session: &str) -> Result<Option<String>, ()> {
    match redis.run(&[&["GET", &session_key(session)]]).await.map_err(|_| ())?.pop() {
        Some(Reply::Text(user)) => Ok(Some(user)),
        _ => Ok(None),
    }
}

fn number(replies: &[Reply]) -> Option<Lsn> {
    match replies.first() {
        Some(Reply::Text(text)) => text.parse().ok(),
        _ => None,
    }
}

fn session_key(session: &str) -> String {
    format!("session:{session}")
}

fn wrote_key(user: &str) -> String {
    format!("wrote:{user}")
}

fn cookie_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

fn cookie(name: &str, value: &str, seconds: &str) -> HeaderValue {
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax");
    HeaderValue::from_str(&text).expect("names and numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("a=1; notes_lsn=42"));
        headers.append("cookie", HeaderValue::from_static("notes_session=abc"));
        assert_eq!(cookie_of(&headers, WROTE), Some("42"));
        assert_eq!(cookie_of(&headers, SESSION), Some("abc"));
        assert_eq!(cookie_of(&headers, "notes"), None);
    }
}
