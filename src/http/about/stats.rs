//! Statistics as JSON and for Prometheus.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use metrics::gauge;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http_intake::state::AppState;
use crate::http_kit::error::ApiError;
use crate::index::{IndexStats, Recall};
use crate::library::DamageCounts;
use crate::store::{Totals, WorkState};
use crate::types::{Space, Track};

/// One index.
#[derive(Debug, Serialize, ToSchema)]
pub struct IndexView {
    /// Track of the index.
    track: Track,
    /// Embedding space of the index.
    space: Space,
    /// Number of vectors in the index.
    vectors: usize,
    /// Search engine of the index.
    engine: &'static str,
    /// Memory in bytes.
    bytes: usize,
    /// Measured recall.
    recall: RecallView,
}

/// Measured recall of an index.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecallView {
    /// `exact`: every vector is compared, so nothing is missed; `graph`: recall is measured on actual searches.
    engine: &'static str,
    /// Recall at 10; 1 if the engine is exact, null if not measured yet.
    at_10: Option<f64>,
    /// Number of searches measured: the last 256 at most, without a filter.
    probes: usize,
}

impl RecallView {
    fn of(recall: Option<Recall>) -> Self {
        let recall = recall.unwrap_or(Recall { exact: true, at_10: None, probes: 0 });
        let engine = if recall.exact { "exact" } else { "graph" };
        Self { engine, at_10: recall.at_10, probes: recall.probes }
    }
}

/// How many jobs are in each state.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobCounts {
    /// Waiting.
    queued: u64,
    /// Running.
    running: u64,
    /// Paused by a user.
    paused: u64,
    /// Done.
    done: u64,
    /// Failed.
    failed: u64,
    /// Cancelled by a user.
    cancelled: u64,
}

impl JobCounts {
    fn of(counts: &BTreeMap<WorkState, u64>) -> Self {
        let of = |state| counts.get(&state).copied().unwrap_or(0);
        Self {
            queued: of(WorkState::Queued),
            running: of(WorkState::Running),
            paused: of(WorkState::Paused),
            done: of(WorkState::Done),
            failed: of(WorkState::Failed),
            cancelled: of(WorkState::Cancelled),
        }
    }

    const fn by_state(&self) -> [(WorkState, u64); 6] {
        [
            (WorkState::Queued, self.queued),
            (WorkState::Running, self.running),
            (WorkState::Paused, self.paused),
            (WorkState::Done, self.done),
            (WorkState::Failed, self.failed),
            (WorkState::Cancelled, self.cancelled),
        ]
    }
}

/// Statistics of a running server.
#[derive(Debug, Serialize, ToSchema)]
pub struct Stats {
    /// Always `stats`.
    object: &'static str,
    /// Version of the server.
    version: &'static str,
    /// Seconds since the server started.
    uptime_secs: f64,
    /// Resident memory in bytes; 0 if unknown.
    resident_bytes: u64,
    /// Assets.
    assets: u64,
    /// Clips.
    clips: u64,
    /// Duration of the media in seconds.
    media_secs: f64,
    /// Number of clips in the library at the last calibration of confidence.
    calibrated_clips: usize,
    /// Number of files queued or being indexed.
    ingest_active: usize,
    /// Number of these that are waiting uploads.
    ingest_queued: usize,
    /// Number of jobs by state.
    jobs: JobCounts,
    /// Known damage.
    damaged: DamageCounts,
    /// Indexes.
    indexes: Vec<IndexView>,
}

async fn collect(state: &AppState) -> Result<Stats, ApiError> {
    let Totals { assets, clips, media_secs } = state.library.collection().totals().await?;
    let (ingest_active, ingest_queued) = state.library.ingest().in_flight();
    let of = |IndexStats { track, space, vectors, engine, bytes }| {
        let recall = RecallView::of(state.library.index().recall(track, &space));
        IndexView { track, space, vectors, engine, bytes, recall }
    };
    Ok(Stats {
        object: "stats",
        version: env!("CARGO_PKG_VERSION"),
        uptime_secs: state.started.elapsed().as_secs_f64(),
        resident_bytes: resident_bytes(),
        assets,
        clips,
        media_secs,
        calibrated_clips: state.library.collection().calibrated_clips(),
        ingest_active,
        ingest_queued,
        jobs: JobCounts::of(&state.library.ingest().job_counts().await?),
        damaged: state.library.upkeep().damage().await?,
        indexes: state.library.index().stats().into_iter().map(of).collect(),
    })
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Returns counts, index engines and memory use.
#[utoipa::path(get, path = "/v1/stats", operation_id = "get_stats", tag = "server",
    responses((status = 200, description = "Statistics", body = Stats)))]
pub async fn stats(State(state): State<AppState>) -> Result<Json<Stats>, ApiError> {
    Ok(Json(collect(&state).await?))
}

/// Returns metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", operation_id = "get_metrics", tag = "server",
    responses((status = 200, description = "Metrics in the Prometheus text format", content_type = "text/plain")))]
pub async fn prometheus(State(state): State<AppState>) -> Result<Response, ApiError> {
    let stats = collect(&state).await?;
    gauge!("triptych_assets").set(stats.assets as f64);
    gauge!("triptych_clips").set(stats.clips as f64);
    gauge!("triptych_calibrated_clips").set(stats.calibrated_clips as f64);
    gauge!("triptych_media_seconds").set(stats.media_secs);
    gauge!("triptych_ingest_active").set(stats.ingest_active as f64);
    gauge!("triptych_ingest_queued").set(stats.ingest_queued as f64);
    gauge!("triptych_process_resident_bytes").set(stats.resident_bytes as f64);
    gauge!("triptych_thumbnail_bytes").set(state.thumbnails.bytes() as f64);
    let damaged = &stats.damaged;
    for (what, count) in [("rows", damaged.rows), ("clips", damaged.clips), ("assets", damaged.assets)] {
        gauge!("triptych_damaged", "what" => what).set(count as f64);
    }
    // Sets the gauges of the parts.
    state.library.upkeep().health().await;
    for index in &stats.indexes {
        let (track, space, engine) = (index.track.as_str(), index.space.to_string(), index.engine);
        gauge!("triptych_index_vectors", "track" => track, "space" => space.clone(), "engine" => engine)
            .set(index.vectors as f64);
        gauge!("triptych_index_bytes", "track" => track, "space" => space.clone(), "engine" => engine)
            .set(index.bytes as f64);
        gauge!("triptych_index_recall_at_10", "space" => space, "target" => track)
            .set(index.recall.at_10.unwrap_or(f64::NAN));
    }
    for (state, count) in stats.jobs.by_state() {
        gauge!("triptych_jobs", "state" => state.as_str()).set(count as f64);
    }
    let handle = crate::telemetry::metrics();
    handle.run_upkeep();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render()).into_response())
}
