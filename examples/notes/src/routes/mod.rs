//! The routes, each in one line, which `openapi.json` has to say the same of.

mod activity;
mod body;
mod notes;
mod operations;
mod page;
mod sessions;

use std::sync::Arc;

use axum::routing::{MethodRouter, delete, get, post, put};
use axum::{Router, middleware};

use crate::app::App;
use crate::observe::observe;
use crate::problem::Problem;

/// What stands around a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Quota, deadline and workers.
    Read,
    /// These, the bulkhead of writes, and idempotency keys.
    Write,
    /// Nothing: operators have to be answered however busy it is.
    Operations,
}

type Route = (Class, &'static str, &'static str, MethodRouter<Arc<App>>);

fn table() -> Vec<Route> {
    use Class::{Operations, Read, Write};
    vec![
        (Read, "GET", "/notes", get(notes::list)),
        (Write, "POST", "/notes", post(notes::create)),
        (Read, "GET", "/notes/{id}", get(notes::read)),
        (Write, "PUT", "/notes/{id}", put(notes::update)),
        (Write, "DELETE", "/notes/{id}", delete(notes::remove)),
        (Write, "POST", "/notes/{id}/restore", post(notes::restore)),
        (Read, "GET", "/notes/{id}/activity", get(activity::of_note)),
        (Read, "GET", "/activity", get(activity::all)),
        (Read, "POST", "/sessions", post(sessions::begin)),
        (Read, "GET", "/sessions/current", get(sessions::current)),
        (Read, "DELETE", "/sessions/current", delete(sessions::end)),
        (Operations, "GET", "/health/liveness", get(operations::liveness)),
        (Operations, "GET", "/health/readiness", get(operations::readiness)),
        (Operations, "GET", "/metrics", get(operations::metrics)),
        (Operations, "GET", "/openapi.json", get(operations::openapi)),
    ]
}

/// The whole service.
pub fn router(app: &Arc<App>) -> Router {
    let of = |class: Class| {
        let routes = table().into_iter().filter(|(of, ..)| *of == class);
        routes.fold(Router::new(), |router, (_, _, path, route)| router.route(path, route))
    };
    app.guards
        .around(of(Class::Read), of(Class::Write))
        .merge(of(Class::Operations))
        .fallback(async || Problem::Missing)
        .method_not_allowed_fallback(async || Problem::Method)
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .with_state(app.clone())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::{operations::OPENAPI, table};

    fn document() -> Value {
        serde_json::from_str(OPENAPI).expect("JSON")
    }

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let routes: BTreeSet<(String, String)> =
            table().into_iter().map(|(_, method, path, _)| (path.to_owned(), method.to_lowercase())).collect();
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        let documented: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, item)| item.as_object().expect("operations").keys().map(|m| (path.clone(), m.clone())))
            .filter(|(_, key)| key != "parameters")
            .collect();
        assert_eq!(documented, routes);
    }

    #[test]
    fn every_operation_says_what_it_answers_and_every_reference_leads_somewhere() {
        let document = document();
        let mut operations = 0;
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("operations").iter().filter(|(m, _)| *m != "parameters")
            {
                assert!(operation["summary"].is_string(), "{method} {path}");
                assert!(!operation["responses"].as_object().expect("responses").is_empty(), "{method} {path}");
                operations += 1;
            }
        }
        assert_eq!(operations, table().len());
        let mut references = 0;
        let mut left = vec![&document];
        while let Some(value) = left.pop() {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(reference)) = fields.get("$ref") {
                        let pointer = reference.strip_prefix('#').expect("within the document");
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                        references += 1;
                    }
                    left.extend(fields.values());
                }
                Value::Array(items) => left.extend(items),
                _ => {}
            }
        }
        assert!(references > 10, "{references}");
    }
}
