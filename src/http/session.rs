//! A browser's elements (`<img>`, `<video>`) cannot send a key: for what they load a cookie stands in.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::client::Client;
use super::error::{ApiError, ErrorBody};
use super::state::AppState;
use crate::access::{Caller, Holder};
use crate::jobs::now_unix_ms;

const COOKIE: &str = "triptych_media";
/// Seconds a browser keeps the cookie; a restart of the server or the end of the key ends it sooner.
const MAX_AGE_SECS: i64 = 12 * 3600;

/// The secret of this process that signs its media cookies. A cookie says whose key it stands for, and is
/// good for no longer than the key is.
#[derive(Clone)]
pub struct MediaSecret([u8; 64]);

impl MediaSecret {
    /// A new one from the system's generator.
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// `HOLDER.EXPIRY.SIGNATURE`.
    fn sign(&self, holder: Holder, expires_unix_secs: i64) -> String {
        let claim = format!("{holder}.{expires_unix_secs}");
        let mut mac = Hmac::<Sha256>::new(&self.0.into());
        mac.update(claim.as_bytes());
        format!("{claim}.{}", hex::encode(mac.finalize().into_bytes()))
    }

    fn verified(&self, token: &str) -> Option<Holder> {
        let (claim, signature) = token.rsplit_once('.')?;
        let mut mac = Hmac::<Sha256>::new(&self.0.into());
        mac.update(claim.as_bytes());
        mac.verify_slice(&hex::decode(signature).ok()?).ok()?;
        let (holder, expires) = claim.split_once('.')?;
        let good = expires.parse::<i64>().is_ok_and(|at| now_unix_ms() / 1000 < at);
        holder.parse().ok().filter(|_| good)
    }

    /// Whose key stands behind a request for the bytes of an asset that carries the cookie.
    pub fn holder(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Holder> {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if !reads || !is_media(path) {
            return None;
        }
        cookies(headers).find_map(|token| self.verified(token))
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

/// Sets a cookie that lets the browser load the content and thumbnails of assets (GET only). It is valid for twelve
/// hours, or until the key ends. The web page uses it; programs send the key instead. A server without keys sets no
/// cookie.
#[utoipa::path(post, path = "/v1/session", operation_id = "open_session", tag = "server",
    responses((status = 204, description = "Cookie set"),
        (status = 401, description = "Missing or invalid API key", body = ErrorBody)))]
pub async fn open(
    State(state): State<AppState>,
    Extension(client): Extension<Client>,
    caller: Option<Extension<Caller>>,
) -> Response {
    let Some(Extension(caller)) = caller else { return StatusCode::NO_CONTENT.into_response() };
    let now = now_unix_ms();
    let left_secs = caller.expires_unix_ms().map_or(MAX_AGE_SECS, |at| (at - now) / 1000);
    let age_secs = left_secs.clamp(0, MAX_AGE_SECS);
    let token = state.media_secret.sign(caller.holder(), now / 1000 + age_secs);
    let secure = if client.https || state.config.secure_cookie { "; Secure" } else { "" };
    // Strict: another site's page cannot make the browser send it along.
    let cookie =
        format!("{COOKIE}={token}; Path=/v1/assets; Max-Age={age_secs}; HttpOnly; SameSite=Strict{secure}");
    match HeaderValue::try_from(cookie) {
        Ok(cookie) => (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response(),
        Err(_) => ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::KeyId;

    #[test]
    fn the_cookie_opens_media_and_nothing_else() {
        let secret = MediaSecret::generate();
        let holder = Holder::Key(KeyId::generate());
        let token = secret.sign(holder, now_unix_ms() / 1000 + 60);
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, value.parse().unwrap());
            headers
        };
        let good = with(&format!("theme=dark; {COOKIE}=old; {COOKIE}={token}"));
        let opens = |method: Method, path: &str, headers: &HeaderMap| secret.holder(&method, path, headers);
        for path in ["/v1/assets/asset_1/content", "/v1/assets/asset_1/thumbnail"] {
            assert_eq!(opens(Method::GET, path, &good), Some(holder), "{path}");
            assert_eq!(opens(Method::HEAD, path, &good), Some(holder), "{path}");
            assert_eq!(opens(Method::POST, path, &good), None, "{path}");
            for bad in ["", COOKIE, &format!("{COOKIE}="), &format!("{COOKIE}=0{token}")] {
                assert_eq!(opens(Method::GET, path, &with(bad)), None, "{path} {bad}");
            }
            assert_eq!(opens(Method::GET, path, &HeaderMap::new()), None);
        }
        for path in
            ["/v1/assets", "/v1/assets/a", "/v1/search", "/v1/assets/a/content/x", "/v1/assets/a/b/content"]
        {
            assert_eq!(opens(Method::GET, path, &good), None, "{path}");
        }
    }

    #[test]
    fn a_cookie_cannot_be_made_or_changed() {
        let secret = MediaSecret::generate();
        let soon = now_unix_ms() / 1000 + 60;
        let token = secret.sign(Holder::Fixed, soon);
        assert_eq!(secret.verified(&token), Some(Holder::Fixed));
        assert_eq!(MediaSecret::generate().verified(&token), None, "another process");
        assert_eq!(secret.verified(&secret.sign(Holder::Fixed, now_unix_ms() / 1000)), None, "over");
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
            assert_eq!(secret.verified(std::str::from_utf8(&bytes).unwrap()), None, "{at}");
            assert_eq!(secret.verified(&token[..at]), None, "{at}");
        }
        let other = secret.sign(Holder::Key(KeyId::generate()), soon);
        let signature = other.rsplit_once('.').unwrap().1;
        assert_eq!(secret.verified(&format!("fixed.{soon}.{signature}")), None);
    }
}
