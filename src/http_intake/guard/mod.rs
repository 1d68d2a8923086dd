//! Decides whether a request is allowed, before its body is read.

pub mod audit;
mod host;
pub mod roles;

use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use self::audit::Entry;
use crate::access::{Caller, Found, Role, WrongAnswer};
use crate::http_intake::client::Client;
use crate::http_intake::state::AppState;
use crate::http_kit::error::ApiError;
use crate::http_kit::finish;

/// When an address may have a key compared again whose comparisons are rationed.
const COMPARE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Requires a key with the role that the call needs; without any keys, accepts only requests addressed to
/// this server. Changes go into the audit log, and run to their end even if the client disconnects.
pub async fn authenticate(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let route = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let needed = roles::needed(&parts.method, route);
    let caller = match admit(&state, &parts, needed).await {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    if let Err(error) = host::check_origin(&parts.method, &parts.headers) {
        return error.into_response();
    }
    let changes = roles::changes(&parts.method, needed);
    let audit = state.config.access.audit.as_ref().filter(|_| changes);
    let entry = audit.map(|log| Entry::begin(log.clone(), &parts, caller.as_ref()));
    if let Some(caller) = caller {
        parts.extensions.insert(caller);
    }
    let answered = async move {
        let response = next.run(Request::from_parts(parts, body)).await;
        // An answer that the client has is in the log.
        if let Some(written) = entry.and_then(|entry| entry.end(&response)) {
            let _ = written.await;
        }
        response
    };
    if !changes {
        return answered.await;
    }
    finish::to_the_end(answered).await.unwrap_or_else(IntoResponse::into_response)
}

/// The key of a request, if the call is allowed; none where no key is needed.
async fn admit(state: &AppState, request: &Parts, needed: Option<Role>) -> Result<Option<Caller>, ApiError> {
    let Some(needed) = needed else { return Ok(None) };
    if !state.config.access.keys.required() {
        host::check(&request.uri, &request.headers, &state.config.allowed_hosts)?;
        return Ok(None);
    }
    let cookie = || state.media_secret.holder(&request.method, request.uri.path(), &request.headers);
    let by_cookie = match cookie().map(|holder| state.config.access.keys.of(holder)) {
        Some(Found::Caller(caller)) if !request.headers.contains_key(header::AUTHORIZATION) => Some(caller),
        _ => None,
    };
    let caller = match by_cookie {
        Some(caller) => caller,
        None => by_key(state, request).await?,
    };
    tracing::Span::current().record("key_id", tracing::field::display(caller.holder()));
    if let Err(wait) = caller.take_turn() {
        let message = "the rate limit of this key is exceeded; try again later";
        let refused = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message);
        return Err(refused.retry_after(whole_secs(wait)));
    }
    if caller.role() < needed {
        let (has, needs) = (caller.role().as_str(), needed.as_str());
        let message =
            format!("this request needs a key with the role `{needs}`; this key has the role `{has}`");
        return Err(ApiError::new(StatusCode::FORBIDDEN, "insufficient_role", message));
    }
    Ok(Some(caller))
}

async fn by_key(state: &AppState, request: &Parts) -> Result<Caller, ApiError> {
    let refused = |code, message: &str| Err(ApiError::new(StatusCode::UNAUTHORIZED, code, message));
    let access = &state.config.access;
    let address = request.extensions.get::<Client>().map(|client| client.address);
    let mut values = request.headers.get_all(header::AUTHORIZATION).into_iter();
    let Some(value) = values.next() else {
        return refused("missing_api_key", "missing API key; send one as `Authorization: Bearer KEY`");
    };
    if let Some(key) = bearer(value.as_bytes()).filter(|_| values.next().is_none()) {
        match access.keys.find(key) {
            Found::Caller(caller) => return Ok(caller),
            Found::Expired => {
                return refused(
                    "expired_api_key",
                    "this API key has expired; ask your administrator for a new one",
                );
            }
            Found::Revoked => {
                return refused(
                    "revoked_api_key",
                    "this API key was revoked; ask your administrator for a new one",
                );
            }
            Found::Unknown => {}
        }
        // A person may have chosen this one, so it could be guessed; the others are random.
        if access.keys.has_fixed() {
            if address.is_some_and(|address| !access.wrong.may_compare(address)) {
                return Err(too_many_wrong_keys(COMPARE_AGAIN_AFTER));
            }
            if let Found::Caller(caller) = access.keys.find_fixed(key) {
                if let Some(address) = address {
                    access.wrong.right(address);
                }
                return Ok(caller);
            }
        }
    }
    match address.map(|address| access.wrong.wrong(address)) {
        Some(WrongAnswer::TooMany(wait)) => return Err(too_many_wrong_keys(wait)),
        Some(WrongAnswer::After(delay, place)) => {
            // A task of its own, so that a client cannot escape the wait by disconnecting and trying the next
            // key.
            let wait = tokio::spawn(async move {
                let _place = place;
                tokio::time::sleep(delay).await;
            });
            let _ = wait.await;
        }
        Some(WrongAnswer::Now) | None => {}
    }
    refused("invalid_api_key", "invalid API key; send a valid one as `Authorization: Bearer KEY`")
}

/// The key of an `Authorization` header.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

fn too_many_wrong_keys(wait: Duration) -> ApiError {
    let message = "too many invalid API keys came from this address; try again later";
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_wrong_keys", message).retry_after(whole_secs(wait))
}

fn whole_secs(wait: Duration) -> u64 {
    wait.as_secs_f64().ceil().max(1.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bearer_keys_are_read() {
        for good in ["Bearer secret", "bearer secret", "BEARER   secret "] {
            assert_eq!(bearer(good.as_bytes()), Some(&b"secret"[..]), "{good}");
        }
        assert_eq!(bearer(b"Bearer "), Some(&b""[..]));
        for bad in ["Bearer", "secret", "Basic secret", "", "Bearersecret"] {
            assert_eq!(bearer(bad.as_bytes()), None, "{bad}");
        }
    }
}
