//! Which endpoints a gateway has: those behind it that its routes and its upstream give it.

use super::names::{Names, unknown};
use super::problem::Report;
use crate::system::{Component, EndpointId, ServiceId};

/// Finds each gateway's endpoints, which are those of the services behind it.
pub(crate) fn routes(names: &mut Names, report: &mut Report) {
    let mut state = vec![State::New; names.services.len()];
    let mut total = 0;
    for index in 0..names.services.len() {
        resolve(index, 0, names, &mut state, &mut total, report);
    }
}

/// Most endpoints of all gateways: a short file can make many of one service's.
const FORWARDED_MAX: usize = 50_000;
/// Most `*` of one route's pattern; each is a search through every endpoint's name.
const STARS_MAX: usize = 3;
/// Most routes of one gateway.
const ROUTES_MAX: usize = 1_000;

/// Most gateways one behind the other.
const GATEWAYS_MAX: usize = 50;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Done,
}

fn resolve(index: usize, depth: usize, names: &mut Names, state: &mut [State], total: &mut usize, report: &mut Report) {
    if *total > FORWARDED_MAX || state[index] != State::New || !names.services[index].is_gateway() {
        return;
    }
    state[index] = State::Open;
    let gateway = names.services[index].filled;
    let (routes, upstream) = (gateway.get("routes"), gateway.get("upstream"));
    if !upstream.is_set() && routes.list().is_empty() && !routes.is_bad() {
        report.at(gateway.at, "the gateway leads nowhere: it has no `upstream` and no `routes`".to_owned());
    }
    if routes.list().len() > ROUTES_MAX {
        report.at(routes.at, format!("a gateway has at most {ROUTES_MAX} routes"));
        return;
    }
    let wanted = routes.list().iter().filter(|route| !route.is_bad()).map(|route| (route.get("to"), Some(route)));
    for (to, route) in wanted.chain(upstream.set().map(|upstream| (upstream, None))) {
        let target = match names.find(to.text()) {
            Some(Component::Service(target)) => target.index(),
            _ if to.is_bad() => continue,
            _ => {
                let known = names.services.iter().filter(|service| !service.hidden).map(|service| service.name);
                unknown(to.at, "service", to.text(), known, report);
                continue;
            }
        };
        if state[target] == State::Open {
            report.at(to.at, format!("gateways in a circle: `{}` leads back here", names.services[target].name));
            continue;
        }
        if depth == GATEWAYS_MAX {
            report.at(to.at, format!("more than {GATEWAYS_MAX} gateways stand one behind the other"));
            continue;
        }
        resolve(target, depth + 1, names, state, total, report);
        let pattern = route.map_or("*", |route| route.get("match").text());
        if pattern.matches('*').count() > STARS_MAX {
            report.at(
                route.map_or(to.at, |route| route.place("match")),
                format!("a pattern has at most {STARS_MAX} `*`"),
            );
            continue;
        }
        let behind = names.services[target].endpoints.clone();
        let mut matched = false;
        for (position, name) in behind.iter().enumerate().filter(|(_, name)| glob(pattern, name)) {
            matched = true;
            let service = &mut names.services[index];
            // The first route that matches an endpoint has it.
            if service.add(name) {
                *total += 1;
                if *total > FORWARDED_MAX {
                    report.at(to.at, format!("the gateways have more than {FORWARDED_MAX} endpoints"));
                    return;
                }
                service.routes.push((EndpointId::new(ServiceId::from(target), position as u32), route));
            }
        }
        if let (false, Some(route), false) = (matched, route, behind.is_empty())
            && !route.get("match").is_bad()
        {
            let what = format!("endpoint of `{}` that matches", to.text());
            unknown(route.place("match"), &what, pattern, behind.iter().map(String::as_str), report);
        }
    }
    state[index] = State::Done;
}

/// Whether a name matches a pattern in which `*` stands for any text.
fn glob(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, name, matches) in [
            ("*", "GET /notes", true),
            ("GET /notes*", "GET /notes/:id", true),
            ("GET /notes*", "POST /notes", false),
            ("GET /notes", "GET /notes", true),
            ("GET /notes", "GET /notes/:id", false),
            ("* /notes/*", "GET /notes/:id", true),
            ("*a*b", "xayb", true),
            ("*a*b", "xaybz", false),
            ("a*a", "a", false),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern, name), matches, "{pattern} {name}");
        }
    }
}
