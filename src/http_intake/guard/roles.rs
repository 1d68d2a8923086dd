//! The table of roles: which role each call needs. `tests/http_api.rs` compares it with the OpenAPI document,
//! so that a new call cannot be forgotten.

use axum::http::Method;

use crate::access::Role;
use Role::{Admin, Metrics, Read, Write};

/// Method, route, and the role it needs; `None`: anybody may call it, there is nothing of the library in it.
pub const TABLE: &[(&str, &str, Option<Role>)] = &[
    ("GET", "/", None),
    ("GET", "/docs", None),
    ("GET", "/ui/{*path}", None),
    ("GET", "/openapi.json", None),
    ("GET", "/livez", None),
    ("GET", "/readyz", None),
    ("GET", "/health", None),
    ("GET", "/metrics", Some(Metrics)),
    ("GET", "/v1/stats", Some(Read)),
    ("POST", "/v1/session", Some(Read)),
    ("GET", "/v1/assets", Some(Read)),
    ("POST", "/v1/assets", Some(Write)),
    ("GET", "/v1/assets/{id}", Some(Read)),
    ("PATCH", "/v1/assets/{id}", Some(Write)),
    ("DELETE", "/v1/assets/{id}", Some(Write)),
    ("POST", "/v1/assets/delete", Some(Write)),
    ("POST", "/v1/assets/update", Some(Write)),
    ("GET", "/v1/assets/{id}/content", Some(Read)),
    ("GET", "/v1/assets/{id}/thumbnail", Some(Read)),
    ("GET", "/v1/assets/{id}/embeddings", Some(Read)),
    ("GET", "/v1/assets/{id}/timeline", Some(Read)),
    ("POST", "/v1/assets/{id}/timeline", Some(Read)),
    ("POST", "/v1/search", Some(Read)),
    ("POST", "/v1/embeddings", Some(Read)),
    ("GET", "/v1/export", Some(Read)),
    ("POST", "/v1/evaluations", Some(Read)),
    ("GET", "/v1/jobs", Some(Read)),
    ("POST", "/v1/jobs", Some(Write)),
    ("GET", "/v1/jobs/{id}", Some(Read)),
    ("DELETE", "/v1/jobs/{id}", Some(Write)),
    ("POST", "/v1/jobs/{id}/pause", Some(Write)),
    ("POST", "/v1/jobs/{id}/resume", Some(Write)),
    ("POST", "/v1/jobs/{id}/retry", Some(Write)),
    ("GET", "/v1/jobs/{id}/items", Some(Read)),
    ("GET", "/v1/jobs/{id}/events", Some(Read)),
    ("GET", "/v1/standing-queries", Some(Read)),
    ("POST", "/v1/standing-queries", Some(Write)),
    ("GET", "/v1/standing-queries/{id}", Some(Read)),
    ("PATCH", "/v1/standing-queries/{id}", Some(Write)),
    ("DELETE", "/v1/standing-queries/{id}", Some(Write)),
    ("GET", "/v1/standing-queries/{id}/matches", Some(Read)),
    ("GET", "/v1/webhooks/deliveries", Some(Read)),
    ("POST", "/v1/webhooks/deliveries/{id}/retry", Some(Write)),
    ("GET", "/v1/watches", Some(Read)),
    ("POST", "/v1/watches", Some(Write)),
    ("GET", "/v1/watches/{id}", Some(Read)),
    ("DELETE", "/v1/watches/{id}", Some(Write)),
    ("GET", "/v1/models", Some(Read)),
    ("POST", "/v1/models", Some(Admin)),
    ("DELETE", "/v1/models/{id}", Some(Admin)),
    ("POST", "/v1/models/{id}/promote", Some(Admin)),
    ("GET", "/v1/snapshots", Some(Read)),
    ("POST", "/v1/snapshots", Some(Admin)),
    ("GET", "/v1/snapshots/{id}", Some(Read)),
    ("DELETE", "/v1/snapshots/{id}", Some(Admin)),
    ("GET", "/v1/retention", Some(Read)),
    ("PUT", "/v1/retention", Some(Admin)),
    ("POST", "/v1/retention/apply", Some(Admin)),
    ("POST", "/v1/compactions", Some(Admin)),
    ("GET", "/v1/checks", Some(Read)),
    ("POST", "/v1/checks", Some(Admin)),
    ("GET", "/v1/keys", Some(Admin)),
    ("POST", "/v1/keys", Some(Admin)),
    ("DELETE", "/v1/keys/{id}", Some(Admin)),
];

/// The role that a call needs. A path without a route needs any key, to get its 404; a route that is not in
/// the table needs an admin; a method that is not in the table needs the role of the strictest method of its
/// route.
pub fn needed(method: &Method, route: Option<&str>) -> Option<Role> {
    let Some(route) = route else { return Some(Metrics) };
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    let rules = || TABLE.iter().filter(|(_, path, _)| *path == route);
    match rules().find(|(known, ..)| *known == method) {
        Some((.., role)) => *role,
        None => rules().map(|(.., role)| *role).max().unwrap_or(Some(Admin)),
    }
}

/// Whether a call changes something: it belongs in the audit log, and runs to its end (`kit::finish`).
pub fn changes(method: &Method, needed: Option<Role>) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    !reads && needed.is_some_and(|role| role >= Write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_intake::open::is_open;

    #[test]
    fn open_paths_are_those_of_the_table() {
        for (_, path, role) in TABLE {
            assert_eq!(is_open(&path.replace("{*path}", "app.js")), role.is_none(), "{path}");
        }
    }

    #[test]
    fn what_the_table_does_not_know_is_not_open() {
        let role = |method: Method, route| needed(&method, route);
        assert_eq!(role(Method::HEAD, Some("/v1/assets/{id}/content")), Some(Read));
        assert_eq!(role(Method::GET, Some("/v1/new")), Some(Admin));
        assert_eq!(role(Method::PUT, Some("/v1/assets/{id}")), Some(Write));
        assert_eq!(role(Method::POST, Some("/livez")), None);
        assert_eq!(role(Method::GET, None), Some(Metrics));
        assert!(changes(&Method::DELETE, Some(Write)) && changes(&Method::POST, Some(Admin)));
        assert!(!changes(&Method::POST, Some(Read)) && !changes(&Method::GET, Some(Admin)));
    }
}
