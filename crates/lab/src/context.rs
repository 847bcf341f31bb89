//! What a request carries from process to process: whose it is, what it is about, where its chance comes from.

use http::HeaderMap;
use plimsoll_model::draw::{Draw, mix};

/// Names the user to gateways, where the file names no field for that.
pub const USER: &str = "x-plimsoll-user";
/// The request's context.
pub const CONTEXT: &str = "x-plimsoll-context";
/// Which attempt of its call it is, from 1: left out for the first.
pub const ATTEMPT: &str = "x-plimsoll-attempt";
/// Every gateway writes whom it asks for here.
pub const FORWARDED: &str = "x-forwarded-for";
/// The priority class, where the file names no field for that.
pub const CLASS: &str = "x-plimsoll-class";
/// What the session has written, by store: on answers to writes, and then on the session's requests.
pub const WROTE: &str = "x-plimsoll-wrote";

/// Marks keys of requests that have a key of their own: none is ever asked for twice.
pub const FRESH_KEY: u32 = 1 << 31;

/// A request's context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The client, by its number.
    pub client: u32,
    /// The user of it.
    pub user: u32,
    /// What the request is about.
    pub key: u32,
    /// Its priority class; 0 is the most important.
    pub class: u8,
    /// Where its chance comes from.
    pub draw: Draw,
    /// Which logical request it is, whatever attempt.
    pub logical: u64,
    /// What its session has written: positions by store, `0:1:42`.
    pub wrote: String,
}

impl Context {
    /// As it goes over the wire.
    pub fn field(&self) -> impl std::fmt::Display {
        let Context { client, user, key, class, draw, logical, .. } = self;
        std::fmt::from_fn(move |f| write!(f, "{client}.{user}.{key}.{class}.{:x}.{logical:x}", draw.0))
    }

    /// From a request's fields. One that comes from elsewhere gets a context of its own.
    ///
    /// A second attempt has chances of its own, as the simulation's has: who asks again would meet the same failure,
    /// and a hedge the same pause. Gateways send all attempts alike, so behind them chance is always fresh.
    pub fn of(fields: &HeaderMap, fresh: impl FnOnce() -> u64) -> Context {
        let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
        let read = |text: &str| {
            let mut parts = text.split('.');
            let context = Context {
                client: parts.next()?.parse().ok()?,
                user: parts.next()?.parse().ok()?,
                key: parts.next()?.parse().ok()?,
                class: parts.next()?.parse().ok()?,
                draw: Draw(u64::from_str_radix(parts.next()?, 16).ok()?),
                logical: u64::from_str_radix(parts.next()?, 16).ok()?,
                wrote: String::new(),
            };
            Some(context)
        };
        let mut context = match text(CONTEXT).and_then(read) {
            Some(mut context) if fields.contains_key(FORWARDED) => {
                context.draw = context.draw.part(fresh());
                context
            }
            Some(mut context) => {
                let attempt: Option<u64> = text(ATTEMPT).and_then(|number| number.parse().ok());
                context.draw = attempt.map_or(context.draw, |number| context.draw.part(number | 1 << 47));
                context
            }
            None => {
                let bits = fresh();
                let key = (bits >> 33) as u32 | FRESH_KEY;
                Context { client: 0, user: 0, key, class: 0, draw: Draw(bits), logical: bits, wrote: String::new() }
            }
        };
        context.wrote = text(WROTE).unwrap_or_default().to_owned();
        context
    }

    /// The user's session.
    pub fn session(&self) -> u64 {
        u64::from(self.client) << 32 | u64::from(self.user)
    }

    /// What quotas and sticky balancers know the user by.
    pub fn user_key(&self) -> u64 {
        mix(self.session())
    }

    /// The context of something that this request asks for, at a place of its program.
    pub fn below(&self, site: u64) -> Context {
        Context { draw: self.draw.part(site), logical: mix(self.logical ^ site), ..self.clone() }
    }

    /// The position in a store's log that the session has written up to: timeline and number.
    pub fn wrote(&self, store: u32) -> Option<(u32, u64)> {
        wrote(&self.wrote, store)
    }
}

/// A store's position among several, such as `0:1:42,3:1:7`.
fn wrote(all: &str, store: u32) -> Option<(u32, u64)> {
    all.split(',').find_map(|entry| {
        let mut parts = entry.split(':');
        let of: u32 = parts.next()?.parse().ok()?;
        let at = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        (of == store).then_some(at)
    })
}

/// Adds a store's position to several; the later one stays.
pub fn add_wrote(all: &mut String, store: u32, timeline: u32, number: u64) {
    if wrote(all, store).is_some_and(|known| known >= (timeline, number)) {
        return;
    }
    let prefix = format!("{store}:");
    let mut entries: Vec<String> =
        all.split(',').filter(|entry| !entry.is_empty() && !entry.starts_with(&prefix)).map(str::to_owned).collect();
    entries.push(format!("{store}:{timeline}:{number}"));
    *all = entries.join(",");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_survive_the_wire() {
        let context = Context {
            client: 1,
            user: 2,
            key: 3,
            class: 4,
            draw: Draw(u64::MAX),
            logical: 6,
            wrote: "0:1:42".to_owned(),
        };
        let mut fields = HeaderMap::new();
        fields.insert(CONTEXT, context.field().to_string().parse().unwrap());
        fields.insert(WROTE, context.wrote.parse().unwrap());
        assert_eq!(Context::of(&fields, || 0), context);
        assert_eq!(context.wrote(0), Some((1, 42)));
        let stranger = Context::of(&HeaderMap::new(), || 7);
        assert_eq!((stranger.draw, stranger.key & FRESH_KEY), (Draw(7), FRESH_KEY));
    }

    #[test]
    fn every_attempt_has_chances_of_its_own() {
        let context = Context { client: 0, user: 0, key: 0, class: 0, draw: Draw(5), logical: 6, wrote: String::new() };
        let mut fields = HeaderMap::new();
        fields.insert(CONTEXT, context.field().to_string().parse().unwrap());
        let drawn = |fields: &HeaderMap, fresh| {
            let read = Context::of(fields, || fresh);
            assert_eq!(Context { draw: Draw(5), ..read.clone() }, context, "all else stays");
            read.draw
        };
        let mut seen = vec![drawn(&fields, 7)];
        for attempt in [2, 3] {
            fields.insert(ATTEMPT, attempt.into());
            seen.push(drawn(&fields, 7));
            assert_eq!(seen.last(), Some(&drawn(&fields, 8)), "one seed brings the same");
        }
        fields.insert(FORWARDED, "127.0.0.1".parse().unwrap());
        seen.extend([7, 8].map(|fresh| drawn(&fields, fresh)));
        let distinct: std::collections::BTreeSet<u64> = seen.iter().map(|draw| draw.0).collect();
        assert_eq!(distinct.len(), seen.len(), "{seen:?}");
    }

    #[test]
    fn the_later_position_stays() {
        let mut all = String::new();
        add_wrote(&mut all, 0, 1, 5);
        add_wrote(&mut all, 3, 1, 7);
        add_wrote(&mut all, 0, 1, 4);
        assert_eq!((wrote(&all, 0), wrote(&all, 3), wrote(&all, 1)), (Some((1, 5)), Some((1, 7)), None));
        add_wrote(&mut all, 0, 2, 1);
        assert_eq!(wrote(&all, 0), Some((2, 1)));
    }
}
