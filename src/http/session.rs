//! A browser's elements (`<img>`, `<video>`) cannot send the key: for what they load a cookie stands in.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::error::{ApiError, ErrorBody};
use super::guard::same;
use super::state::AppState;

const COOKIE: &str = "triptych_media";
/// Seconds a browser keeps the cookie; a restart of the server ends it sooner.
const MAX_AGE_SECS: u32 = 12 * 3600;

/// The secret of this process that its media cookies carry.
#[derive(Clone)]
pub struct MediaSecret(String);

impl MediaSecret {
    /// A new one, 256 bits from the system's generator.
    pub fn generate() -> Self {
        Self(hex::encode(rand::random::<[u8; 32]>()))
    }

    /// Whether a request is one for the bytes of an asset and carries the cookie.
    pub fn opens(&self, method: &Method, path: &str, headers: &HeaderMap) -> bool {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        reads && is_media(path) && cookies(headers).any(|given| same(given.as_bytes(), self.0.as_bytes()))
    }
}

fn is_media(path: &str) -> bool {
    let rest = path.strip_prefix("/v1/assets/").and_then(|rest| rest.split_once('/'));
    matches!(rest, Some((_, "content" | "thumbnail")))
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// Gives the browser a cookie with which its elements may load the content and thumbnails of assets
/// (GET only) for twelve hours. The page asks for it; programs send the key instead.
#[utoipa::path(post, path = "/v1/session", operation_id = "open_session", tag = "server",
    responses((status = 204, description = "The cookie is set"),
        (status = 401, description = "No key, or not the server's", body = ErrorBody)))]
pub async fn open(State(state): State<AppState>) -> Response {
    // Strict: another site's page cannot make the browser send it along.
    let cookie = format!(
        "{COOKIE}={}; Path=/v1/assets; Max-Age={MAX_AGE_SECS}; HttpOnly; SameSite=Strict",
        state.media_secret.0
    );
    match HeaderValue::try_from(cookie) {
        Ok(cookie) => (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response(),
        Err(_) => ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_opens_media_and_nothing_else() {
        let secret = MediaSecret::generate();
        assert_ne!(secret.0, MediaSecret::generate().0);
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, value.parse().unwrap());
            headers
        };
        let good = with(&format!("theme=dark; {COOKIE}={}", secret.0));
        for path in ["/v1/assets/asset_1/content", "/v1/assets/asset_1/thumbnail"] {
            assert!(secret.opens(&Method::GET, path, &good), "{path}");
            assert!(secret.opens(&Method::HEAD, path, &good), "{path}");
            assert!(!secret.opens(&Method::POST, path, &good), "{path}");
            for bad in ["", COOKIE, &format!("{COOKIE}="), &format!("{COOKIE}=0{}", secret.0)] {
                assert!(!secret.opens(&Method::GET, path, &with(bad)), "{path} {bad}");
            }
            assert!(!secret.opens(&Method::GET, path, &HeaderMap::new()));
        }
        for path in
            ["/v1/assets", "/v1/assets/a", "/v1/search", "/v1/assets/a/content/x", "/v1/assets/a/b/content"]
        {
            assert!(!secret.opens(&Method::GET, path, &good), "{path}");
        }
    }
}
