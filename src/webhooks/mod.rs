//! Webhooks: validated and signed here, sent from the outbox by `sender`.
//!
//! The format is that of Standard Webhooks: `webhook-id`, `webhook-timestamp`, and `webhook-signature` with
//! an HMAC-SHA256 over both and the body.

mod error;
mod sender;

pub use error::WebhookError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use sha2::Sha256;

pub use sender::Sender;

use crate::outbound::Outbound;
use crate::store::NewWebhook;
use crate::types::now_unix_ms;

/// Prefix of every secret.
const SECRET_PREFIX: &str = "whsec_";
/// Length of a user's secret in bytes, as Standard Webhooks defines it.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Length of a generated secret in bytes.
const NEW_SECRET_BYTES: usize = 32;
/// The sender checks twice a second; after this long without a check it counts as stuck.
const SENDER_PATIENCE_MS: i64 = 30_000;
/// Longest URL of a webhook in bytes.
const MAX_URL_BYTES: usize = 2048;

/// Sends webhooks to allowed hosts.
#[async_trait]
pub trait Deliver: fmt::Debug + Send + Sync {
    /// The host and port of a URL, or a message that says why it must not be called.
    fn check(&self, url: &str) -> Result<String, String>;
    /// The status that the receiver answers, or a message that says why there is none.
    async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<u16, String>;
}

#[async_trait]
impl Deliver for Outbound {
    fn check(&self, url: &str) -> Result<String, String> {
        let url = Self::check(self, url).map_err(|error| error.to_string())?;
        let port = url.port_or_known_default().unwrap_or(0);
        Ok(format!("{}:{port}", url.host_str().unwrap_or("")))
    }

    async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<u16, String> {
        // A host allowed at the time of the request may not be allowed now.
        let url = Self::check(self, url).map_err(|error| error.to_string())?;
        Self::post(self, &url, headers, body, timeout).await.map_err(|error| error.to_string())
    }
}

/// A webhook as a caller requests it, and as the answer shows it.
#[derive(Clone)]
pub struct Webhook {
    /// URL of the receiver, checked against the allowed hosts.
    pub url: String,
    /// `whsec_…`. In a request, `None` has one generated. In the answer, it is the generated one, which is shown only
    /// once, or `None` if the caller supplied one.
    pub secret: Option<String>,
}

/// Neither gets into a log.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

/// The webhooks of an open library: validates new ones, and sends pending deliveries.
#[derive(Debug)]
pub struct Webhooks {
    /// `None`: webhooks are off.
    door: Option<Arc<dyn Deliver>>,
    /// When the sender last checked the outbox; 0: never.
    looked_unix_ms: AtomicI64,
}

impl Webhooks {
    /// Webhooks that go out through this door; `None`: webhooks are off.
    #[must_use]
    pub const fn new(door: Option<Arc<dyn Deliver>>) -> Self {
        Self { door, looked_unix_ms: AtomicI64::new(0) }
    }

    /// Whether webhooks are on.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.door.is_some()
    }

    /// Whether the sender has stopped checking the outbox.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        let last = self.looked_unix_ms.load(Ordering::Relaxed);
        self.is_on() && last > 0 && now_unix_ms() - last > SENDER_PATIENCE_MS
    }

    /// Validates a webhook before the work that it reports on begins; returns it as it is stored and as the answer
    /// shows it.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub fn checked(&self, requested: &Webhook) -> Result<(NewWebhook, Webhook), WebhookError> {
        checked(self.door.as_ref(), requested)
    }
}

fn checked(
    door: Option<&Arc<dyn Deliver>>,
    requested: &Webhook,
) -> Result<(NewWebhook, Webhook), WebhookError> {
    let door = door.ok_or(WebhookError::Disabled)?;
    if requested.url.len() > MAX_URL_BYTES {
        return Err(WebhookError::NotAllowed(format!("the URL is longer than {MAX_URL_BYTES} bytes")));
    }
    let host = door.check(&requested.url).map_err(WebhookError::NotAllowed)?;
    let secret = match &requested.secret {
        Some(secret) => {
            key_of(secret)?;
            secret.clone()
        }
        None => new_secret(),
    };
    let generated = requested.secret.is_none().then(|| secret.clone());
    let shown = Webhook { url: requested.url.clone(), secret: generated };
    Ok((NewWebhook { url: requested.url.clone(), host, secret }, shown))
}

fn new_secret() -> String {
    let key: [u8; NEW_SECRET_BYTES] = rand::random();
    format!("{SECRET_PREFIX}{}", STANDARD.encode(key))
}

fn key_of(secret: &str) -> Result<Vec<u8>, WebhookError> {
    let encoded = secret.strip_prefix(SECRET_PREFIX).ok_or(WebhookError::BadSecret)?;
    let key = STANDARD.decode(encoded).map_err(|_| WebhookError::BadSecret)?;
    if SECRET_BYTES.contains(&key.len()) { Ok(key) } else { Err(WebhookError::BadSecret) }
}

/// The signature of a delivery, with its version prefix `v1,`.
fn signature(secret: &str, id: &str, timestamp_secs: i64, body: &str) -> Result<String, WebhookError> {
    let key = key_of(secret)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| WebhookError::BadSecret)?;
    for part in [id, ".", &timestamp_secs.to_string(), ".", body] {
        mac.update(part.as_bytes());
    }
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// The headers of one attempt.
fn headers(secret: &str, id: &str, timestamp_secs: i64, body: &str) -> Result<HeaderMap, WebhookError> {
    let signature = signature(secret, id, timestamp_secs, body)?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let values = [
        ("webhook-id", id),
        ("webhook-timestamp", &timestamp_secs.to_string()),
        ("webhook-signature", &signature),
    ];
    for (name, value) in values {
        headers.insert(name, HeaderValue::from_str(value).map_err(|_| WebhookError::BadSecret)?);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Anywhere;

    #[async_trait]
    impl Deliver for Anywhere {
        fn check(&self, url: &str) -> Result<String, String> {
            url.strip_prefix("http://").map(str::to_owned).ok_or_else(|| "no".to_owned())
        }
        async fn post(&self, _: &str, _: HeaderMap, _: Bytes, _: Duration) -> Result<u16, String> {
            Ok(200)
        }
    }

    #[test]
    fn the_signature_is_that_of_the_convention() {
        // The example from the reference implementations of Standard Webhooks.
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", r#"{"test": 2432232314}"#);
        assert_eq!(
            signature(secret, id, 1_614_265_330, body).unwrap(),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn webhooks_are_checked_and_a_made_secret_is_shown() {
        let door: Arc<dyn Deliver> = Arc::new(Anywhere);
        let ask = |url: &str, secret: Option<&str>| {
            checked(Some(&door), &Webhook { url: url.to_owned(), secret: secret.map(str::to_owned) })
        };
        let (stored, shown) = ask("http://a", None).unwrap();
        assert_eq!((stored.host.as_str(), shown.secret.as_deref()), ("a", Some(stored.secret.as_str())));
        assert_eq!(key_of(&stored.secret).unwrap().len(), NEW_SECRET_BYTES);
        assert_ne!(stored.secret, ask("http://a", None).unwrap().0.secret);
        assert!(!format!("{stored:?} {shown:?}").contains("whsec_"));

        let own = format!("whsec_{}", STANDARD.encode([7; 24]));
        let (stored, shown) = ask("http://a", Some(&own)).unwrap();
        assert_eq!((stored.secret, shown.secret), (own, None));
        let short = format!("whsec_{}", STANDARD.encode([7; 23]));
        for bad in ["", "whsec_", "whsec_?", &short, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert_eq!(ask("http://a", Some(bad)).unwrap_err(), WebhookError::BadSecret, "{bad}");
        }
        assert_eq!(ask("ftp://a", None).unwrap_err().code(), "webhook_not_allowed");
        let long = format!("http://{}", "a".repeat(3000));
        assert_eq!(ask(&long, None).unwrap_err().code(), "webhook_not_allowed");
        let requested = Webhook { url: "http://a".into(), secret: None };
        assert_eq!(checked(None, &requested).unwrap_err(), WebhookError::Disabled);
    }
}
