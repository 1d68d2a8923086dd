//! Why a webhook was refused.

/// Why a webhook was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// No host is allowed.
    #[error("webhooks are off")]
    Disabled,
    /// The URL must not be called.
    #[error("{0}")]
    NotAllowed(String),
    /// The secret does not have the format of Standard Webhooks.
    #[error(
        "`secret` must be `whsec_` followed by 24 to 64 bytes in base64; leave it out to have one generated"
    )]
    BadSecret,
}

impl WebhookError {
    /// Stable error code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Disabled => "webhooks_disabled",
            Self::NotAllowed(_) => "webhook_not_allowed",
            Self::BadSecret => "invalid_value",
        }
    }
}
