//! Webhooks in requests and answers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::library::Webhook;

/// A webhook.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookBody {
    /// `http://` or `https://` URL on an allowed host.
    url: String,
    /// `whsec_` followed by 24 to 64 bytes in base64; if left out, the server generates one and shows it once.
    secret: Option<String>,
}

/// Neither gets into a log.
impl std::fmt::Debug for WebhookBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookBody").finish_non_exhaustive()
    }
}

impl From<WebhookBody> for Webhook {
    fn from(body: WebhookBody) -> Self {
        Self { url: body.url, secret: body.secret }
    }
}

/// The webhook.
#[derive(Serialize, ToSchema)]
pub struct WebhookView {
    /// URL of the receiver.
    pub url: String,
    /// The generated secret; shown only in the answer to the request that created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl From<Webhook> for WebhookView {
    fn from(webhook: Webhook) -> Self {
        Self { url: webhook.url, secret: webhook.secret }
    }
}
