//! Keys: made, listed, revoked.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::{AccessError, KeyRecord, Keys, KnownKey, NewKey, Rate, Role};
use crate::http_intake::extract::{ApiJson, IdPath};
use crate::http_intake::guard::audit::Made;
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::http_kit::views::List;
use crate::library::LibraryError;
use crate::types::{KeyId, rfc3339_millis};

/// A key to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyBody {
    /// Name of the key, 1 to 100 characters, as shown in the audit log.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Role of the key: `metrics`, `read`, `write` or `admin`. Each role includes the ones before it.
    role: Role,
    /// Date at which the key expires, RFC 3339; default: never.
    expires_at: Option<String>,
    /// Rate limit; default: none.
    rate: Option<RateBody>,
}

/// Rate limit of a key; requests above it get status 429 `rate_limited`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateBody {
    /// Maximum number of requests per second, 0.001 to 1,000,000.
    #[schema(minimum = 0.001, maximum = 1_000_000)]
    per_sec: f64,
    /// Maximum number of requests at once; default: those of one second.
    #[schema(minimum = 1)]
    burst: Option<u32>,
}

/// A key's record, without the key itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyView {
    /// Always `key`.
    pub object: &'static str,
    /// Id.
    pub id: KeyId,
    /// Name of the key.
    pub name: String,
    /// Role of the key.
    pub role: Role,
    /// Rate limit; null if there is none.
    pub rate: Option<RateBody>,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// Date at which the key expires, RFC 3339; null if it does not expire.
    pub expires_at: Option<String>,
    /// Time of revocation, RFC 3339 UTC; null if it is not revoked.
    pub revoked_at: Option<String>,
    /// Last known use, RFC 3339 UTC; null if none is known.
    pub last_used_at: Option<String>,
}

/// A newly created key.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedKey {
    /// The key itself: `tk_` and 64 hexadecimal digits. It is not stored, so only this answer shows it.
    pub key: String,
    /// The stored key.
    #[serde(flatten)]
    pub view: KeyView,
}

impl KeyView {
    /// As it is shown.
    #[must_use]
    pub fn new(record: &KeyRecord, last_used_unix_ms: Option<i64>) -> Self {
        let rate = |rate: Rate| RateBody { per_sec: rate.per_sec(), burst: Some(rate.burst().get()) };
        Self {
            object: "key",
            id: record.id,
            name: record.name.clone(),
            role: record.role,
            rate: record.rate.map(rate),
            created_at: rfc3339_millis(record.created_unix_ms),
            expires_at: record.expires_unix_ms.map(rfc3339_millis),
            revoked_at: record.revoked_unix_ms.map(rfc3339_millis),
            last_used_at: last_used_unix_ms.map(rfc3339_millis),
        }
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        let status = match error {
            // A full disk has the same answer everywhere.
            AccessError::Io(io) => return LibraryError::from(io).into(),
            AccessError::Unknown(_) => StatusCode::NOT_FOUND,
            AccessError::TooMany(_) | AccessError::Off => StatusCode::CONFLICT,
            AccessError::BadField { field, .. } => {
                return Self::new(StatusCode::BAD_REQUEST, error.code(), error.to_string()).with_param(field);
            }
            AccessError::Locked(_) => {
                let message = "another process is changing the keys; try again in a moment";
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), message).retry_after(1);
            }
            AccessError::Damaged { .. } | AccessError::Missing(_) => {
                tracing::error!(code = error.code(), %error, "could not change the keys");
                let message = "the server cannot read its keys file; its log has details";
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.code(), message);
            }
        };
        Self::new(status, error.code(), error.to_string())
    }
}

/// Creates a key. The first key of a server must have the role `admin`; from then on, every request needs a key.
#[utoipa::path(post, path = "/v1/keys", operation_id = "create_key", tag = "keys", request_body = KeyBody,
    responses((status = 201, description = "Created; the key works at once", body = CreatedKey),
        ClientError))]
pub async fn create(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<KeyBody>,
) -> Result<(StatusCode, Extension<Made>, Json<CreatedKey>), ApiError> {
    let rate = body.rate.map(|rate| Rate::new(rate.per_sec, rate.burst)).transpose()?;
    let expires_unix_ms = body.expires_at.as_deref().map(NewKey::expiry).transpose()?;
    let new = NewKey { name: body.name, role: body.role, expires_unix_ms, rate };
    let (key, record) = blocking(&state, move |keys| {
        if new.role != Role::Admin && !keys.has_admin() {
            let message = "create a key with the role `admin` first; without one, nobody could manage keys";
            return Err(ApiError::new(StatusCode::CONFLICT, "admin_key_first", message).with_param("role"));
        }
        Ok(keys.create(new)?)
    })
    .await?;
    let made = Extension(Made(record.id.to_string()));
    Ok((StatusCode::CREATED, made, Json(CreatedKey { key, view: KeyView::new(&record, None) })))
}

/// Lists the keys, newest first, including revoked and expired ones.
#[utoipa::path(get, path = "/v1/keys", operation_id = "list_keys", tag = "keys",
    responses((status = 200, description = "The complete list", body = List<KeyView>),
        ClientError))]
pub async fn list(State(state): State<AppState>) -> Json<List<KeyView>> {
    let view = |known: &Arc<KnownKey>| KeyView::new(&known.record, known.last_used_unix_ms());
    Json(List::new(state.config.access.keys.list().iter().map(view).collect(), None))
}

/// Revokes a key. The key and its session cookies stop working at once; the key stays in the list.
#[utoipa::path(delete, path = "/v1/keys/{id}", operation_id = "revoke_key", tag = "keys",
    params(("id" = KeyId, Path)),
    responses((status = 204, description = "Revoked"), ClientError))]
pub async fn revoke(
    State(state): State<AppState>,
    IdPath(id): IdPath<KeyId>,
) -> Result<StatusCode, ApiError> {
    blocking(&state, move |keys| Ok(keys.revoke(id)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes of keys wait for the disk.
async fn blocking<T: Send + 'static>(
    state: &AppState,
    work: impl FnOnce(&Keys) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let access = Arc::clone(&state.config.access);
    let done = tokio::task::spawn_blocking(move || work(&access.keys)).await;
    done.unwrap_or_else(|_| Err(ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR)))
}
