//! Webhooks: where to tell something, and what became of it.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http_intake::extract::{ApiQuery, IdPath};
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::http_kit::page::{DEFAULT_ENTRIES, PageSize};
use crate::http_kit::views::List;
use crate::store::{DeliveryRecord, DeliveryState};
use crate::types::{DeliveryId, rfc3339_millis};

/// One delivery.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryView {
    /// Always `delivery`.
    object: &'static str,
    /// Id, sent as `webhook-id` with each attempt.
    id: DeliveryId,
    /// `job.done`, `job.failed`, `job.cancelled` or `query.matched`.
    event: String,
    /// Id of the job or standing query that it reports on.
    owner: String,
    /// URL of the receiver.
    url: String,
    /// State.
    state: DeliveryState,
    /// Number of attempts so far.
    attempts: u32,
    /// HTTP status of the receiver's last answer; null if there was none.
    last_status: Option<u16>,
    /// Why the last attempt failed.
    last_error: Option<String>,
    /// RFC 3339, UTC; null unless pending.
    next_attempt_at: Option<String>,
    /// RFC 3339, UTC.
    created_at: String,
    /// RFC 3339, UTC; null while pending.
    ended_at: Option<String>,
}

impl From<DeliveryRecord> for DeliveryView {
    fn from(record: DeliveryRecord) -> Self {
        let pending = record.state == DeliveryState::Pending;
        Self {
            object: "delivery",
            id: record.id,
            event: record.event,
            owner: record.owner,
            url: record.url,
            state: record.state,
            attempts: record.attempts,
            last_status: record.status,
            last_error: record.error,
            next_attempt_at: pending.then(|| rfc3339_millis(record.next_unix_ms)),
            created_at: rfc3339_millis(record.created_unix_ms),
            ended_at: (!pending).then(|| rfc3339_millis(record.ended_unix_ms)),
        }
    }
}

/// Query string of the list of deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeliveriesQuery {
    /// Return only deliveries in this state.
    #[param(inline)]
    state: Option<DeliveryState>,
    /// Maximum number of deliveries per page, 1 to 1000; default 50.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Return entries after this id: the `next` of the previous page.
    after: Option<DeliveryId>,
}

/// Lists the pending, delivered and failed webhook deliveries of the last 30 days, newest first.
#[utoipa::path(get, path = "/v1/webhooks/deliveries", operation_id = "list_webhook_deliveries",
    tag = "webhooks", params(DeliveriesQuery),
    responses((status = 200, description = "One page of results", body = List<DeliveryView>),
        ClientError))]
pub async fn deliveries(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<DeliveriesQuery>,
) -> Result<Json<List<DeliveryView>>, ApiError> {
    let size = PageSize::of(query.limit, DEFAULT_ENTRIES)?;
    let read = state.library.collection().deliveries(query.state, query.after, size.to_read()).await?;
    Ok(Json(size.cut(read, |delivery| delivery.id).show(DeliveryView::from)))
}

/// Sends a delivery again under the same id, even if it succeeded before.
#[utoipa::path(post, path = "/v1/webhooks/deliveries/{id}/retry", operation_id = "retry_webhook_delivery",
    tag = "webhooks", params(("id" = DeliveryId, Path)),
    responses((status = 200, description = "The updated delivery", body = DeliveryView),
        ClientError))]
pub async fn retry(
    State(state): State<AppState>,
    IdPath(id): IdPath<DeliveryId>,
) -> Result<Json<DeliveryView>, ApiError> {
    Ok(Json(state.library.collection().retry_delivery(id).await?.into()))
}
