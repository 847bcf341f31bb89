//! Pages of lists: `?limit=20&before=1234`. The next page begins before the last item of this one.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Serialize;

use crate::problem::Problem;

const LIMIT: i64 = 20;
const LIMIT_MAX: i64 = 100;

/// What of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// At most so many.
    pub limit: i64,
    /// With numbers below this one.
    pub before: i64,
}

/// A page as clients get it.
#[derive(Serialize)]
pub struct Items<T> {
    /// The newest first.
    pub items: Vec<T>,
    /// The next page; null at the end.
    pub next: Option<String>,
}

impl Page {
    /// What to ask the store for: one more, so that it is known whether there is another page.
    pub fn and_one(&self) -> i64 {
        self.limit + 1
    }

    /// Makes a page of what the store had.
    pub fn of<T>(&self, path: &str, mut items: Vec<T>, number: impl Fn(&T) -> i64) -> Items<T> {
        let more = items.len() as i64 > self.limit;
        items.truncate(self.limit.unsigned_abs() as usize);
        let last = items.last().map(number).filter(|_| more);
        Items { items, next: last.map(|last| format!("{path}?limit={}&before={last}", self.limit)) }
    }

    fn parse(query: &str) -> Result<Page, Problem> {
        let mut page = Page { limit: LIMIT, before: i64::MAX };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number: Option<i64> = value.parse().ok();
            match (name, number) {
                ("limit", Some(limit @ 1..=LIMIT_MAX)) => page.limit = limit,
                ("before", Some(before @ 1..)) => page.before = before,
                ("limit", _) => return Err(Problem::Malformed(format!("limit: expected 1 to {LIMIT_MAX}"))),
                ("before", _) => return Err(Problem::Malformed("before: expected a number above zero".to_owned())),
                _ => return Err(Problem::Malformed("expected no parameters but limit and before".to_owned())),
            }
        }
        Ok(page)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Page, Problem> {
        Page::parse(parts.uri.query().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbers_within_bounds() {
        let page = |limit, before| Page { limit, before };
        assert_eq!(Page::parse("").unwrap(), page(20, i64::MAX));
        assert_eq!(Page::parse("limit=100&before=7").unwrap(), page(100, 7));
        for wrong in ["limit=0", "limit=101", "limit=", "before=0", "before=x", "offset=3", "limit"] {
            assert!(matches!(Page::parse(wrong), Err(Problem::Malformed(_))), "{wrong}");
        }
    }

    #[test]
    fn there_is_a_next_page_only_if_there_is_more() {
        let page = Page { limit: 2, before: i64::MAX };
        let items = page.of("/notes", vec![9, 8, 7], |number| *number);
        assert_eq!((items.items, items.next.as_deref()), (vec![9, 8], Some("/notes?limit=2&before=8")));
        assert_eq!(page.of("/notes", vec![9, 8], |number| *number).next, None);
    }
}
