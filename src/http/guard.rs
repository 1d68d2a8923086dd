//! Who may ask; decided before a body is read.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::error::ApiError;
use super::state::AppState;

/// Paths that need no key and no permit: health, and what holds no data.
pub(super) fn is_open(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/health" | "/" | "/docs" | "/openapi.json")
        || path.starts_with("/ui/")
}

/// Asks for the key; without one, only accepts requests that are meant for this server.
pub async fn authenticate(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let checked = match &state.config.api_key {
        _ if is_open(request.uri().path()) => Ok(()),
        Some(_) if state.media_secret.opens(request.method(), request.uri().path(), request.headers()) => {
            Ok(())
        }
        Some(key) => check_key(key, request.headers()),
        None => check_host(request.headers(), &state.config.allowed_hosts),
    };
    match checked.and_then(|()| check_origin(&request)) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check_key(key: &str, headers: &HeaderMap) -> Result<(), ApiError> {
    let refused = |code, message: &str| Err(ApiError::new(StatusCode::UNAUTHORIZED, code, message));
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return refused("missing_api_key", "this server wants its key: send `Authorization: Bearer KEY`");
    };
    let value = value.as_bytes();
    let given = match value.split_at_checked(7) {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"bearer ") => given,
        _ => return refused("invalid_api_key", "send the key as `Authorization: Bearer KEY`"),
    };
    if same(given.trim_ascii(), key.as_bytes()) {
        Ok(())
    } else {
        refused("invalid_api_key", "this is not the server's key")
    }
}

/// Compares digests without an early end: the time taken tells nothing of the key, nor of its length.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    let (a, b) = (Sha256::digest(a), Sha256::digest(b));
    std::hint::black_box(a.iter().zip(b.iter()).fold(0, |difference, (x, y)| difference | (x ^ y))) == 0
}

/// Without a key a foreign page could rebind its own name to this server and read the library.
fn check_host(headers: &HeaderMap, allowed: &[String]) -> Result<(), ApiError> {
    let Some(host) = headers.get(header::HOST).and_then(|value| value.to_str().ok()) else { return Ok(()) };
    let name = host_name(host);
    let is_address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    let known = |other: &&String| other.eq_ignore_ascii_case(name);
    if is_address || name.eq_ignore_ascii_case("localhost") || allowed.iter().find(known).is_some() {
        return Ok(());
    }
    let message = "this host name is not this server's: set an API key, or allow the name with --allow-host";
    Err(ApiError::new(StatusCode::FORBIDDEN, "host_not_allowed", message))
}

fn host_name(host: &str) -> &str {
    if host.starts_with('[') {
        return host.split_inclusive(']').next().unwrap_or(host);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// A browser says where a request comes from: another site's page may not change the library.
fn check_origin(request: &Request) -> Result<(), ApiError> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let from = origin.split_once("://").map_or(origin, |(_, host)| host);
    if text(header::HOST).is_some_and(|host| host.eq_ignore_ascii_case(from)) {
        return Ok(());
    }
    let message = "requests from pages of other sites are refused";
    Err(ApiError::new(StatusCode::FORBIDDEN, "cross_origin_refused", message))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_the_key_opens() {
        for good in ["Bearer secret", "bearer secret"] {
            assert!(check_key("secret", &headers(&[("authorization", good)])).is_ok(), "{good}");
        }
        for bad in ["Bearer secre", "Bearer secret2", "Bearer ", "Bearer", "secret", "Basic secret", ""] {
            assert!(check_key("secret", &headers(&[("authorization", bad)])).is_err(), "{bad}");
        }
        assert!(check_key("secret", &HeaderMap::new()).is_err());
    }

    #[test]
    fn rebound_names_are_refused() {
        let allowed = ["media.lan".to_owned()];
        for good in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]", "Media.lan", "10.0.0.1"] {
            assert!(check_host(&headers(&[("host", good)]), &allowed).is_ok(), "{good}");
        }
        for bad in ["evil.example:8080", "127.0.0.1.evil.example", "", "localhost.evil.example"] {
            assert!(check_host(&headers(&[("host", bad)]), &allowed).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_sites_may_not_change_anything() {
        let request = |method: &str, origin: Option<&str>| {
            let builder = Request::builder().method(method).header("host", "localhost:8080");
            let builder = origin.into_iter().fold(builder, |b, o| b.header("origin", o));
            builder.body(Body::empty()).unwrap()
        };
        assert!(check_origin(&request("POST", None)).is_ok());
        assert!(check_origin(&request("POST", Some("http://localhost:8080"))).is_ok());
        assert!(check_origin(&request("GET", Some("http://evil.example"))).is_ok());
        for origin in ["http://evil.example", "null", "http://localhost:9090"] {
            assert!(check_origin(&request("POST", Some(origin))).is_err(), "{origin}");
            assert!(check_origin(&request("DELETE", Some(origin))).is_err(), "{origin}");
        }
    }
}
