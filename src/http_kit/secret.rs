//! The secret that signs media cookies, which replace a key when a browser loads content.

use axum::http::{HeaderMap, Method, header};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::access::Holder;
use crate::types::now_unix_ms;

/// Name of the cookie.
pub const COOKIE: &str = "triptych_media";

/// The secret of this process that signs its media cookies. A cookie names its key, and is valid no longer
/// than the key.
#[derive(Clone)]
pub struct MediaSecret([u8; 64]);

impl MediaSecret {
    /// A new one from the system's generator.
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// `HOLDER.EXPIRY.SIGNATURE`.
    pub fn sign(&self, holder: Holder, expires_unix_secs: i64) -> String {
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
