//! Keys: made, listed, revoked.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::audit::Made;
use super::error::{ApiError, ErrorBody};
use super::extract::{ApiJson, IdPath};
use super::state::{AppState, detached};
use super::views::List;
use crate::access::{AccessError, KeyRecord, Keys, KnownKey, NewKey, Rate, Role};
use crate::library::LibraryError;
use crate::types::{KeyId, rfc3339_millis};

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyBody {
    /// What people call it, 1 to 100 characters; it is written into the audit log.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// What it may do; each role may do what the ones before it may: `metrics`, `read`, `write`, `admin`.
    role: Role,
    /// When it ends, RFC 3339; default: when it is revoked.
    expires_at: Option<String>,
    /// How often it may be used; default: as often as one likes.
    rate: Option<RateBody>,
}

/// How often a key may be used; more gets 429 `rate_limited`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateBody {
    /// Requests a second, 0.001 to 1,000,000.
    #[schema(minimum = 0.001, maximum = 1_000_000)]
    per_sec: f64,
    /// Requests that may come at once; default: those of one second.
    #[schema(minimum = 1)]
    burst: Option<u32>,
}

/// A key, without the key itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyView {
    /// Always `key`.
    pub object: &'static str,
    /// Its id.
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// How often it may be used; null: as often as one likes.
    pub rate: Option<RateBody>,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// When it ends; null: when it is revoked.
    pub expires_at: Option<String>,
    /// When it was revoked; null: it was not.
    pub revoked_at: Option<String>,
    /// When it was last used, as far as the server remembers.
    pub last_used_at: Option<String>,
}

/// A key that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedKey {
    /// The key itself, `tk_` and 64 hexadecimal digits. It is not kept, so it is shown in this one answer only.
    pub key: String,
    /// What is kept of it.
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
            // One answer to a full disk, whoever meets it.
            AccessError::Io(io) => return LibraryError::Io(io).into(),
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

/// Makes a key. The first one of a server without keys must be an `admin`: from then on every request needs a key.
#[utoipa::path(post, path = "/v1/keys", operation_id = "create_key", tag = "keys", request_body = KeyBody,
    responses((status = 201, description = "Made; it works from now on", body = CreatedKey),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
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

/// Lists the keys, the newest first; revoked and expired ones too.
#[utoipa::path(get, path = "/v1/keys", operation_id = "list_keys", tag = "keys",
    responses((status = 200, description = "All", body = List<KeyView>),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn list(State(state): State<AppState>) -> Json<List<KeyView>> {
    let view = |known: &Arc<KnownKey>| KeyView::new(&known.record, known.last_used_unix_ms());
    Json(List::new(state.config.access.keys.list().iter().map(view).collect(), None))
}

/// Revokes a key: it and the cookies it opened end at once. It stays in the list.
#[utoipa::path(delete, path = "/v1/keys/{id}", operation_id = "revoke_key", tag = "keys",
    params(("id" = KeyId, Path)),
    responses((status = 204, description = "Revoked"), (status = "4XX", description = "Refused", body = ErrorBody)))]
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
    detached(async move {
        let done = tokio::task::spawn_blocking(move || work(&access.keys)).await;
        done.unwrap_or_else(|_| Err(ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR)))
    })
    .await
}
