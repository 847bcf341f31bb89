//! From a method and a path to a route.
//!
//! Endpoints are named as `GET /notes/:id`. `:name` stands for one segment, a last `*` for the rest, and
//! `*` in the method's place for any. A fixed segment goes before `:name`, and that before `*`; `HEAD` is
//! answered by `GET` where it has no endpoint of its own.

use std::collections::BTreeMap;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A route.
    Route(u32),
    /// The path is known, and not by this method.
    OtherMethod,
    /// No endpoint has such a path.
    Nothing,
}

/// All routes of a gateway.
#[derive(Debug, Default)]
pub struct Router {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    fixed: BTreeMap<String, Node>,
    any: Option<Box<Node>>,
    /// Routes of paths that end here.
    ends: Vec<(String, u32)>,
    /// Routes of paths that end here with `*`.
    rest: Vec<(String, u32)>,
}

impl Router {
    /// Adds an endpoint by its name, or says what is wrong with it.
    pub fn add(&mut self, name: &str, route: u32) -> Result<(), String> {
        let Some((method, path)) = name.split_once(' ') else {
            return Err(format!("`{name}` is no method and path, such as `GET /notes/:id`"));
        };
        let is_method = method == "*" || !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        if !is_method || !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || "?#".contains(c)) {
            return Err(format!("`{name}` is no method and path, such as `GET /notes/:id`"));
        }
        let mut node = &mut self.root;
        let mut segments = path[1..].split('/').peekable();
        while let Some(segment) = segments.next() {
            if segment == "*" && segments.peek().is_none() {
                return put(&mut node.rest, method, route, name);
            }
            node = match segment.strip_prefix(':') {
                Some(_) => node.any.get_or_insert_default(),
                None => node.fixed.entry(segment.to_owned()).or_default(),
            };
        }
        put(&mut node.ends, method, route, name)
    }

    /// Where a request goes.
    pub fn find(&self, method: &str, target: &str) -> Found {
        let path = target.split('?').next().unwrap_or_default();
        let Some(path) = path.strip_prefix('/') else {
            return Found::Nothing;
        };
        let mut known = false;
        match self.root.find(method, path, &mut known) {
            Some(route) => Found::Route(route),
            None if known => Found::OtherMethod,
            None => Found::Nothing,
        }
    }
}

impl Node {
    /// The route of a path from here on. Sets `known` where a path matches and the method does not.
    fn find(&self, method: &str, path: &str, known: &mut bool) -> Option<u32> {
        let (segment, rest) = match path.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (path, None),
        };
        let below = |node: &Node, known: &mut bool| match rest {
            Some(rest) => node.find(method, rest, known),
            None => by_method(&node.ends, method, known),
        };
        let fixed = self.fixed.get(segment).and_then(|node| below(node, known));
        fixed
            .or_else(|| self.any.as_ref().filter(|_| !segment.is_empty()).and_then(|node| below(node, known)))
            .or_else(|| by_method(&self.rest, method, known))
    }
}

fn by_method(routes: &[(String, u32)], method: &str, known: &mut bool) -> Option<u32> {
    let named = |wanted: &str| routes.iter().find(|(name, _)| name == wanted).map(|(_, route)| *route);
    *known |= !routes.is_empty();
    named(method).or_else(|| if method == "HEAD" { named("GET") } else { None }).or_else(|| named("*"))
}

fn put(routes: &mut Vec<(String, u32)>, method: &str, route: u32, name: &str) -> Result<(), String> {
    if routes.iter().any(|(known, _)| known == method) {
        return Err(format!("`{name}` has the path of another endpoint"));
    }
    routes.push((method.to_owned(), route));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_particular_route_wins() {
        let names = [
            "GET /",
            "GET /notes",
            "GET /notes/:id",
            "POST /notes",
            "GET /notes/new",
            "GET /notes/:id/tags/:tag",
            "* /static/*",
            "HEAD /notes",
            "GET /files/*",
            "GET /notes/new/draft",
        ];
        let mut router = Router::default();
        for (route, name) in names.iter().enumerate() {
            router.add(name, route as u32).unwrap();
        }
        for (method, target, expected) in [
            ("GET", "/", Some(0)),
            ("GET", "/?a=/b", Some(0)),
            ("GET", "/notes", Some(1)),
            ("GET", "/notes?x", Some(1)),
            ("GET", "/notes/7", Some(2)),
            ("POST", "/notes", Some(3)),
            ("GET", "/notes/new", Some(4)),
            ("GET", "/notes/7/tags/a", Some(5)),
            ("GET", "/notes/new/tags/a", Some(5)),
            ("PUT", "/static/a/b", Some(6)),
            ("GET", "/static/", Some(6)),
            ("HEAD", "/notes", Some(7)),
            ("HEAD", "/notes/7", Some(2)),
            ("GET", "/files/a/b/c", Some(8)),
            ("GET", "/notes/new/draft", Some(9)),
        ] {
            let expected = expected.map_or(Found::Nothing, Found::Route);
            assert_eq!(router.find(method, target), expected, "{method} {target}");
        }
        for (method, target, expected) in [
            ("DELETE", "/notes", Found::OtherMethod),
            ("GET", "/notes/", Found::Nothing),
            ("GET", "/other", Found::Nothing),
            ("GET", "/static", Found::Nothing),
            ("OPTIONS", "*", Found::Nothing),
            ("GET", "/notes/7/", Found::Nothing),
            ("get", "/", Found::OtherMethod),
        ] {
            assert_eq!(router.find(method, target), expected, "{method} {target}");
        }
    }

    #[test]
    fn names_that_are_no_endpoints_are_refused() {
        let mut router = Router::default();
        for name in ["any", "GET notes", "get /", "GET /a b", " /", "GET /a?b"] {
            assert!(router.add(name, 0).unwrap_err().contains("is no method and path"), "{name}");
        }
        router.add("GET /a/:b", 0).unwrap();
        assert_eq!(router.add("GET /a/:c", 1).unwrap_err(), "`GET /a/:c` has the path of another endpoint");
    }
}
