//! Logs and metrics, and traces with the feature `otlp`.

#[cfg(feature = "otlp")]
mod otlp;

use std::io::IsTerminal;
use std::sync::OnceLock;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// The default of `RUST_LOG`. Below warnings, ONNX Runtime logs every graph optimisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings: for commands whose output a person reads.
    Warnings,
    /// Our own notices too: for servers.
    Notices,
}

/// Logs to standard error, filtered by `RUST_LOG`, as JSON with `TRIPTYCH_LOG_FORMAT=json`. Control
/// characters in names from users come out escaped.
pub fn init_logging(verbosity: Verbosity) {
    let default = match verbosity {
        Verbosity::Warnings => "warn",
        Verbosity::Notices => "warn,triptych=info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let json = std::env::var("TRIPTYCH_LOG_FORMAT").is_ok_and(|format| format.eq_ignore_ascii_case("json"));
    #[cfg(feature = "otlp")]
    if verbosity == Verbosity::Notices && init_traced(json, default) {
        return;
    }
    // A second call (tests) finds the first one's subscriber: nothing to do.
    let _ = if json { logs.json().try_init() } else { logs.try_init() };
}

/// Logs as [`init_logging`] does, and sends traces; false where no collector is named.
#[cfg(feature = "otlp")]
fn init_traced(json: bool, default: &str) -> bool {
    use tracing_subscriber::prelude::*;
    let Some(traces) = otlp::layer() else { return false };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let logs = if json { logs.json().boxed() } else { logs.boxed() };
    let _ = tracing_subscriber::registry().with(traces).with(logs.with_filter(filter)).try_init();
    true
}

/// Sends pending traces before the process ends.
pub fn flush() {
    #[cfg(feature = "otlp")]
    otlp::flush();
}

/// Seconds, from a text query's microseconds to a long file's minutes.
const SECONDS_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0, 300.0, 1800.0,
];

/// Starts to collect metrics (once for the process) and gives the handle that renders them as
/// Prometheus text. Names are `triptych_*` in base units.
#[must_use]
pub fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        let builder = builder
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)
            .unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_ok() {
            describe();
        }
        handle
    })
}

fn describe() {
    describe_http();
    describe_work();
    describe_library();
    describe_health();
}

fn describe_http() {
    describe_counter!(
        "triptych_http_requests_total",
        "Number of requests answered, by route, method and status"
    );
    describe_histogram!(
        "triptych_http_request_seconds",
        Unit::Seconds,
        "Seconds until the response headers are sent, by route"
    );
    describe_gauge!("triptych_http_in_flight", "Number of requests in progress");
    describe_gauge!("triptych_http_connections", "Number of open connections");
    describe_counter!(
        "triptych_http_refused_total",
        "Number of requests answered with an error, by error code"
    );
    describe_counter!("triptych_wrong_keys_total", "Number of requests with an invalid API key");
    describe_counter!("triptych_keys_unreadable_total", "Number of failed attempts to reload the keys file");
    describe_counter!(
        "triptych_audit_failed_total",
        "Number of changes that could not be written to the audit log"
    );
    describe_counter!(
        "triptych_http_connections_evicted_total",
        "Number of connections closed to make room for others, by what they were waiting for: idle, head, body, answer"
    );
    describe_counter!(
        "triptych_http_slow_clients_total",
        "Number of clients cut off for being too slow, by what the server was waiting for: idle, head, body, answer"
    );
    describe_gauge!(
        "triptych_http_body_bytes",
        Unit::Bytes,
        "Bytes of request bodies being received or processed, by location: memory, disk"
    );
}

/// Indexing, queries, and what runs by itself.
fn describe_work() {
    describe_counter!("triptych_assets_ingested_total", "Number of files indexed, by final state");
    describe_counter!("triptych_clips_ingested_total", "Number of clips indexed");
    describe_counter!("triptych_media_ingested_milliseconds_total", "Milliseconds of media indexed");
    describe_histogram!(
        "triptych_ingest_stage_seconds",
        Unit::Seconds,
        "Seconds to index one file, by stage: decode (CPU time of the decoder), preprocess, infer, store, index, total"
    );
    describe_histogram!(
        "triptych_query_stage_seconds",
        Unit::Seconds,
        "Seconds to answer a query, by stage: queue, infer, search"
    );
    describe_counter!("triptych_job_items_total", "Number of finished job items, by state");
    describe_gauge!("triptych_decodes_running", "Number of running decoders, by lane: interactive or bulk");
    describe_gauge!(
        "triptych_decodes_waiting",
        "Number of files waiting for a decoder or for its memory, by lane"
    );
    describe_gauge!(
        "triptych_decode_memory_reserved_bytes",
        Unit::Bytes,
        "Bytes of memory reserved for running decoders"
    );
    describe_counter!(
        "triptych_decodes_refused_total",
        "Number of files refused because the decoders were busy, by reason: queue_full, no_worker, no_memory, thumbnails"
    );
    describe_counter!("triptych_standing_matches_total", "Number of matches of standing queries");
    describe_counter!(
        "triptych_webhook_deliveries_total",
        "Number of attempts to deliver a webhook, by outcome"
    );
    describe_counter!("triptych_snapshots_total", "Number of finished snapshots, by state: ready or failed");
    describe_counter!(
        "triptych_assets_deleted_total",
        "Number of assets deleted, by requests and by retention rules"
    );
    describe_counter!("triptych_clips_deleted_total", "Number of clips deleted with their assets");
    describe_counter!(
        "triptych_quarantined_total",
        "Number of files and folders moved to quarantine since startup"
    );
    describe_gauge!("triptych_quarantine_files", "Number of files in quarantine at startup");
    describe_gauge!("triptych_quarantine_bytes", Unit::Bytes, "Bytes in quarantine at startup");
    describe_counter!(
        "triptych_ingest_put_off_total",
        "Number of files retried because a part of the server failed, by error code"
    );
    describe_gauge!(
        "triptych_decoder_ok",
        "1 while files can be decoded, 0 while ffmpeg or its sandbox fails"
    );
}

fn describe_library() {
    describe_gauge!("triptych_assets", "Number of assets in the library");
    describe_gauge!("triptych_clips", "Number of clips in the library");
    describe_gauge!(
        "triptych_calibrated_clips",
        "Number of clips in the library at the last calibration of confidence"
    );
    describe_gauge!("triptych_media_seconds", "Seconds of media in the library");
    describe_gauge!("triptych_index_vectors", "Number of vectors in an index, by track, space and engine");
    describe_gauge!("triptych_index_bytes", Unit::Bytes, "Bytes of memory used by an index");
    describe_gauge!(
        "triptych_index_recall_at_10",
        "Recall at 10 of the latest searches; 1 if every vector is scanned, NaN while unknown"
    );
    describe_counter!(
        "triptych_index_recall_probes_total",
        "Number of searches repeated exactly to measure recall"
    );
    describe_gauge!("triptych_ingest_active", "Number of files queued or being indexed");
    describe_gauge!("triptych_ingest_queued", "Number of uploads waiting to be indexed");
    describe_gauge!("triptych_jobs", "Number of jobs, by state");
}

/// The disk, the memory, and damage.
fn describe_health() {
    describe_counter!(
        "triptych_storage_full_total",
        "Number of writes refused because the disk is full or not writable"
    );
    describe_gauge!("triptych_disk_writable", "1 while the disk of the data folder is writable, 0 otherwise");
    describe_gauge!("triptych_disk_free_bytes", Unit::Bytes, "Free bytes on the disk of the data folder");
    describe_gauge!("triptych_ready_part", "Health of a part of the server: 1 ok, 0.5 degraded, 0 failed");
    describe_gauge!("triptych_damaged", "Number of damaged rows of the store, clips and assets");
    describe_counter!(
        "triptych_damaged_rows_total",
        "Number of rows of the store that could not be read, by table"
    );
    describe_counter!("triptych_content_damaged_total", "Number of requests for damaged files");
    describe_gauge!(
        "triptych_process_resident_bytes",
        Unit::Bytes,
        "Resident memory of the server, in bytes"
    );
    describe_gauge!("triptych_thumbnail_bytes", Unit::Bytes, "Bytes of memory used by cached thumbnails");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_buckets() {
        let handle = metrics();
        metrics::histogram!("triptych_test_seconds").record(0.002);
        let text = handle.render();
        assert!(text.contains("triptych_test_seconds_bucket{le=\"0.0025\"} 1"), "{text}");
    }
}
